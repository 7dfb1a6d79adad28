"""Beside the engines: transformers' own ways to generate in one race with the book's loops.

Their loops have no ranges to observe, so all entrants are timed from end to end: the whole call, prompt
and all. What is left out is what happens once: compiling, capturing, making a cache.
"""

import dataclasses
import importlib.util
import tempfile
import time

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from decoding.rungs import RUNGS

from .errors import MeasurementError
from .machine import machine
from .probes import timed
from .processes import run_fresh
from .races import rotated, taken_together
from .records import significant, spread
from .runs import Run, checksum, describe, enter, load

DYNAMIC, STATIC = "transformers, dynamic cache", "transformers, static cache"
CONTINUOUS, GRAPHS = "continuous batching", "continuous batching, graphs"
#: transformers' own, by their name in the race: what ``generate`` is given, or how its continuous
#: batching is set up: as it comes, or with CUDA graphs and two batches in flight.
THEIRS = {
    DYNAMIC: {},
    STATIC: {"cache_implementation": "static"},
    CONTINUOUS: {},
    GRAPHS: {"use_cuda_graph": True, "use_async_batching": True},
}
OURS = ("kv_cache", "compiled", "deferred_check", "captured_graph", "device_loop")
#: The rung that decodes one row only, where the ladder has it.
SINGLE_ROW = "one_kernel"
WARM_UP = 2  # runs behind the cold one: a compiled step is captured in its second
PAGE = 256  # positions in a page of the paged cache, transformers' own default
JOIN_S = 10  # how long the end of its thread is waited for, in seconds
MOST_AT_ONCE = 4096  # tokens in one step of the continuous batching, prompts and all


def entrants(batch_size):
    """Return who races at a batch size: name -> ``{"rung": ..., **options}``."""
    theirs = {name: {"rung": "transformers", **options} for name, options in THEIRS.items()}
    ours = OURS + ((SINGLE_ROW,) if batch_size == 1 and SINGLE_ROW in RUNGS else ())
    return theirs | {RUNGS[rung].label: {"rung": rung} for rung in ours}


def engines(workload, *, rounds=3):
    """Race transformers' own ways to generate and the book's loops, in turn in one fresh process.

    Args:
        workload: a ``Workload``.
        rounds: how often each entrant is timed; another one begins in each.

    Returns:
        A dict with ``machine``, ``together``, ``workload``, ``failed``, entrant -> why it could not
        race, a sentence; and ``results``, entrant -> a ``Record`` with

        - ``per_token_ms``, a spread over the rounds (``spread_over`` is their number): the whole call
          by the tokens of a row, in ms; of continuous batching from the requests to the last answer;
        - ``cold_total_ms``, the entrant's first call;
        - ``tokens_sha256``, the checksum of its tokens;
        - of continuous batching ``step_ms``, a spread: the time between two tokens of a row, by its
          own time stamps, in ms.

    Raises:
        MeasurementError: the process failed, also without the continuous batching that uses graphs.
    """
    names = tuple(entrants(workload.batch_size))
    ask = {"workload": workload, "rounds": rounds}
    try:
        found = run_fresh(_raced, "Racing the engines", names=names, **ask)
    except MeasurementError as error:
        # An error in a graph may end CUDA in the whole process: once more, without that entrant.
        names = tuple(name for name in names if name != GRAPHS)
        found = run_fresh(_raced, "Racing the engines", names=names, **ask)
        found["failed"][GRAPHS] = str(error)
    return taken_together(found)


def _raced(report, names, workload, rounds):
    model = load(workload)
    runs, results, failed = {}, {}, {}
    given = entrants(workload.batch_size)
    for name in names:
        try:
            run = _enter(model, workload, name, given[name])
            cold, _ = timed(run)
            tokens = [run() for _ in range(WARM_UP)][-1]
        except Exception as error:
            if name not in THEIRS and given[name]["rung"] != SINGLE_ROW:
                raise  # the one kernel says itself which card it needs
            failed[name] = f"{type(error).__name__}: {error}"
            continue
        finally:
            report(len(results) + len(failed) + 1, len(names) + rounds)
        runs[name] = run
        results[name] = {
            "tokens_sha256": checksum(tokens),
            "cold_total_ms": significant(cold["total"]),
        }
    times, steps = ({name: [] for name in runs} for _ in range(2))
    for number in range(rounds):
        order = rotated(runs, number)
        for before, name in zip([order[-1], *order], order):
            if isinstance(runs[before], Continuous):
                runs[name]()  # continuous batching ends by emptying the allocator's cache
            took, _ = timed(runs[name])
            total = getattr(runs[name], "answered_ms", took["total"])
            times[name].append(total / took["generated"])
            steps[name] += getattr(runs[name], "step_ms", [])
        report(len(names) + number + 1, len(names) + rounds)
    for name, result in results.items():
        result |= {"per_token_ms": spread(times[name]), "spread_over": rounds}
        if steps[name]:
            result["step_ms"] = spread(steps[name])
    return {
        "machine": machine(),
        "workload": describe(workload, model),
        "results": results,
        "failed": failed,
    }


def agreement(workload):
    """Return which share of its tokens each of transformers' ways chooses as ``generate`` does, in float32.

    Some rows end early, by an id that occurs.

    Args:
        workload: a ``Workload``; its dtype does not count.

    Returns:
        A dict with ``machine`` and ``found``: entrant -> that share, 0 to 1, or the sentence why it failed.

    Raises:
        MeasurementError: the process failed.
    """
    return run_fresh(_agreement, "Comparing tokens", workload=workload.but(dtype="float32"))


def _agreement(report, workload):
    model, found, here = load(workload), {}, machine()
    given = entrants(workload.batch_size)
    end = expected = None
    for name in THEIRS:
        try:
            run = _enter(model, workload, name, given[name])
            run.eos_token_id = end
            if expected is None:
                free = run()[:, workload.prompt_tokens :]
                end = run.eos_token_id = free[0, workload.new_tokens // 2].item()
                expected = run()
            made = run()
            same = made.shape == expected.shape and (made == expected).float().mean().item()
            found[name] = float(same)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        report(len(found), len(THEIRS))
    return {"machine": here, "found": found}


def _enter(model, workload, name, entrant):
    if name in (CONTINUOUS, GRAPHS):
        return Continuous(workload, THEIRS[name])
    return enter(model, workload, entrant)


def paged_cache(model, rows, prompt_tokens, new_tokens, **settings):
    """Return how transformers' continuous batching is set up for ``rows`` requests at once.

    It is told how many pages its cache has: left to itself it takes most of the free memory. It keeps the
    model's own attention, where it would look for FlashAttention.

    Args:
        model: a transformers causal LM; up to transformers 5.17 its attention is changed to the paged one.
        rows, prompt_tokens, new_tokens: of the requests.
        settings: further fields of transformers' ``ContinuousBatchingConfig``.
    """
    pages = -(-(prompt_tokens + new_tokens) // PAGE) + 1
    chosen = {
        "num_blocks": pages * (rows + 1),
        "max_requests_per_batch": rows,
        "max_batch_tokens": min(rows * prompt_tokens, MOST_AT_ONCE),
        "allow_block_sharing": False,
        "safety_margin": 0.0,
    }
    if settings.get("use_cuda_graph"):
        # A step's queries are the rows; what they read is rounded up to a page of each.
        chosen |= {"q_padding_interval_size": rows, "kv_padding_interval_size": rows * PAGE}
    names = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
    if "auto_switch_to_flash" in names:
        chosen["auto_switch_to_flash"] = False
    else:
        model.set_attn_implementation("paged|sdpa")
    return ContinuousBatchingConfig(**chosen, **settings)


class Continuous(Run):
    """transformers' continuous batching of one workload: every row a request, all there from the start.

    It has a model of its own, with the same weights, since it changes the attention of the one that it
    serves; its manager and its cache are made in the first call and kept.

    Args:
        workload: as for ``Run``.
        settings: fields of transformers' ``ContinuousBatchingConfig``.

    Attributes:
        answered_ms: the time of the last call from the requests to the last answer, in ms. What a server
            does once, starting the manager's thread and ending it, is not part of it.
        step_ms: a list, for each row of the last call the mean time between two of its tokens, in ms.
    """

    def __init__(self, workload, settings):
        super().__init__(load(workload), "transformers", workload, {})
        rows, length = self.input_ids.shape
        self.config = paged_cache(self.model, rows, length, self.new_tokens, **settings)
        self.answered_ms, self.step_ms = None, []

    def __call__(self):
        """Return the tokens, int64 [batch, prompt + n], as ``generate`` does.

        Raises:
            MeasurementError: a request failed.
        """
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.new_tokens,
            eos_token_id=self.eos_token_id,
            pad_token_id=self.eos_token_id,
        )
        serving = self.model.continuous_batching_context_manager(
            generation_config=greedy,
            continuous_batching_config=self.config,
            persistent_manager=True,
            timeout=JOIN_S,
        )
        with serving as manager:
            began = time.perf_counter()
            names = manager.add_requests(self.input_ids.tolist(), record_timestamps=True)
            answers = self._answers(manager, len(names))
            self.answered_ms = 1000 * (time.perf_counter() - began)
        stamps = [answers[name].timestamps for name in names]
        spans = [(times[-1] - times[0], len(times) - 1) for times in stamps if len(times) > 1]
        self.step_ms = [1000 * span / steps for span, steps in spans]
        rows = [answers[name].generated_tokens for name in names]
        longest = max(map(len, rows))
        padded = [row + [self.eos_token_id] * (longest - len(row)) for row in rows]
        new = torch.tensor(padded, device=self.input_ids.device)
        return torch.cat([self.input_ids, new], dim=1)

    def _answers(self, manager, count):
        found = {}
        while len(found) < count:
            answer = manager.get_result(timeout=1)
            if answer is None and not manager.is_running():
                raise MeasurementError("The thread of the continuous batching ended.")
            if answer is not None and answer.error:
                raise MeasurementError(f"Continuous batching failed: {answer.error}")
            if answer is not None and answer.is_finished():
                found[answer.request_id] = answer
        return found


def has_vllm():
    """Return whether vLLM is installed."""
    return importlib.util.find_spec("vllm") is not None


def vllm(workload, *, rounds=3):
    """Time vLLM on the model of ``workload``, with weights of its own, as if they were random.

    Args:
        workload: a ``Workload``.
        rounds: how often it is timed.

    Returns:
        A dict with ``machine``, ``version``, and ``per_token_ms``, a spread over the rounds
        (``spread_over`` is their number): the whole call by the tokens of a row, in ms.

    Raises:
        MeasurementError: vLLM is not installed, or failed.
    """
    if not has_vllm():
        raise MeasurementError("vLLM is not installed.")
    # Its engine stays in this process, which is a fresh one already.
    alone = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    return run_fresh(_vllm, "vLLM", alone, workload=workload, rounds=rounds)


def _vllm(report, workload, rounds):
    module = importlib.import_module("vllm")
    length = workload.prompt_tokens + workload.new_tokens
    model = load(workload.but(device="cpu"))
    prompts = Run(model, "kv_cache", workload, {}).input_ids.tolist()
    model.config.architectures = [type(model).__name__]
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        engine = module.LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype=workload.dtype or "auto",
            max_model_len=length,
            max_num_seqs=workload.batch_size,
            enable_prefix_caching=False,
            gpu_memory_utilization=0.5,
        )
        greedy = module.SamplingParams(
            temperature=0, max_tokens=workload.new_tokens, ignore_eos=True, detokenize=False
        )
        times = []
        for number in range(WARM_UP + rounds):
            began = time.perf_counter()
            answers = engine.generate([{"prompt_token_ids": row} for row in prompts], greedy)
            times.append(1000 * (time.perf_counter() - began) / workload.new_tokens)
            report(number + 1, WARM_UP + rounds)
    made = {len(answer.outputs[0].token_ids) for answer in answers}
    if made != {workload.new_tokens}:
        raise MeasurementError(f"vLLM made {sorted(made)} tokens, not {workload.new_tokens}.")
    return {
        "machine": machine(),
        "version": module.__version__,
        "per_token_ms": spread(times[WARM_UP:]),
        "spread_over": rounds,
    }
