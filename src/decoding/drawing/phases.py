"""Where a token's time goes inside of one kernel: a bar of its kinds, and below it a row a phase."""

from typing import NamedTuple

from matplotlib import rc_context

from .shapes import bars, canvas, key, lines, swatch, text_width, write
from .svg import Panel, Picture
from .theme import BACKGROUND, CHECK, COPY, FOREGROUND, HOST, IDLE, NARROW, STYLE, WIDTH, WORK
from .words import count, known, number, percent, us

#: What a phase is, and its colour.
KINDS = {
    "exchange between all blocks": IDLE,
    "exchange within a cluster": CHECK,
    "wait for weights": HOST,
    "matrix product": WORK,
    "attention": COPY,
    "layer norm and the rest": FOREGROUND,
}
ROW, WHOLE, BAR = 24, 22, 10  # pixels


class Phase(NamedTuple):
    """A phase: its name, its kind (of ``KINDS``), and µs a token."""

    name: str
    kind: str
    us: float


def phases(found, title, *, least=float("nan"), caption=None):
    """Draw what the time of a token is spent on.

    Args:
        found: ``Phase`` s in the order of the kernel.
        title: the message of the figure.
        least: µs that the memory needs, a line on the bar of all; none where it is not known.
        caption: a sentence below it.

    Returns:
        A ``Picture``, whose alternative text gives every phase; one with a note where nothing was measured.
    """
    found = [one for one in found if known(one.us)]
    if not found:
        alt = f"{title.rstrip('.')}. Nothing was measured."
        return Picture(title, [Panel("nothing was measured", kind="note")], caption, alt=alt)
    whole, kinds = sum(one.us for one in found), by_kind(found)
    said = [f"{kind} {us(took)} ({percent(took / whole)})" for kind, took in kinds.items()]
    each = [f"{one.name} {number(one.us)}" for one in found]
    line = f" The line: {us(least)}." if known(least) else ""
    alt = f"{title.rstrip('.')}. {us(whole)}: {', '.join(said)}.{line} By phase, in µs: {', '.join(each)}."
    rows, narrow = (
        [
            Panel("", key([(kind, swatch(KINDS[kind])) for kind in kinds], width)),
            Panel("", _draw(found, kinds, whole, least, width)),
        ]
        for width in (WIDTH, NARROW)
    )
    return Picture(title, rows, caption, alt=alt, narrow=narrow)


def by_kind(found):
    """Return kind -> µs, in the order of ``KINDS``; without kinds that take nothing."""
    sums = {kind: sum(one.us for one in found if one.kind == kind) for kind in KINDS}
    return {kind: took for kind, took in sums.items() if took > 0}


def _draw(found, kinds, whole, least, width):
    longest = max(one.us for one in found)
    left = max(text_width(one.name) for one in found) + 10
    with rc_context(STYLE):
        fig, ax = canvas(width, WHOLE + 44 + ROW * len(found))
        write(ax, 0, 13, "a token", bold=True)
        write(ax, width, 13, f"{count(whole)} µs", align="right")
        x = 0
        for kind, took in kinds.items():
            long = took / max(whole, least if known(least) else 0) * width
            bars(ax, [(x, 20, long, WHOLE)], fill=KINDS[kind], edge=BACKGROUND, width=0.8)
            x += long
        if known(least):
            end = least / max(whole, least) * width
            lines(ax, [((end, 16), (end, 24 + WHOLE))], colour=FOREGROUND, width=2.5)
        for at, one in enumerate(found):
            y = WHOLE + 36 + ROW * at
            write(ax, 0, y + 12, one.name)
            long = one.us / longest * (width - left - 42)
            bars(ax, [(left, y + 3, max(long, 1), BAR)], fill=KINDS[one.kind])
            write(ax, left + long + 6, y + 12, number(one.us))
        return fig
