"""Two times against each other on log scales: what a model predicts and what was measured, *L* and *G*."""

from collections import Counter
from math import ceil, floor, log10
from typing import NamedTuple

from matplotlib import rc_context

from .shapes import canvas, disc, key, lines, mark, write
from .svg import Panel, Picture
from .theme import COLOURS, FONT, GRID, MUTED, NARROW, STYLE, WIDTH
from .words import known

SIZE = 4.5  # pixels, half of a mark
LEFT, BOTTOM, EDGE = 40, 42, 8

#: What a mark of a loop looks like: its step's colour, and a shape for when it asks.
LOOKS = {
    "compiled, at once": (COLOURS["compiled"], "square"),
    "two streams": (COLOURS["two_streams"], "diamond"),
    "deferred check": (COLOURS["deferred_check"], "disc"),
    "compiled, never": (COLOURS["compiled"], "ring"),
    "captured, at once": (COLOURS["captured_graph"], "square"),
    "captured graph": (COLOURS["captured_graph"], "disc"),
    "captured, never": (COLOURS["captured_graph"], "ring"),
    "device loop": (COLOURS["device_loop"], "triangle"),
}


class Mark(NamedTuple):
    """A point: what kind it is of, and its two times."""

    kind: str
    x: float
    y: float


def against(marks, title, *, x, y, band=None, sides=(), caption=None):
    """Draw marks on two log scales, with the diagonal on which both times are the same.

    Args:
        marks: ``Mark`` s with times above 0; one with a time that is not known is left out. A ``kind`` of
            ``LOOKS`` has a look of its own.
        title: the message of the figure.
        x, y: what the scales show, with the unit.
        band: a share; two lines show where ``y`` is this much larger and smaller than ``x``. Both
            scales then begin and end at the same times.
        sides: what is above the diagonal and what is below it, in a word each.
        caption: a sentence below it.

    Returns:
        A ``Picture``, whose alternative text counts the marks by kind.

    Raises:
        ValueError: a time is not above 0.
    """
    shown = [mark for mark in marks if known(mark.x) and known(mark.y)]
    if any(min(mark.x, mark.y) <= 0 for mark in shown):
        raise ValueError("A time on a log scale must be above 0.")
    alt = f"{title.rstrip('.')}. {_say(shown, x, y, band, sides)}"
    if not shown:
        return Picture(title, [Panel("nothing was measured", kind="note")], caption, alt=alt)
    rows, narrow = (
        [
            Panel("", key([(kind, _swatch(kind)) for kind in _kinds(shown)], width)),
            Panel(y, _draw(shown, x, band, sides, width)),
        ]
        for width in (WIDTH, NARROW)
    )
    return Picture(title, rows, caption, alt=alt, narrow=narrow)


def _say(shown, x, y, band, sides):
    """What the picture shows, in words, with its counts."""
    if not shown:
        return "Nothing was measured."
    words = [f"{y} over {x}, {len(shown)} points."]
    if band is not None:
        near = Counter(mark.kind for mark in shown if abs(mark.y / mark.x - 1) <= band)
        words.append(f"Within {100 * band:.0f} % of the diagonal: {sum(near.values())}.")
        words += [f"{kind}: {near[kind]} of {count}." for kind, count in _kinds(shown).items()]
    if sides:
        above = Counter(mark.kind for mark in shown if mark.y > mark.x)
        words.append(f"{sides[0]}: {sum(above.values())}.")
        words.append(f"{sides[1]}: {len(shown) - sum(above.values())}.")
        words += [
            f"{kind}: {above[kind]} {sides[0]}, {count - above[kind]} {sides[1]}."
            for kind, count in _kinds(shown).items()
        ]
    return " ".join(words)


def _kinds(shown):
    """How many marks there are of each kind, in the order of ``LOOKS``; other kinds as they come."""
    count = Counter(mark.kind for mark in shown)
    return {kind: count[kind] for kind in dict.fromkeys((*LOOKS, *count)) if kind in count}


def _swatch(kind):
    return lambda ax, x, y, width, height: _mark(ax, kind, x + width / 2, y + height / 2)


def _mark(ax, kind, x, y):
    colour, shape = LOOKS.get(kind, (MUTED, "disc"))
    if shape in ("disc", "ring"):
        disc(ax, x, y, SIZE, **{"fill" if shape == "disc" else "edge": colour})
    else:
        mark(ax, x, y, shape, SIZE, colour)


class _Scale:
    """A log scale over ``room`` pixels, from below the least value to above the largest."""

    def __init__(self, values, room, beyond):
        self.low, self.high = min(values) / beyond, max(values) * beyond
        self.room = room

    def at(self, value):
        return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low)) * self.room

    @property
    def ticks(self):
        """1, 2 and 5 times powers of ten; those powers alone where there are many."""
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        found = [step * 10.0**power for power in powers for step in (1, 2, 5)]
        found = [tick for tick in found if self.low <= tick <= self.high]
        return found if len(found) <= 7 else [tick for tick in found if log10(tick) % 1 == 0]


def _draw(shown, xlabel, band, sides, width):
    """The scales, the diagonal, and the marks."""
    x_values, y_values = [mark.x for mark in shown], [mark.y for mark in shown]
    if band is not None:
        x_values = y_values = x_values + y_values
    wide = width - LEFT - EDGE
    tall = wide if band is not None else 0.7 * wide
    beyond = 1.5 if sides else 1.12  # room for the words
    across, up = _Scale(x_values, wide, beyond), _Scale(y_values, tall, beyond)

    def place(x, y):
        return LEFT + across.at(x), EDGE + tall - up.at(y)

    with rc_context(STYLE):
        fig, ax = canvas(width, EDGE + tall + BOTTOM)
        for tick in up.ticks:
            y = place(across.low, tick)[1]
            lines(ax, [((LEFT, y), (LEFT + wide, y))], colour=GRID)
            write(ax, LEFT - 6, y + 4, f"{tick:,g}", muted=True, align="right")
        for tick in across.ticks:
            x = place(tick, up.low)[0]
            lines(ax, [((x, EDGE), (x, EDGE + tall))], colour=GRID)
            write(ax, x, EDGE + tall + 16, f"{tick:,g}", muted=True, align="center")
        write(ax, LEFT + wide, EDGE + tall + 34, xlabel, align="right")
        for factor in (1, *((1 + band, 1 - band) if band is not None else ())):
            if ends := _diagonal(across, up, factor):
                dashes = "-" if factor == 1 else (0, (4, 2))
                lines(ax, [tuple(place(*end) for end in ends)], colour=MUTED, dashes=dashes)
        if sides:
            write(ax, LEFT + 6, EDGE + FONT, sides[0], bold=True)
            write(ax, LEFT + wide - 6, EDGE + tall - 8, sides[1], bold=True, align="right")
        for one in shown:
            _mark(ax, one.kind, *place(one.x, one.y))
        return fig


def _diagonal(across, up, factor):
    """The ends of y = factor × x inside the scales; None if it lies outside."""
    begin, end = max(across.low, up.low / factor), min(across.high, up.high / factor)
    return ((begin, factor * begin), (end, factor * end)) if begin < end else None
