"""What was found about a loop's order, in words and as rows of a table."""

from decimal import Decimal
from typing import NamedTuple

from .order import HOST

LONGEST = 12  # rows of a counterexample
EARLY, LATE = "too early", "too late"


class Row(NamedTuple):
    """An operation in a counterexample.

    Attributes:
        lane: ``"host"`` or a stream's name.
        call: which call of the loop, from 1.
        step: from 0, or None outside the loop.
        line: the line of the source, 0 for what the caller does.
        code: what stands there.
        does: what the operation does, in a few words.
        mark: "too early" and "too late" for the two that are in no order, else "".
    """

    lane: str
    call: int
    step: int | None
    line: int
    code: str
    does: str
    mark: str


class Fault(NamedTuple):
    """Something wrong with a loop.

    Attributes:
        words: what, in one sentence.
        rows: an interleaving in which it happens, a list of ``Row``; empty if it happens in every one.
        edges: which rows are in order: pairs of positions in ``rows``.
    """

    words: str
    rows: list
    edges: list


def fault_of(order, race):
    """Return a ``Race`` of an ``Order`` as a ``Fault``."""
    shown = _shown(order.interleaving(race), race)
    rows = [_row(one, race) for one in shown]
    direct = [
        (shown.index(other), at)
        for at, one in enumerate(shown)
        for other in one.before
        if other in shown
    ]
    return Fault(_sentence(race), rows, direct)


def overwritten_fault(order, reader, made_by, newest, memory):
    """Return the ``Fault`` of reading an output of a graph that a later replay has overwritten.

    Args:
        order: the ``Order`` that has it.
        reader, made_by, newest, memory: one of its ``overwritten``.
    """
    words = (
        f"{_capital(reader.lane)} reads {memory.name} ({_where(reader)}) as it was in step {made_by.step}, but the replay of step "
        f"{newest.step} has overwritten it. That is so in every order: it needed a copy."
    )
    rows = [
        _row(made_by, does=f"the replay writes {memory.name}"),
        _row(newest, does="the next one overwrites it", mark=EARLY),
        _row(reader, does=f"reads {memory.name} of step {made_by.step}", mark=LATE),
    ]
    return Fault(words, rows, [(0, 1), (1, 2)])


def _sentence(race):
    first, second, memory = race.first, race.second, race.first_use.memory
    name = memory.name or "what is left without a name"
    here, there = _who(second.lane), _who(first.lane)
    if race.second_use.anew:
        return (
            f"{_capital(here)} may get the memory of {name} for something else ({_where(second)}) while {there} still uses it "
            f"({_where(first)})."
        )
    if HOST in (first.lane, second.lane):
        use = {True: "writes", False: "reads"}
        return (
            f"{_capital(here)} {use[race.second_writes]} {name} ({_where(second)}) and {there} {use[race.first_writes]} it "
            f"({_where(first)}), in no order: either may come first."
        )
    does, done = {
        (True, False): ("reads", "has written"),
        (False, True): ("writes", "has read"),
        (True, True): ("writes", "has written"),
    }[race.first_writes, race.second_writes]
    return f"{_capital(here)} {does} {name} ({_where(second)}) before {there} {done} it ({_where(first)})."


def _who(lane):
    return "the host" if lane == HOST else lane


def _capital(words):
    return words[0].upper() + words[1:]


def _where(one):
    if not one.place.line:
        return one.place.code
    step = "" if one.step is None else f", step {one.step}"
    file = "" if one.place.file != "prepared.py" else "prepared.py, "
    return f"{file}line {one.place.line}{step}" + (f" of call {one.call}" if one.call > 1 else "")


def _shown(interleaving, race):
    """The operations of an interleaving that tell the story."""
    pair = race.first, race.second
    since = min((one.call, -1 if one.step is None else one.step) for one in pair)
    near = [
        one
        for one in interleaving
        if one in pair or (one.call, -1 if one.step is None else one.step) >= since
    ]
    at = near.index(race.second)
    return [*near[max(at - LONGEST + 3, 0) : at], *near[at:][-3:]] if at > LONGEST else near


def _row(one, race=None, does=None, mark=""):
    if race and one is race.second:
        does, mark = _does(one, race.second_use, race.second_writes), EARLY
    elif race and one is race.first:
        does, mark = _does(one, race.first_use, race.first_writes), LATE
    return Row(
        one.lane, one.call, one.step, one.place.line, one.place.code, does or _does(one), mark
    )


def _does(one, use=None, writes=False):
    if use is not None:
        name = use.memory.name or "memory without a name"
        if use.anew:
            return f"may get the memory of {name}"
        return f"{'writes' if writes else 'reads'} {name}"
    if one.kind in ("wait", "host waits"):
        behind = [other for other in one.before if other.lane != one.lane and other.lane != HOST]
        return f"waits for {behind[-1].lane}, {_where(behind[-1])}" if behind else "waits"
    if one.kind in ("copy", "host reads"):
        names = [use.memory.name for use in (*one.reads, *one.writes) if use.memory.name]
        return f"copies {' to '.join(names)}" if one.kind == "copy" else f"reads {', '.join(names)}"
    code = one.place.code.split("  #")[0]
    code = code if len(code) <= 40 else code[:39] + "…"
    return {
        "record": "records an event",
        "inputs": "takes the inputs of the graph",
        "replay": "replays the graph",
    }.get(one.kind, code)


def many(number):
    """Return a count in words: whole up to a million, then as a power of ten."""
    if number < 1_000_000:
        return f"{number:,}"
    digits, power = f"{Decimal(number):.1e}".split("e+")
    raised = power.translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"


def counted(number, noun):
    """Return a number of things: 1 step, 2 steps."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
