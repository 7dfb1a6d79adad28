"""What chapters conclude from records and timelines: each conclusion is defined once.

Unless a name or a docstring says otherwise, times are in ms, memory is in MiB, shares go from 0 to 1.
What was not measured is nan.
"""

import json
from math import nan
from statistics import median
from typing import NamedTuple

import torch
from transformers import GPT2Config, LlamaConfig

from decoding.drawing import LABELS, running_median
from decoding.drawing.logged import is_logged, pauses
from decoding.drawing.words import Words, known
from decoding.measuring import Record, Workload, change_of, ratio_of
from decoding.measuring.endings import LLAMA, LLAMA_SHAPE
from decoding.measuring.records import load
from decoding.measuring.timeline import gaps
from decoding.models import GPT2_SHAPES

from .machines import book_folder

MIB = 2**20
RACED = (1, 8, 32, 128)  # the batch sizes of the book's races


def ends(values, parts=8):
    """Return the medians of the first and of the last eighth of ``values``; nan of no values.

    Args:
        values: in their order.
        parts: 16 for sixteenths.
    """
    if not values:
        return nan, nan
    length = max(1, len(values) // parts)
    return median(values[:length]), median(values[-length:])


def growth(values, parts=8):
    """Return how many times the first eighth of ``values`` the last is, both as in ``ends``."""
    first, last = ends(values, parts)
    return last / first


def pace(record):
    """Return the shortest and the longest time per token along a run, smoothed as in its curve."""
    smooth = running_median(record.curve) if record.curve else [nan]
    return min(smooth), max(smooth)


def speed(before, after):
    """Return how many times as fast as ``before`` a token of ``after`` is, two records.

    Raises:
        NotComparable: they were not measured together.
    """
    return ratio_of(before, after)


def busy_ends(record):
    """Return the GPU's busy time per token at the beginning and at the end of a run."""
    curve = (record.get("gpu") or record).get("curve_busy_ms") or [nan]
    return curve[0], curve[-1]


def cold_ends(record):
    """Return ``ends`` of the times per token in the first, cold run."""
    return ends((record.get("time") or {}).get("cold_curve_ms"))


class Clocks(NamedTuple):
    """The time of the token at a position, the GPU's busy time for it, and the busy share."""

    position: float
    ms: float
    busy_ms: float
    share: float


def two_clocks(record):
    """Return the time of a token beside the GPU's busy time, along the run.

    Returns:
        A list of ``Clocks``, at least two: of nan where the GPU was not watched.
    """
    gpu, rows = record.get("gpu") or {}, []
    smooth = running_median(record.curve) if record.curve else []
    for step, busy in zip(gpu.get("curve_steps", ()), gpu.get("curve_busy_ms", ())):
        time = smooth[round(step) - 1]
        position = record["workload"]["prompt_tokens"] + round(step)
        rows.append(Clocks(position, time, busy, min(1, busy / time)))
    return rows or [Clocks(nan, nan, nan, nan)] * 2


def payback(before, after):
    """Return what a costlier first run needs until its faster tokens have paid for it.

    Returns:
        By how many seconds the first run of ``after`` is longer than a later one, more than that of
        ``before``; and after how many tokens that is won back, nan where no token is faster.
    """
    spent = _first_run_extra(after) - _first_run_extra(before)
    saved = before.ms - after.ms
    return spent / 1000, spent / saved if saved > 0 else nan


def _first_run_extra(record):
    time = record.get("time") or {}
    return time.get("cold_total_ms", nan) - time.get("total_ms", {}).get("median", nan)


def shape_of(workload):
    """Return the configuration of the model that a workload decodes."""
    if workload.model == LLAMA:
        return LlamaConfig(**LLAMA_SHAPE)
    return GPT2Config(**GPT2_SHAPES[workload.model], bos_token_id=None, eos_token_id=None)


def token_bytes(workload):
    """Return the bytes of one token's keys and values, in one row: 2 · layers · width · bytes.

    The width is that of the heads that have keys and values: in GPT-2 of all.
    """
    shape = shape_of(workload)
    heads = getattr(shape, "num_key_value_heads", shape.num_attention_heads)
    width = heads * shape.hidden_size // shape.num_attention_heads
    return 2 * shape.num_hidden_layers * width * getattr(torch, workload.dtype).itemsize


def cache_mib(workload, positions):
    """Return the size of the KV cache of ``workload`` that holds ``positions`` tokens a row."""
    return workload.batch_size * positions * token_bytes(workload) / MIB


def logits_mib(workload, positions):
    """Return the size of the logits of ``positions`` tokens a row."""
    numbers = workload.batch_size * positions * shape_of(workload).vocab_size
    return numbers * getattr(torch, workload.dtype).itemsize / MIB


def allocated_ends(record):
    """Return the memory that is allocated after the first token of a run and after the last."""
    allocated = (record.get("memory") or {}).get("allocated_mib") or [nan]
    return allocated[0], allocated[-1]


def allocated_growth(record):
    """Return by how much the allocated memory grows from the first token of a run to the last."""
    first, last = allocated_ends(record)
    return last - first


def retries(record):
    """Return at which tokens the allocator gave memory back, and what that took in the cold run.

    Returns:
        A list of tuples: the token; MiB given back; its time; the median time of the tokens around
        it, eight on either side.
    """
    reserved = (record.get("memory") or {}).get("reserved_mib") or []
    cold = (record.get("time") or {}).get("cold_curve_ms") or []
    return [
        (
            token,
            reserved[token - 1] - reserved[token],
            cold[token - 1],
            median(cold[max(0, token - 9) : token + 8]),
        )
        for token in range(1, len(reserved))
        if reserved[token] < reserved[token - 1]
    ]


def cost_of_retries(record):
    """Return what ``retries`` cost in the cold run.

    Returns:
        By how much the token of a retry is longer than those around it, the median; and the share
        of all retries in the time of the run. nan where there was none.
    """
    longer = [time - around for _, _, time, around in retries(record)]
    if not longer:
        return nan, nan
    cost = median(longer)
    return cost, max(0, cost) * len(longer) / sum(record["time"]["cold_curve_ms"])


def times_full(record):
    """Return how often the allocator came to the end of the card in one run."""
    return (record.get("memory") or {}).get("alloc_retries", nan)


def most_segments(record):
    """Return the largest number of segments that the allocator held in one run."""
    return (record.get("memory") or {}).get("segments", nan)


def reserved_along(record):
    """Return the memory that is reserved after every token of a run; one nan if not measured."""
    return (record.get("memory") or {}).get("reserved_mib") or [nan]


def workload_of(recording):
    """Return the ``Workload`` whose allocations ``Chapter.allocations`` gave."""
    return Workload(**json.loads(recording["asked"]))


def real_and_model(rung, recording, models):
    """Return the memory of a recorded run beside what the model of the allocator makes of it.

    Args:
        rung: the loop that ran.
        recording: as ``Chapter.allocations`` returns it.
        models: expandable or not -> what ``replay`` returns of its events.

    Returns:
        Three records with nothing but memory: the recording, the model, the model with
        expandable segments.
    """
    shown = [(found, "default") for found in (recording, models[False])]
    shown.append((models[True], "expandable_segments"))
    return [
        Record(
            {
                "rung": rung,
                "label": LABELS[rung],
                "variant": {"allocator": allocator, "rung_allocator": "default"},
                "workload": {"prompt_tokens": workload_of(recording).prompt_tokens},
                "memory": {key: found[key] for key in ("allocated_mib", "reserved_mib")},
            }
        )
        for found, allocator in shown
    ]


def races(chapter, sizes=RACED):
    """Return what the book's race found at several batch sizes: batch size -> loop -> ``Record``.

    It is one race for all chapters, ``Chapter.watch``: "check", "two streams" and "no check", each
    also as "…, no guards".

    Args:
        chapter: the ``Chapter`` that keeps the races.
        sizes: the batch sizes on a GPU; on a CPU they are 1 and 2.
    """
    return {
        size: chapter.watch(chapter.single.but(batch_size=size))["results"]
        for size in (sizes if chapter.on_gpu else (1, 2))
    }


def card(machine):
    """Return on which card and which day a record was made, in words, from its ``machine``."""
    return Words(f"card {machine.get('gpu_id') or 'unknown'}, {machine['date'][:10]}")


def launch_and_work(raced):
    """Return L, G and the token of every loop of the races, in µs, as ``drawing.calculator`` takes them.

    Args:
        raced: what ``races`` returns. Where there is no GPU it has no G: then the book's races stand
            in, and the names of the groups say so.

    Returns:
        A dict: with guards or without -> batch size -> loop -> (L, G, time per token); None or nan is
        what was not measured.
    """
    loops = {"check": "check at once", "two streams": "one step late", "no check": "never"}
    where = ""
    if not any(known(race["check"].get("G_us")) for race in raced.values()):
        where = " on the book's GPU"
        raced = {size: load(book_folder() / f"watch_b{size}.json")["results"] for size in RACED}
    return {
        group: {
            str(size): {
                words: tuple(
                    race[loop + suffix].get(key) for key in ("L_us", "G_us", "measured_us")
                )
                for loop, words in loops.items()
            }
            for size, race in raced.items()
        }
        for group, suffix in (
            (f"measured{where}, batch", ""),
            (f"without guards{where}, batch", ", no guards"),
        )
    }


def cost_of_check(race):
    """Return what the check costs in a token, in µs: ``check`` beside ``no check``.

    Args:
        race: the ``results`` of a race: loop -> ``Record``.
    """
    return 1000 * change_of(race["no check"], race["check"], "ms")


def share_of_check(race):
    """Return which share of a checked token the check costs."""
    return 1 - ratio_of(race["no check"], race["check"])


def saved(race):
    """Return which share of a checked token two streams save."""
    return 1 - ratio_of(race["two streams"], race["check"])


def saved_range(race):
    """Return the least and the most that two streams save in a round of the race, loops in turn."""
    rounds = [race[loop].get("rounds_ms") or [nan] for loop in ("two streams", "check")]
    shares = [1 - two / check for two, check in zip(*rounds, strict=True)]
    return min(shares), max(shares)


def above_bound(race):
    """Return by which share two streams are slower than the loop that never asks."""
    return ratio_of(race["two streams"], race["no check"]) - 1


def host_side(timeline):
    """Return what a decode step takes of the host, for one token.

    Returns:
        How long it is inside the step, in µs (median); how many calls into CUDA it makes that do not
        block (mean); how long it is inside the step before the first of them, in µs (median).
    """
    steps = [item for item in timeline.host if item.name == "decode_step"]
    calls = [call for call in timeline.launches if not call.blocking]
    inside = median(step.end_us - step.start_us for step in steps)
    first = median(
        min(call.start_us for call in calls if call.start_us >= step.start_us) - step.start_us
        for step in steps
    )
    return inside, sum(call.count for call in calls) / len(steps), first


def idle_us(timeline):
    """Return for how many µs of a token the GPU is idle."""
    return timeline.idle * timeline.extent[1] / len(timeline.tokens)


def pauses_us(timeline):
    """Return for how many µs of a token the GPU is idle in pauses of less than a microsecond."""
    long = sum(end - begin for begin, end in gaps(timeline, min_us=1))
    return (timeline.idle * timeline.extent[1] - long) / len(timeline.tokens)


def pauses_of_a_step(race):
    """Return for how many µs of a step the GPU pauses between its kernels, as a race tells it.

    Args:
        race: the ``results`` of a race: loop -> ``Record``.
    """
    return pauses(race) if any(map(is_logged, race.values())) else nan


def totals(race):
    """Return the results of a race by the time of whole runs, prefill included: slowest first.

    Args:
        race: the ``results`` of a race: loop -> ``Record``.

    Returns:
        A dict, loop -> ``Record`` whose time per token is that of the run divided by its tokens.
    """
    found = {
        loop: result
        if result.error
        else Record(
            {"per_token_ms": result["total_per_token_ms"], "spread_over": result.spread_over},
            label=loop,
            race={key: getattr(result, key) for key in ("together", "workload", "machine")},
        )
        for loop, result in race.items()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].ms))


def token_sets(race):
    """Return which loops of a race chose the same tokens: lists of their labels."""
    sets = {}
    for loop, result in race.items():
        if not result.error:
            sets.setdefault(result["tokens_sha256"], []).append(LABELS.get(loop, loop))
    return list(sets.values())


def disagree(record):
    """Return whether two runs of a record's process chose different tokens."""
    return any("different tokens" in note for note in record["notes"])


def differing(repeats, **case):
    """Return how many runs of ``repeated_runs`` differ from the first of their case.

    Args:
        repeats: what ``repeated_runs`` returns.
        **case: which cases count: ``with_cudnn=True``, ``batch_size=1``.
    """
    return sum(one["differ"] for one in repeats["cases"] if case.items() <= one.items())


def cudnn_version(repeats):
    """Return the version of cuDNN with which ``repeated_runs`` ran: 9.19.0."""
    found = repeats["cudnn"] or 0
    return Words(f"{found // 10000}.{found // 100 % 100}.{found % 100}")
