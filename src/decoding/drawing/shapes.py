"""What drawings are made of: a canvas in pixels, bars, hatching, arrows and text that fits."""

from functools import lru_cache

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

from .theme import FONT, FOREGROUND, MUTED, STYLE

HEAD = 7  # pixels, the length of an arrow's head


def canvas(width, height):
    """Return a matplotlib figure and its axes, in which y goes down and a unit is a pixel."""
    fig = Figure(figsize=(width / 72, height / 72))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, width), ylim=(height, 0))
    return fig, ax


def bars(ax, rectangles, *, fill="none", edge="none", alpha=1, dashes="-", width=1.2):
    """Draw many (x, y, width, height) rectangles as one shape, whatever number there is."""
    corners, codes = [], []
    for x, y, w, h in rectangles:
        corners += [(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)]
        codes += [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    style = {"linestyle": dashes, "linewidth": width, "alpha": alpha}
    _add(ax, corners, codes, facecolor=fill, edgecolor=edge, **style)


def lines(ax, pairs, *, colour=FOREGROUND, dashes="-", width=1.2):
    """Draw many lines, each from one (x, y) to another, as one shape."""
    corners = [point for pair in pairs for point in pair]
    codes = [Path.MOVETO, Path.LINETO] * (len(corners) // 2)
    style = {"edgecolor": colour, "linestyle": dashes, "linewidth": width}
    _add(ax, corners, codes, facecolor="none", **style)


def hatched(ax, rectangles, *, colour=FOREGROUND, step=6):
    """Draw rectangles filled with diagonal lines: as lines, since a pattern would need an id."""
    bars(ax, rectangles, edge=colour)
    lines(ax, diagonals(rectangles, step), colour=colour)


def diagonals(rectangles, step=6):
    """Return the diagonal lines that fill (x, y, width, height) rectangles, as pairs of (x, y)."""
    strokes = []
    for x, y, w, h in rectangles:
        offset = -h
        while offset < w:
            left, right = max(offset, 0), min(offset + h, w)
            if right > left + 1:  # less than a pixel is not seen
                low, high = (y + h - (at - offset) for at in (left, right))
                strokes.append(((x + left, low), (x + right, high)))
            offset += step
    return strokes


def disc(ax, x, y, radius, *, fill="none", edge="none", width=1.8):
    """Draw a disc around (x, y), or a ring where only ``edge`` is given."""
    round_ = Path.circle((x, y), radius)
    _add(ax, round_.vertices, round_.codes, facecolor=fill, edgecolor=edge, linewidth=width)


def mark(ax, x, y, shape, size, colour):
    """Draw the outline of a "square", a "diamond" or a "triangle" around (x, y), twice ``size`` wide or a little more."""
    if shape == "square":
        bars(ax, [(x - size, y - size, 2 * size, 2 * size)], edge=colour, width=2)
        return
    if shape == "diamond":
        reach = 1.4 * size
        corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]
    else:
        reach = 1.3 * size
        corners = [(x, y - reach), (x + reach, y + size), (x - reach, y + size)]
    codes = [Path.MOVETO, *[Path.LINETO] * (len(corners) - 1), Path.CLOSEPOLY]
    style = {"facecolor": "none", "edgecolor": colour, "linewidth": 1.8}
    _add(ax, [*corners, corners[0]], codes, **style)


def arrow(ax, start, end, *, colour=FOREGROUND, dashes="-"):
    """Draw an arrow from one (x, y) to another."""
    (x0, y0), (x1, y1) = start, end
    length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-9)
    dx, dy = (x1 - x0) / length * HEAD, (y1 - y0) / length * HEAD
    lines(ax, [(start, (x1 - dx, y1 - dy))], colour=colour, dashes=dashes)
    tip = [end, (x1 - dx - dy / 2, y1 - dy + dx / 2), (x1 - dx + dy / 2, y1 - dy - dx / 2), end]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    _add(ax, tip, codes, facecolor=colour, edgecolor="none")


def _add(ax, corners, codes, **style):
    if len(corners):
        ax.add_patch(PathPatch(Path(corners, codes), clip_on=False, **style))


def write(ax, x, y, words, *, size=FONT, muted=False, bold=False, align="left", colour=None):
    """Write one line of text whose baseline begins (or ends, or has its middle) at (x, y)."""
    ax.text(
        x,
        y,
        words,
        size=size,
        color=colour or (MUTED if muted else FOREGROUND),
        weight="bold" if bold else "normal",
        horizontalalignment=align,
    )


def label(ax, x, y, room, choices, **style):
    """Write the first of ``choices`` that fits into ``room``, centred in it; nothing if none does."""
    words = next((words for words in choices if text_width(words) + 6 < room), None)
    if words:
        write(ax, x + room / 2, y, words, align="center", **style)


def legend(entries, room):
    """Return a legend that wraps within ``room`` pixels: its height, and a function that draws it.

    Args:
        entries: (words, swatch) pairs; ``swatch(ax, x, y, width, height)`` draws a sample.

    The function takes the axes and the y of the first baseline.
    """
    placed, x, row = [], 0, 0
    for words, swatch in entries:
        needed = 24 + text_width(words)
        if x and x + needed > room:
            x, row = 0, row + 1
        placed.append((x, 22 * row, words, swatch))
        x += needed + 14

    def draw(ax, y):
        for x, below, words, swatch in placed:
            swatch(ax, x, y + below - 11, 18, 13)
            write(ax, x + 24, y + below, words)

    return 22 * row + 8, draw


def key(entries, width, *, below=0):
    """Return a legend as a figure of its own.

    Args:
        entries: as for ``legend``.
        width, below: of the figure, and of the room below the legend, in pixels.
    """
    height, draw = legend(entries, width)
    with rc_context(STYLE):
        fig, ax = canvas(width, height + 14 + below)
        draw(ax, 14)
    return fig


def swatch(colour, alpha=1, edge=False):
    """Return a function that draws a sample of a bar for a legend."""

    def draw(ax, *box):
        bars(ax, [box], fill=colour, alpha=alpha)
        if edge:
            bars(ax, [box], edge=FOREGROUND)

    return draw


def hatched_swatch(ax, *box):
    """Draw a sample of hatching for a legend."""
    hatched(ax, [box])


@lru_cache(maxsize=4096)
def text_width(words, size=FONT, bold=False):
    """Return the width of a line of text in pixels, in a font that is wider than most."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(words, font, False)[0]


def wrapped(words, room, size=FONT, bold=False):
    """Return the lines into which text breaks where there are ``room`` pixels for one."""
    rows = []
    for word in filter(None, words.split(" ")):  # a no-break space stays
        longer = f"{rows[-1]} {word}" if rows else word
        if rows and text_width(longer, size, bold) <= room:
            rows[-1] = longer
        else:
            rows.append(word)
    return rows
