"""The roofline: how much a second is computed, over how much is computed for each byte that is read."""

from math import ceil, floor, log10
from typing import NamedTuple

from matplotlib import rc_context

from .shapes import canvas, disc, key, lines, mark, text_width, write
from .svg import Panel, Picture
from .theme import COLOURS, FONT, GRID, MUTED, NARROW, STYLE, WIDTH, label_of
from .words import known, number, percent

SIZE = 4.5  # pixels, half of a mark
LEFT, BOTTOM, TOP, EDGE = 52, 42, 26, 8
SHAPES = ("disc", "square", "diamond", "triangle")


class Reached(NamedTuple):
    """A loop at work: its rung (a name in ``COLOURS``, or another that is its own label), model and rows.

    ``intensity`` is the operations for each byte that a step has to read, ``tflop_per_s`` its operations
    over its time, in 10^12 a second, ``share`` how much of the limit that is (0 to 1), ``ms`` the time.
    """

    rung: str
    model: str
    batch_size: int
    intensity: float
    tflop_per_s: float
    share: float = float("nan")
    ms: float = float("nan")


def roofline(points, title, *, gb_per_s, tflop_per_s=float("nan"), caption=None):
    """Draw loops below the roof of a machine, on two log scales.

    Args:
        points: ``Reached`` s; one whose numbers are not known is left out. A rung has a colour, a model a shape.
        title: the message of the figure.
        gb_per_s: of the memory, the slope of the roof; nothing is drawn if it is not known.
        tflop_per_s: of the multipliers, the flat part; left out where it is not known.
        caption: a sentence below it.

    Returns:
        A ``Picture``, whose alternative text gives each rung's shares.
    """
    shown = [one for one in points if known(one.intensity) and known(one.tflop_per_s)]
    if not shown or not known(gb_per_s):
        alt = f"{title.rstrip('.')}. Nothing was measured."
        return Picture(title, [Panel("nothing was measured", kind="note")], caption, alt=alt)
    alt = f"{title.rstrip('.')}. {_say(shown, gb_per_s, tflop_per_s)}"
    rows, narrow = (
        [
            Panel("", _key(shown, width)),
            Panel("TFLOP/s", _draw(shown, gb_per_s, tflop_per_s, width)),
        ]
        for width in (WIDTH, NARROW)
    )
    return Picture(title, rows, caption, alt=alt, narrow=narrow)


def ridge(gb_per_s, tflop_per_s):
    """Return the intensity from which on the multipliers are the limit; nan if a rate is not known."""
    return 1000 * tflop_per_s / gb_per_s


def _say(shown, gb_per_s, tflop_per_s):
    words = [f"TFLOP/s over FLOP per byte read. The memory's roof: {number(gb_per_s)} GB/s."]
    if known(tflop_per_s):
        words.append(f"The multipliers' roof: {number(tflop_per_s)} TFLOP/s.")
    for model, rungs in _by_model(shown).items():
        for rung, found in rungs.items():
            shares = ", ".join(f"batch {one.batch_size} {percent(one.share)}" for one in found)
            words.append(f"{model}, {label_of(rung)}: {shares}.")
    return " ".join(words)


def _by_model(shown):
    """Model -> rung -> its points, by batch size; in the order in which they come."""
    found = {}
    for one in shown:
        found.setdefault(one.model, {}).setdefault(one.rung, []).append(one)
    return {
        model: {rung: sorted(all_, key=lambda one: one.batch_size) for rung, all_ in rungs.items()}
        for model, rungs in found.items()
    }


def _shapes(shown):
    models = dict.fromkeys(one.model for one in shown)
    return {model: SHAPES[min(at, len(SHAPES) - 1)] for at, model in enumerate(models)}


def _key(shown, width):
    rungs = dict.fromkeys(one.rung for one in shown)
    entries = [(label_of(rung), _swatch(COLOURS.get(rung, MUTED), "disc")) for rung in rungs]
    if len(shapes := _shapes(shown)) > 1:
        entries += [(model, _swatch(MUTED, shape)) for model, shape in shapes.items()]
    return key(entries, width)


def _swatch(colour, shape):
    return lambda ax, x, y, width, height: _mark(ax, colour, shape, x + width / 2, y + height / 2)


def _mark(ax, colour, shape, x, y):
    if shape == "disc":
        disc(ax, x, y, SIZE, edge=colour, width=2.2)
    else:
        mark(ax, x, y, shape, SIZE, colour)


class _Scale:
    """A log scale over ``room`` pixels, with powers of ten as ticks."""

    def __init__(self, low, high, room):
        self.low, self.high, self.room = low, high, room

    def at(self, value):
        return log10(value / self.low) / log10(self.high / self.low) * self.room

    @property
    def ticks(self):
        powers = range(ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9) + 1)
        return [10.0**power for power in powers]


def _draw(shown, gb_per_s, tflop_per_s, width):
    """The roof, the batch sizes above it, and the marks."""
    slope = gb_per_s / 1000  # TFLOP/s where one operation is done for each byte
    bend = ridge(gb_per_s, tflop_per_s)
    lowest = min(one.intensity for one in shown) / 1.6
    farthest = 2.5 * max([one.intensity for one in shown] + ([bend] if known(bend) else []))
    roof = min(slope * farthest, tflop_per_s) if known(tflop_per_s) else slope * farthest
    bottom = min(one.tflop_per_s for one in shown) / 1.6
    wide, tall = width - LEFT - EDGE, 0.85 * (width - LEFT - EDGE)
    across, up = _Scale(lowest, farthest, wide), _Scale(bottom, 2 * roof, tall)

    def place(x, y):
        return LEFT + across.at(x), TOP + tall - up.at(y)

    with rc_context(STYLE):
        fig, ax = canvas(width, TOP + tall + BOTTOM)
        for tick in up.ticks:
            y = place(lowest, tick)[1]
            lines(ax, [((LEFT, y), (LEFT + wide, y))], colour=GRID)
            write(ax, LEFT - 6, y + 4, f"{tick:,g}", muted=True, align="right")
        for tick in across.ticks:
            x = place(tick, bottom)[0]
            lines(ax, [((x, TOP), (x, TOP + tall))], colour=GRID)
            write(ax, x, TOP + tall + 16, f"{tick:,g}", muted=True, align="center")
        write(ax, LEFT + wide, TOP + tall + 34, "FLOP for each byte read", align="right")
        end = bend if known(bend) else farthest
        corners = [(lowest, slope * lowest), (end, slope * end)]
        corners += [(farthest, tflop_per_s)] if known(bend) else []
        placed = [place(*corner) for corner in corners]
        lines(ax, list(zip(placed, placed[1:])), width=2)
        _name_roof(ax, place, gb_per_s, tflop_per_s, lowest)
        _name_batches(ax, place, shown, gb_per_s, tflop_per_s)
        shapes = _shapes(shown)
        for one in shown:
            at = place(one.intensity, one.tflop_per_s)
            _mark(ax, COLOURS.get(one.rung, MUTED), shapes[one.model], *at)
        return fig


def _name_roof(ax, place, gb_per_s, tflop_per_s, lowest):
    if known(tflop_per_s):
        bend = ridge(gb_per_s, tflop_per_s)
        x, y = place(bend, tflop_per_s)
        write(ax, x - 10, y + 4, f"{number(tflop_per_s)} TFLOP/s", align="right")
    x, y = place(30 * lowest, gb_per_s / 1000 * 30 * lowest)
    write(ax, x + 16, y + FONT, f"{number(gb_per_s)} GB/s")


def _name_batches(ax, place, shown, gb_per_s, tflop_per_s):
    """Write the batch sizes of the first model's points above the roof, where there is room."""
    model, taken = shown[0].model, -1e9
    columns = {one.batch_size: one.intensity for one in shown if one.model == model}
    for batch, intensity in sorted(columns.items()):
        slope = gb_per_s / 1000 * intensity
        x, y = place(intensity, min(slope, tflop_per_s) if known(tflop_per_s) else slope)
        words = f"batch {batch}" if taken < 0 else str(batch)
        room = text_width(words) / 2 + 4
        if x - room > taken:
            write(ax, x, y - 9, words, muted=True, align="center")
            taken = x + room
