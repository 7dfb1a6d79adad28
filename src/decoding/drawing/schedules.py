"""Schedules: the idea of a loop, drawn and not measured, in units of time that mean nothing."""

from functools import partial

from matplotlib import rc_context

from decoding.measuring.timeline import SCHEDULES, gaps, schedule

from .shapes import (
    arrow,
    bars,
    canvas,
    hatched,
    hatched_swatch,
    label,
    legend,
    swatch,
    write,
)
from .svg import Picture
from .theme import BACKGROUND, CHECK, FONT, FOREGROUND, IDLE, NARROW, STYLE, WIDE, WORK
from .timelines import LANE, LEGEND, TOP, Scale, outlined
from .words import counted, percent

DASHES = (0, (4, 3))


def draw_schedule(pattern, *, title, alt=None, caption=None, **numbers):
    """Draw the idea of a loop as a schedule: drawn, not measured.

    Args:
        pattern: "check every token", "no check" or "two streams".
        title: the message of the picture, in words.
        alt: replaces the alternative text, which is otherwise made from the schedule.
        caption: a sentence below it.
        numbers: those of ``schedule``: ``tokens``, ``launch``, ``work``, ``copy``, ``read``. All
            patterns of the same numbers are to one scale, that of "check every token".

    Returns:
        A ``Picture``.
    """
    timeline, arrows = schedule(pattern, **numbers)
    end = max(schedule(each, **numbers)[0].extent[1] for each in SCHEDULES)
    works = [w for lane in timeline.lanes.values() for w in lane]
    window = min(w.start_us for w in works), max(w.end_us for w in works)
    idle = gaps(timeline, window, end * 1e-6)
    wide, narrow = (_drawn(timeline, arrows, idle, Scale(0, end, each)) for each in (WIDE, NARROW))
    alt = alt or _describe(timeline, title, idle, window)
    return Picture(title, [("", wide)], caption, alt=alt, narrow=[("", narrow)])


def _drawn(timeline, arrows, idle, scale):
    tops = {"host": TOP} | {lane: TOP + 82 + 66 * at for at, lane in enumerate(timeline.lanes)}
    y = max(tops.values()) + LANE + 22
    height, draw_legend = legend(_legend_of(timeline, idle), min(LEGEND, scale.width))
    with rc_context(STYLE):
        fig, ax = canvas(scale.width, y + 30 + height)
        _draw_host(ax, timeline, scale)
        for lane, items in timeline.lanes.items():
            _draw_stream(ax, lane, items, idle, scale, tops[lane])
        for found in arrows:
            _draw_arrow(ax, found, scale, tops, below=42 if timeline.launches else LANE)
        arrow(ax, (0, y - 4), (scale.width - 50, y - 4))
        write(ax, scale.width, y, "time", muted=True, align="right")
        draw_legend(ax, y + 30)
    return fig


def _draw_host(ax, timeline, scale):
    write(ax, 0, FONT, "host thread", muted=True)
    for name, words, short, colour, alpha in (
        ("decode_step", "launch {}", "{}", FOREGROUND, 0.06),
        ("stop_check", "check {}", "{}?", CHECK, 0.45),
    ):
        items = [r for r in timeline.host if r.name == name]
        boxes = scale.boxes(items, TOP, LANE)
        outlined(ax, boxes, colour, alpha)
        for item, (x, y, width, _) in zip(items, boxes, strict=True):
            label(ax, x, y + 18.5, width, (words.format(item.token), short.format(item.token)))
    hatched(ax, scale.boxes(timeline.launches, TOP + LANE + 3, 10))


def _draw_stream(ax, name, items, idle, scale, top):
    write(ax, 0, top - 7, name, muted=True)
    boxes = scale.boxes(items, top, LANE)
    bars(ax, boxes, fill=WORK, edge=BACKGROUND)
    for item, (x, y, width, _) in zip(items, boxes, strict=True):
        words = (f"step {item.token}", f"{item.token}")
        label(ax, x, y + 18.5, width, words, colour=BACKGROUND)
    bars(ax, [(scale(a), top, scale(b) - scale(a), LANE) for a, b in idle], fill=IDLE)


def _draw_arrow(ax, found, scale, tops, below):
    """One stream waits for the other (dashed), or a flag goes to the host (solid)."""
    from_lane, t0, to_lane, t1, kind = found
    if kind == "wait":
        down = tops[to_lane] > tops[from_lane]
        ends = tops[from_lane] + LANE * down, tops[to_lane] + LANE * (not down)
    else:
        ends = tops[from_lane], tops["host"] + below
    dashes = DASHES if kind == "wait" else "-"
    arrow(ax, (scale(t0), ends[0]), (scale(t1), ends[1]), dashes=dashes)


def _legend_of(timeline, idle):
    checks = [r for r in timeline.host if r.name == "stop_check"]
    entries = (
        ("launch a step", swatch(FOREGROUND, 0.06, edge=True), True),
        ("read the flag", swatch(CHECK, 0.45, edge=True), checks),
        ("host waits", hatched_swatch, timeline.launches),
        ("GPU works", swatch(WORK), True),
        ("GPU idle", swatch(IDLE), idle),
        ("flag to the host", partial(_arrow_swatch, up=True), checks),
        ("stream waits for the other", partial(_arrow_swatch, up=False), len(timeline.lanes) > 1),
    )
    return [(words, sample) for words, sample, found in entries if found]


def _arrow_swatch(ax, x, y, width, height, up):
    low, high = y + height - 2, y + 2
    ends = (low, high) if up else (high, low)
    arrow(ax, (x, ends[0]), (x + width, ends[1]), dashes="-" if up else DASHES)


def _describe(timeline, title, idle, window):
    steps = sum(r.name == "decode_step" for r in timeline.host)
    share = sum(b - a for a, b in idle) / (window[1] - window[0])
    return (
        f"{title.rstrip('.')}. Drawn schedule, not measured, of {steps} steps on the host thread "
        f"and {counted(len(timeline.lanes), 'stream')}: the GPU is idle {percent(share)} of "
        f"the time from its first step to its last, and the host waits for it "
        f"{counted(len(timeline.launches), 'time')}."
    )
