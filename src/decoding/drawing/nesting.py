"""Card, segment, block: what lies in what when the caching allocator holds memory."""

from matplotlib import rc_context

from .shapes import bars, canvas, write
from .svg import Picture
from .theme import FOREGROUND, IDLE, MUTED, STYLE, WIDTH, WORK

GROUND = 0.14  # how solid is a segment behind its blocks
# The segments, from top to bottom: their blocks as (width in pixels, in use).
SEGMENTS = (
    ((70, True), (44, False), (58, True), (96, True)),
    ((110, False), (158, True)),
    ((268, False),),
)
SAID = ("partly in use: it stays", "partly in use: it stays", "wholly free: it can go back")


def memory_nesting():
    """Draw a card with its segments and their blocks, each named where it lies.

    Returns:
        A ``Picture``.
    """
    left, top, step, tall = 16, 56, 70, 26
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, 330)
        bars(ax, [(1, 24, WIDTH - 2, 304)], edge=MUTED)
        write(ax, 1, 15, "card: all memory of the GPU", bold=True)
        for at, (blocks, said) in enumerate(zip(SEGMENTS, SAID)):
            y = top + step * at
            name = "segment: asked from the driver in one piece" if at == 0 else "segment"
            write(ax, left, y - 6, name, bold=at == 0)
            room = sum(width for width, _ in blocks) + 3 * (len(blocks) + 1)
            bars(ax, [(left, y, room, tall + 10)], fill=MUTED, alpha=GROUND)
            bars(ax, [(left, y, room, tall + 10)], edge=FOREGROUND)
            x = left + 3
            for width, used in blocks:
                box = [(x, y + 5, width, tall)]
                bars(ax, box, fill=WORK if used else IDLE, alpha=1 if used else 0.3)
                x += width + 3
            write(ax, left + room - 2, y - 6, said, muted=True, align="right") if at else None
        y = top + step * 3 - 8
        write(ax, left, y + 12, "not taken from the driver: free for other programs", muted=True)
        for x, fill, alpha, words in (
            (left, WORK, 1, "block in use: allocated"),
            (left + 186, IDLE, 0.3, "free block: only reserved"),
        ):
            bars(ax, [(x, y + 34, 13, 13)], fill=fill, alpha=alpha)
            write(ax, x + 19, y + 45, words)
    title = "Blocks lie in segments, segments on the card; only whole segments go back"
    alt = (
        f"{title}. A card holds three segments and room that was not taken. The first two segments "
        "hold blocks in use and free blocks beside each other, and must stay. The third is one free "
        "block: it can be given back. Allocated are the blocks in use; reserved are all three segments."
    )
    caption = (
        "Allocated: the blocks in use. Reserved: the three segments. Free blocks of two segments never "
        "join. Not to scale."
    )
    return Picture(title, [("", fig)], caption, alt=alt)
