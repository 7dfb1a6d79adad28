"""Times with their ranges over the runs: a dot at their median, a line, a ring for slow tokens."""

from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

from decoding.measuring.records import Record

from .shapes import bars, canvas, disc, key, lines, text_width, write
from .svg import Panel, Picture
from .theme import FONT, FOREGROUND, GRID, HOST, PANEL, STYLE, WIDTH
from .words import as_fast, known, number, spread_words

ROW, AXIS = 38, 30  # pixels


class Case(NamedTuple):
    """A time with its range; nan where there is none.

    ``slow`` is the 95th percentile of single tokens, a ring; ``model`` what a model says that it
    takes, a stroke; ``more`` stands behind the median: how many times as fast it is, say.
    """

    name: str
    median: float
    low: float
    high: float
    slow: float | None = None
    model: float | None = None
    more: str = ""


def cases(results, *, slow=False, beside=None):
    """Return a ``Case`` for each result.

    Args:
        results: name -> a ``Record``, or a dict with ``per_token_ms`` of a small experiment.
        slow: whether to show the 95th percentile of the tokens.
        beside: the name of the result that the others are compared with: ×1.8 as fast, or ``WITHIN``
            where the difference is not resolved.
    """
    found = {name: one if isinstance(one, Record) else Record(one) for name, one in results.items()}
    return [
        Case(
            name,
            *(record.spread[key] for key in ("median", "min", "max")),
            slow=record.tokens_ms["p95"] if slow else None,
            more="" if beside in (None, name) else as_fast(found[beside], record),
        )
        for name, record in found.items()
    ]


def dots(groups, title, *, unit="ms per token", caption=None):
    """Draw times as dots with their ranges, all to one scale that begins at 0.

    Args:
        groups: heading -> a ``Case`` for each row. Two groups stand beside each other where
            there is room.
        title: the message of the figure.
        unit: of the times, with what they are.
        caption: a sentence below it.

    Returns:
        A ``Picture``.
    """
    every = [case for found in groups.values() for case in found]
    values = [value for case in every for value in case[1:6] if known(value)]
    ticks = _ticks(max(values, default=1))
    width = PANEL if len(groups) > 1 else WIDTH
    panels, said = [], []
    for heading, found in groups.items():
        words = [*([f"{heading}:"] if heading else []), *map(_say, found)]
        said.append(" ".join(words))
        alt = f"{title.rstrip('.')}. {said[-1]}" if heading else ""
        panels.append(Panel(heading, _draw(found, ticks, width), "group", alt))
    rows = [Panel(unit, _key(every)), *(panels[at : at + 2] for at in range(0, len(panels), 2))]
    alt = " ".join([f"{title.rstrip('.')}.", f"Unit: {unit}.", *said])
    return Picture(title, rows, caption, alt=alt)


def _say(case):
    if not known(case.median):
        return f"{case.name}: not measured."
    words = [spread_words({"median": case.median, "min": case.low, "max": case.high})]
    words += [f"95th percentile {number(case.slow)}"] if known(case.slow) else []
    words += [f"the model says {number(case.model)}"] if known(case.model) else []
    return f"{case.name}: {', '.join([*words, *([case.more] if case.more else [])])}."


def _ticks(top):
    with rc_context(STYLE):
        found = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top)
    return [float(value) for value in found if value >= 0]


def _draw(found, ticks, width):
    """Names and words above strips, and the axis below them."""
    edge = 8  # a dot at the end of the scale is whole
    scale = (width - 2 * edge) / ticks[-1]
    bottom = ROW * len(found) + 4

    def at(value):
        return edge + value * scale

    with rc_context(STYLE):
        fig, ax = canvas(width, bottom + AXIS)
        for row, case in enumerate(found):
            y = ROW * row + 27
            lines(ax, [((at(tick), y - 7), (at(tick), y + 7)) for tick in ticks], colour=GRID)
            _draw_case(ax, case, y, at, width)
        lines(ax, [((edge, bottom), (width - edge, bottom))], colour=GRID)
        for tick in ticks:
            align = "left" if tick == 0 else "right" if tick == ticks[-1] else "center"
            x = {"left": 0, "right": width}.get(align, at(tick))
            write(ax, x, bottom + 16, f"{tick:,g}", muted=True, size=FONT - 0.5, align=align)
        return fig


def _draw_case(ax, case, y, at, width):
    write(ax, 0, y - 13, case.name, bold=True)
    if not known(case.median):
        write(ax, width, y - 13, "not measured", align="right")
        return
    words = " · ".join(filter(None, (number(case.median), case.more)))
    if text_width(case.name, bold=True) + text_width(words) + 8 < width:
        write(ax, width, y - 13, words, align="right")
    lines(ax, [((at(case.low), y), (at(case.high), y))], colour=HOST, width=3)
    if known(case.model):
        bars(ax, [(at(case.model) - 1.5, y - 8, 3, 16)], fill=FOREGROUND)
    if known(case.slow):
        disc(ax, at(case.slow), y, 4.5, edge=FOREGROUND)
    disc(ax, at(case.median), y, 5, fill=FOREGROUND)


def _key(every):
    entries = [("median of the runs", _dot), ("range over the runs", _line)]
    if any(known(case.slow) for case in every):
        entries.append(("95th percentile of the tokens", _ring))
    if any(known(case.model) for case in every):
        entries.append(("what the model says", _stroke))
    return key(entries, WIDTH, below=4)


def _dot(ax, x, y, width, height):
    disc(ax, x + width / 2, y + height / 2, 5, fill=FOREGROUND)


def _line(ax, x, y, width, height):
    bars(ax, [(x, y + height / 2 - 1.5, width, 3)], fill=HOST)


def _ring(ax, x, y, width, height):
    disc(ax, x + width / 2, y + height / 2, 4.5, edge=FOREGROUND)


def _stroke(ax, x, y, width, height):
    bars(ax, [(x + width / 2 - 1.5, y - 1, 3, height + 2)], fill=FOREGROUND)
