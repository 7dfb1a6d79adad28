"""An interleaving of host and streams in which a loop goes wrong, as lanes with time going down."""

from matplotlib import rc_context

from .shapes import arrow, bars, canvas, lines, wrapped, write
from .svg import Picture
from .theme import BACKGROUND, FONT, GRID, HOST, IDLE, MUTED, STYLE, WIDE, WORK

HEAD, GAP, LINE, INNER = (
    30,
    14,
    17,
    8,
)  # pixels: the lanes' names, between rows, a line, within a box
LANE = 224  # pixels, the widest lane
BETWEEN = 22


def draw_counterexample(checked, *, title=None, caption=None):
    """Draw the first fault of a loop as an interleaving: what comes too early is joined to what comes too late.

    Args:
        checked: what ``decoding.checker.check_order`` returned, with a fault that has rows.
        title: the message; default: made from the loop's name.
        caption: a sentence below it.

    Returns:
        A ``Picture``.

    Raises:
        ValueError: there is no fault, or it needs no interleaving to show.
    """
    rows = checked.faults[0].rows if checked.faults else []
    if not rows:
        raise ValueError(f"{checked.name} has no interleaving that goes wrong: nothing to draw.")
    lanes = sorted({row.lane for row in rows}, key=lambda lane: (lane != "host", lane))
    room = min(LANE, (WIDE - BETWEEN * (len(lanes) - 1)) / len(lanes))
    lefts = {lane: at * (room + BETWEEN) for at, lane in enumerate(lanes)}
    words = [wrapped(row.does, room - 2 * INNER) for row in rows]
    boxes, y = [], HEAD
    for row, texts in zip(rows, words, strict=True):
        height = LINE * (len(texts) + 1 + bool(row.mark)) + 10
        boxes.append((lefts[row.lane], y, room, height))
        y += height + GAP
    with rc_context(STYLE):
        fig, ax = canvas(len(lanes) * room + BETWEEN * (len(lanes) - 1), y + 4)
        for lane, left in lefts.items():
            write(ax, left, FONT, lane, bold=True)
            lines(ax, [((left + room / 2, HEAD - 8), (left + room / 2, y))], colour=GRID, width=2)
        for first, second in checked.faults[0].edges:
            if rows[first].lane != rows[second].lane:
                _edge(ax, boxes[first], boxes[second])
        for row, texts, box in zip(rows, words, boxes, strict=True):
            _operation(ax, row, texts, box, several=len({row.call for row in rows}) > 1)
        early, late = (
            next(at for at, row in enumerate(rows) if row.mark == mark)
            for mark in ("too early", "too late")
        )
        _torn(ax, boxes[early], boxes[late])
    alt = f"{title or _title(checked)}. {checked.faults[0].words} In this order: {_told(rows)}."
    return Picture(title or _title(checked), [("", fig)], caption, alt=alt)


def _title(checked):
    return f"{checked.name}: an order in which it goes wrong"


def _told(rows):
    return "; ".join(
        f"{row.lane}{'' if row.step is None else f', step {row.step}'}: {row.does}"
        + (f" ({row.mark})" if row.mark else "")
        for row in rows
    )


def _operation(ax, row, texts, box, several):
    x, y, _, height = box
    edge = IDLE if row.mark else HOST if row.lane == "host" else WORK
    bars(ax, [box], fill=BACKGROUND)
    bars(ax, [box], fill=edge, alpha=0.14 if row.mark else 0.06)
    bars(ax, [box], edge=edge, width=2 if row.mark else 1.2)
    where = [f"step {row.step}"] if row.step is not None else []
    where += [f"call {row.call}"] if several else []
    where += [f"line {row.line}"] if row.line else []
    write(ax, x + INNER, y + LINE, " · ".join(where), muted=True, size=FONT)
    for number, text in enumerate(texts, 2):
        write(ax, x + INNER, y + LINE * number, text)
    if row.mark:
        write(ax, x + INNER, y + height - 9, row.mark, bold=True, colour=IDLE)


def _edge(ax, first, second):
    """One is over before the other begins: an arrow between their facing sides."""
    right = second[0] > first[0]
    begin = first[0] + first[2] * right, first[1] + first[3] / 2
    end = second[0] + second[2] * (not right), second[1] + second[3] / 2
    arrow(ax, begin, end, colour=MUTED)


def _torn(ax, early, late):
    """Join the two that are in no order."""
    if early[0] == late[0]:
        x = early[0] + early[2] - 3
        ends = (x, early[1] + early[3]), (x, late[1])
    else:
        right = late[0] > early[0]
        ends = (
            (early[0] + early[2] * right, early[1] + early[3] / 2),
            (late[0] + late[2] * (not right), late[1] + late[3] / 2),
        )
    lines(ax, [ends], colour=IDLE, width=2.5, dashes=(0, (5, 3)))
