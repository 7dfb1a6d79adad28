"""The loop that is one kernel: what each of its steps gains, where its time goes, and whether it is right.

``python -m decoding.measuring.one_kernel --out FOLDER`` makes all records of chapter 14's kernel.
"""

import argparse
import copy
import importlib
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FunctionType

import torch
from transformers import DynamicCache, GPT2Config

from decoding.generation import generate, vocabulary_size
from decoding.loops import one_kernel as loop
from decoding.models import load_model
from decoding.one_kernel import (
    DEFAULTS,
    PHASES,
    VARIANTS,
    OneKernel,
    cache_length,
    why_not,
)
from decoding.prepared import lend
from decoding.step import CACHE, decode_step, start, without_cache

from .errors import MeasurementError
from .fingerprint import fingerprint
from .machine import machine, require_gpu
from .probes import timed
from .processes import run_fresh
from .races import rotated, spreads
from .records import SCHEMA, save, significant
from .runs import Run, checksum, describe, enter, load
from .workload import Workload

SHORT = Workload("gpt2", 1, 32, 256, dtype="bfloat16", repeats=7)
#: The loops of earlier chapters that are timed beside it.
BESIDE = {"device loop": {"rung": "device_loop"}, "fused step": {"rung": "fused_step"}}
TOOLS = "memcheck", "racecheck", "synccheck"
#: What the checker runs: a small model, since each access takes it a thousand times as long.
SMALL = GPT2Config(
    n_layer=2, n_embd=256, n_head=4, n_positions=64, vocab_size=503, bos_token_id=0, eos_token_id=0
)
PATIENT = 100 * DEFAULTS["PATIENCE"]


def steps(workload=SHORT, beside=None):
    """Time the kernel's variants in turn in one process, after loops of earlier chapters.

    Args:
        workload: a ``Workload`` of one row in bfloat16.
        beside: label -> entrant as in ``race``, of the loops before; default: ``BESIDE``.

    Returns:
        A dict: ``machine``, ``workload``, and ``results``: name -> a dict as in ``race``, the loops before in
        their order, then the ``VARIANTS`` in theirs. Each variant has ``exact``, how many of its tokens are
        those of float32 arithmetic before one is not.

    Raises:
        NeedsGpu: there is no CUDA GPU.
        MeasurementError: the kernel cannot run here.
    """
    beside = BESIDE if beside is None else beside
    return _on_a_gpu(
        _timed, "Timing the one kernel's steps", workload=workload, beside=dict(beside)
    )


def profile(workload=SHORT):
    """Say where the time of a token goes, by the clocks of the multiprocessors.

    Args:
        workload: a ``Workload`` of one row in bfloat16.

    Returns:
        A dict: ``machine``, ``workload``; ``phases``, the name of each phase -> µs a token, the mean over the
        blocks; ``spread``, name -> the same of the fastest and of the slowest block; ``profiled_us``, a
        token's time with the clocks, which the phases add up to, and ``plain_us``, without.

    Raises:
        NeedsGpu: there is no CUDA GPU.
        MeasurementError: the kernel cannot run here.
    """
    return _on_a_gpu(_profiled, "Profiling the one kernel", workload=workload)


def identity(rows=1000, new_tokens=32, longest=500, model_name="gpt2", seconds=120):
    """Compare the tokens of drawn prompts with those of float32 arithmetic, and let half of them stop early.

    Each token is compared with the most likely one behind the same text, by ``exact_logits``: if all are equal,
    transformers would have decoded that text, greedily, with a float32 copy of the model. Every second prompt
    is decoded once more with ends of which one occurs: the text must end behind its first occurrence.

    Args:
        rows: how many prompts.
        new_tokens: of each, at most.
        longest: tokens of the longest prompt; the lengths are drawn, from 1 on.
        model_name: for ``load_model``.
        seconds: how long it may take; what has been compared by then counts.

    Returns:
        A dict: ``prompts`` (how many were compared), ``prompt_tokens`` (from and to), ``new_tokens``, ``equal``
        (prompts whose tokens are all equal), ``early_stops`` and ``right_stops``, ``smallest_gap`` (between the
        two largest logits, of all tokens), and ``departures``: for each prompt that departs where, by which
        gap, and ``noise``, how far the reference's logits are apart there if all is read in one pass, and if
        the last token is read alone.

    Raises:
        NeedsGpu: there is no CUDA GPU.
        MeasurementError: the kernel cannot run here.
    """
    return _on_a_gpu(
        _compared,
        "Comparing tokens with float32",
        rows=rows,
        new_tokens=new_tokens,
        longest=longest,
        model_name=model_name,
        seconds=seconds,
    )


def sanitized(seconds=25):
    """Have NVIDIA's checker follow a short run of a small model, each of its ``TOOLS`` in a process of its own.

    Args:
        seconds: how long each may take.

    Returns:
        A dict: tool -> its last line, or that it was not through in time; and ``version``.

    Raises:
        NeedsGpu: there is no CUDA GPU.
        MeasurementError: there is no ``compute-sanitizer`` here.
    """
    require_gpu("NVIDIA's checker")
    if not (program := shutil.which("compute-sanitizer")):
        raise MeasurementError(
            "There is no compute-sanitizer here: install a CUDA toolkit, or nvidia-cuda-sanitizer-api."
        )
    said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        found = pool.map(lambda tool: _checked(program, tool, seconds), TOOLS)
    version = next((line for line in said.splitlines() if "ersion" in line), "unknown")
    return dict(zip(TOOLS, found)) | {"version": version.strip()}


def exact_logits(exact, tokens, prompt):
    """Return the logits behind which each new token was chosen, by transformers: float32 [new tokens, vocabulary].

    Args:
        exact: the model in float32.
        tokens: int64 [1, prompt + new tokens]; they are read in one pass.
        prompt: how many of them are the prompt.
    """
    keep = {"logits_to_keep": tokens.shape[1] - prompt}
    return exact(tokens[:, :-1], **keep, **without_cache(exact)).logits[0]


def _logits_step_by_step(exact, text):
    """Return the logits behind ``text``, float32 [vocabulary], whose last token is read alone, as a loop does."""
    cache = {CACHE: DynamicCache(config=exact.config), "use_cache": True}
    if text.shape[1] > 1:
        exact(text[:, :-1], **cache)
    return exact(text[:, -1:], **cache).logits[0, -1]


class Variant(Run):
    """The loop of ``one_kernel`` with a variant of its kernel.

    Args:
        model, workload: as for ``Run``.
        macros: of ``VARIANTS``.
    """

    def __init__(self, model, workload, macros):
        super().__init__(model, "one_kernel", workload, {})
        with torch.no_grad():
            self.kernel = OneKernel(model, **macros)
        given = {"one_kernel": lambda prepared, model: self.kernel}
        self.decode = FunctionType(loop.decode.__code__, vars(loop) | given)

    @torch.no_grad()
    def __call__(self):
        return self.decode(self.model, self.input_ids, self.new_tokens, self.eos_token_id)


def _on_a_gpu(task, what, **given):
    """Run ``task`` in a fresh process, on a GPU."""
    require_gpu(what)
    return run_fresh(task, what, caches="one_kernel", **given)


def _model(workload):
    model = load(workload)
    if reason := why_not(model, workload.batch_size):
        raise MeasurementError(reason)
    return model


def _timed(report, workload, beside):
    model = _model(workload)
    runs = {name: enter(model, workload, entrant) for name, entrant in beside.items()}
    runs |= {name: Variant(model, workload, macros) for name, macros in VARIANTS.items()}
    jobs, times, results = len(runs) + workload.repeats, {name: [] for name in runs}, {}
    for name, run in runs.items():
        cold, tokens = timed(run)
        timed(run)
        results[name] = {"cold_total_ms": significant(cold["total"])}
        results[name]["tokens_sha256"] = checksum(tokens)
        if isinstance(run, Variant):
            with torch.no_grad():
                wanted = exact_logits(run.kernel.exact, tokens, workload.prompt_tokens).argmax(-1)
            same = wanted == tokens[0, workload.prompt_tokens :]
            results[name]["exact"] = int(same.cumprod(0).sum())
        report(len(results), jobs)
    for number in range(workload.repeats):
        for name in rotated(runs, number):
            times[name].append(timed(runs[name])[0])
        report(len(runs) + number + 1, jobs)
    for name, result in results.items():
        result |= spreads(times[name])
    return {"machine": machine(), "workload": describe(workload, model), "results": results}


def _profiled(report, workload):
    model = _model(workload)
    clocked, plain = (Variant(model, workload, {"PROFILE": on}) for on in (1, 0))
    times = {}
    for run in (clocked, plain):
        run()
        run.kernel.cycles.zero_()
        times[run] = _kernel_us(run)
    cycles = clocked.kernel.cycles.double()
    scale = times[clocked] / cycles.sum(1).mean()  # µs a token, of the cycles of all tokens
    each = {name: cycles[:, at] * scale for at, name in enumerate(PHASES)}
    return {
        "machine": machine(),
        "workload": describe(workload, model),
        "phases": {name: significant(us.mean().item()) for name, us in each.items()},
        "spread": {
            name: [significant(us.min().item()), significant(us.max().item())]
            for name, us in each.items()
        },
        "profiled_us": significant(times[clocked]),
        "plain_us": significant(times[plain]),
    }


@torch.no_grad()
def _kernel_us(run):
    """Return how long a launch of the kernel takes, in µs for a token."""
    kernel, model, ids = run.kernel, run.model, run.input_ids
    with lend(model, 1, cache_length(model)):
        finished, eos = start(ids, None)
        cache = DynamicCache(config=model.config)
        token, *_ = decode_step(kernel.exact, ids, cache, finished, eos)
        kernel.begin(ids, token, cache)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda.synchronize()
        events[0].record()
        kernel.launch(run.new_tokens, eos)
        events[1].record()
        events[1].synchronize()
        kernel.goes_on(run.new_tokens)  # raises where it gave up
    return 1000 * events[0].elapsed_time(events[1]) / (run.new_tokens - 1)


@torch.no_grad()
def _compared(report, rows, new_tokens, longest, model_name, seconds):
    model = _model(Workload(model_name, 1, 1, new_tokens, dtype="bfloat16"))
    exact, size = copy.deepcopy(model).float(), vocabulary_size(model)
    until = time.monotonic() + seconds
    equal, stops, right_stops, gaps, departures, lengths = 0, 0, 0, [], [], []
    for seed in range(rows):
        generator = torch.Generator().manual_seed(seed)
        prompt = int(torch.randint(1, longest + 1, (), generator=generator))
        input_ids = torch.randint(size - 1, (1, prompt), generator=generator).to(model.device)
        tokens = generate(model, input_ids, rung="one_kernel", max_new_tokens=new_tokens)
        lengths.append(prompt)
        logits = exact_logits(exact, tokens, prompt)
        top = logits.topk(2)
        gap = top.values[:, 0] - top.values[:, 1]
        gaps.append(gap.min().item())
        differs = (top.indices[:, 0] != tokens[0, prompt:]).nonzero()
        if not len(differs):
            equal += 1
        else:
            at = int(differs[0])
            again = _logits_step_by_step(exact, tokens[:, : prompt + at])
            departures.append(
                {
                    "seed": seed,
                    "prompt_tokens": prompt,
                    "new_token": at,
                    "gap": significant(gap[at].item()),
                    "noise": significant((again - logits[at]).abs().max().item()),
                }
            )
        if seed % 2:
            made = tokens[0, prompt:].tolist()
            drawn = int(torch.randint(new_tokens, (), generator=generator))
            ends = [size - 1, made[drawn]]
            end = next(at for at, token in enumerate(made) if token in ends)
            given = {"max_new_tokens": new_tokens, "eos_token_id": ends}
            found = generate(model, input_ids, rung="one_kernel", **given)
            stops += 1
            right_stops += torch.equal(found, tokens[:, : prompt + end + 1])
        report(seed + 1, rows)
        if time.monotonic() > until:
            break
    return {
        "prompts": len(lengths),
        "prompt_tokens": f"{min(lengths)} to {max(lengths)}",
        "new_tokens": new_tokens,
        "equal": equal,
        "early_stops": stops,
        "right_stops": right_stops,
        "smallest_gap": significant(min(gaps)),
        "departures": departures,
    }


def _checked(program, tool, seconds):
    """Return the last line that ``tool`` says of a short run."""
    command = [program, "--tool", tool, sys.executable, "-m", __name__, "--short"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"not through in {seconds} s"
    lines = [line.strip("= ") for line in done.stdout.splitlines() if "=====" in line]
    said = lines[-1] if lines else " ".join(done.stderr.split())[-200:] or "nothing"
    return said if done.returncode == 0 else f"{said} (exit code {done.returncode})"


@torch.no_grad()
def _short_run():
    """Decode a few tokens of a small model by the kernel, patiently; print them."""
    model = load_model(SMALL, device="cuda", dtype=torch.bfloat16)
    run = Variant(model, Workload("gpt2", 1, 9, 4, dtype="bfloat16"), {"PATIENCE": PATIENT})
    print(run().tolist())


def main(arguments=None):
    """Make the records of chapter 14's kernel in a folder, one after the other, each as soon as it is found."""
    finds = {find.__name__: find for find in (steps, profile, identity, sanitized)}
    parser = argparse.ArgumentParser(prog="python -m decoding.measuring.one_kernel")
    parser.add_argument("--out", default=".", help="the folder to write them to")
    parser.add_argument("--only", nargs="*", default=list(finds), choices=list(finds))
    parser.add_argument("--seconds", type=float, help="how long identity may take")
    parser.add_argument("--short", action="store_true", help="what the checker runs")
    given = parser.parse_args(arguments)
    if given.short:
        _short_run()
    for name in [] if given.short else given.only:
        began = time.perf_counter()
        try:
            limited = name == "identity" and given.seconds
            found = finds[name](**({"seconds": given.seconds} if limited else {}))
        except MeasurementError as error:
            print(f"{name}: {error}", flush=True)
            continue
        made_on = machine() | {"code": fingerprint(("one_kernel",))}
        record = {"schema": SCHEMA, "machine": made_on, "found": found}
        save(record, Path(given.out) / f"one_kernel_{name}.json")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    # Not this module: a fresh process looks for the tasks under their own module's name.
    importlib.import_module("decoding.measuring.one_kernel").main()
