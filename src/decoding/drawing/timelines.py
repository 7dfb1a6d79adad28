"""Timelines: what the host and each stream did, from a recorded trace, and when the GPU waits."""

import math

from matplotlib import rc_context

from decoding.measuring.timeline import busy_us, gaps, idle_share, token_starts

from .shapes import (
    bars,
    canvas,
    hatched,
    hatched_swatch,
    label,
    legend,
    lines,
    swatch,
    text_width,
    write,
)
from .svg import Picture
from .theme import BACKGROUND, CHECK, COPY, FONT, FOREGROUND, HOST, IDLE, NARROW, STYLE, WIDE, WORK
from .words import counted, us

LEGEND = 370  # pixels: how wide a legend is at most
RANGE, CALLS, LANE = 27, 13, 28  # pixels: heights of the host's ranges and calls, and of a stream
TOP = FONT + 8  # where the host's ranges begin


def draw(timeline, *, title, alt=None, us_range=None, min_gap_us=5.0, caption=None):
    """Draw the host thread, a lane per stream and the idle gaps.

    Args:
        timeline: a ``Timeline``, best a slice of a few tokens.
        title: the message of the picture, in words.
        alt: replaces the alternative text, which is otherwise made from the numbers.
        us_range: what the width of the picture spans, in µs of the timeline; by default all of
            it. Slices start at 0, so two of them are to one scale with the same ``us_range``.
        min_gap_us: idle gaps from this length on are shaded. Each that has room for its length
            says it, and the longest of each token always does.
        caption: a sentence below it.

    Returns:
        A ``Picture``.

    Raises:
        ValueError: there is nothing to draw in that range.
    """
    start, end = us_range or timeline.extent
    if end <= start:
        raise ValueError(f"There is nothing to draw between {start} and {end} µs.")
    shown = start, min(end, timeline.extent[1])
    idle = gaps(timeline, shown, min_gap_us) if timeline.lanes else []
    wide, narrow = (_drawn(timeline, idle, Scale(start, end, width)) for width in (WIDE, NARROW))
    alt = alt or _describe(timeline, title, shown, min_gap_us)
    return Picture(title, [("", wide)], caption, alt=alt, narrow=[("", narrow)])


def _drawn(timeline, idle, scale):
    words = _words_below(timeline, idle, scale)
    below = _bottom(timeline) + 19 * (1 + max((row for *_, row in words), default=-1))
    height, draw_legend = legend(_legend_of(timeline, idle, scale), min(LEGEND, scale.width))
    with rc_context(STYLE):
        fig, ax = canvas(scale.width, below + 58 + height)
        _draw_host(ax, timeline, scale)
        _draw_lanes(ax, timeline, scale)
        _draw_idle(ax, timeline, idle, scale)
        _write_below(ax, words, scale, _bottom(timeline))
        _draw_axis(ax, scale, below + 12)
        draw_legend(ax, below + 58)
    return fig


def tick_step(pixels, width):
    """Return from one tick to the next, in µs: 1, 2 or 5 times a power of ten.

    Args:
        pixels: of one µs.
        width: of the whole drawing, in pixels.
    """
    apart = 80 if width > NARROW else 55
    least = 10.0 ** math.floor(math.log10(apart / pixels))
    return next(
        step for step in (least, 2 * least, 5 * least, 10 * least) if step * pixels >= apart
    )


class Scale:
    """From microseconds to pixels: ``start`` to ``end`` fill the width."""

    def __init__(self, start, end, width=WIDE):
        self.start, self.end, self.width = start, end, width

    def __call__(self, us):
        inside = min(max(us, self.start), self.end)
        return (inside - self.start) / (self.end - self.start) * (self.width - 2) + 1

    def boxes(self, items, y, height):
        """(x, y, width, height) of what of the items is in sight."""
        return [
            (self(i.start_us), y, max(self(i.end_us) - self(i.start_us), 0.4), height)
            for i in items
            if i.end_us > self.start and i.start_us < self.end
        ]


def _draw_host(ax, timeline, scale):
    """The host thread: its ranges, and below them its calls into CUDA."""
    write(ax, 0, FONT, "host thread", muted=True)
    steps = [r for r in timeline.host if r.name != "stop_check"]
    steps = [r for r in steps if r.end_us > scale.start and r.start_us < scale.end]
    checks = [r for r in timeline.host if r.name == "stop_check"]
    step_boxes, check_boxes = (scale.boxes(found, TOP, RANGE) for found in (steps, checks))
    outlined(ax, step_boxes, FOREGROUND, 0.06)
    outlined(ax, check_boxes, CHECK, 0.45)
    for r, (left, top, w, _) in zip(steps, step_boxes, strict=True):
        inside = [box for box in check_boxes if left <= box[0] < left + w]
        room = (inside[0][0] - left) if inside else w
        name = "prefill" if r.name == "prefill" else f"decode_step {r.token}"
        label(ax, left, top + 18, room, (name, str(r.token)))
    for left, top, w, _ in check_boxes:
        label(ax, left, top + 18, w, ("stop_check", "check"))
    calls = TOP + RANGE + 5
    bars(ax, scale.boxes([c for c in timeline.launches if not c.blocking], calls, CALLS), fill=HOST)
    hatched(ax, scale.boxes([c for c in timeline.launches if c.blocking], calls, CALLS))


def outlined(ax, boxes, colour, alpha):
    """Draw bars of a light colour with an outline."""
    bars(ax, boxes, fill=colour, alpha=alpha)
    bars(ax, boxes, edge=FOREGROUND)


def _lane(at):
    """The y at which the bars of a stream begin."""
    return TOP + RANGE + 5 + CALLS + 34 + at * (LANE + 28)


def _bottom(timeline):
    return _lane(len(timeline.lanes) - 1) + LANE if timeline.lanes else _lane(0) - 10


def _draw_lanes(ax, timeline, scale):
    """A lane for each stream."""
    for at, (name, lane) in enumerate(timeline.lanes.items()):
        write(ax, 0, _lane(at) - 7, name, muted=True)
        for colour, kinds in ((WORK, ("kernel",)), (COPY, ("copy", "memset"))):
            found = [work for work in lane if work.kind in kinds]
            bars(ax, scale.boxes(found, _lane(at), LANE), fill=colour)
    if not timeline.lanes:
        write(ax, 0, _lane(0) - 14, "no GPU work was recorded", muted=True)


def _draw_idle(ax, timeline, idle, scale):
    """Shade the gaps on every stream, and say in each how long it is where there is room."""
    for at in range(len(timeline.lanes)):
        found = [(scale(a), _lane(at), scale(b) - scale(a), LANE) for a, b in idle]
        bars(ax, found, fill=IDLE)
        for (a, b), (x, y, width, _) in zip(idle, found, strict=True):
            label(ax, x, y + 18.5, width, (us(b - a),), colour=BACKGROUND)


def _write_below(ax, words, scale, bottom):
    for (a, b), x, row in words:
        y, middle = bottom + 19 + row * 19, (scale(a) + scale(b)) / 2
        lines(ax, [((middle, bottom + 1), (middle, y - 13))])
        write(ax, x, y, us(b - a), align="center")


def _words_below(timeline, idle, scale):
    """The gaps whose words stand below the lanes: (gap, x of the words' middle, row), kept apart.

    That is the longest gap of each token, where its words have no room in it.
    """
    placed, rows = [], []
    longest = _longest_per_token(timeline, idle)
    for a, b in idle:
        half = text_width(us(b - a)) / 2 + 3
        if 2 * half < scale(b) - scale(a) or (a, b) not in longest:
            continue
        x = min(max((scale(a) + scale(b)) / 2, half), scale.width - half)
        row = next((row for row, end in enumerate(rows) if x - half > end), len(rows))
        rows[row : row + 1] = [x + half]
        placed.append(((a, b), x, row))
    return placed


def _longest_per_token(timeline, idle):
    longest = {}
    for gap in idle:
        token = _token_at(timeline, gap)
        if token not in longest or gap[1] - gap[0] > longest[token][1] - longest[token][0]:
            longest[token] = gap
    return set(longest.values())


def _token_at(timeline, gap):
    """The token that the host had begun last when the gap began, or None."""
    begun = [(begin, token) for token, begin in token_starts(timeline).items() if begin <= gap[0]]
    return max(begun)[1] if begun else None


def _draw_axis(ax, scale, y):
    step = tick_step(scale.width / (scale.end - scale.start), scale.width)
    ticks = [((0, y), (scale.width, y))]
    for n in range(math.ceil(scale.start / step), math.floor(scale.end / step) + 1):
        x, words = scale(n * step), f"{n * step:,.10g}"
        half = text_width(words) / 2
        ticks.append(((x, y), (x, y + 5)))
        write(ax, min(max(x, half), scale.width - half - 26), y + 20, words, align="center")
    lines(ax, ticks)
    write(ax, scale.width, y + 20, "µs", muted=True, align="right")


def _legend_of(timeline, idle, scale):
    work = [w for lane in timeline.lanes.values() for w in lane]
    ranges = [r for r in timeline.host if r.end_us > scale.start and r.start_us < scale.end]
    entries = (
        (
            "decode step",
            swatch(FOREGROUND, 0.06, edge=True),
            _named(ranges, "decode_step", "prefill"),
        ),
        ("stop check", swatch(CHECK, 0.45, edge=True), _named(ranges, "stop_check")),
        ("CUDA calls", swatch(HOST), timeline.launches),
        ("host waits", hatched_swatch, [call for call in timeline.launches if call.blocking]),
        ("kernels", swatch(WORK), work),
        ("copies", swatch(COPY), [w for w in work if w.kind != "kernel"]),
        ("GPU idle", swatch(IDLE), idle),
    )
    return [(words, sample) for words, sample, found in entries if found]


def _named(ranges, *names):
    return [r for r in ranges if r.name in names]


def _describe(timeline, title, window, min_gap_us):
    starts = token_starts(timeline).items()
    tokens = sorted(token for token, begin in starts if window[0] <= begin < window[1])
    named = "a trace without token ranges"
    if tokens:
        named = f"tokens {tokens[0]} to {tokens[-1]}" if len(tokens) > 1 else f"token {tokens[0]}"
    words = [
        f"{title.rstrip('.')}. Timeline of {named}: the host thread and "
        f"{counted(len(timeline.lanes), 'stream')} over {us(window[1] - window[0])}."
    ]
    words += _describe_idle(timeline, window, min_gap_us)
    waits = [(call.start_us, call.end_us) for call in timeline.launches if call.blocking]
    waits = [(a, b) for a, b in waits if b > window[0] and a < window[1]]
    if waits:
        calls = counted(len(waits), "call")
        words.append(f"The host waits for the GPU {us(busy_us(waits, window))}, in {calls}.")
    return " ".join(words)


def _describe_idle(timeline, window, min_gap_us):
    if not timeline.lanes:
        return ["No GPU work was recorded."]
    said = [f"The GPU is idle {100 * idle_share(timeline, window):.0f} % of that time."]
    longest = max(gaps(timeline, window, min_gap_us), key=lambda g: g[1] - g[0], default=None)
    if not longest:
        return [*said, f"No idle gap reaches {min_gap_us:g} µs."]
    token = _token_at(timeline, longest)
    where = f", in token {token}" if token is not None else ""
    return [*said, f"The longest idle gap is {us(longest[1] - longest[0])}{where}."]
