"""What the pages of Part II say of its race: every way to end the waiting, over batch sizes and models."""

import inspect
import json
from dataclasses import asdict
from itertools import product
from math import nan
from typing import NamedTuple

from decoding.drawing.calculator import token_of
from decoding.drawing.words import known
from decoding.measuring import MeasurementError, NotRecorded, endings
from decoding.measuring.comparing import change_of, ratio_of
from decoding.measuring.endings import AT_ONCE, COMPILED, LLAMA, LOOPS, NEVER
from decoding.measuring.fingerprint import fingerprint

from .chapter import failed_race, tell

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
#: Loops by their step; when each asks is what the page's calculator calls it.
STEPS = {
    "compiled": {
        "check at once": "compiled, at once",
        "one step late": "deferred check",
        "never": "compiled, never",
    },
    "captured": {
        "check at once": AT_ONCE,
        "one step late": "captured graph",
        "never": "captured, never",
    },
}
#: The loops of a race of another model, and the batch sizes at which it is raced.
FEWER = tuple(loop for ways in STEPS.values() for loop in ways.values())
OTHERS = {"gpt2-medium": (1,), "gpt2-xl": (1,), LLAMA: (1, 32)}


def race(chapter, batch_size=1, model=None, loops=tuple(LOOPS), rounds=5):
    """Return the ``results`` of ``measuring.endings.endings``, loop -> ``Record``, kept and read while recent.

    Args:
        chapter: the ``Chapter`` that keeps it.
        batch_size: rows.
        model: its name; default: that of the chapter.
        loops: names in ``LOOPS``.
        rounds: how often each loop is timed; on a CPU twice.
    """
    work = chapter.single.but(batch_size=batch_size)
    work = work.but(model=model) if model and chapter.on_gpu else work
    rounds = rounds if chapter.on_gpu else 2
    code = fingerprint((), [inspect.getsource(endings)])
    return chapter.shelf.recent_or(
        f"endings_{work.model}_b{batch_size}.json",
        [LOOPS[loop]["rung"] for loop in loops],
        lambda: endings.endings(work, rounds=rounds, loops=loops),
        json.dumps([asdict(work), list(loops), code]),
    )["results"]


def races(chapter, sizes=SIZES, **arguments):
    """Return ``race`` for each batch size: batch size -> loop -> ``Record``; on a CPU for 1 and 2.

    If a race fails, for want of memory say, the page says so and goes on: its records' numbers are nan.
    """
    found = {}
    for size in sizes if chapter.on_gpu else (1, 2):
        try:
            found[size] = race(chapter, size, **arguments)
        except NotRecorded:
            raise
        except MeasurementError as error:
            work = chapter.single.but(batch_size=size)
            tell(f"*Not measured: the race at batch {size}: {error}*")
            found[size] = failed_race(LOOPS, work, chapter.machine, str(error))["results"]
    return found


class Point(NamedTuple):
    """A loop of a race: what *L* and *G* say of its token, and what was measured; all in µs.

    Attributes:
        model, batch_size, loop: what was raced.
        L, G: the host's launch and the GPU's busy time.
        pauses: what the captured step takes on the GPU beside *G*, see ``pauses_us``.
        predicted, measured: the token.
    """

    model: str
    batch_size: int
    loop: str
    L: float
    G: float
    pauses: float
    predicted: float
    measured: float

    @property
    def miss(self):
        """By which share the prediction is more than what was measured."""
        return self.predicted / self.measured - 1

    @property
    def miss_with_pauses(self):
        """The same with the pauses in *G*."""
        return _token_us(self.loop, self.L, self.G + self.pauses) / self.measured - 1

    @property
    def regime(self):
        """Which side sets the pace: "GPU-bound" or "host-bound"; "–" where that is not known."""
        if not (known(self.L) and known(self.G)):
            return "–"
        return "host-bound" if self.L > self.G else "GPU-bound"


class Points(NamedTuple):
    """What was found, and what was not.

    Attributes:
        found: a list of ``Point``.
        races: (model, batch size) -> the ``results`` of a race.
        missing: "gpt2-xl at batch 1", and so on: what the book has not, or what failed.
    """

    found: list
    races: dict
    missing: list


def points(chapter, wanted=None):
    """Return a ``Point`` for each loop of each race that is wanted.

    A race is measured on a GPU; while redrawing, one that the book has not is left out. A CPU races the
    chapter's own model.

    Args:
        chapter: the ``Chapter`` that keeps the races.
        wanted: model -> batch sizes; default: the chapter's own at ``SIZES``, and ``OTHERS``.
    """
    own = chapter.single.model
    wanted = wanted or {own: SIZES} | OTHERS
    if not chapter.on_gpu:
        wanted = {own: (1, 2)}
    found, raced, missing = [], {}, []
    for model, batch_size in ((model, size) for model, sizes in wanted.items() for size in sizes):
        fewer = {} if model == own else {"model": model, "loops": FEWER}
        try:
            results = race(chapter, batch_size, **fewer)
        except MeasurementError:
            missing.append(f"{model} at batch {batch_size}")
            continue
        raced[model, batch_size] = results
        found += points_of(results, model, batch_size)
    return Points(found, raced, missing)


def points_of(found, model, batch_size):
    """Return a ``Point`` for each loop of ``found``, the ``results`` of a race."""
    return [
        Point(
            model,
            batch_size,
            loop,
            *launch_and_work_us(found, loop),
            pauses_us(found),
            predicted_us(found, loop),
            _number(found[loop].get("measured_us")),
        )
        for loop in found
    ]


def launch_and_work_us(found, loop):
    """Return *L* and *G* of ``loop``, in µs; nan where one was not measured.

    *G* is the busy time of the same kernels, compiled or captured, in the loop that never asks; of a
    loop that runs on the device *L* is nothing.

    Args:
        found: the ``results`` of a race.
        loop: one of its loops.
    """
    never = found[NEVER[LOOPS[loop]["rung"] in COMPILED]]
    launch = 0 if loop == "device loop" else found[loop].get("L_us")
    return _number(launch), _number(never.get("G_us"))


def predicted_us(found, loop):
    """Return what *L* and *G* alone say of a token of ``loop``, in µs; nan if one was not measured.

    Asked at once it takes *L* + *G*, else the larger of the two.

    Args:
        found, loop: as for ``launch_and_work_us``.
    """
    return _token_us(loop, *launch_and_work_us(found, loop))


def pauses_us(found):
    """Return how much longer than *G* a captured step takes that nobody waits for, in µs.

    Its kernels follow each other in one graph, so that is what lies between them.

    Args:
        found: the ``results`` of a race; nan where it has no such loop.
    """
    never = found.get("captured, never", {})
    return max(_number(never.get("measured_us")) - _number(never.get("G_us")), 0)


def _token_us(loop, launch, work):
    if not (known(launch) and known(work)):
        return nan
    return launch + work if loop.endswith("at once") else max(launch, work)


def _number(value):
    return nan if value is None else value


def share_within(misses, limit):
    """Return which share of ``misses`` is ``limit`` at most, of either sign; nan if none is known."""
    misses = [abs(miss) for miss in misses if known(miss)]
    return sum(miss <= limit for miss in misses) / len(misses) if misses else nan


def best(found):
    """Return the loop that asks and takes least, and by which share it is ``above`` never asking.

    Args:
        found: the ``results`` of a race.
    """
    asking = [loop for loop in found if not loop.endswith("never")]
    loop = min(asking, key=lambda one: found[one].ms)
    return loop, above(found, loop)


def presets(raced, sizes=(1, 8, 32, 128)):
    """Return *L*, *G* and the token of races, in µs, as ``drawing.calculator`` takes them.

    Args:
        raced: (model, batch size) -> the ``results`` of a race.
        sizes: the batch sizes that are wanted.

    Returns:
        A dict: step and model -> batch size -> when the loop asks -> (L, G, measured).
    """
    made = {}
    for (model, size), found in raced.items():
        for step, ways in STEPS.items() if size in sizes else ():
            made.setdefault(f"{model}, {step}, batch", {})[str(size)] = {
                way: (*launch_and_work_us(found, loop), found[loop].get("measured_us"))
                for way, loop in ways.items()
            }
    return made


def cost_at_once(found, kind):
    """Return what the check costs in a token if it is asked at once, in µs: beside the loop that never asks.

    Args:
        found: the ``results`` of a race.
        kind: "compiled" or "captured", who launches the step.
    """
    return 1000 * change_of(found[f"{kind}, never"], found[f"{kind}, at once"], "ms")


def share_at_once(found, kind):
    """Return which share of a token asked at once the check costs; arguments as for ``cost_at_once``."""
    return 1 - ratio_of(found[f"{kind}, never"], found[f"{kind}, at once"])


def above(found, loop, bound="captured, never"):
    """Return by which share a token of ``loop`` takes longer than one of ``bound``."""
    return ratio_of(found[loop], found[bound]) - 1


def wrong_case(attempt):
    """Return a case in which a reader's smallest batch that may be asked at once is wrong, or None.

    Args:
        attempt: a function of *L*, *G* of no row and *G* of each row in µs, and the share of a token that
            a check may cost; returns a batch size.

    Returns:
        A dict, ``launch``, ``fixed``, ``per_row``, ``share``, ``found`` and ``right``.
    """
    for case in product((40, 400), (50, 500), (1, 6), (0.05, 0.2)):
        launch, fixed, per_row, share = case
        right = 20_000  # from here downwards, as long as it costs little
        while right > 1:
            token = token_of(launch, fixed + per_row * (right - 1))
            if token.cost > share * token.token:
                break
            right -= 1
        if (found := attempt(*case)) != right:
            names = "launch", "fixed", "per_row", "share"
            return dict(zip(names, case)) | {"found": found, "right": right}
    return None
