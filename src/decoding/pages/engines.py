"""What chapter 15 says: the race beside transformers' own ways to generate, and what a static batch wastes."""

import inspect
import json
import random
from collections import deque
from dataclasses import asdict
from math import nan
from typing import NamedTuple

from decoding.drawing.markdown import Markdown
from decoding.drawing.slots import Held
from decoding.drawing.words import Words, number, percent, spread_words
from decoding.measuring import MeasurementError, engines
from decoding.measuring.engines import CONTINUOUS, DYNAMIC, GRAPHS, STATIC, THEIRS
from decoding.measuring.fingerprint import fingerprint

__all__ = [
    "CONTINUOUS",
    "DYNAMIC",
    "GRAPHS",
    "STATIC",
    "THEIRS",
]  # the page names entrants by these

SIZES = (1, 8, 32, 128)
NEW_TOKENS = 96


def workload(chapter, batch_size):
    """Return what is raced: on a GPU 96 new tokens a row, else the chapter's small workload."""
    work = chapter.single.but(batch_size=batch_size)
    return work.but(new_tokens=NEW_TOKENS) if chapter.on_gpu else work


def race(chapter, batch_size=1, rounds=3):
    """Return what ``measuring.engines.engines`` found, kept and read while recent.

    Args:
        chapter: the ``Chapter`` that keeps it.
        batch_size: rows.
        rounds: how often each entrant is timed; on a CPU twice.
    """
    work = workload(chapter, batch_size)
    rounds = rounds if chapter.on_gpu else 2
    names = engines.entrants(batch_size)
    rungs = [entrant["rung"] for name, entrant in names.items() if name not in THEIRS]
    return chapter.shelf.recent_or(
        f"engines_b{batch_size}.json",
        rungs,
        lambda: engines.engines(work, rounds=rounds),
        json.dumps([asdict(work), list(names), _code()]),
    )


def agreement(chapter):
    """Return which share of its tokens each of transformers' ways chooses as ``generate``, in float32.

    A share is 0 to 1; a sentence is why it failed.
    """
    few = {"batch_size": 8, "prompt_tokens": 32, "new_tokens": 48} if chapter.on_gpu else {}
    work = chapter.single.but(**few)
    asked = json.dumps([asdict(work), _code()])
    return chapter.shelf.recent_or(
        "engines_tokens.json", (), lambda: engines.agreement(work), asked
    )["found"]


def _code():
    """The hash of the code of these measurements, which no rung's name stands for."""
    return fingerprint((), [inspect.getsource(engines)])


def as_share(found):
    """Return what ``agreement`` says of an entrant as words: a share, or "failed"."""
    return percent(found) if isinstance(found, float) else "failed"


def races(chapter, sizes=SIZES):
    """Return ``race`` for each batch size: batch size -> what it found; on a CPU for 1 and 2."""
    return {size: race(chapter, size) for size in (sizes if chapter.on_gpu else (1, 2))}


def sorted_by_time(found):
    """Return the ``results`` of a race, the slowest first, as ``drawing.batch_explorer`` takes them."""
    return dict(sorted(found["results"].items(), key=lambda item: -item[1].ms))


def best(found, theirs):
    """Return the name of the fastest entrant: of transformers' own if ``theirs``, else of the book's."""
    results = found["results"]
    return min(
        (name for name in results if (name in THEIRS) == theirs), key=lambda n: results[n].ms
    )


def said_of(names):
    """Return names by batch size as words: one for all, or each with its batch.

    Args:
        names: batch size -> a name.
    """
    if len(set(names.values())) == 1:
        return Words(f"{next(iter(names.values()))} every time")
    return Words("; ".join(f"{name} at batch {size}" for size, name in names.items()))


def rows_of(raced):
    """Return the race as rows of a table: an entrant, then its time at each batch size, with its range."""
    names = dict.fromkeys(name for found in raced.values() for name in found["results"])
    for found in raced.values():
        names |= dict.fromkeys(found["failed"])
    return [[name, *(_time(found, name) for found in raced.values())] for name in names]


def _time(found, name):
    if name in found["results"]:
        return spread_words(found["results"][name].spread)
    return "failed" if name in found["failed"] else "–"


def failures(raced):
    """Return why entrants could not race, as Markdown: a line each, nothing if all could."""
    said = {name: why for found in raced.values() for name, why in found["failed"].items()}
    return Markdown("\n\n".join(f"*{name}: {why}*" for name, why in said.items()))


class Plan(NamedTuple):
    """Requests in the rows of a batch.

    Attributes:
        held: a list of ``drawing.slots.Held``.
        rows: of the batch.
        steps: until the last request has finished.
    """

    held: list
    rows: int
    steps: int

    @property
    def wasted(self):
        """The share of the steps of all rows in which a row makes no token."""
        return 1 - sum(one.steps for one in self.held) / (self.rows * self.steps)


def in_batches(lengths, rows):
    """Return the ``Plan`` of requests that run ``rows`` at a time, each batch until its last row ends.

    Args:
        lengths: tokens that each request generates, in the order in which they came.
        rows: of a batch.
    """
    held, first = [], 0
    for at in range(0, len(lengths), rows):
        batch = lengths[at : at + rows]
        held += [Held(at + row, row, first, steps) for row, steps in enumerate(batch)]
        first += max(batch)
    return Plan(held, rows, first)


def continuously(lengths, rows):
    """Return the ``Plan`` in which a request takes a row's place in the step after it has come free.

    Args:
        lengths, rows: as for ``in_batches``. A prompt is read in no time.
    """
    waiting, free, held = deque(enumerate(lengths)), [0] * rows, []
    while waiting:
        request, steps = waiting.popleft()
        row = min(range(rows), key=free.__getitem__)
        held.append(Held(request, row, free[row], steps))
        free[row] += steps
    return Plan(held, rows, max(free))


def wrong_case(attempt):
    """Return a case in which a reader's count of continuous batching's steps is wrong, or None.

    Args:
        attempt: a function of lengths and rows that returns how many steps all requests need.

    Returns:
        A dict, ``lengths``, ``rows``, ``found`` and ``right``.
    """
    draw = random.Random(1)
    for _ in range(200):
        rows = draw.randint(1, 6)
        lengths = [draw.randint(1, 20) for _ in range(draw.randint(1, 20))]
        found, right = attempt(list(lengths), rows), continuously(lengths, rows).steps
        if found != right:
            return {"lengths": lengths, "rows": rows, "found": found, "right": right}
    return None


def wasted_share(rows, ends, limit):
    """Return which share of its steps a static batch wastes on the average, exactly.

    Each row ends in each step with the same probability, whatever the others do, and in the last step that
    is allowed at the latest.

    Args:
        rows: of the batch.
        ends: that probability, above 0 and at most 1.
        limit: new tokens at most.
    """
    going = [(1 - ends) ** step for step in range(limit)]  # a row is still open in this step
    mean, longest = sum(going), sum(1 - (1 - one) ** rows for one in going)
    return 1 - mean / longest


def may_cost(wasted):
    """Return how many times as long a step may take that wastes nothing, at the same throughput."""
    return 1 / (1 - wasted)


def step_ratio(found, ours="captured graph"):
    """Return how many times as long a token takes with continuous batching as with a loop of the book.

    The faster of the two continuous batchings counts; nan where none could race.
    """
    results = found["results"]
    times = [results[name].ms for name in (CONTINUOUS, GRAPHS) if name in results]
    return min(times) / results[ours].ms if times else nan


def vllm_beside(chapter, raced):
    """Return vLLM's times on the same workloads beside the race's, as Markdown; else why there are none.

    After a batch size at which it fails no other is tried: those before it are shown, and why it failed.
    It is measured where vLLM is installed, in a process of its own: the two are no race.

    Args:
        chapter: the ``Chapter`` that keeps it.
        raced: batch size -> what ``race`` found.
    """
    if not engines.has_vllm():
        return Markdown("*vLLM is not installed here.*")
    rows, failed = [], []
    for size, found in raced.items():
        try:
            timed = _vllm(chapter, size)
        except MeasurementError as error:
            failed.append(f"*Not measured: {error}*")
            break
        name = best(found, theirs=False)
        own = number(found["results"][name].ms)
        rows.append(f"| {size} | {spread_words(timed['per_token_ms'])} | {name}, {own} |")
    head = ["| batch | vLLM, ms per token | the book's fastest loop |", "| -: | -: | :- |"]
    shown = ["\n".join([*head, *rows])] if rows else []
    return Markdown("\n\n".join([*shown, *failed]))


def _vllm(chapter, batch_size):
    work = workload(chapter, batch_size)
    asked = json.dumps([asdict(work), _code()])
    return chapter.shelf.recent_or(
        f"vllm_b{batch_size}.json", (), lambda: engines.vllm(work), asked
    )
