"""Every interleaving of a partial order, run through one operation at a time.

It knows nothing of races: it remembers who wrote each piece of memory last, and asks of every
operation whether it reads what it reads in the order in which the host asked. If that is so for every
operation of every interleaving, each of them gives the same result.
"""

from functools import lru_cache
from typing import NamedTuple


class Explored(NamedTuple):
    """What came of it.

    Attributes:
        interleavings: how many were run to their end and are right.
        states: how many different states were passed.
        wrong: an interleaving, as far as the first operation that reads something else; None if
            there is none. The search ends with it.
        complete: whether nothing was left out.
    """

    interleavings: int
    states: int
    wrong: list | None
    complete: bool


def explore(order, most_states=200_000):
    """Run every interleaving of ``order``; many share their states, and no state is run twice.

    Args:
        order: an ``Order``.
        most_states: give up after so many.

    Returns:
        What was ``Explored``.
    """
    operations = order.operations
    lanes = [[one for one in operations if one.lane == lane] for lane in order.lanes]
    reads, writes, cells = _cells(order)
    before = [{other.number for other in one.before} for one in operations]
    where = {one.number: (at, row) for at, lane in enumerate(lanes) for row, one in enumerate(lane)}
    expected, last = [], [None] * cells
    for one in operations:
        expected.append([last[cell] for cell in reads[one.number]])
        for cell in writes[one.number]:
            last[cell] = one.number
    begin = (0,) * len(lanes), (None,) * cells
    level, parents, states = {begin: 1}, {}, 1
    for _ in operations:
        following = {}
        for state, ways in level.items():
            done, memory = state
            for at, lane in enumerate(lanes):
                if done[at] == len(lane):
                    continue
                number = lane[done[at]].number
                if any(done[where[each][0]] <= where[each][1] for each in before[number]):
                    continue
                now = [memory[cell] for cell in reads[number]]
                after = list(memory)
                for cell in writes[number]:
                    after[cell] = number
                reached = (*done[:at], done[at] + 1, *done[at + 1 :]), tuple(after)
                if reached not in following:
                    parents[reached] = state, number
                    states += 1
                following[reached] = following.get(reached, 0) + ways
                if now != expected[number]:
                    return Explored(0, states, _path(reached, parents, operations), True)
        level = following
        if states > most_states:
            return Explored(0, states, None, False)
    for state in level:
        if list(state[1]) != last:
            return Explored(0, states, _path(state, parents, operations), True)
    return Explored(sum(level.values()), states, None, True)


def enumerate_all(order):
    """Yield every interleaving, as a list of operations: for orders that have few."""
    operations = order.operations

    def go(done, path):
        if len(path) == len(operations):
            yield list(path)
            return
        for lane in order.lanes:
            rest = (one for one in operations if one.lane == lane and one.number not in done)
            one = next(rest, None)
            if one is not None and all(other.number in done for other in one.before):
                path.append(one)
                yield from go(done | {one.number}, path)
                path.pop()

    yield from go(frozenset(), [])


def reads_the_same(order, interleaving):
    """Return whether each operation of an interleaving reads what it reads in the order of the host."""
    reads, writes, cells = _cells(order)

    def seen(sequence):
        last, found = [None] * cells, {}
        for one in sequence:
            found[one.number] = [last[cell] for cell in reads[one.number]]
            for cell in writes[one.number]:
                last[cell] = one.number
        return found, last

    return seen(interleaving) == seen(order.operations)


@lru_cache(maxsize=4)
def _cells(order):
    """Cut the memories where uses begin and end; return each operation's reads and writes as cells."""
    operations = order.operations
    cuts, users = {}, {}
    for one in operations:
        for use in (*one.reads, *one.writes):
            cuts.setdefault(use.memory, set()).update((use.begin, use.end))
            users.setdefault(use.memory, set()).add(one.number)
    numbers = {}
    for memory, points in cuts.items():
        if len(users[memory]) > 1:  # nobody else sees what a single operation uses
            points = sorted(points)
            for begin, end in zip(points, points[1:]):
                numbers[memory, begin, end] = len(numbers)
    by_memory = {}
    for (memory, begin, end), number in numbers.items():
        by_memory.setdefault(memory, []).append((begin, end, number))

    def of(uses):
        return sorted(
            {
                number
                for use in uses
                for begin, end, number in by_memory.get(use.memory, ())
                if use.begin < end and begin < use.end
            }
        )

    return (
        [of(one.reads) for one in operations],
        [of(one.writes) for one in operations],
        len(numbers),
    )


def _path(state, parents, operations):
    path = []
    while state in parents:
        state, number = parents[state]
        path.append(operations[number])
    return path[::-1]
