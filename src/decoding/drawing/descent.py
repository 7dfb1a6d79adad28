"""Times of a token as bars below each other, one a step of a ladder, with a line that none can pass."""

from typing import NamedTuple

from matplotlib import rc_context

from .shapes import bars, canvas, lines, text_width, write
from .svg import Panel, Picture
from .theme import FOREGROUND, HOST, MUTED, NARROW, STYLE, WIDTH, WORK
from .words import count, known, percent, us

ROW, BAR, TOP = 40, 14, 22  # pixels


class Stage(NamedTuple):
    """A step of the ladder: its name, µs a token with their range, and a line of words below the name.

    ``before`` is a step to compare with that is none of the ladder's own: it is grey.
    """

    name: str
    us: float
    low: float = float("nan")
    high: float = float("nan")
    before: bool = False


def descent(stages, title, *, least=float("nan"), caption=None):
    """Draw what each step of a ladder makes of a token's time.

    Args:
        stages: ``Stage`` s, in order.
        title: the message of the figure.
        least: µs that no step can be below, drawn as a line; none where it is not known.
        caption: a sentence below it.

    Returns:
        A ``Picture``, whose alternative text gives every time and its share of the least.
    """
    said = " ".join(_said(stage, least) for stage in stages)
    line = f" The limit: {us(least)}." if known(least) else ""
    rows, narrow = ([Panel("", _draw(stages, least, width))] for width in (WIDTH, NARROW))
    return Picture(title, rows, caption, alt=f"{title.rstrip('.')}. {said}{line}", narrow=narrow)


def _said(stage, least):
    if not known(stage.us):
        return f"{stage.name}: not measured."
    share = f", {percent(least / stage.us)} of the limit" if known(least) else ""
    return f"{stage.name}: {us(stage.us)}{share}."


def _draw(stages, least, width):
    longest = max((one.us for one in stages if known(one.us)), default=1)
    longest = max(longest, *(one.high for one in stages if known(one.high)), 1)
    scale = (width - 4) / longest
    with rc_context(STYLE):
        fig, ax = canvas(width, TOP + ROW * len(stages) + 2)
        for at, stage in enumerate(stages):
            y = TOP + ROW * at
            write(ax, 0, y + 12, stage.name, bold=not stage.before)
            words = f"{count(stage.us)} µs" if known(stage.us) else "not measured"
            if known(least) and known(stage.us):
                words += f" · {percent(least / stage.us)}"
            write(ax, width, y + 12, words, align="right")
            if known(stage.us):
                fill = HOST if stage.before else WORK
                bars(ax, [(0, y + 18, scale * stage.us, BAR)], fill=fill)
            if known(stage.low) and known(stage.high):
                middle = y + 18 + BAR / 2
                ends = ((scale * stage.low, middle), (scale * stage.high, middle))
                lines(ax, [ends], colour=FOREGROUND, width=2)
        if known(least):
            x = scale * least
            rows = [TOP + ROW * at + 17 for at in range(len(stages))]
            lines(ax, [((x, y), (x, y + BAR + 4)) for y in rows], colour=FOREGROUND, width=2.5)
            lines(ax, [((x, TOP - 6), (x, TOP - 1))], colour=MUTED)
            words = f"the memory's limit, {count(least)} µs"
            align = "left" if x + text_width(words) < width else "right"
            write(ax, x, TOP - 10, words, colour=MUTED, align=align)
        return fig
