"""Several loops in turn in one fresh process: ``race`` times them, ``trace`` profiles them."""

import torch
from torch.profiler import ProfilerActivity

from .fingerprint import fingerprint
from .ladders import check_options, new_together
from .machine import MIB, machine, require_gpu
from .probes import busy_time, profile_steps, timed
from .processes import run_fresh
from .records import percentiles, significant, spread, with_results_as_records
from .runs import checksum, describe, enter, load

WARM_UP = 3  # runs before a trace: a compiled step is compiled in the first, captured in the second


def race(entrants, workload, *, busy=False, environment=None):
    """Time several loops in turn in one fresh process, where ratios are steadier than across two.

    Args:
        entrants: a mapping, label -> ``{"rung": ..., "stop_check": ..., **options}``; the rung
            "transformers" is transformers' own ``generate``.
        workload: a ``Workload``; its ``repeats`` rounds run every entrant once each.
        busy: whether to profile each entrant, too.
        environment: variables for the process, the same for all entrants.

    Returns:
        A dict with ``machine``, ``together``, ``workload`` and ``results``, which maps each label to
        a ``Record`` with these keys.

        - ``per_token_ms``, ``prefill_ms``, ``total_ms`` and ``total_per_token_ms`` are spreads,
          dicts with ``median``, ``min`` and ``max`` over the rounds; ``spread_over`` is their number.
        - ``tokens_ms`` has the percentiles of single tokens, ``p50``, ``p95`` and ``p99``.
        - ``cold_total_ms`` is the time of the entrant's first run, before the rounds.
        - ``more_reserved_mib`` is by how much that first run raised the reserved memory, beyond
          what the entrants before it had reserved (on a GPU only).
        - ``tokens_sha256`` is the checksum of its tokens.
        - With ``busy``, and on a GPU, there are also ``busy_ms_per_token``, ``kernels_per_token``,
          and the busy time along the run, ``curve_busy_ms`` at ``curve_steps``.

        Of transformers' own loop only the totals are known, besides the memory and the checksum.

    Raises:
        ValueError, TypeError: there is no such rung, or no such option.
        MeasurementError: the process failed.
    """
    what = f"Racing {', '.join(entrants)}"
    check_entrants(entrants)
    found = run_fresh(_raced, what, environment, entrants=entrants, workload=workload, busy=busy)
    return taken_together(found)


def check_entrants(entrants):
    """Raise ``ValueError`` or ``TypeError`` where an entrant has no such rung or no such option."""
    for entrant in entrants.values():
        if entrant["rung"] != "transformers":
            check_options(entrant["rung"], set(entrant) - {"rung", "stop_check"})


def taken_together(found):
    """Return what a race found, with what says that its entrants may be compared."""
    found["machine"]["common_code"] = fingerprint(())
    return with_results_as_records(found | {"together": new_together()})


def _raced(report, entrants, workload, busy):
    """Return what ``race`` does; this runs in the fresh process."""
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
        for label in rotated(runs, repeat):
            times[label].append(timed(runs[label])[0])
        report(len(runs) + repeat + 1, len(runs) + workload.repeats)
    for label, run in runs.items():
        results[label] |= spreads(times[label])
        if busy and run.on_gpu and "per_token_ms" in results[label]:
            results[label] |= busy_time(run)
    return {"machine": machine(), "workload": describe(workload, model), "results": results}


def rotated(labels, number):
    """Return ``labels`` as a list that begins with another one in each round."""
    labels = list(labels)
    at = number % len(labels)
    return labels[at:] + labels[:at]


def spreads(times):
    """Return the spreads over the rounds of an entrant's times, and the percentiles of its tokens."""
    found = {
        "spread_over": len(times),
        "total_ms": spread(each["total"] for each in times),
        "total_per_token_ms": spread(each["total"] / each["generated"] for each in times),
    }
    if times[0]["curve"]:  # transformers' own loop has no ranges: only its total is known
        curves = [each["curve"] for each in times]
        found |= {
            "per_token_ms": spread(sum(curve) / len(curve) for curve in curves),
            "prefill_ms": spread(each["prefill"] for each in times),
            "tokens_ms": percentiles(value for curve in curves for value in curve),
        }
    return found


def trace(entrants, workload, *, first_token, tokens, environment=None):
    """Profile ``tokens`` decode steps from ``first_token`` on, each loop in turn in one process.

    CUDA only.

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

    Raises:
        NeedsGpu: there is no CUDA GPU.
        MeasurementError: the process failed.
    """
    what = f"Tracing {', '.join(entrants)}"
    require_gpu(what, workload.device)
    return run_fresh(
        _traced,
        what,
        environment,
        entrants=entrants,
        workload=workload,
        first_token=first_token,
        tokens=tokens,
    )


def _traced(report, entrants, workload, first_token, tokens):
    """Return what ``trace`` does; this runs in the fresh process."""
    model = load(workload)
    # One step more on either side, since a window begins and ends with an idle GPU.
    window = (first_token - 1, first_token + tokens)
    timelines = {}
    for label, entrant in entrants.items():
        run = enter(model, workload, entrant)
        for _ in range(WARM_UP):
            run()
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        (timeline,) = profile_steps(run, [window], activities)
        timelines[label] = timeline.slice(first_token, first_token + tokens - 1).to_dict()
        report(len(timelines), len(entrants))
    return {"machine": machine(), "timelines": timelines}
