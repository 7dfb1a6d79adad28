"""Segments of the caching allocator and the blocks in them, to scale."""

from matplotlib import rc_context

from .shapes import bars, canvas, write
from .svg import Picture
from .theme import COLOURS, FOREGROUND, IDLE, STYLE, WIDTH
from .words import counted, mib

ROW, STEP = 20, 25  # pixels: the height of a row, and from one to the next


def draw_segments(
    segments, *, title, row_mib=None, max_segments=200, colour=FOREGROUND, alt=None, caption=None
):
    """Draw segments and their blocks to scale.

    The segments follow each other like words in a line, largest first, and continue in the next row
    when a row is full, so that equal areas are equal amounts of memory.

    Args:
        segments: as ``segments_of`` and ``CachingAllocator.layout`` give them.
        title: the message of the picture.
        row_mib: MiB in a row; pass the same one to compare two pictures.
        max_segments: how many to draw at most; the picture says how many are not.
        colour: a rung, whose colour the allocated blocks get, or a colour.
        alt: replaces the alternative text, which is otherwise made from the numbers.
        caption: a sentence below it.

    Returns:
        A ``Picture``.
    """
    total = sum(segment["total_mib"] for segment in segments)
    row_mib = row_mib or _nice_row(total)
    left_out = max(0, len(segments) - max_segments)
    largest = sorted(segments, key=lambda segment: (-segment["total_mib"], segment["address"]))
    pieces, rows = _pieces(largest[:max_segments], row_mib)
    active = sum(_blocks(segments, "active"))
    entries = [
        (COLOURS.get(colour, colour), 0.75, f"allocated, {mib(active)}"),
        (IDLE, 0.3, f"reserved but free, {mib(total - active)}"),
        (None, 1, f"one outline = one segment; one row = {row_mib:,g} MiB"),
    ]
    if left_out:
        entries.append((None, 1, f"not drawn: {counted(left_out, 'smaller segment')}"))
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, 10 + rows * STEP + 21 * len(entries))
        for (fill, alpha, _), kind in zip(entries, ("active", "inactive")):
            bars(ax, pieces[kind], fill=fill, alpha=alpha)
        bars(ax, pieces["outline"], edge=FOREGROUND, width=0.8)
        _write_legend(ax, entries, 20 + rows * STEP)
    alt = alt or _describe(title, segments, total, active, left_out)
    return Picture(title, [("", fig)], caption, alt=alt)


def _blocks(segments, state):
    """The sizes of the blocks in a state, in MiB."""
    blocks = [block for segment in segments for block in segment["blocks"]]
    return [block["mib"] for block in blocks if block["state"] == state]


def _pieces(segments, row_mib):
    """The rectangles of blocks and outlines, cut where a row ends, and the number of rows."""
    pieces, position = {"active": [], "inactive": [], "outline": []}, 0.0
    for segment in segments:
        pieces["outline"] += _cut(position, segment["total_mib"], row_mib)
        for block in segment["blocks"]:
            pieces[block["state"]] += _cut(position, block["mib"], row_mib)
            position += block["mib"]
    return pieces, max(1, int(-(-position // row_mib)))


def _cut(start, amount, row_mib):
    """The bar of an amount from ``start`` MiB on, a piece for each row that it touches."""
    end, scale = start + amount, (WIDTH - 2) / row_mib
    while end - start > row_mib * 1e-9:
        row = int(start / row_mib + 1e-9)
        stop = min(end, (row + 1) * row_mib)
        x = (start - row * row_mib) * scale + 1
        yield x, 4 + row * STEP, (stop - start) * scale, ROW
        start = stop


def _write_legend(ax, entries, y):
    for at, (fill, alpha, words) in enumerate(entries):
        baseline = y + 21 * at
        if fill:
            bars(ax, [(0, baseline - 11, 13, 13)], fill=fill, alpha=alpha)
        write(ax, 20 if fill else 0, baseline, words, muted=not fill)


def _describe(title, segments, total, active, left_out):
    largest_free = max(_blocks(segments, "inactive"), default=0)
    share = 100 * active / total if total else 0
    return (
        f"{title}. {counted(len(segments), 'segment')}, {mib(total)} in all; "
        f"{mib(active)} of them ({share:.0f} %) are allocated and "
        f"{mib(total - active)} are free. "
        f"The largest free block has {mib(largest_free)}."
        + (f" Not drawn: {counted(left_out, 'smaller segment')}." if left_out else "")
    )


def _nice_row(total_mib):
    """MiB per row, a power of two, so that ``total_mib`` fills 8 to 16 rows."""
    row = 1.0
    while total_mib / row > 16:
        row *= 2
    return row
