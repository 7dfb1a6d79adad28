"""Along a recorded run of the allocator: its requests continued, and where it breaks.

The segments are those of ``CachingAllocator``, the model; the requests are the recorded ones, and
beyond the recording the same ones as they grow from step to step.
"""

from typing import NamedTuple

from decoding.allocator import MIB, SMALL_SIZE, CachingAllocator, OutOfMemoryError, replay
from decoding.drawing.allocator_words import told_of
from decoding.drawing.scrubber import Run, Side, Stage

SETTINGS = {"default": False, "expandable": True}


class Requests(NamedTuple):
    """What ``replay`` takes: events, a mark for each step, and how many of the steps were recorded."""

    events: list
    marks: list
    recorded: int


def continued(recording, new_tokens):
    """Return the requests of a recording, continued as they grew in its last two steps.

    Step by step a decoding loop asks for the same things in the same order. A request that grew by
    so many bytes from one step to the next grows by as many again.

    Args:
        recording: as ``Chapter.allocations`` returns it, of three tokens or more.
        new_tokens: how many to reach.

    Returns:
        ``Requests``. A recording that is longer is cut.

    Raises:
        ValueError: the last two steps do not ask for the same things in the same order.
    """
    marks = list(recording["marks"][:new_tokens])
    events = list(recording["events"][: marks[-1]])
    recorded, period = len(marks), marks[-1] - marks[-2]
    if recorded < new_tokens:
        last, before = events[-period:], events[-2 * period : -period]
        if [bool(e[1]) for e in last] != [bool(e[1]) for e in before]:
            raise ValueError("The last two steps of the recording ask for different things.")
    born = {event[0]: at for at, event in enumerate(events) if event[1]}
    key = 1 + max(born)
    while len(marks) < new_tokens:
        for at in range(marks[-1], marks[-1] + period):
            old, size, *stream = events[at - period]
            if size:
                born[key] = at
                events.append((key, 2 * size - events[at - 2 * period][1], *stream))
                key += 1
            else:
                events.append((events[born[old] + period][0], 0, *stream))
        marks.append(marks[-1] + period)
    return Requests(events, marks, recorded)


def breaking_room(requests, step=4, tries=20):
    """Return the most memory in which the default allocator fails a run at a large request, in MiB.

    It is looked for below what expandable segments reserve without a limit.

    Args:
        requests: ``Requests``.
        step: MiB from one try to the next.
        tries: how many at most.

    Returns:
        The room, or that of the last try if the run never fails.
    """
    room = replay(requests.events, requests.marks, expandable=True)["peak_reserved_mib"]
    for _ in range(tries):
        room -= step
        found = _walk(requests, room, expandable=False)
        if found.failed is not None and found.breaks[found.failed].asked > SMALL_SIZE / MIB:
            break
    return room


def room_of(record, recording, requests):
    """Return how much memory a card leaves to the requests of a run, in MiB.

    That is the most that the run has reserved there, less what the process had reserved before and no
    request of the run uses.

    Args:
        record: of the rung, on that card.
        recording: as ``Chapter.allocations`` returns it.
        requests: ``Requests`` of the recording.

    Returns:
        MiB; None where the run never came to the end of the card, or was not measured.
    """
    if not record.get("memory") or not record["memory"].get("alloc_retries"):
        return None
    first = replay(requests.events, requests.marks[:1])["reserved_mib"][0]
    return record.reserved_mib - (recording["reserved_mib"][0] - first)


def scrubbed(requests, label, room_mib=None, every=8, measured=()):
    """Return what both settings hold along a run, for ``drawing.scrubber``.

    Args:
        requests: ``Requests``.
        label: names the run: on which card.
        room_mib: the memory that the allocator may reserve; None for no limit.
        every: a stage each so many steps; more where an allocator breaks.
        measured: the records of two processes that ran it, by default and expandable: what they held
            is drawn beside it, where it was measured.

    Returns:
        A ``Run``.
    """
    told = {name: _walk(requests, room_mib, setting) for name, setting in SETTINGS.items()}
    wanted = set(range(0, len(requests.marks), every)) | {len(requests.marks) - 1}
    breaks = told["default"].breaks.keys()
    wanted |= {*breaks} | _outgrown(told["default"].reserved)
    seen = {name: _walk(requests, room_mib, setting, wanted) for name, setting in SETTINGS.items()}
    stages, since = [], -1
    for step in sorted(wanted):
        for moment in ("break", "end") if step in breaks else ("end",):
            sides = {name: _side(found, step, moment) for name, found in seen.items()}
            broken = moment == "break"
            words = [told_of(name, found, step, since, broken) for name, found in seen.items()]
            said = " ".join(filter(None, words))
            stages.append(Stage(step, broken, *sides.values(), said))
        since = step
    curves = tuple(found.reserved for found in told.values())
    kept = [(record.get("memory") or {}).get("reserved_mib") for record in measured]
    kept = tuple(kept) if all(kept) else ()
    return Run(
        label,
        room_mib,
        requests.recorded,
        curves,
        tuple(stages),
        kept,
        told["default"].failed is not None,
    )


class _Found(NamedTuple):
    """What a walk through the requests finds; by step where nothing else is said."""

    reserved: list  # MiB after each step, as far as it comes
    taken: list  # (step, MiB asked, MiB free), one for each time that large memory was taken
    breaks: dict  # step -> its first _Break
    ends: dict  # step -> Side after it
    failed: int | None  # the step at which memory ran out


class _Break(NamedTuple):
    asked: float
    free: float
    largest: float
    before: Side
    given: float  # MiB that went back
    segments: int  # and in how many segments
    fatal: bool


class _Watched(CachingAllocator):
    """A ``CachingAllocator`` that keeps what it held before it gave back the cache, and what went."""

    emptied = None

    def empty_cache(self):
        layout, reserved = self.layout(), self.reserved
        super().empty_cache()
        given = (reserved - self.reserved) / MIB, len(layout) - len(self.layout())
        self.emptied = layout, reserved, self.allocated, given


def _walk(requests, room_mib, expandable, wanted=()):
    allocator, address = _Watched(room_mib, expandable), {}
    found = _Found([], [], {}, {}, None)
    done = 0
    for step, mark in enumerate(requests.marks):
        for key, size, *stream in requests.events[done:mark]:
            if not size:
                allocator.free(address.pop(key))
                continue
            held, free = allocator.reserved, allocator.reserved - allocator.allocated
            allocator.emptied = None
            try:
                address[key] = allocator.malloc(size, *stream)
            except OutOfMemoryError:
                found.breaks[step] = _break(allocator, size, fatal=True)
                return found._replace(failed=step)
            if allocator.emptied:
                found.breaks.setdefault(step, _break(allocator, size, fatal=False))
            elif allocator.reserved > held and size > SMALL_SIZE:
                found.taken.append((step, size / MIB, free / MIB))
        done = mark
        found.reserved.append(allocator.reserved / MIB)
        if step in wanted:
            found.ends[step] = _held(allocator.layout(), allocator.reserved, allocator.allocated)
    return found


def _held(layout, reserved, allocated):
    return Side(layout, reserved / MIB, allocated / MIB)


def _break(allocator, size, fatal):
    layout, reserved, allocated, given = allocator.emptied
    blocks = [block for segment in layout for block in segment["blocks"]]
    free = [block["mib"] for block in blocks if block["state"] != "active"]
    before = _held(layout, reserved, allocated)
    return _Break(size / MIB, sum(free), max(free, default=0), before, *given, fatal)


def _side(found, step, moment):
    if found.failed is not None and step >= found.failed:
        return found.breaks[found.failed].before
    if moment == "break" and step in found.breaks:
        return found.breaks[step].before
    return found.ends[step]


def _outgrown(reserved):
    """The step at which a run begins to reserve more than the first two steps did."""
    return {next((step for step, now in enumerate(reserved) if now > 1.02 * max(reserved[:2])), 0)}
