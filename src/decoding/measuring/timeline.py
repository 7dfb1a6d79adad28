"""Timelines: what the host and the GPU's streams did, and when the GPU was idle.

All times are in microseconds from the start of the trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostRange:
    """A named range of the host thread; ``prefill`` makes token 0, ``decode_step n`` token n."""

    name: str  # "prefill" | "decode_step" | "stop_check"
    token: int | None
    start_us: float
    end_us: float


@dataclass(frozen=True)
class Launch:
    """A call into CUDA. ``blocking``: the host stands still in it until the GPU gets there."""

    name: str
    token: int | None
    start_us: float
    end_us: float
    blocking: bool = False
    count: int = 1


@dataclass(frozen=True)
class Work:
    """A kernel, copy or memset on a stream; ``count`` of them when a slice has joined a run."""

    name: str
    kind: str  # "kernel" | "copy" | "memset"
    token: int | None
    start_us: float
    end_us: float
    count: int = 1


@dataclass
class Timeline:
    """What the host and each CUDA stream did. ``window`` and ``idle`` are set by ``slice``."""

    host: list[HostRange] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    lanes: dict[str, list[Work]] = field(default_factory=dict)
    window: tuple[float, float] | None = None
    idle: float | None = None  # idle share of the window, from before short gaps were closed

    @property
    def tokens(self) -> list[int]:
        """The token indices that have a range, ascending."""
        return sorted({r.token for r in self.host if r.token is not None})

    @property
    def extent(self) -> tuple[float, float]:
        """First start and last end of anything recorded; (0, 0) when nothing was."""
        if self.window:
            return self.window
        everything = [
            *self.host,
            *self.launches,
            *(w for lane in self.lanes.values() for w in lane),
        ]
        return (
            min((item.start_us for item in everything), default=0.0),
            max((item.end_us for item in everything), default=0.0),
        )

    def slice(self, first_token: int, last_token: int, merge_us: float = 1.0) -> Timeline:
        """A few tokens, small enough for a record; its clock starts at 0 with ``first_token``.

        Work of one stream and token is joined to runs where less than ``merge_us`` lies between,
        and launches where less than 1/1000 of the window does (a pixel of the picture). The exact
        idle share of the window is kept in ``idle``.
        """
        start, end = window_of_tokens(self, first_token, last_token)

        def cut(items):
            shifted = (
                _moved(item, -start)
                for item in items
                if start < item.end_us and item.start_us < end or start == item.start_us
            )
            return sorted(shifted, key=lambda item: (item.start_us, -item.end_us))

        return Timeline(
            host=cut(self.host),
            launches=_joined(cut(self.launches), (end - start) / 1000),
            lanes={name: _joined(cut(lane), merge_us) for name, lane in self.lanes.items()},
            window=(0.0, round(end - start, 3)),
            idle=idle_share(self, (start, end)),
        )

    def to_dict(self) -> dict:
        """A compact JSON-able form: lists of rows, names in one table."""
        names: dict[str, int] = {}

        def name(text: str) -> int:
            return names.setdefault(text, len(names))

        def times(item):
            return round(item.start_us, 3), round(item.end_us, 3)

        rows = {
            "host": [[name(r.name), r.token, *times(r)] for r in self.host],
            "launches": [
                [name(c.name), c.token, *times(c), int(c.blocking), c.count] for c in self.launches
            ],
            "lanes": {
                lane: [[name(w.name), name(w.kind), w.token, *times(w), w.count] for w in works]
                for lane, works in self.lanes.items()
            },
        }
        window = list(self.window) if self.window else None
        return rows | {"names": list(names), "window": window, "idle": self.idle}

    @classmethod
    def from_dict(cls, stored: dict) -> Timeline:
        """The timeline that ``to_dict`` stored."""
        names = stored["names"]
        return cls(
            host=[HostRange(names[n], *rest) for n, *rest in stored["host"]],
            launches=[
                Launch(names[n], token, start, end, bool(blocking), count)
                for n, token, start, end, blocking, count in stored["launches"]
            ],
            lanes={
                lane: [Work(names[n], names[kind], *rest) for n, kind, *rest in works]
                for lane, works in stored["lanes"].items()
            },
            window=tuple(stored["window"]) if stored["window"] else None,
            idle=stored["idle"],
        )


def union(intervals) -> list[tuple[float, float]]:
    """Merge (start, end) intervals, in any order, that overlap or touch; empty ones vanish."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if end < start:
            raise ValueError(f"interval ({start}, {end}) ends before it starts.")
        if end == start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def busy_us(intervals, window: tuple[float, float] | None = None) -> float:
    """Length of the union of ``intervals``, inside ``window`` when one is given."""
    return sum(end - start for start, end in _clip(union(intervals), window))


def device_intervals(timeline: Timeline) -> list[tuple[float, float]]:
    """(start, end) of everything the GPU did, on all streams."""
    return [(w.start_us, w.end_us) for lane in timeline.lanes.values() for w in lane]


def gaps(
    timeline: Timeline, window: tuple[float, float] | None = None, min_us: float = 0.0
) -> list[tuple[float, float]]:
    """Return the times in which no stream has work, as (start, end) in µs, in order.

    Only those of at least ``min_us`` count. ``window`` is the whole timeline unless given; idle
    time at its two ends counts.
    """
    start, end = window or timeline.extent
    busy = _clip(union(device_intervals(timeline)), (start, end))
    edges = [start, *(edge for interval in busy for edge in interval), end]
    idle = zip(edges[::2], edges[1::2], strict=True)
    return [(a, b) for a, b in idle if b > a and b - a >= min_us]


def idle_share(timeline: Timeline, window: tuple[float, float] | None = None) -> float:
    """Share of ``window`` (default: the whole timeline) in which no stream has work, 0 to 1.

    For a slice this is the exact share of its window, kept from before short gaps were closed.
    Raises ValueError where nothing was recorded of the GPU.
    """
    if not timeline.lanes and not timeline.launches:
        raise ValueError(
            "this trace has neither GPU work nor calls into CUDA, so it says nothing about idle "
            "time; record it on a GPU with ProfilerActivity.CUDA."
        )
    if timeline.idle is not None and window in (None, timeline.window):
        return timeline.idle
    start, end = window or timeline.extent
    return 1 - busy_us(device_intervals(timeline), (start, end)) / (end - start)


def window_of_tokens(timeline: Timeline, first: int, last: int) -> tuple[float, float]:
    """From the start of token ``first`` on the host to the start of token ``last + 1``.

    Where ``last`` is the final token, the window ends with its last range or its last work,
    whichever is later. Raises ValueError for a token that has no range.
    """
    starts = token_starts(timeline)
    for token in (first, last):
        if token not in starts:
            known = f"{min(starts)} to {max(starts)}" if starts else "none"
            raise ValueError(f"token {token} has no range in this trace; tokens there: {known}.")
    if last < first:
        raise ValueError(f"the last token ({last}) comes before the first ({first}).")
    if last + 1 in starts:
        return starts[first], starts[last + 1]
    of_last = [r.end_us for r in timeline.host if r.token == last]
    of_last += [w.end_us for lane in timeline.lanes.values() for w in lane if w.token == last]
    return starts[first], max(of_last)


def token_starts(timeline: Timeline) -> dict[int, float]:
    """When the host begins each token, in µs: token -> start of its first range."""
    starts: dict[int, float] = {}
    for r in timeline.host:
        if r.token is not None and r.name != "stop_check":
            starts[r.token] = min(r.start_us, starts.get(r.token, r.start_us))
    return starts


def _clip(merged, window):
    if window is None:
        return merged
    low, high = window
    return [(max(a, low), min(b, high)) for a, b in merged if b > low and a < high]


def _moved(item, by_us: float):
    fields = vars(item) | {
        "start_us": round(item.start_us + by_us, 3),
        "end_us": round(item.end_us + by_us, 3),
    }
    return type(item)(**fields)


def _joined(items: list, closer_us: float) -> list:
    """Join neighbours of one kind and token with less than ``closer_us`` between them."""
    out: list = []
    for item in items:
        last = out[-1] if out else None
        if (
            last is not None
            and item.start_us - last.end_us < closer_us
            and item.token == last.token
            and getattr(item, "kind", None) == getattr(last, "kind", None)
            and not getattr(item, "blocking", False)
            and not getattr(last, "blocking", False)
        ):
            out[-1] = type(last)(
                **vars(last)
                | {
                    "name": f"{getattr(item, 'kind', 'launch')} run",
                    "end_us": max(last.end_us, item.end_us),
                    "count": last.count + item.count,
                }
            )
        else:
            out.append(type(item)(**vars(item) | {"name": item.name[:40]}))
    return out


SCHEDULES = ("check every token", "no check", "two streams")


def schedule(
    pattern: str,
    tokens: int = 5,
    launch: float = 1.0,
    work: float = 1.6,
    copy: float = 0.35,
    read: float = 0.15,
) -> tuple[Timeline, list[tuple[str, float, str, float, str]]]:
    """The schedule of an idealized loop, in units of time that mean nothing.

    ``launch``: host time to launch a step; ``work``: GPU time of a step; ``copy``: time for a
    step's flag to reach the host; ``read``: host time to look at it. A step's work begins when it
    is launched and the step before is done. With two streams the host launches a step before it
    reads the flag of the one before.

    Returns the timeline and the arrows ``(from lane, time, to lane, time, kind)``; ``kind`` is
    "wait" (a stream waits for the other) or "flag" (the flag's copy to the host).
    """
    if pattern not in SCHEDULES:
        raise ValueError(f"pattern {pattern!r} is unknown; choose from {', '.join(SCHEDULES)}.")
    lanes = ["stream A", "stream B"] if pattern == "two streams" else ["stream A"]
    timeline, arrows = Timeline(lanes={lane: [] for lane in lanes}), []
    clock, done = 0.0, {}
    for n in range(1, tokens + 1):
        lane, previous = lanes[n % len(lanes) - 1], lanes[(n - 1) % len(lanes) - 1]
        timeline.host.append(HostRange("decode_step", n, clock, clock + launch))
        clock += launch
        begin = max(clock, done.get(n - 1, 0.0))
        done[n] = begin + work
        timeline.lanes[lane].append(Work(f"step {n}", "kernel", n, begin, done[n]))
        if lane != previous and n > 1:
            arrows.append((previous, done[n - 1], lane, begin, "wait"))
        looked_at = n if pattern == "check every token" else n - 1
        if pattern != "no check" and looked_at in done:
            arrival = done[looked_at] + copy
            end = max(arrival, clock) + read
            timeline.host.append(HostRange("stop_check", looked_at, clock, end))
            if arrival > clock:
                timeline.launches.append(Launch("wait", n, clock, arrival, blocking=True))
            origin = lanes[looked_at % len(lanes) - 1]
            arrows.append((origin, done[looked_at], "host", max(arrival, clock), "flag"))
            clock = end
    return timeline, arrows
