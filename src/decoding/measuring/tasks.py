"""One rung at a time: ``measure``, ``compare`` and ``allocations``, each in a fresh process."""

import time
from dataclasses import asdict

import torch
from tqdm import tqdm

from decoding import ranges
from decoding.rungs import find_rung

from .errors import MeasurementError
from .fingerprint import fingerprint
from .machine import MIB, machine, require_gpu
from .probes import busy_time, sample_memory, timed
from .processes import run_fresh
from .records import SCHEMA, Record, median_curve, significant, spread
from .runs import Run, checksum, describe, load
from .snapshots import trimmed

ON_A_CPU = (
    "Measured on a CPU: streams, events and CUDA graphs do nothing here, so times show that "
    "the loop runs, not what it gains; memory and GPU figures are left out."
)


def measure(rung, workload, *, environment=None, **options):
    """Run ``rung`` on ``workload`` in a fresh process and return one record.

    Args:
        rung: a name in ``RUNGS``.
        workload: a ``Workload``.
        environment: variables for the process instead of the rung's own, for example ``{}`` for
            the allocator's default.
        **options: as for ``generate``: ``cache_length``, ``compile_mode``.

    Returns:
        A ``Record``; its ``error`` says why if the measurement ran out of memory.

    Raises:
        ValueError, TypeError: there is no such rung, or no such option.
        MeasurementError: the process failed for another reason.
    """
    chosen = find_rung(rung)
    record = run_fresh(
        _measured,
        f"Measuring {rung}",
        chosen.environment if environment is None else environment,
        rung=rung,
        workload=workload,
        variant=describe_variant(rung, workload, environment=environment, **options),
        options=options,
    )
    record["machine"]["code"] = fingerprint([rung])
    return Record(record)


def compare(rungs, workload, *, progress=True, **options):
    """Measure several rungs in turn and return their records, in order.

    Args:
        rungs: names in ``RUNGS``, or ``(name, workload, options)`` triples for variants.
        workload: the ``Workload`` of the rungs that are given by name alone.
        progress: whether to show a progress bar over the rungs.
        **options: the options of the rungs given by name alone; each gets those that it takes.

    A rung that fails does not end the comparison: its record's ``error`` says why. Every rung runs
    in its own environment, as on the ladder; for another one, call ``measure``.

    Raises:
        ValueError, TypeError: there is no such rung, or no such option.
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
            label = find_rung(name).label
            variant = describe_variant(name, its_workload, **its_options)
            reason = str(error)
            records.append(Record.failed(name, label, variant, asdict(its_workload), {}, reason))
    return records


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


def _measured(report, rung, workload, variant, options):
    """Return the record of ``rung``; this runs in the fresh process."""
    label = find_rung(rung).label
    try:
        workload_found, found = _runs(report, rung, workload, options)
    except torch.OutOfMemoryError as error:
        reason = "Out of GPU memory: " + str(error).split(". ")[0].split("\n")[0] + "."
        return Record.failed(rung, label, variant, vars(workload), machine(), reason)
    return {
        "schema": SCHEMA,
        "rung": rung,
        "label": label,
        "variant": variant,
        "workload": workload_found,
        "machine": machine(),
        **found,
        "error": None,
    }


def _runs(report, rung, workload, options):
    """Call the loop once cold, then timed, then once for each other purpose."""
    model = load(workload)
    run = Run(model, rung, workload, options)
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
    found_times = _times(cold, warm)
    if gpu:
        per_token = found_times["per_token_ms"]["median"]
        gpu["idle_share"] = significant(max(0.0, 1 - gpu["busy_ms_per_token"] / per_token))
    return describe(workload, model), {
        "time": found_times,
        "memory": memory,
        "gpu": gpu,
        "tokens_sha256": checksum(tokens),
        "tokens_generated": cold["generated"],
        "notes": _notes(run, cold["generated"], repeatable),
    }


def _times(cold, warm):
    """Return the times of a record, in ms, from those of its cold run and its warm ones."""
    return {
        "per_token_ms": spread(_mean(times["curve"]) for times in warm),
        "prefill_ms": spread(times["prefill"] for times in warm),
        "total_ms": spread(times["total"] for times in warm),
        "cold_total_ms": significant(cold["total"]),
        "cold_prefill_ms": significant(cold["prefill"]),
        "cold_per_token_ms": significant(_mean(cold["curve"])),
        "curve_ms": median_curve([times["curve"] for times in warm]),
        "cold_curve_ms": [significant(value) for value in cold["curve"]],
    }


def _mean(curve):
    return sum(curve) / max(len(curve), 1)


def _notes(run, generated, repeatable):
    notes = [] if run.on_gpu else [ON_A_CPU]
    if generated < run.new_tokens:
        notes.append("Every row finished early: choose another seed to time the full length.")
    if not repeatable:
        notes.append("Two runs of this process chose different tokens.")
    return notes


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
