"""From a profiler trace of a decoding loop to host and stream lanes, idle gaps and a picture.

The trace is the Chrome-format JSON that ``torch.profiler`` writes (``export_chrome_trace``) when
it records CPU and CUDA activities. All times are in microseconds from the start of the trace.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

RANGE_NAME = re.compile(r"(prefill|decode_step|stop_check)(?: (\d+))?")
DEVICE_WORK = {"kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "memset"}
CALLS = ("cuda_runtime", "cuda_driver")
BLOCKING_CALL = re.compile(r"Synchronize|^cudaMemcpy$|^cuMemcpy(DtoH|HtoD)(_v2)?$")


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


def read_trace(trace: dict | list | str | Path) -> Timeline:
    """Read a Chrome-format trace: a dict, its list of events, or the path of a .json or .json.gz.

    The host thread is the one that holds the ranges (with several, the one that launches most);
    ``launches`` are its calls into CUDA. Work belongs to the token in whose range it was launched,
    found by its correlation id; work launched outside of every range has token None.
    """
    if isinstance(trace, str | Path):
        opener = gzip.open if str(trace).endswith(".gz") else open
        with opener(trace, "rt", encoding="utf-8") as file:
            trace = json.load(file)
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    events = [event for event in events if event.get("ph") == "X"]
    calls = [event for event in events if event.get("cat") in CALLS]
    work = [event for event in events if event.get("cat") in DEVICE_WORK]
    ranges = [
        event
        for event in events
        if event.get("cat") == "user_annotation" and RANGE_NAME.fullmatch(event["name"])
    ]
    origin = min((float(event["ts"]) for event in [*calls, *work, *ranges]), default=0.0)

    def times(event) -> tuple[float, float]:
        start = float(event["ts"]) - origin
        return round(start, 3), round(start + float(event.get("dur", 0)), 3)

    def thread(event):
        return event.get("pid"), event.get("tid")

    calls_on = Counter(map(thread, calls))
    ranges_on = Counter(map(thread, ranges))
    host = max(ranges_on, key=lambda t: (calls_on[t], ranges_on[t]), default=None)
    launcher = host if calls_on[host] else max(calls_on, key=calls_on.get, default=None)

    host_ranges = []
    for event in ranges:
        if thread(event) == host:
            name, number = RANGE_NAME.fullmatch(event["name"]).groups()
            token = int(number) if number else 0 if name == "prefill" else None
            host_ranges.append(HostRange(name, token, *times(event)))
    host_ranges.sort(key=lambda r: (r.start_us, -r.end_us))

    token_of_call = _tokens_at(host_ranges, [times(event)[0] for event in calls])
    token_of_id = {
        event["args"]["correlation"]: token
        for event, token in zip(calls, token_of_call, strict=True)
        if "correlation" in event.get("args", {})
    }
    # A copy to pageable memory returns only when it is done, whatever its name says.
    # (CUDA Runtime API, "API synchronization behavior")
    pageable = {
        event.get("args", {}).get("correlation")
        for event in work
        if event["cat"] == "gpu_memcpy" and "DtoH" in event["name"] and "Pageable" in event["name"]
    }
    launches = [
        Launch(
            event["name"],
            token,
            *times(event),
            blocking=bool(BLOCKING_CALL.search(event["name"]))
            or event.get("args", {}).get("correlation", -1) in pageable,
        )
        for event, token in zip(calls, token_of_call, strict=True)
        if thread(event) == launcher
    ]
    devices = {event.get("args", {}).get("device", event.get("pid")) for event in work}
    lanes = defaultdict(list)
    for event in work:
        args = event.get("args", {})
        lane = f"stream {args.get('stream', event.get('tid'))}"
        if len(devices) > 1:
            lane = f"GPU {args.get('device', event.get('pid'))} {lane}"
        token = token_of_id.get(args.get("correlation"))
        lanes[lane].append(Work(event["name"], DEVICE_WORK[event["cat"]], token, *times(event)))
    in_order = sorted(lanes, key=lambda lane: [int(n) for n in re.findall(r"\d+", lane)])
    return Timeline(
        host=host_ranges,
        launches=sorted(launches, key=lambda c: c.start_us),
        lanes={lane: sorted(lanes[lane], key=lambda w: w.start_us) for lane in in_order},
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
    starts = _token_starts(timeline)
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


def _token_starts(timeline: Timeline) -> dict[int, float]:
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


def _tokens_at(ranges: list[HostRange], moments: list[float]) -> list[int | None]:
    """The token of the innermost range around each moment; ``ranges`` sorted and nested."""
    tokens: list[int | None] = [None] * len(moments)
    stack, upcoming = [], 0
    for i in sorted(range(len(moments)), key=moments.__getitem__):
        while upcoming < len(ranges) and ranges[upcoming].start_us <= moments[i]:
            stack.append(ranges[upcoming])
            upcoming += 1
        while stack and stack[-1].end_us < moments[i]:
            stack.pop()
        tokens[i] = stack[-1].token if stack else None
    return tokens


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


# Drawing. A timeline is wide by nature, so on a phone it keeps a width at which its text can be
# read and scrolls sideways in a box of its own, under a title that wraps; scaling 720 units down
# to 390 pixels would leave 8-pixel letters. Hatching and arrow heads are drawn as paths: an SVG
# pattern or marker needs a document-wide id and disappears with the figure that defines it.

FONT = 15
IDLE = 'fill="var(--ttb-idle, #CC3311)" fill-opacity="0.3"'
WORK = 'fill="var(--ttb-work, #33779E)"'
COPY = 'fill="var(--ttb-copy, #117755)"'
CHECK = 'fill="var(--ttb-check, #DDAA33)" fill-opacity="0.45"'
LINE = 'fill="none" stroke="currentColor" stroke-width="1.2"'
LAUNCH = 'fill="currentColor" fill-opacity="0.45"'


def html_figure(title: str, alt: str, width: float, height: float, body: str, min_width=640):
    """An HTML figure: the title, then the SVG ``body`` in a box that scrolls when it must.

    ``width`` and ``height`` are the SVG's own units; below ``min_width`` pixels it scrolls.
    """
    return (
        '<figure class="ttb-figure" role="group">'
        f'<figcaption class="ttb-title"><strong>{escape(title)}</strong></figcaption>'
        '<div class="ttb-scroll" style="overflow-x:auto" tabindex="0">'
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(alt)}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="inherit" font-size="{FONT}" '
        f'style="display:block;width:100%;min-width:{min_width}px;max-width:{width * 1.25:g}px">'
        f"{body}</svg></div></figure>"
    )


def bars(rectangles, style: str) -> str:
    """One SVG path for many (x, y, width, height) rectangles."""
    path = "".join(f"M{x:.2f} {y:g}h{w:.2f}v{h:g}h-{w:.2f}z" for x, y, w, h in rectangles)
    return f'<path d="{path}" {style}/>' if path else ""


def text(x: float, y: float, words: str, anchor: str = "start", muted: bool = False) -> str:
    colour = "var(--ttb-muted, currentColor)" if muted else "currentColor"
    anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:g}" fill="{colour}"{anchor}>{escape(words)}</text>'


def draw(
    timeline: Timeline,
    *,
    title: str,
    alt: str | None = None,
    us_range: tuple[float, float] | None = None,
    min_gap_us: float = 5.0,
    width: int = 720,
) -> str:
    """Draw the host thread, a lane per stream and the idle gaps, as an HTML figure with SVG.

    Args:
        title: the message of the picture, in words.
        alt: replaces the alternative text, which is otherwise made from the numbers.
        us_range: what the width of the picture spans, in µs of the timeline; by default all of
            it. Slices start at 0, so two of them are to one scale with the same ``us_range``.
        min_gap_us: idle gaps from this length on are shaded. Each that has room for its length
            says it, and the longest of each token always does.
    """
    start, end = us_range or timeline.extent
    if end <= start:
        raise ValueError(f"nothing to draw between {start} and {end} µs.")
    shown_end = min(end, timeline.extent[1])

    def x(us: float) -> float:
        return (min(max(us, start), end) - start) / (end - start) * (width - 2) + 1

    def boxes(items, y, height):
        return [
            (x(i.start_us), y, max(x(i.end_us) - x(i.start_us), 0.4), height)
            for i in items
            if i.end_us > start and i.start_us < end
        ]

    body = [text(0, FONT, "host thread", muted=True)]
    y_host = FONT + 7
    steps = [r for r in timeline.host if r.name != "stop_check"]
    checks = [r for r in timeline.host if r.name == "stop_check"]
    step_boxes, check_boxes = boxes(steps, y_host, 26), boxes(checks, y_host, 26)
    body += [
        bars(step_boxes, 'fill="currentColor" fill-opacity="0.06" stroke="currentColor"'),
        bars(check_boxes, f'{CHECK} stroke="currentColor" stroke-width="0.6"'),
    ]
    shown = [r for r in steps if r.end_us > start and r.start_us < end]
    for r, (left, top, w, _) in zip(shown, step_boxes, strict=True):
        inside = [box for box in check_boxes if left <= box[0] < left + w]
        room = (inside[0][0] - left) if inside else w
        label = "prefill" if r.name == "prefill" else f"decode_step {r.token}"
        body.append(_label(left, top + 18, room, (label, str(r.token))))
    for left, top, w, _ in check_boxes:
        body.append(_label(left, top + 18, w, ("stop_check", "check")))
    waits = [call for call in timeline.launches if call.blocking]
    y_calls = y_host + 31
    body.append(bars(boxes([c for c in timeline.launches if not c.blocking], y_calls, 12), LAUNCH))
    for box in boxes(waits, y_calls, 12):
        body.append(_hatched(*box))

    y_lanes = y_calls + 30
    lane_step = 54
    for i, (name, lane) in enumerate(timeline.lanes.items()):
        y = y_lanes + i * lane_step
        body.append(text(0, y, name, muted=True))
        body.append(bars(boxes([w for w in lane if w.kind == "kernel"], y + 8, 28), WORK))
        body.append(bars(boxes([w for w in lane if w.kind != "kernel"], y + 8, 28), COPY))
    y_bottom = y_lanes + lane_step * len(timeline.lanes) - 12
    if not timeline.lanes:
        body.append(text(0, y_lanes, "no GPU work was recorded", muted=True))
        y_bottom = y_lanes + 8
    shaded = gaps(timeline, (start, shown_end), min_gap_us) if timeline.lanes else []
    for i in range(len(timeline.lanes)):
        y = y_lanes + i * lane_step + 8
        body.append(bars([(x(a), y, x(b) - x(a), 28) for a, b in shaded], IDLE))

    longest = _longest_per_token(timeline, shaded)
    rows: list[list[tuple[float, float]]] = []
    for a, b in shaded:
        words, middle = f"{b - a:,.0f} µs", (x(a) + x(b)) / 2
        half = _text_width(words) / 2 + 3
        if 2 * half < x(b) - x(a):
            for i in range(len(timeline.lanes)):
                body.append(text(middle, y_lanes + i * lane_step + 27, words, "middle"))
        elif (a, b) in longest:
            middle_text = min(max(middle, half), width - half)
            span = (middle_text - half, middle_text + half)
            row = next(
                (
                    n
                    for n, taken in enumerate(rows)
                    if all(span[0] > right or span[1] < left for left, right in taken)
                ),
                len(rows),
            )
            if row == len(rows):
                rows.append([])
            rows[row].append(span)
            y = y_bottom + 19 + row * 19
            body.append(f'<path d="M{middle:.1f} {y_bottom - 3:g}V{y - 13:g}" {LINE}/>')
            body.append(text(middle_text, y, words, "middle"))
    y_axis = y_bottom + 19 * len(rows) + 12
    body.append(_axis(start, end, x, y_axis, width))

    entries = [
        ("decode step", bars([(1, 1, 16, 13)], LINE), bool(shown)),
        ("stop check", bars([(0, 0, 18, 14)], CHECK), bool(check_boxes)),
        ("CUDA calls", bars([(0, 0, 18, 14)], LAUNCH), bool(timeline.launches)),
        ("host waits", _hatched(0, 0, 18, 14), bool(waits)),
        ("kernels", bars([(0, 0, 18, 14)], WORK), bool(timeline.lanes)),
        ("copies", bars([(0, 0, 18, 14)], COPY), any(w.kind != "kernel" for w in _all(timeline))),
        ("GPU idle", bars([(0, 0, 18, 14)], IDLE), bool(shaded)),
    ]
    legend, height = _legend([entry[:2] for entry in entries if entry[2]], y_axis + 44)
    body.append(legend)
    alt = alt or _describe(timeline, title, (start, shown_end), min_gap_us)
    return html_figure(title, alt, width, height, "".join(body))


def _describe(timeline, title, window, min_gap_us) -> str:
    tokens = sorted(t for t, begin in _token_starts(timeline).items() if _inside(begin, window))
    words = [
        f"{title.rstrip('.')}. Timeline of "
        + (f"tokens {tokens[0]} to {tokens[-1]}" if len(tokens) > 1 else "")
        + (f"token {tokens[0]}" if len(tokens) == 1 else "")
        + ("" if tokens else "a trace without token ranges")
        + f": the host thread and {counted(len(timeline.lanes), 'stream')}"
        + f" over {window[1] - window[0]:,.0f} µs."
    ]
    if timeline.lanes:
        words.append(f"The GPU is idle {100 * idle_share(timeline, window):.0f} % of that time.")
        longest = max(gaps(timeline, window, min_gap_us), key=lambda g: g[1] - g[0], default=None)
        if longest:
            token = _token_at(timeline, longest)
            words.append(
                f"The longest idle gap is {longest[1] - longest[0]:,.0f} µs"
                + (f", in token {token}." if token is not None else ".")
            )
        else:
            words.append(f"No idle gap reaches {min_gap_us:g} µs.")
    else:
        words.append("No GPU work was recorded.")
    waits = [(c.start_us, c.end_us) for c in timeline.launches if c.blocking]
    waits = _clip(sorted(waits), window)
    if waits:
        calls = counted(len(waits), "call")
        words.append(f"The host waits for the GPU {busy_us(waits):,.0f} µs, in {calls}.")
    return " ".join(words)


def _all(timeline):
    return (w for lane in timeline.lanes.values() for w in lane)


def _inside(moment, window) -> bool:
    return window[0] <= moment < window[1]


def _token_at(timeline, gap) -> int | None:
    """The token that the host had begun last when the gap began."""
    begun = [(begin, token) for token, begin in _token_starts(timeline).items() if begin <= gap[0]]
    return max(begun)[1] if begun else None


def _longest_per_token(timeline, shaded) -> set[tuple[float, float]]:
    longest: dict[int | None, tuple[float, float]] = {}
    for gap in shaded:
        token = _token_at(timeline, gap)
        if token not in longest or gap[1] - gap[0] > longest[token][1] - longest[token][0]:
            longest[token] = gap
    return set(longest.values())


def _text_width(words: str) -> float:
    return 0.56 * FONT * len(words)


def _label(x: float, y: float, room: float, choices) -> str:
    """The first of ``choices`` that fits into ``room``, centred; nothing when none does."""
    fitting = (words for words in choices if _text_width(words) + 6 < room)
    words = next(fitting, None)
    return text(x + room / 2, y, words, "middle") if words else ""


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _hatched(x: float, y: float, w: float, h: float) -> str:
    """An outlined bar with diagonal strokes, clipped by arithmetic."""
    strokes, offset = [], -h
    while offset < w:
        left, right = max(offset, 0), min(offset + h, w)
        if right > left:
            strokes.append(
                f"M{x + left:.1f} {y + h - (left - offset):.1f}"
                f"L{x + right:.1f} {y + h - (right - offset):.1f}"
            )
        offset += 6
    return bars([(x, y, w, h)], LINE) + f'<path d="{"".join(strokes)}" {LINE}/>'


def _axis(start, end, x, y, width) -> str:
    step = 10.0 ** math.ceil(math.log10((end - start) / 7))
    step = next(step * f for f in (0.2, 0.5, 1) if (end - start) / (step * f) <= 7)
    ticks, labels = [f"M0 {y:g}H{width}"], []
    n = int(-(-start // step))
    while n * step <= end:
        at = x(n * step)
        ticks.append(f"M{at:.1f} {y:g}v5")
        words = f"{n * step:,.10g}"
        half = _text_width(words) / 2
        labels.append(text(min(max(at, half), width - half - 30), y + 20, words, "middle"))
        n += 1
    labels.append(text(width, y + 20, "µs", "end", muted=True))
    return f'<path d="{"".join(ticks)}" {LINE}/>' + "".join(labels)


def _legend(entries, y, width=410) -> tuple[str, float]:
    """Swatches with their words, wrapped to what a phone shows without scrolling; the SVG and
    the height it ends at."""
    out, x = [], 0.0
    for words, swatch in entries:
        needed = 24 + _text_width(words) + 14
        if x and x + needed > width:
            x, y = 0.0, y + 22
        out.append(f'<g transform="translate({x:.1f} {y - 12:g})">{swatch}</g>')
        out.append(text(x + 24, y, words))
        x += needed
    return "".join(out), y + 8


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


def draw_schedule(
    pattern: str,
    *,
    title: str,
    alt: str | None = None,
    tokens: int = 5,
    launch: float = 1.0,
    work: float = 1.6,
    copy: float = 0.35,
    read: float = 0.15,
    width: int = 720,
) -> str:
    """Draw the idea of a loop as a schedule (drawn, not measured), as an HTML figure with SVG.

    ``pattern``: "check every token", "no check" or "two streams". The other numbers are those of
    ``schedule``. All patterns of the same numbers are to one scale: that of "check every token".
    """
    numbers = (tokens, launch, work, copy, read)
    timeline, arrows = schedule(pattern, *numbers)
    span = max(schedule(p, *numbers)[0].extent[1] for p in SCHEDULES)

    def x(moment: float) -> float:
        return moment / span * (width - 2) + 1

    y_of = {"host": FONT + 7}
    body = [text(0, FONT, "host thread", muted=True)]
    for i, lane in enumerate(timeline.lanes):
        y_of[lane] = y_of["host"] + 82 + 66 * i
        body.append(text(0, y_of[lane] - 7, lane, muted=True))

    def labelled(items, y, style, name):
        for item in items:
            left, w = x(item.start_us), x(item.end_us) - x(item.start_us)
            body.append(bars([(left, y, w, 28)], style))
            short = f"{item.token}?" if name == "check" else f"{item.token}"
            body.append(_label(left, y + 19, w, (f"{name} {item.token}", short)))

    outlined = 'fill="currentColor" fill-opacity="0.06" stroke="currentColor"'
    steps = [r for r in timeline.host if r.name == "decode_step"]
    checks = [r for r in timeline.host if r.name == "stop_check"]
    labelled(steps, y_of["host"], outlined, "launch")
    labelled(checks, y_of["host"], f'{CHECK} stroke="currentColor"', "check")
    for wait in timeline.launches:
        left, w = x(wait.start_us), x(wait.end_us) - x(wait.start_us)
        body.append(_hatched(left, y_of["host"] + 31, w, 10))
    for lane, items in timeline.lanes.items():
        light = 'fill="var(--ttb-work, #33779E)" fill-opacity="0.45" stroke="currentColor"'
        labelled(items, y_of[lane], light, "step")
    end = max(w.end_us for w in _all(timeline))
    begin = min(w.start_us for w in _all(timeline))
    idle = gaps(timeline, (begin, end), span * 1e-6)
    for lane in timeline.lanes:
        body.append(bars([(x(a), y_of[lane], x(b) - x(a), 28) for a, b in idle], IDLE))
    for from_lane, t0, to_lane, t1, kind in arrows:
        if kind == "wait":
            down = y_of[to_lane] > y_of[from_lane]
            y0 = y_of[from_lane] + (28 if down else 0)
            body.append(_arrow(x(t0), y0, x(t1), y_of[to_lane] + (0 if down else 28), dashed=True))
        else:
            below = 42 if timeline.launches else 28
            body.append(_arrow(x(t0), y_of[from_lane], x(t1), y_of["host"] + below))
    y = max(y_of.values()) + 28 + 22
    body.append(_arrow(0, y - 4, width - 50, y - 4))
    body.append(text(width, y, "time", "end", muted=True))
    entries = [
        ("launch a step", bars([(1, 1, 16, 13)], LINE), True),
        ("read the flag", bars([(0, 0, 18, 14)], CHECK), bool(checks)),
        ("host waits", _hatched(0, 0, 18, 14), bool(timeline.launches)),
        (
            "GPU works",
            bars([(0, 0, 18, 14)], 'fill="var(--ttb-work, #33779E)" fill-opacity="0.45"'),
            True,
        ),
        ("GPU idle", bars([(0, 0, 18, 14)], IDLE), bool(idle)),
        ("flag to the host", _arrow(0, 12, 18, 2), bool(checks)),
        ("stream waits for the other", _arrow(0, 2, 18, 12, dashed=True), len(timeline.lanes) > 1),
    ]
    legend, height = _legend([entry[:2] for entry in entries if entry[2]], y + 28)
    body.append(legend)
    share = sum(b - a for a, b in idle) / (end - begin)
    alt = alt or (
        f"{title.rstrip('.')}. Drawn schedule, not measured, of {tokens} steps on the host thread "
        f"and {counted(len(timeline.lanes), 'stream')}: the GPU is idle {100 * share:.0f} % of "
        f"the time from its first step to its last, and the host waits for it "
        f"{counted(len(timeline.launches), 'time')}."
    )
    return html_figure(title, alt, width, height, "".join(body))


def _arrow(x0: float, y0: float, x1: float, y1: float, dashed: bool = False) -> str:
    length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-9)
    dx, dy = (x1 - x0) / length * 7, (y1 - y0) / length * 7
    head = (
        f"M{x1:.1f} {y1:.1f}L{x1 - dx - dy / 2:.1f} {y1 - dy + dx / 2:.1f}"
        f"L{x1 - dx + dy / 2:.1f} {y1 - dy - dx / 2:.1f}z"
    )
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<path d="M{x0:.1f} {y0:.1f}L{x1 - dx:.1f} {y1 - dy:.1f}" {LINE}{dashes}/>'
        f'<path d="{head}" fill="currentColor"/>'
    )
