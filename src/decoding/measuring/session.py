"""What one process measures of a rung: a first run, timed runs, and a run for each other purpose."""

import time

import torch

from decoding.rungs import find_rung

from .machine import MIB, clocks, machine
from .probes import busy_time, sample_memory, timed
from .records import significant
from .runs import Run, checksum, describe, load

SLOW_S = 1.5  # of so slow a loop one run must do: the ladder has a budget

ON_A_CPU = (
    "Measured on a CPU: streams, events and CUDA graphs do nothing here, so times show that "
    "the loop runs, not what it gains; memory and GPU figures are left out."
)


def measured(report, rung, workload, options, started, first=True, all_runs=True):
    """Return what one fresh process finds; a task of ``run_fresh``.

    Args:
        rung, workload, options: as for ``measure``.
        started: when the process was asked for, of ``time.time()``.
        first: whether it is the rung's first process: only that one looks at memory and busy time.
        all_runs: whether to time ``workload.repeats`` runs even of a slow loop.

    Returns:
        A dict.

        - ``process``: ``initialize_s``, ``first_run_s``, and the GPU's ``clocks`` before the first
          run and after the timed ones.
        - ``cold``, a run's times, ``warm``, a list of them, as ``probes.timed`` gives them.
        - ``machine``, ``workload``, ``tokens_sha256``, ``tokens_generated``, ``notes``.
        - ``memory``, ``gpu``: in the first process on a GPU.
        - ``error``: a sentence where memory did not suffice; then there is ``machine`` and no more.
    """
    find_rung(rung)
    try:
        return _runs(report, rung, workload, options, started, first, all_runs)
    except torch.OutOfMemoryError as error:
        reason = "Out of GPU memory: " + str(error).split(". ")[0].split("\n")[0] + "."
        return {"error": reason, "machine": machine()}


def _runs(report, rung, workload, options, started, first, all_runs):
    """Call the loop once cold, then timed, then once for each other purpose."""
    model = load(workload)
    run = Run(model, rung, workload, options)
    run.synchronize()
    initialize = time.time() - started
    model_mib = torch.cuda.memory_allocated() / MIB if run.on_gpu else None
    looks, before = run.on_gpu and first, clocks()
    cold, tokens = timed(run)
    peaks = _peaks() if run.on_gpu else {}
    report(1, 1 + workload.repeats + 2 * looks)
    warm, again = _warm(run, workload.repeats, all_runs)
    after = clocks()
    report(1 + len(warm), 1 + len(warm) + 2 * looks)
    memory = sample_memory(run) | {"model_mib": round(model_mib, 1)} | peaks if looks else None
    gpu = busy_time(run) if looks else None
    return {
        "process": {
            "initialize_s": significant(initialize),
            "first_run_s": significant(cold["total"] / 1000),
            "clocks": {"before": before, "after": after},
        },
        "cold": cold,
        "warm": warm,
        "memory": memory,
        "gpu": gpu,
        "tokens_sha256": checksum(tokens),
        "tokens_generated": cold["generated"],
        "notes": _notes(run, cold["generated"], torch.equal(tokens, again)),
        "workload": describe(workload, model),
        "machine": machine(),
        "error": None,
    }


def _warm(run, repeats, all_runs):
    """Time ``repeats`` runs, of a slow loop one unless ``all_runs``; return times and tokens."""
    warm = []
    while len(warm) < repeats:
        times, tokens = timed(run)
        warm.append(times)
        if not all_runs and times["total"] > 1000 * SLOW_S:
            break
    return warm, tokens


def _peaks():
    """Return the peaks of memory since the process began: while compiling and capturing, too."""
    return {
        "peak_allocated_cold_mib": round(torch.cuda.max_memory_allocated() / MIB, 1),
        "peak_reserved_cold_mib": round(torch.cuda.max_memory_reserved() / MIB, 1),
    }


def _notes(run, generated, repeatable):
    notes = [] if run.on_gpu else [ON_A_CPU]
    if generated < run.new_tokens:
        notes.append("Every row finished early: choose another seed to time the full length.")
    if not repeatable:
        notes.append("Two runs of this process chose different tokens.")
    return notes
