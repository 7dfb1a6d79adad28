"""What chapter 14 shows: the fused step's race, the one kernel's ladder, its phases, and parts of its source."""

import json
from dataclasses import asdict
from itertools import permutations
from math import nan
from pathlib import Path

from decoding import measuring
from decoding.drawing import Phase, Stage, listing, part_of
from decoding.drawing.words import known
from decoding.measuring import MeasurementError, NotMeasured, NotRecorded, Record
from decoding.measuring.fused import LOOPS, fused_steps
from decoding.measuring.machine import machine
from decoding.measuring.one_kernel import steps
from decoding.one_kernel import VARIANTS

from . import floor

FOLDER = Path(measuring.__file__).resolve().parents[1]
#: The kernel's source, in the order in which it is read.
FILES = "one_kernel.cu", "one_kernel_blocks.cuh"
TRITON = "fused_kernels.py"
#: The loops of the fused step, which only a GPU races, and that of the step before.
BEFORE, ALONE, EARLY = "device loop", "one after another", "dependent launch"
#: The way from the last loop that waits for nothing to the last rung: label -> its names in the races of both steps.
WAY = {
    "device loop": (BEFORE,),
    "fused step": ("fused step", EARLY),
    "one kernel": (*VARIANTS,)[-1:],
}


def race(chapter):
    """Return the ``results`` of ``fused_steps``, loop -> ``Record``, kept and read while recent.

    What a CPU does not race is the record of a failed measurement: its numbers are nan.
    """
    rungs = [entrant["rung"] for entrant in LOOPS.values()]
    found = chapter.shelf.recent_or(
        "race_fused.json",
        rungs,
        lambda: fused_steps(chapter.single),
        json.dumps(asdict(chapter.single)),
    )["results"]
    what = None, asdict(chapter.single), chapter.machine, "the interpreter of Triton is not timed"
    return {loop: found.get(loop) or Record.failed("fused_step", loop, *what) for loop in LOOPS}


def evidence(chapter, find):
    """Return what ``find()`` finds of the one kernel, kept as a record; without a GPU, the book's.

    Args:
        chapter: the ``Chapter`` that keeps it.
        find: a function of ``measuring.one_kernel``, without arguments; returns what JSON can hold.

    Raises:
        NotMeasured: it failed on this machine.
        NotRecorded: the book has no such record.
    """
    file = f"one_kernel_{find.__name__}.json"
    if not chapter.on_gpu:
        return chapter.shelf.of_the_book(file)["found"]
    try:
        return chapter.shelf.recent_or(
            file, ["one_kernel"], lambda: {"machine": machine(), "found": find()}
        )["found"]
    except NotRecorded:
        raise
    except MeasurementError as error:
        raise NotMeasured(str(error)) from error


def part(words):
    """Return a part of the one kernel's source to display, from the file in which its first line has ``words``.

    Raises:
        ValueError: no file has it.
    """
    for name in FILES:
        path = FOLDER / name
        if path.exists() and words in path.read_text("utf-8"):
            return part_of(path, words)
    raise ValueError(f"No file of {', '.join(FILES)} has {words!r}.")


def head_of_source():
    """Return the comment with which the one kernel's source begins, to display."""
    lines = _text(FILES[0]).splitlines()
    end = next((at for at, line in enumerate(lines) if not line.startswith("//")), len(lines))
    return listing("\n".join(lines[:end]), "cuda")


def triton_part(kernel):
    """Return a Triton kernel of the fused step to display, by its name.

    Raises:
        ValueError: there is none of that name.
    """
    lines = _text(TRITON).splitlines()
    first = next((at for at, line in enumerate(lines) if line.startswith(f"def {kernel}(")), None)
    if first is None:
        raise ValueError(f"{TRITON} has no kernel {kernel!r}.")
    inside = next(at for at in range(first, len(lines)) if lines[at].startswith("):"))
    ends = (at for at in range(inside + 1, len(lines)) if lines[at][:1].strip())
    code = "\n".join(lines[first - 1 : next(ends, len(lines))])
    return listing(code.replace("  # fmt: skip", "").rstrip())


def _text(name):
    path = FOLDER / name
    return path.read_text("utf-8") if path.exists() else ""


def stages(results):
    """Return a ``Stage`` for each loop of a race, in order; what is no step of the race's own ladder stands before.

    Args:
        results: name -> a ``Record``, or a dict with ``per_token_ms``.
    """
    own = {*VARIANTS} & {*results} or {ALONE, EARLY, *WAY} - {BEFORE}
    found = []
    for name, one in results.items():
        spread = (one if isinstance(one, Record) else Record(one)).spread
        times = (1000 * spread[key] for key in ("median", "min", "max"))
        found.append(Stage(name, *times, before=name not in own))
    return found


def way(results):
    """Return the loops of ``WAY`` in a race, as far as they ran: label -> what ``results`` have of them."""
    return {
        label: results[name] for label, names in WAY.items() for name in names if name in results
    }


def way_of(chapter):
    """Return the ``Stage`` s of ``WAY`` and the least that a token can take, in µs, from the race that goes farthest.

    Args:
        chapter: the ``Chapter``, which has kept the races or runs them.
    """
    try:
        found = evidence(chapter, steps)
        results, workload = found["results"], found["workload"]
    except (NotMeasured, NotRecorded):
        results, workload = race(chapter), None
    return stages(way(results)), least_us(chapter, workload)


def least_us(chapter, workload=None):
    """Return how long the memory needs for a step of ``workload``, in µs; nan where its rate is not known.

    Args:
        chapter: the ``Chapter``.
        workload: a ``Workload``, or a dict of one as a record has it; default: the chapter's at batch 1.
    """
    found = floor.measured(chapter.shelf.folder, chapter.machine)
    if not found:
        return nan
    if isinstance(workload, dict):
        workload = floor.workload_of(workload)
    return 1000 * floor.floor_ms(workload or chapter.single, found["found"]["gb_per_s"])


def phases(parts):
    """Return a ``Phase`` for each part of the kernel's time.

    Args:
        parts: the name of a phase, as in ``decoding.one_kernel.PHASES`` -> µs a token.
    """
    return [Phase(name, kind_of(name), took) for name, took in parts.items()]


def kind_of(name):
    """Return of which of ``drawing.phases.KINDS`` a phase is, by its name in ``decoding.one_kernel.PHASES``.

    The last one chooses the token, for which every block tells all its best.
    """
    if name.endswith("sums") or name == "next token":
        return "exchange between all blocks"
    if name.endswith("weights"):
        return "wait for weights"
    if name.startswith("wait for"):
        return "exchange within a cluster"
    if name == "attention":
        return name
    return "layer norm and the rest" if "norm" in name or name == "embed" else "matrix product"


def share(parts, *kinds):
    """Return which share of the kernel's time its phases of some kinds take, 0 to 1; nan if none is known."""
    found = [one for one in phases(parts) if known(one.us)]
    whole = sum(one.us for one in found)
    return sum(one.us for one in found if one.kind in kinds) / whole if whole else nan


def facts(found):
    """Return what a record says in single values, as (words, value) rows of a table, in order.

    Args:
        found: a dict, names with underscores -> values; those that are dicts or lists are passed over.
    """
    return [
        [name.replace("_", " "), _written(value)]
        for name, value in found.items()
        if not isinstance(value, dict | list)
    ]


def _written(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def wrong_order(publish, collect):
    """Return the stores that were visible when a reader's exchange was wrong, or None.

    Stores become visible in every order, in a place that was last used two exchanges before.

    Args:
        publish: a function of a value and the exchange's number; returns stores, (place, word) pairs.
        collect: a function of memory, place -> word, and a number; returns the value, or None if it is
            not there yet.
    """
    for turn, old, new in ((3, 1.5, -2.0), (4, 0.0, 0.25), (7, 2.5, 0.0)):
        stores = publish(new, turn)
        if not all(0 <= word < 2**64 for _, word in stores):
            raise ValueError("A word must be a whole number of at most 64 bits.")
        for order in permutations(stores):
            memory = dict(publish(old, turn - 2))
            for seen, (place, word) in enumerate(order):
                if collect(dict(memory), turn) is not None:
                    return order[:seen]  # too early
                memory[place] = word
            if collect(memory, turn) != new:
                return order
    return None
