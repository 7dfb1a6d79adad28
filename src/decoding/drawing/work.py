"""Bars of time in two parts: the GPU works, and it is idle. One hue for one meaning."""

from typing import NamedTuple

from matplotlib import rc_context

from .shapes import bars, canvas, key, swatch, text_width, write
from .svg import Panel, Picture
from .theme import IDLE, PANEL, STYLE, WIDTH, WORK
from .words import known, ms, percent

ROW, BAR = 40, 15  # pixels


class Bar(NamedTuple):
    """A time of a token, in ms, of which the GPU is idle for a share (0 to 1); nan is not known.

    ``more`` stands behind time and share: how many times as fast it is, say. ``failed`` stands in
    place of all of them.
    """

    name: str
    ms: float
    idle: float = float("nan")
    more: str = ""
    failed: str = ""

    @property
    def words(self):
        """What stands beside the bar: 7.82 ms · 87 % idle."""
        idle = f"{percent(self.idle)} idle" if known(self.idle) else ""
        return self.failed or " · ".join(filter(None, (ms(self.ms), idle, self.more)))

    @property
    def said(self):
        """The bar as a sentence."""
        if self.failed:
            return f"{self.name}: {self.failed}."
        idle = f"GPU idle {percent(self.idle)}" if known(self.idle) else ""
        return f"{self.name}: {', '.join(filter(None, (f'{ms(self.ms)} per token', self.more, idle)))}."


def work_and_idle(panels, title, *, caption=None, one_scale=True):
    """Draw times of a token as bars: blue while the GPU works, red while it is idle.

    Args:
        panels: heading -> a ``Bar`` for each row. Panels stand beside each other where there is
            room, two in a row.
        title: the message of the figure.
        caption: a sentence below it.
        one_scale: whether all panels have one scale; else the longest bar of each is as long.

    Returns:
        A ``Picture``.
    """
    every = [bar for found in panels.values() for bar in found]
    width = PANEL if len(panels) > 1 else WIDTH
    made = []
    for heading, found in panels.items():
        longest = max(
            (bar.ms for bar in (every if one_scale else found) if known(bar.ms)), default=1
        )
        alt = " ".join([*([f"{heading}."] if heading else []), *(bar.said for bar in found)])
        made.append(Panel(heading, _draw(found, longest, width), "group", alt if heading else ""))
    rows = [made[at : at + 2] for at in range(0, len(made), 2)]
    if any(known(bar.idle) for bar in every):
        rows.insert(0, Panel("", _key()))
    said = [
        f"{heading}: {' '.join(bar.said for bar in found)}" for heading, found in panels.items()
    ]
    alt = " ".join([f"{title.rstrip('.')}.", *(words.removeprefix(": ") for words in said)])
    return Picture(title, rows, caption, alt=alt)


def _key():
    entries = [("the GPU works", swatch(WORK)), ("the GPU is idle", swatch(IDLE))]
    return key(entries, PANEL, below=4)


def _draw(found, longest, width):
    with rc_context(STYLE):
        fig, ax = canvas(width, ROW * len(found))
        for at, bar in enumerate(found):
            y = ROW * at
            write(ax, 0, y + 13, bar.name, bold=True)
            room = width - text_width(bar.name, bold=True) - 8
            words = bar.words if text_width(bar.words) < room else ms(bar.ms)
            write(ax, width, y + 13, bar.failed and "failed" or words, align="right")
            if not known(bar.ms):
                continue
            length = max(bar.ms / longest * width, 2)
            idle = length * bar.idle if known(bar.idle) else 0
            idle = max(idle, 1.5) if idle else 0
            bars(ax, [(0, y + 19, length - idle, BAR)], fill=WORK)
            bars(ax, [(length - idle, y + 19, idle, BAR)] if idle else [], fill=IDLE)
        return fig
