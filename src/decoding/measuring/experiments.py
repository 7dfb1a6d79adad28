"""Small experiments that look for the cause behind a number of a chapter.

Each returns what JSON can hold.
"""

import time
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from decoding import ranges
from decoding.generation import generate, vocabulary_size
from decoding.models import load_model

from .machine import require_gpu
from .probes import timed
from .runs import enter, load
from .workload import Workload

SINGLE = Workload("gpt2", 1, 128, 256, dtype="bfloat16")
LOOPS = {
    "check": {"rung": "compiled"},
    "two streams": {"rung": "two_streams"},
    "no check": {"rung": "compiled", "stop_check": False},
}
FIRST_STEP = 8  # the steps before it are still filling the pipeline
OTHERS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
LAG_CYCLES = 10_000_000  # some milliseconds of a GPU's clock


def launch_times(workload=SINGLE, rounds=8):
    """Watch the host, token by token, in three loops that run in turn in one process.

    A token's time on the host has two parts: launching its step, and standing in the stop check.
    PyTorch's guards are skipped in the watched runs (``skip_guard_eval_unsafe``), which makes their
    launches shorter than they are elsewhere in the book.

    Args:
        workload: what the loops decode.
        rounds: how often each loop runs, after two runs that compile and capture.

    Returns:
        A dict.

        - ``loops`` maps each loop's name to ``launch_us`` and ``wait_us``, a whole number of
          microseconds for each token of all rounds, and ``per_token_ms``, the mean time of a token
          in each round.
        - ``python_us``: in each round, the time of a piece of plain Python that touches no GPU.
    """
    model = load(workload)
    runs = {name: enter(model, workload, entrant) for name, entrant in LOOPS.items()}
    for run in runs.values():
        run()
        run()
    loops = {name: {"launch_us": [], "wait_us": [], "per_token_ms": []} for name in runs}
    python_us = []
    with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
        for _ in range(rounds):
            python_us.append(round(_plain_python_us()))
            for name, run in runs.items():
                for key, values in _watched(run).items():
                    loops[name][key] += values
    return {"loops": loops, "python_us": python_us}


def _watched(run):
    """Run once; return the host's times at each token from ``FIRST_STEP`` on."""
    ends = {}
    # Outside of the observer that takes the time, so that its event counts as waiting.
    with ranges.observe(lambda name, step: ends.update({(name, step): time.perf_counter()})):
        times, _ = timed(run)
    steps = range(FIRST_STEP, times["generated"] - 1)
    launched = [ends["decode_step", n] - ends["stop_check", n - 1] for n in steps]
    waited = [ends["stop_check", n] - ends["decode_step", n] for n in steps]
    return {
        "launch_us": [round(1e6 * value) for value in launched],
        "wait_us": [round(1e6 * value) for value in waited],
        "per_token_ms": [round(sum(times["curve"]) / len(times["curve"]), 4)],
    }


def _plain_python_us(count=20_000):
    began, total = time.perf_counter(), 0
    for number in range(count):
        total += number
    return 1e6 * (time.perf_counter() - began)


def repeated_runs(model_name="gpt2", device="cuda", new_tokens=96, runs=4, batches=(1, 32)):
    """Run two loops several times each, with all attention kernels of PyTorch and without cuDNN's.

    Args:
        model_name, device: for ``load_model``; in bfloat16.
        new_tokens: tokens to generate in each row.
        runs: of each loop, in one process.
        batches: the batch sizes.

    Returns:
        A dict with ``cudnn``, the version of cuDNN, ``runs``, and ``cases``, a list of dicts: the
        ``rung``, the ``batch_size``, whether cuDNN's kernel could be chosen (``with_cudnn``),
        how many of the runs after the first ``differ`` from it, and the new token at which the
        first of them does (``first_token``, None if none does).

    Raises:
        NeedsGpu: ``device`` is a CUDA GPU and there is none.
    """
    if torch.device(device).type == "cuda":
        require_gpu("Comparing a loop's runs on a GPU")
    model = load_model(model_name, device=device, dtype=torch.bfloat16)
    cases = []
    for batch_size in batches:
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, 128)
        prompt = torch.randint(vocabulary_size(model) - 1, shape, generator=generator)
        prompt = prompt.to(model.device)
        for rung in ("kv_cache", "static_cache"):
            for with_cudnn in (True, False):
                with nullcontext() if with_cudnn else sdpa_kernel(list(OTHERS)):
                    found = _differing(model, prompt, rung, new_tokens, runs)
                case = {"rung": rung, "batch_size": batch_size, "with_cudnn": with_cudnn}
                cases.append(case | found)
    return {"cudnn": torch.backends.cudnn.version(), "runs": runs, "cases": cases}


def _differing(model, prompt, rung, new_tokens, runs):
    """Return how many later runs of a loop differ from its first, and from which token on."""
    first, *later = (
        generate(model, prompt, rung=rung, max_new_tokens=new_tokens) for _ in range(runs)
    )
    differing = [(tokens != first).any(dim=0) for tokens in later]
    at = [one.int().argmax().item() - prompt.shape[1] for one in differing if one.any()]
    return {"differ": len(at), "first_token": min(at, default=None)}


def stale_reads(lag_cycles, wait, tries=20):
    """Return how many of ``tries`` tokens one stream reads before another has written them.

    The hazard of two streams in its smallest form: one writes, another reads.

    Args:
        lag_cycles: how many clock cycles the writing stream is kept busy before it writes.
        wait: whether the reading stream is told to wait for the writing one.
        tries: how many tokens.

    Raises:
        NeedsGpu: there is no CUDA GPU.
    """
    require_gpu("A race between two streams")
    writer, reader = torch.cuda.Stream(), torch.cuda.Stream()
    stale = 0
    for number in range(1, tries + 1):
        token = torch.zeros(1, dtype=torch.long, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(writer):
            if lag_cycles:
                torch.cuda._sleep(lag_cycles)
            token.fill_(number)
        with torch.cuda.stream(reader):
            if wait:
                reader.wait_stream(writer)
            seen = token.clone()
        torch.cuda.synchronize()
        stale += int(seen.item() != number)
    return stale


def provoke():
    """Return where -> [stale reads without a wait, with one], of 20 each.

    Raises:
        NeedsGpu: there is no CUDA GPU.
    """
    stale_reads(1000, wait=True, tries=2)  # loads the kernels
    return {
        where: [stale_reads(cycles, wait) for wait in (False, True)]
        for where, cycles in (
            ("where the GPU lags behind the host", LAG_CYCLES),
            ("where the GPU keeps up with the host", 0),
        )
    }
