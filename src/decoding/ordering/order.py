"""Operations as a partial order, and the pairs that it does not keep apart."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

HOST, GRAPH = "host", "the graph"


@dataclass(eq=False)
class Memory:
    """A piece of memory.

    Attributes:
        name: what the loop calls it, "" if it has no name.
        home: the lane in whose pool the allocator keeps it; ``HOST`` for the host's memory,
            ``GRAPH`` for a graph's own, which stays its own.
        pinned: whether it is page-locked memory of the host.
    """

    name: str = ""
    home: str = ""
    pinned: bool = False

    @property
    def on_host(self):
        """Whether it is the host's memory."""
        return self.home == HOST


class Use(NamedTuple):
    """Bytes ``begin`` to ``end`` of a memory; ``anew`` if the allocator may give them to another owner."""

    memory: Memory
    begin: int
    end: int
    anew: bool = False

    def overlaps(self, other):
        """Whether two uses of one memory share a byte."""
        return self.begin < other.end and other.begin < self.end


class Place(NamedTuple):
    """Where in the source an operation was asked for."""

    file: str
    line: int
    code: str


@dataclass(eq=False)
class Operation:
    """One operation of the host or of a stream.

    Attributes:
        number: its position in the order in which the host asked for them.
        lane: ``HOST``, or a stream's name.
        kind: "work", "inputs" and "replay" (of a graph), "copy", "record", "wait" (a stream waits), "host waits",
            "host reads", "host".
        place: a ``Place``.
        call: which call of the loop it belongs to, from 1.
        step: which step, from 0; None outside the loop.
        before: the operations that must be over before it begins, those that are known directly.
        reads, writes: lists of ``Use``.
    """

    number: int
    lane: str
    kind: str
    place: Place
    call: int
    step: int | None
    before: list = field(default_factory=list)
    reads: list = field(default_factory=list)
    writes: list = field(default_factory=list)


class Race(NamedTuple):
    """Two uses of one memory in no order; the host asked for ``first`` first, and means it so."""

    first: Operation
    second: Operation
    first_use: Use
    second_use: Use
    first_writes: bool
    second_writes: bool


class Order:
    """The operations of some calls of a loop, in the order in which the host asked for them.

    Attributes:
        operations: a list of ``Operation``.
        overwritten: reads that come too late even in that order: (who reads, the replay that made it, the
            replay that has overwritten it, the memory).
    """

    def __init__(self, operations, overwritten=()):
        self.operations, self.overwritten = operations, overwritten

    @property
    def lanes(self):
        """The names of the host and the streams, the host first."""
        return sorted({one.lane for one in self.operations}, key=lambda name: (name != HOST, name))

    @cached_property
    def _ancestors(self):
        """For each operation the set of those before it, as the bits of a number."""
        found = []
        for one in self.operations:
            bits = 0
            for earlier in one.before:
                bits |= found[earlier.number] | 1 << earlier.number
            found.append(bits)
        return found

    def precedes(self, first, second):
        """Whether ``first`` is over before ``second`` begins, in every interleaving."""
        return bool(self._ancestors[second.number] >> first.number & 1)

    def races(self):
        """Return every two conflicting uses that are in no order: a list of ``Race``."""
        uses, found = {}, {}
        for one in self.operations:
            for writes, mine in ((False, one.reads), (True, one.writes)):
                for use in mine:
                    for other, other_use, other_writes in uses.get(use.memory, ()):
                        if (
                            (writes or other_writes)
                            and other is not one
                            and use.overlaps(other_use)
                            and not self.precedes(other, one)
                        ):
                            pair = other, one, use.memory
                            race = Race(other, one, other_use, use, other_writes, writes)
                            if pair not in found or _weight(race) < _weight(found[pair]):
                                found[pair] = race
            for writes, mine in ((False, one.reads), (True, one.writes)):
                for use in mine:
                    uses.setdefault(use.memory, []).append((one, use, writes))
        return sorted(found.values(), key=_weight)

    def interleaving(self, race):
        """Return an interleaving, as far as needed, in which ``race.second`` comes before ``race.first``."""
        early = [one for one in self.operations if self.precedes(one, race.second)]
        late = [
            one
            for one in self.operations
            if self.precedes(one, race.first) and not self.precedes(one, race.second)
        ]
        return [*early, race.second, *late, race.first]

    def waits(self, call):
        """Return where the host waits in a call, and with nothing queued behind: two lists."""
        waits = [one for one in self.operations if one.kind == "host waits" and one.call == call]
        dry = []
        for wait in waits:
            queued = [
                one
                for one in self.operations[: wait.number]
                if one.call == call and one.lane != HOST
            ]
            if all(self.precedes(one, wait) for one in queued):
                dry.append(wait)
        return waits, dry


def _weight(race):
    """The order in which races are told: within the loop's steps first, reads too early, named memory."""
    first, second = race.first, race.second
    return (
        race.second_use.anew or race.first_use.anew,
        first.step is None or second.step is None or first.call != second.call,
        not race.second_use.memory.name,
        not race.first_writes or race.second_writes,
        second.number,
        -first.number,
    )
