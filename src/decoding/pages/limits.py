"""What chapter 13 says of the limit: counts, how near each loop comes, and where the rest of a step goes."""

from itertools import product
from math import nan
from typing import NamedTuple

import torch

from decoding.drawing import Reached
from decoding.drawing.words import known
from decoding.measuring import Workload
from decoding.measuring.endings import LOOPS
from decoding.measuring.limits import count, gemms

from . import floor
from .results import shape_of

#: The loops of the races that stand below the roof: one for each rung, as it asks on the ladder.
RACED = ("compiled, at once", "two streams", "deferred check", "captured graph", "device loop")
#: What a step's time is divided into, in this order.
PARTS = ("matrix product", "attention", "fused", "other", "copy", "pauses")


def counted(workload, positions=None):
    """Return the ``Count`` of a decode step of ``workload``.

    Args:
        workload: a ``Workload`` with a dtype.
        positions: that the cache holds; default: ``floor.mean_positions``.
    """
    if positions is None:
        positions = floor.mean_positions(workload)
    itemsize = getattr(torch, workload.dtype).itemsize
    return count(shape_of(workload), workload.batch_size, positions, itemsize)


def gb_per_s(chapter):
    """Return the bandwidth behind every step card, in GB/s; nan where this GPU model's was not measured."""
    found = floor.measured(chapter.shelf.folder, chapter.machine)
    return found["found"]["gb_per_s"] if found else nan


def share(record):
    """Return which share of the limit a record's step reaches, 0 to 1; nan where that is not known."""
    return record.get(floor.KEY, nan) / record.ms


def reached(record, rung):
    """Return a record as a point below the roof.

    Args:
        record: of one loop. What it computes is counted as a step with a cache, whatever the loop does.
        rung: what it is drawn as.
    """
    work = floor.workload_of(record.workload)
    found = counted(work)
    rate = found.flops / record.ms / 1e9 if known(record.ms) else nan
    each = found.intensity, rate, share(record), record.ms
    return Reached(rung, work.model, work.batch_size, *each)


def points(records, races):
    """Return what stands below the roof.

    Args:
        records: those of the ladder.
        races: (model, batch size) -> the ``results`` of a race of all ways to end the waiting.
    """
    found = [reached(record, record["rung"]) for record in records if not record.error]
    for race in races.values():
        found += [reached(race[loop], LOOPS[loop]["rung"]) for loop in RACED if loop in race]
    return found


def best(found):
    """Return for each model and batch size the point with the largest share: (model, batch) -> point.

    Where no share is known it is any of them.
    """
    at_best = {}
    for one in sorted(found, key=lambda one: one.share if known(one.share) else -1):
        at_best[one.model, one.batch_size] = one
    return at_best


class Product(NamedTuple):
    """A matrix product of a step at a batch size.

    Attributes:
        name, times: as in ``Gemm``.
        mb: its weights, in 10^6 bytes.
        alone_us, in_step_us: its time among its like, with the pause behind it, and in the step, without.
        floor_us: the time in which the memory would deliver its weights.
    """

    name: str
    times: int
    mb: float
    alone_us: float
    in_step_us: float
    floor_us: float

    @property
    def share(self):
        """Of the memory's rate, alone."""
        return self.floor_us / self.alone_us

    @property
    def share_in_step(self):
        """Of the memory's rate, in the step."""
        return self.floor_us / self.in_step_us


def products(found, workload, batch_size):
    """Return a ``Product`` for each product of a step.

    Args:
        found: what ``measuring.limits.limits`` found.
        workload: what it measured.
        batch_size: one of those.
    """
    alone, step = found["alone_us"][str(batch_size)], found["steps"].get(str(batch_size), {})
    itemsize = getattr(torch, workload.dtype).itemsize
    rate = found["bandwidth"]["gb_per_s"]
    return [
        Product(
            one.name,
            one.times,
            one.numbers * itemsize / 1e6,
            alone[one.name],
            step.get("gemms_us", {}).get(one.name, nan),
            one.numbers * itemsize / rate / 1e3,
        )
        for one in gemms(shape_of(workload))
    ]


def parts_us(step):
    """Return where the time of a bare step goes: a name in ``PARTS`` -> µs.

    Args:
        step: one of the ``steps`` that ``measuring.limits.limits`` found.
    """
    found = {kind: one["us"] for kind, one in step["kinds"].items()}
    found["pauses"] = max(step["step_us"] - step["busy_us"], 0)
    return {part: found.get(part, 0.0) for part in PARTS}


def step_floor_us(found, workload, batch_size):
    """Return how long the memory needs for what a bare step reads at the least, in µs.

    Args:
        found, workload, batch_size: as for ``products``. The step was replayed behind a prompt of a few
            tokens, whose cache counts for nothing.
    """
    weights = counted(workload.but(batch_size=batch_size)).weights
    return weights / found["bandwidth"]["gb_per_s"] / 1e3


def pause_us(step):
    """Return how much of a bare step lies between two of its kernels, on average, in µs."""
    return max(step["step_us"] - step["busy_us"], 0) / step["kernels"]


def wrong_case(attempt):
    """Return a case in which a reader's floor of a GPT-2's step is wrong, or None.

    Args:
        attempt: a function of a configuration, a batch size, positions and GB/s that returns µs, in 16-bit
            numbers.

    Returns:
        A dict, ``model``, ``batch_size``, ``positions``, ``gb_per_s``, ``found`` and ``right``.
    """
    for name, rows, positions in product(("gpt2-tiny", "gpt2", "gpt2-xl"), (1, 32), (100, 500)):
        right = counted(Workload(name, rows, dtype="bfloat16"), positions).bytes / 1000 / 1e3
        found = attempt(shape_of(Workload(name)), rows, positions, 1000)
        if abs(found / right - 1) > 1e-9:
            case = {"model": name, "batch_size": rows, "positions": positions, "gb_per_s": 1000}
            return case | {"found": found, "right": right}
    return None
