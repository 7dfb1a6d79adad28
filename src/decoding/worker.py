"""What a measurement's fresh process runs: one task, whose result goes back through a pipe."""

import functools
import hashlib
import os
import platform
import subprocess
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from . import ranges
from .generation import generate, vocabulary_size
from .measurement import Workload, describe_variant
from .models import load_model
from .records import SCHEMA, failed, median_curve, significant, spread
from .rungs import find_rung
from .timeline import busy_us, device_intervals, read_trace

MIB = 2**20
PROFILED_WINDOWS, WINDOW_TOKENS = 6, 8


class Run:
    """A loop on a workload, ready to be called any number of times."""

    def __init__(self, model, rung, workload, options):
        self.model, self.rung, self.options = model, rung, options
        self.new_tokens = workload.new_tokens
        self.device = torch.get_device_module(model.device)
        self.on_gpu = model.device.type == "cuda"
        self.eos_token_id = vocabulary_size(model) - 1 if workload.stop_check else None
        generator = torch.Generator().manual_seed(workload.seed)
        shape = (workload.batch_size, workload.prompt_tokens)
        # One id short of the vocabulary, so that no prompt ends in the end-of-sequence id.
        input_ids = torch.randint(vocabulary_size(model) - 1, shape, generator=generator)
        self.input_ids = input_ids.to(model.device)

    def __call__(self):
        lengths = {"max_new_tokens": self.new_tokens, "eos_token_id": self.eos_token_id}
        if self.rung != "transformers":
            return generate(self.model, self.input_ids, rung=self.rung, **lengths, **self.options)
        return self.model.generate(
            self.input_ids,
            attention_mask=torch.ones_like(self.input_ids),
            do_sample=False,
            pad_token_id=self.eos_token_id,
            **lengths,
            **self.options,
        )

    def synchronize(self):
        self.device.synchronize()


class Clock:
    """Takes the time at the start and at the end of every token, without waiting for the GPU."""

    def __init__(self, run):
        self.on_gpu, self.ticks = run.on_gpu, []
        # Made beforehand, so that a tick costs the loop as little as can be.
        count = run.new_tokens + 1 if run.on_gpu else 0
        self.unused = [torch.cuda.Event(enable_timing=True) for _ in range(count)]

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
    """Call ``run`` once; return its times in milliseconds and its tokens."""
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
    """Call ``run`` from an emptied allocator and read its counters after every token."""
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


def exported(profiler):
    """Return what ``profiler`` saw as a ``timeline.Timeline``."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "trace.json")
        profiler.export_chrome_trace(path)
        return read_trace(path)


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
            timelines.append(exported(profiler))
        if step in begins:
            run.synchronize()
            running.append(profile(activities=activities, acc_events=True))
            running[-1].start()

    with profile(activities=activities, acc_events=True):  # the first one starts slowly
        run.synchronize()
    with ranges.observe(switch):
        run()
    return timelines


def busy_time(run):
    """Return the GPU's busy time and kernels per token, over the run and along it."""
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


def measure(rung, workload, options, environment, report):
    workload = Workload(**workload)
    variant = describe_variant(rung, workload, environment=environment, **options)
    label = find_rung(rung).label
    with reporting_out_of_memory() as trouble:
        run, described = prepare(rung, workload, options)
        model_mib = torch.cuda.memory_allocated() / MIB if run.on_gpu else None
        runs = 1 + workload.repeats + 2 * run.on_gpu
        (cold, tokens), warm = timed(run), []
        for repeat in range(workload.repeats):
            report(1 + repeat, runs)
            times, again = timed(run)
            warm.append(times)
        repeatable = torch.equal(tokens, again)
        report(1 + workload.repeats, runs)
        memory = sample_memory(run) | {"model_mib": round(model_mib, 1)} if run.on_gpu else None
        report(runs - 1, runs)
        gpu = busy_time(run) if run.on_gpu else None
    if trouble:
        return failed(rung, label, variant, vars(workload), machine(), trouble[0])
    decode = [sum(times["curve"]) / max(len(times["curve"]), 1) for times in warm]
    if gpu:
        per_token = spread(decode)["median"]
        gpu["idle_share"] = significant(max(0.0, 1 - gpu["busy_ms_per_token"] / per_token))
    notes = []
    if not run.on_gpu:
        notes.append(
            "Measured on a CPU: streams, events and CUDA graphs do nothing here, so times show that "
            "the loop runs, not what it gains; memory and GPU figures are left out."
        )
    if cold["generated"] < workload.new_tokens:
        notes.append("Every row finished early: choose another seed to time the full length.")
    if not repeatable:
        notes.append("Two runs of this process chose different tokens.")
    return {
        "schema": SCHEMA,
        "rung": rung,
        "label": label,
        "variant": variant,
        "workload": described,
        "machine": machine(),
        "time": {
            "per_token_ms": spread(decode),
            "prefill_ms": spread(times["prefill"] for times in warm),
            "total_ms": spread(times["total"] for times in warm),
            "cold_total_ms": significant(cold["total"]),
            "cold_prefill_ms": significant(cold["prefill"]),
            "cold_per_token_ms": significant(sum(cold["curve"]) / max(len(cold["curve"]), 1)),
            "curve_ms": median_curve([times["curve"] for times in warm]),
            "cold_curve_ms": [significant(value) for value in cold["curve"]],
        },
        "memory": memory,
        "gpu": gpu,
        "tokens_sha256": checksum(tokens),
        "tokens_generated": cold["generated"],
        "notes": notes,
        "error": None,
    }


def trace(entrants, workload, environment, report, first_token, tokens):
    workload = Workload(**workload)
    model = load(workload)
    activities = [ProfilerActivity.CPU]
    if model.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    # One step more on either side, since a window begins and ends with an idle GPU.
    window = (first_token - 1, first_token + tokens)
    timelines = {}
    for label, entrant in entrants.items():
        run = enter(model, workload, entrant)
        for _ in range(3):  # a compiled step is compiled in the first, captured in the second
            run()
        (timeline,) = profile_steps(run, [window], activities)
        timelines[label] = timeline.slice(first_token, first_token + tokens - 1).to_dict()
        report(len(timelines), len(entrants))
    return {"machine": machine(), "timelines": timelines}


def race(entrants, workload, environment, report, busy):
    workload = Workload(**workload)
    model = load(workload)
    runs = {label: enter(model, workload, entrant) for label, entrant in entrants.items()}
    results, times = {}, {label: [] for label in runs}
    for label, run in runs.items():
        reserved = torch.cuda.memory_reserved() if run.on_gpu else 0
        cold, tokens = timed(run)
        results[label] = {
            "tokens_sha256": checksum(tokens),
            "cold_total_ms": significant(cold["total"]),
        }
        if run.on_gpu:
            results[label]["more_reserved_mib"] = (torch.cuda.memory_reserved() - reserved) / MIB
        report(len(results), len(runs) + workload.repeats)
    for repeat in range(workload.repeats):
        for label, run in runs.items():
            times[label].append(timed(run)[0])
        report(len(runs) + repeat + 1, len(runs) + workload.repeats)
    for label, run in runs.items():
        totals = [each["total"] for each in times[label]]
        each_token = [each["total"] / each["generated"] for each in times[label]]
        results[label] |= {"total_ms": spread(totals), "total_per_token_ms": spread(each_token)}
        if times[label][0][
            "curve"
        ]:  # transformers' own loop has no ranges: only its total is known
            curves = [each["curve"] for each in times[label]]
            results[label] |= {
                "per_token_ms": spread(sum(curve) / len(curve) for curve in curves),
                "prefill_ms": spread(each["prefill"] for each in times[label]),
            }
            if busy and run.on_gpu:
                results[label] |= busy_time(run)
    return {"machine": machine(), "workload": describe(workload, model), "results": results}


def enter(model, workload, entrant):
    """Return the ``Run`` of a race's or trace's entrant."""
    options = dict(entrant)
    rung, stop_check = options.pop("rung"), options.pop("stop_check", workload.stop_check)
    return Run(model, rung, workload.but(stop_check=stop_check), options)


def allocations(rung, workload, options, environment, report):
    run, _ = prepare(rung, Workload(**workload), options)
    if not run.on_gpu:
        raise SystemExit("The caching allocator can only be recorded on a CUDA GPU.")
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
    keep = ("action", "addr", "size", "stream", "time_us")
    events = [
        {key: entry[key] for key in keep if key in entry} for entry in snapshot["device_traces"][0]
    ]
    segments = [
        {
            **{key: segment[key] for key in ("address", "total_size", "segment_type", "stream")},
            "is_expandable": segment.get("is_expandable", False),
            "blocks": [
                {key: block[key] for key in ("address", "size", "state") if key in block}
                for block in segment["blocks"]
            ],
        }
        for segment in snapshot["segments"]
    ]
    return {
        "machine": machine(),
        "snapshot": {"segments": segments, "device_traces": [events]},
        "marks_us": marks,
        "allocated_mib": allocated,
        "reserved_mib": reserved,
    }


def load(workload):
    dtype = getattr(torch, workload.dtype) if workload.dtype else None
    return load_model(workload.model, device=workload.device, dtype=dtype)


def prepare(rung, workload, options):
    model = load(workload)
    return Run(model, rung, workload, options), describe(workload, model)


def describe(workload, model):
    """Return the workload with the device and dtype that were chosen for it."""
    chosen = {"dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type}
    return vars(workload) | chosen


def checksum(tokens):
    """Return the SHA-256 of the token ids, as int64 in row order."""
    return hashlib.sha256(tokens.to("cpu", torch.int64).numpy().tobytes()).hexdigest()


@contextmanager
def reporting_out_of_memory():
    """Yield a list that gets one sentence if the block runs out of GPU memory."""
    trouble = []
    try:
        yield trouble
    except torch.OutOfMemoryError as error:
        trouble.append("Out of GPU memory: " + str(error).split(". ")[0].split("\n")[0] + ".")


def machine():
    """Return what ran here: GPU, driver, versions, date."""
    on_gpu = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if on_gpu else None
    return {
        "device": "cuda" if on_gpu else "cpu",
        "gpu": properties.name if on_gpu else None,
        "gpu_id": hashlib.sha256(str(properties.uuid).encode()).hexdigest()[:12]
        if on_gpu
        else None,
        "gpu_memory_mib": properties.total_memory // MIB if on_gpu else None,
        "driver": driver_version() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "cpu_cores": os.cpu_count(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def driver_version():
    """Return the NVIDIA driver's version, or None where ``nvidia-smi`` is missing."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.split("\n")[0].strip() or None


TASKS = {"measure": measure, "trace": trace, "race": race, "allocations": allocations}


def answer(connection, request):
    """Run the task in ``request`` and send back its result, or what went wrong.

    This is the whole life of a measurement's process.
    """
    # Before CUDA starts: later, the allocator has read its setting already.
    os.environ.update(request["environment"])
    try:
        report = functools.partial(_report, connection)
        result = TASKS[request.pop("task")](**request, report=report)
    except BaseException as error:  # also SystemExit and KeyboardInterrupt: the asker must know
        connection.send({"failed": f"{type(error).__name__}: {error}"})
    else:
        connection.send({"result": result})


def _report(connection, done, total):
    connection.send({"done": done, "total": total})
