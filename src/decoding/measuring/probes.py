"""What is read off a run: times, memory, the GPU's busy time. One run per purpose."""

import tempfile
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from decoding import ranges

from .machine import MIB
from .records import significant
from .timeline import busy_us, device_intervals
from .traces import read_trace

PROFILED_WINDOWS, WINDOW_TOKENS = 6, 8


def timing_events(count):
    """Return ``count`` events that take the time. CUDA makes an event when it is first recorded."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count)]
    for event in events:
        event.record()
    torch.cuda.synchronize()
    return events


class Clock:
    """Takes the time at the start and at the end of every token, without waiting for the GPU."""

    def __init__(self, run):
        self.on_gpu, self.ticks = run.on_gpu, []
        # Made beforehand, so that a tick costs the loop as little as can be.
        self.unused = timing_events(run.new_tokens + 1) if run.on_gpu else []

    def tick(self, name="decode_step", step=None):
        if name == "stop_check":
            return
        if self.on_gpu:
            self.ticks.append(self.unused.pop())
            self.ticks[-1].record()
        else:
            self.ticks.append(time.perf_counter())

    def intervals_ms(self):
        """Return the milliseconds between one tick and the next."""
        pairs = zip(self.ticks, self.ticks[1:])
        if self.on_gpu:
            return [before.elapsed_time(after) for before, after in pairs]
        return [(after - before) * 1000 for before, after in pairs]


def timed(run):
    """Call ``run`` once; return its times in milliseconds and its tokens.

    The times are a dict: ``total``, ``prefill``, ``curve`` (a time for each token after the first),
    and ``generated``, how many tokens there are.
    """
    clock = Clock(run)
    run.synchronize()
    began = time.perf_counter()
    clock.tick()
    # transformers' own loop has no ranges to observe: it is timed from end to end only.
    with ranges.observe(clock.tick):
        tokens = run()
    run.synchronize()
    total = (time.perf_counter() - began) * 1000
    generated = tokens.shape[1] - run.input_ids.shape[1]
    prefill, *curve = clock.intervals_ms()[:generated] or [None]
    return {"total": total, "prefill": prefill, "curve": curve, "generated": generated}, tokens


def sample_memory(run):
    """Call ``run`` from an emptied allocator and read its counters after every token. CUDA only."""
    allocated, reserved = [], []

    def sample(name, step):
        if name != "stop_check":
            allocated.append(round(torch.cuda.memory_allocated() / MIB, 1))
            reserved.append(round(torch.cuda.memory_reserved() / MIB, 1))

    run.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    retries = torch.cuda.memory_stats()["num_alloc_retries"]
    with ranges.observe(sample):
        tokens = run()
    run.synchronize()
    generated = tokens.shape[1] - run.input_ids.shape[1]
    stats = torch.cuda.memory_stats()
    return {
        "allocated_mib": allocated[:generated],
        "reserved_mib": reserved[:generated],
        "peak_allocated_mib": round(stats["allocated_bytes.all.peak"] / MIB, 1),
        "peak_reserved_mib": round(stats["reserved_bytes.all.peak"] / MIB, 1),
        "alloc_retries": stats["num_alloc_retries"] - retries,
        "segments": stats["segment.all.peak"],
    }


def profile_steps(run, windows, activities):
    """Call ``run`` once and profile the decode steps in each of ``windows``.

    Args:
        windows: (first, last) steps, in order, not overlapping; first is at least 1.
        activities: what the profiler watches.

    Returns:
        One ``Timeline`` a window. The GPU is idle when a window begins and when it ends.
    """
    begins, ends = {first - 1 for first, _ in windows}, {last for _, last in windows}
    running, timelines = [], []

    def switch(name, step):
        if name == "stop_check":
            return
        if step in ends:
            run.synchronize()
            profiler = running.pop()
            profiler.stop()
            # Read at once: starting the next profiler erases the timestamps of this one.
            timelines.append(_exported(profiler))
        if step in begins:
            run.synchronize()
            running.append(profile(activities=activities, acc_events=True))
            running[-1].start()

    with profile(activities=activities, acc_events=True):  # the first one starts slowly
        run.synchronize()
    with ranges.observe(switch):
        run()
    return timelines


def _exported(profiler):
    """Return what ``profiler`` saw as a ``Timeline``."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "trace.json")
        profiler.export_chrome_trace(path)
        return read_trace(path)


def busy_time(run):
    """Return the GPU's busy time and kernels per token, over the run and along it. CUDA only."""
    steps = run.new_tokens - 1
    width = min(WINDOW_TOKENS, steps)
    count = min(PROFILED_WINDOWS, steps // width)
    firsts = [1 + round(index * (steps - width) / max(count - 1, 1)) for index in range(count)]
    windows = [(first, first + width - 1) for first in firsts]
    timelines = profile_steps(run, windows, [ProfilerActivity.CUDA])
    busy = [busy_us(device_intervals(timeline)) / 1000 / width for timeline in timelines]
    kernels = sum(
        item.kind == "kernel"
        for timeline in timelines
        for lane in timeline.lanes.values()
        for item in lane
    )
    return {
        "busy_ms_per_token": significant(sum(busy) / count),
        "kernels_per_token": round(kernels / width / count, 1),
        "curve_steps": [(first + last) / 2 for first, last in windows],
        "curve_busy_ms": [significant(value) for value in busy],
    }
