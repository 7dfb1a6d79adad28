"""Timelines that no profiler stretched: host and GPU from what a race logged at every token.

Logged are the host's launches and waits, by its own clock, and the end of each step on the GPU, by
events in its stream. Derived are two things: when a step begins, and how the two clocks are shifted
against each other. All times are in µs.
"""

from statistics import median
from typing import NamedTuple

from decoding.measuring.timeline import HostRange, Timeline, Work

FIRST_TOKEN = 8  # the first that a race logs
TOKENS = 6  # of a window
SHORTEST = 5  # µs: shorter gaps are not shown as idle time
LAUNCH, WAIT = "decode_step", "stop_check"


class Way(NamedTuple):
    """How a loop asks whether to go on: what a page calls it, and how many steps late it asks.

    ``late`` is 0 for a check of the step that was just launched, None for a loop that never asks.
    """

    words: str
    late: int | None

    @property
    def asks(self):
        """What the host does, in words: "asks at once", "never asks"."""
        return f"asks {self.words}" if self.late is not None else f"{self.words} asks"


WAYS = {
    "check": Way("at once", 0),
    "two streams": Way("one step late", 1),
    "no check": Way("never", None),
}


class Window(NamedTuple):
    """Some tokens of a loop. Its clock starts when the GPU ends the step before the first of them.

    Attributes:
        way: the loop's ``Way``.
        timeline: a ``Timeline`` with one lane, "GPU"; a range of the check names the token whose
            flag it reads.
        idle: (start, end) of the times in which the GPU has no step to work on.
        total, typical: how long the tokens take, and as many of the race's median token.
        after: for each wait that the GPU ended: how long after the end of the step it ends.
    """

    way: Way
    timeline: Timeline
    idle: list
    total: float
    typical: float
    after: list

    @property
    def tokens(self):
        """The tokens of the window, ascending."""
        return [work.token for work in self.timeline.lanes["GPU"]]


def pauses(race):
    """Return what a step takes on the GPU beside its work: the pauses between its kernels.

    That is how much longer than its work the median token of a race's fastest loop is, in which the
    GPU hardly waits for the host.

    Args:
        race: loop -> ``Record``, one of the ``results`` of ``watch``.
    """
    found = [
        1000 * (record["tokens_ms"]["p50"] - record["busy_ms_per_token"])
        for record in race.values()
        if is_logged(record)
    ]
    return max(min(found), 0) if found else 0


def is_logged(record):
    """Return whether a race logged the loop token by token, with a GPU."""
    return not record.error and bool(record.get("raw")) and bool(record.get("G_us"))


def logged(record, way, pauses_us):
    """Return the ``Timeline`` of all tokens that a race logged of a loop, and its waits.

    A step begins when the one before is done, but no longer before its own end than its work and
    the pauses in it take. The clocks are set so that no wait ends before the step that it waits for,
    and where a loop never asks, so that its first step begins when it is launched: the host may be
    further ahead than that.

    Args:
        record: the loop's ``Record``.
        way: its ``Way``.
        pauses_us: what ``pauses`` returns of its race.

    Returns:
        The ``Timeline``, and of each wait that the GPU ended: its step's token -> how long after the
        step it ends.
    """
    raw, clock, host = record["raw"], 0.0, []
    for at, (launch, wait) in enumerate(zip(raw["launch_us"], raw["wait_us"], strict=True)):
        token, told = FIRST_TOKEN + at, clock + launch
        host.append(HostRange(LAUNCH, token, clock, told))
        clock = told + wait
        if way.late is not None:
            host.append(HostRange(WAIT, token - way.late, told, clock))
    ends, span = [0.0], record["G_us"] + pauses_us
    for took in raw["token_ms"][1:]:
        ends.append(ends[-1] + 1000 * took)
    checks = [one for one in host if one.name == WAIT and one.token >= FIRST_TOKEN]
    shift = (
        min(check.end_us - ends[check.token - FIRST_TOKEN] for check in checks)
        if checks
        else host[0].end_us + span
    )
    ends = [end + shift for end in ends]
    begins = [ends[0] - span]
    begins += [max(end - span, before) for before, end in zip(ends, ends[1:])]
    works = [
        Work("step", "kernel", FIRST_TOKEN + at, *times)
        for at, times in enumerate(zip(begins, ends, strict=True))
    ]
    waited = [(check, ends[check.token - FIRST_TOKEN]) for check in checks]
    after = {one.token: one.end_us - end for one, end in waited if end > one.start_us}
    return Timeline(host=host, lanes={"GPU": works}), after


def typical(record, way, pauses_us, tokens=TOKENS):
    """Return the ``Window`` of tokens in a row whose time is nearest to the race's median token.

    Args:
        record, way, pauses_us: as for ``logged``.
        tokens: how many.
    """
    timeline, after = logged(record, way, pauses_us)
    works, known = timeline.lanes["GPU"], timeline.host[-1].end_us
    wanted = tokens * 1000 * record["tokens_ms"]["p50"]
    firsts = [
        first
        for first in range(1, len(works) - tokens + 1)
        if works[first + tokens - 1].end_us <= known
    ]
    first = min(
        firsts,
        key=lambda at: abs(works[at + tokens - 1].end_us - works[at - 1].end_us - wanted),
    )
    start, end = works[first - 1].end_us, works[first + tokens - 1].end_us
    shown = works[first : first + tokens]
    edges = [start, *(edge for work in shown for edge in (work.start_us, work.end_us))]
    idle = [(a - start, b - start) for a, b in zip(edges[::2], edges[1::2]) if b - a >= SHORTEST]
    cut = Timeline(
        host=[moved for one in timeline.host if (moved := _cut(one, start, end))],
        lanes={"GPU": [_cut(work, start, end) for work in shown]},
        window=(0.0, end - start),
    )
    late = [after[work.token] for work in shown if work.token in after]
    return Window(way, cut, idle, end - start, wanted, late)


def windows(race, ways=None):
    """Return the typical ``Window`` of each loop of a race that it logged: label -> ``Window``.

    Args:
        race: loop -> ``Record``, one of the ``results`` of ``watch``.
        ways: loop -> ``Way``, in the order in which a page shows them; by default ``WAYS``.
    """
    pauses_us = pauses(race)
    return {
        label: typical(race[label], way, pauses_us)
        for label, way in (ways or WAYS).items()
        if label in race and is_logged(race[label])
    }


def method(races, found):
    """Return the sentences that say of a picture what was logged in it and what is derived.

    Args:
        races: batch size -> loop -> ``Record``.
        found: batch size -> what ``windows`` returns of it.
    """
    steps, late = [], []
    for batch, shown in found.items():
        work = median(races[batch][label]["G_us"] for label in shown)
        steps.append(f"{work + pauses(races[batch]):,.0f} µs at batch {batch}")
        late += [us for window in shown.values() for us in window.after]
    shifted = ""
    if late:
        shifted = (
            ", and how the host's clock and the GPU's are shifted: a wait ends "
            f"{median(late):.0f} µs (median; at most {max(late):.0f}) after the step that it waits for"
        )
    tokens = len(next(iter(next(iter(found.values())).values())).tokens)
    return (
        "No profiler looked on: each launch, each wait and the end of each step on the GPU were "
        "logged; derived is the begin of a step, which takes its work and the pauses between its "
        f"kernels ({', '.join(steps)}){shifted}. Shown are {tokens} tokens in a row whose time is "
        "nearest to the median token's, all of one round. A mean over all rounds has the slow tokens, too."
    )


def _cut(item, start, end):
    """A range or a step with its times in a window; None if it lies outside."""
    a, b = max(item.start_us, start) - start, min(item.end_us, end) - start
    return type(item)(**vars(item) | {"start_us": a, "end_us": b}) if b > a else None
