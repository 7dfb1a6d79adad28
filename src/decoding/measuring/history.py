"""``allocations``: everything that one run asks of the caching allocator."""

import time

import torch

from decoding import ranges
from decoding.rungs import find_rung

from .machine import MIB, machine, require_gpu
from .processes import run_fresh
from .runs import Run, load
from .snapshots import trimmed


def allocations(rung, workload, *, environment=None, **options):
    """Record every allocation of one cold run in a fresh process (CUDA only).

    Returns:
        A dict.

        - ``machine``, as in a record.
        - ``snapshot``, what ``torch.cuda.memory._snapshot`` gives, cut to the keys that
          ``snapshots.events_from_snapshot`` and ``snapshots.segments_of`` read. Its traces begin
          with the run.
        - ``marks_us``, the wall clock at the end of each token, in µs, on the clock of the traces.
        - ``allocated_mib`` and ``reserved_mib`` after every token.

    Raises:
        ValueError: there is no such rung.
        NeedsGpu: there is no CUDA GPU.
        MeasurementError: the process failed.
    """
    what = f"Recording the allocations of {rung}"
    chosen = find_rung(rung)
    require_gpu(what, workload.device)
    environment = chosen.environment if environment is None else environment
    return run_fresh(_allocated, what, environment, rung=rung, workload=workload, options=options)


def _allocated(report, rung, workload, options):
    """Return what ``allocations`` does; this runs in the fresh process."""
    run = Run(load(workload), rung, workload, options)
    # Only the traces' lengths are needed at each token, but a snapshot is the one way to read them;
    # so tokens are marked by time, on the clock that the traces use.
    marks, allocated, reserved = [], [], []

    def mark(name, step):
        if name != "stop_check":
            marks.append(time.time_ns() // 1000)
            allocated.append(round(torch.cuda.memory_allocated() / MIB, 1))
            reserved.append(round(torch.cuda.memory_reserved() / MIB, 1))

    run.synchronize()
    torch.cuda.memory._record_memory_history(
        enabled="all", context=None, stacks="python", max_entries=2_000_000
    )
    with ranges.observe(mark):
        run()
    run.synchronize()
    snapshot = torch.cuda.memory._snapshot()
    torch.cuda.memory._record_memory_history(enabled=None)
    return {
        "machine": machine(),
        "snapshot": trimmed(snapshot),
        "marks_us": marks,
        "allocated_mib": allocated,
        "reserved_mib": reserved,
    }
