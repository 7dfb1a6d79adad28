"""Measure rungs: each in a fresh process, one run per purpose.

This module is the side that asks; ``worker`` is the side that runs.
"""

import multiprocessing
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

from tqdm.auto import tqdm

from .fingerprint import fingerprint
from .records import failed
from .rungs import find_rung

show_progress = True


@dataclass(frozen=True)
class Workload:
    """What is generated, and how often.

    Args:
        model: a name that ``load_model`` knows (random weights).
        batch_size: rows.
        prompt_tokens: tokens in each row's prompt, drawn at random from ``seed``.
        new_tokens: tokens to generate in each row.
        dtype: the name of a torch dtype; None means ``load_model``'s choice.
        device: None means the GPU if there is one, else the CPU.
        stop_check: whether the loop asks in every step if all rows have finished. If so, the
            end-of-sequence id is the last one of the vocabulary.
        repeats: timed runs after the first, cold one.
        seed: of the prompts.
    """

    model: str = "gpt2"
    batch_size: int = 32
    prompt_tokens: int = 128
    new_tokens: int = 512
    dtype: str | None = None
    device: str | None = None
    stop_check: bool = True
    repeats: int = 5
    seed: int = 0

    def but(self, **changes):
        """Return this workload with ``changes``."""
        return replace(self, **changes)


class MeasurementError(RuntimeError):
    """A worker process ended without a result; the message is the last thing that it said."""


def measure(rung, workload, *, environment=None, **options):
    """Run ``rung`` on ``workload`` in a fresh process and return one record.

    Args:
        rung: a name in ``RUNGS``.
        workload: a ``Workload``.
        environment: variables for the process instead of the rung's own, for example ``{}`` for
            the allocator's default.
        **options: as for ``generate``: ``cache_length``, ``compile_mode``.

    Returns:
        A record (a dict); its ``error`` says why if the measurement ran out of memory.

    Raises:
        ValueError: there is no such rung.
        MeasurementError: the process failed for another reason.
    """
    environment = find_rung(rung).environment if environment is None else environment
    record = run_task("measure", environment, rung=rung, workload=asdict(workload), options=options)
    record["machine"]["code"] = fingerprint([rung])
    return record


def compare(rungs, workload, *, progress=True, **options):
    """Measure several rungs in turn and return their records, in order.

    Args:
        rungs: names in ``RUNGS``, or ``(name, workload, options)`` triples for variants.
        workload: the ``Workload`` of the rungs that are given by name alone.
        progress: whether to show a progress bar.
        **options: the options of the rungs given by name alone; each gets those that it takes.

    A rung that fails does not end the comparison: its record's ``error`` says why. Every rung runs
    in its own environment, as on the ladder; for another one, call ``measure``.

    Raises:
        ValueError: there is no such rung.
    """
    items = []
    for item in rungs:
        if isinstance(item, str):
            taken = {key: options[key] for key in options if key in find_rung(item).options}
            item = (item, workload, taken)
        find_rung(item[0])  # a misspelt name is found before anything is measured
        items.append(item)
    records = []
    bar = tqdm(items, disable=not progress, unit="rung")
    for name, its_workload, its_options in bar:
        bar.set_description(name)
        try:
            records.append(measure(name, its_workload, **its_options))
        except MeasurementError as error:
            label, variant = (
                find_rung(name).label,
                describe_variant(name, its_workload, **its_options),
            )
            records.append(failed(name, label, variant, asdict(its_workload), {}, str(error)))
    return records


def trace(entrants, workload, *, first_token, tokens, environment=None):
    """Profile ``tokens`` decode steps from ``first_token`` on, each loop in turn in one process.

    Args:
        entrants: as for ``race``.
        workload: a ``Workload``.
        first_token: at least 2, since one step more is profiled on either side and the prompt's
            step cannot be one of them; and ``first_token + tokens`` less than the workload's new
            tokens.
        tokens: how many decode steps to keep.
        environment: variables for the process.

    Returns:
        A dict with ``machine`` and ``timelines``, which maps each label to a ``timeline.Timeline``
        as a dict.
    """
    return run_task(
        "trace",
        environment or {},
        entrants=entrants,
        workload=asdict(workload),
        first_token=first_token,
        tokens=tokens,
    )


def race(entrants, workload, *, busy=False, environment=None):
    """Time several loops in turn in one fresh process, where ratios are steadier than across two.

    Args:
        entrants: a mapping, label -> ``{"rung": ..., "stop_check": ..., **options}``; the rung
            "transformers" is transformers' own ``generate``.
        workload: a ``Workload``; its ``repeats`` rounds run every entrant once each.
        busy: whether to profile each entrant, too.
        environment: variables for the process, the same for all entrants.

    Returns:
        A dict with ``machine``, ``workload`` and ``results``, which maps each label to a dict.

        - ``per_token_ms``, ``prefill_ms``, ``total_ms`` and ``total_per_token_ms`` are spreads,
          dicts with ``median``, ``min`` and ``max`` over the rounds.
        - ``cold_total_ms`` is the time of the entrant's first run, before the rounds.
        - ``more_reserved_mib`` is by how much that first run raised the reserved memory, beyond
          what the entrants before it had reserved (on a GPU only).
        - ``tokens_sha256`` is the checksum of its tokens.
        - With ``busy``, and on a GPU, there are also ``busy_ms_per_token``, ``kernels_per_token``,
          and the busy time along the run, ``curve_busy_ms`` at ``curve_steps``.

        Of transformers' own loop only the totals are known, besides the memory and the checksum.
    """
    return run_task(
        "race", environment or {}, entrants=entrants, workload=asdict(workload), busy=busy
    )


def allocations(rung, workload, *, environment=None, **options):
    """Record every allocation of one cold run in a fresh process (CUDA only).

    Returns:
        A dict.

        - ``machine``, as in a record.
        - ``snapshot``, what ``torch.cuda.memory._snapshot`` gives, cut to the keys that
          ``allocator.events_from_snapshot`` and ``allocator.segments_of`` read. Its traces begin
          with the run.
        - ``marks_us``, the wall clock at the end of each token, in µs, on the clock of the traces.
        - ``allocated_mib`` and ``reserved_mib`` after every token.

    Raises:
        MeasurementError: there is no CUDA GPU, or the process failed.
    """
    environment = find_rung(rung).environment if environment is None else environment
    return run_task(
        "allocations", environment, rung=rung, workload=asdict(workload), options=options
    )


def describe_variant(rung, workload, *, environment=None, compile_mode=None, cache_length=None):
    """Return what sets this measurement of ``rung`` apart from the plain one."""
    own = find_rung(rung).environment
    return {
        "compile_mode": compile_mode,
        "cache_length": cache_length,
        "stop_check": workload.stop_check,
        "allocator": _allocator(own if environment is None else environment),
        "rung_allocator": _allocator(own),
    }


def _allocator(environment):
    setting = environment.get("PYTORCH_ALLOC_CONF", "")
    return "expandable_segments" if "expandable_segments:True" in setting else "default"


def run_task(task, environment, **arguments):
    """Run a task of ``worker`` in a fresh process with ``environment`` and return its result.

    The processes are forked from a server that has imported torch but never touched CUDA: each
    starts with no CUDA context, no cached memory and nothing compiled, without importing again.

    Raises:
        MeasurementError: the process ended without a result.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["decoding.worker"])
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        # A cold run is cold: it finds no kernels that an earlier process compiled.
        own = {
            "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor"),
            "TRITON_CACHE_DIR": str(Path(folder) / "triton"),
        }
        request = {"task": task, "environment": {**own, **environment}, **arguments}
        process = context.Process(target=worker_main, args=(theirs, request))
        with _main_module_hidden():
            process.start()
        theirs.close()
        answer = _listen(ours, f"{_what(arguments)}: {task}")
        process.join()
    if "result" in answer:
        return answer["result"]
    reason = answer.get("failed", f"its process ended with exit code {process.exitcode}")
    raise MeasurementError(f"The {task} of {_what(arguments)} failed: {reason}")


@contextmanager
def _main_module_hidden():
    """Keep multiprocessing from running the caller's script again in the worker's process."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _listen(connection, title):
    """Show a progress bar until the worker sends its result; return that, or {} if it dies."""
    with tqdm(total=1, desc=title, leave=False, disable=not show_progress, unit="run") as bar:
        while True:
            try:
                answer = connection.recv()
            except EOFError:
                return {}
            if "done" not in answer:
                return answer
            bar.total = answer["total"]
            bar.update(answer["done"] - bar.n)


def worker_main(connection, request):
    from .worker import answer  # here, since the worker imports this module

    answer(connection, request)


def _what(arguments):
    return arguments.get("rung") or ", ".join(arguments.get("entrants", ()))
