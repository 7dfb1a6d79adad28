"""The picture that stands for the book where its address is shared: 1200 × 630 pixels."""

import io

from matplotlib import rc_context

from .shapes import bars, canvas, text_width, write
from .theme import BACKGROUND, IDLE, MUTED, STYLE, WORK
from .words import known

SIZE = WIDTH, HEIGHT = 1200, 630
MARGIN, GAP = 64, 56


def social_card(panels, *, name, subtitle, message):
    """Draw the card: the book's name, its message and the bars of ``work_and_idle``.

    Args:
        panels: heading -> ``Bar``s, two of them; each with a scale of its own.
        name, subtitle: of the book.
        message: its lines.

    Returns:
        The bytes of a PNG of ``SIZE``; the same for the same arguments.
    """
    with rc_context(STYLE):
        fig, ax = canvas(*SIZE)
        fig.patch.set_facecolor(BACKGROUND)
        bars(ax, [(0, 0, WIDTH, 10)], fill=WORK)
        write(ax, MARGIN, 82, name, size=44, bold=True)
        write(ax, MARGIN, 118, subtitle, size=22, muted=True)
        y = 180
        for line in message:
            write(ax, MARGIN, y, line, size=32, bold=True)
            y += 42
        room = (WIDTH - 2 * MARGIN - GAP) / 2
        for at, (heading, found) in enumerate(panels.items()):
            _panel(ax, MARGIN + at * (room + GAP), y, room, heading, found)
        _key(ax)
        out = io.BytesIO()
        fig.savefig(out, format="png", dpi=72, metadata={"Software": None})
    return out.getvalue()


def _panel(ax, x, y, room, heading, found):
    write(ax, x, y, heading, size=22, muted=True)
    good = [bar for bar in found if known(bar.ms)]
    longest = max((bar.ms for bar in good), default=1)
    step = (HEIGHT - 62 - (y + 14)) / max(len(good), 1)
    for bar in good:
        write(ax, x, y + 14 + 20, bar.name, size=19)
        write(ax, x + room, y + 14 + 20, bar.words, size=19, align="right")
        length = bar.ms / longest * room
        idle = length * bar.idle if known(bar.idle) else 0
        bars(ax, [(x, y + 14 + 28, length - idle, step - 38)], fill=WORK)
        bars(ax, [(x + length - idle, y + 14 + 28, idle, step - 38)], fill=IDLE)
        y += step


def _key(ax):
    x = MARGIN
    for colour, words in ((WORK, "the GPU works"), (IDLE, "the GPU is idle")):
        bars(ax, [(x, HEIGHT - 40, 22, 16)], fill=colour)
        write(ax, x + 32, HEIGHT - 26, words, size=18, colour=MUTED)
        x += 32 + text_width(words, 18) + 36
