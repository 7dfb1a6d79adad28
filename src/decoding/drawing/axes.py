"""Lines over an axis: their points, thinned to what can be seen, and their names at their ends."""

import textwrap
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .shapes import text_width
from .theme import FONT, MUTED, STYLE

DOTTED, DASHED = (0, (1, 1.8)), (0, (4, 2))
THICK, THIN, HAIR = 2.5, 1.4, 0.9
STEPS = (1, 2, 5, 10)  # from tick to tick, times a power of ten


class Line(NamedTuple):
    """A line of a figure, in data units."""

    x: list
    y: list
    colour: str
    dashes: object = "-"
    label: str = ""
    faint: bool = False
    width: float = THICK
    marked: bool = False  # a dot at each point


def lines_over(xlabel, lines, width, height, *, top, powers_of_two=False, widest=13):
    """Return a matplotlib figure of ``lines`` from 0 to ``top``, their names to the right.

    Where a value is below 0, the axis begins at the lowest, with a line at 0.

    Args:
        width, height: in pixels.
        powers_of_two: whether the x axis is a scale of powers of two, labelled at the lines' x.
        widest: how many characters of a name stand on one line.
    """
    with rc_context(STYLE):
        fig = Figure(figsize=(width / 72, height / 72))
        ax = fig.add_subplot()
        lowest = min((y for line in lines for y in line.y if y < 0), default=0)
        ax.set_ylim(1.08 * lowest, max(top, 0) or (0 if lowest else 1))
        if lowest:
            ax.axhline(0, color=MUTED, linewidth=1, clip_on=False)
        if powers_of_two:
            ax.set_xscale("log", base=2)
            ax.set_xticks(sorted({x for line in lines for x in line.x}), minor=False)
            ax.set_xticks([], minor=True)
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        for line in lines:
            _plot(ax, line)
        _lay_out(ax, xlabel, lines, widest)
        return fig


def _plot(ax, line):
    style = {"color": line.colour, "clip_on": False}
    x, y = thinned(line.x, line.y)
    alpha = 0.35 if line.faint else 1
    ax.plot(x, y, linestyle=line.dashes, linewidth=line.width, alpha=alpha, **style)
    if line.marked:
        ax.plot(line.x, line.y, "o", markersize=6, **style)


def thinned(x, y, columns=150):
    """Return the points that a line needs to look as it does: of a column, the lowest and highest.

    A column is a pixel or two wide.
    """
    if len(x) <= 2 * columns:
        return x, y
    kept = []
    for column in range(columns):
        part = range(column * len(x) // columns, (column + 1) * len(x) // columns)
        kept += sorted({min(part, key=y.__getitem__), max(part, key=y.__getitem__)})
    kept = sorted({0, *kept, len(x) - 1})
    return [x[at] for at in kept], [y[at] for at in kept]


def _lay_out(ax, xlabel, lines, widest):
    """Place the axes, and the names of the lines at their ends."""
    positions = [x for line in lines for x in line.x]
    left, right = min(positions), max(positions)
    ax.set_xlim(left, right if right > left else left + 1)
    if ax.get_xscale() == "linear":
        whole = all(float(x).is_integer() for x in positions)
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS, integer=whole))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    ax.set_xlabel(xlabel)
    for line in ax.get_ygridlines():
        line.set_clip_on(False)  # a clip needs an id, and they are inside
    named = [line for line in lines if line.label]
    names = ["\n".join(textwrap.wrap(line.label, widest)) for line in named]
    _name_lines(ax, named, names, *_room(ax, names))


def _room(ax, names):
    """Leave room around the axes for what stands there; return their width, height and room above."""
    width, height = ax.figure.get_size_inches() * 72
    ticks = ax.yaxis.get_major_formatter().format_ticks(ax.get_yticks())
    longest = max((text_width(row) for name in names for row in name.split("\n")), default=0)
    left, right = max(map(text_width, ticks)) + 8, longest + 22
    bottom, top = 3.4 * FONT, FONT
    ax.figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return width - left - right, height - bottom - top, top


def _name_lines(ax, lines, names, wide, tall, above):
    floor, ceiling = ax.get_ylim()
    ends = sorted(
        ((line.y[-1] - floor) / (ceiling - floor) * tall, line.x[-1], line.y[-1], name, line.colour)
        for line, name in zip(lines, names, strict=True)
    )
    room = [1.2 * FONT * (name.count("\n") + 1) for *_, name, _ in ends]
    below = FONT / 2  # a name may stand this far below the axis
    placed = spread_out([at + below for at, *_ in ends], room, tall + above + below)
    for (_, x, y, name, colour), at in zip(ends, placed, strict=True):
        ax.annotate(
            name,
            (x, y),
            xytext=(wide + 16, at - below),
            textcoords="axes points",
            verticalalignment="center",
            linespacing=1.1,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": THIN,
                "shrinkA": 0,
                "shrinkB": 1,
                "relpos": (0, 0.5),
            },
        )


def spread_out(wanted, room, limit):
    """Return the positions nearest to ``wanted`` (ascending) that don't overlap.

    ``room`` is the size of each, centred on its position; all stay between 0 and ``limit`` where
    they fit. Each cluster is centred on what its members wanted (isotonic regression).
    """
    centres = [sum(room[:i]) + size / 2 for i, size in enumerate(room)]
    clusters = []  # (mean of wanted - centre, members)
    for shift in (want - centre for want, centre in zip(wanted, centres, strict=True)):
        members = 1
        while clusters and clusters[-1][0] > shift:
            before, count = clusters.pop()
            shift = (shift * members + before * count) / (members + count)
            members += count
        clusters.append((shift, members))
    shifts = [shift for shift, members in clusters for _ in range(members)]
    highest = limit - sum(room)
    return [
        max(0, min(shift, highest)) + centre for shift, centre in zip(shifts, centres, strict=True)
    ]
