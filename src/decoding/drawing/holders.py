"""Who holds what in the one kernel: clusters are heads, blocks are slices, and what travels between them."""

from matplotlib import rc_context

from .shapes import arrow, bars, canvas, text_width, wrapped, write
from .svg import Panel, Picture
from .theme import CHECK, FOREGROUND, IDLE, MUTED, NARROW, STYLE, WIDTH, WORK

SQUARE, GAP = 12, 4  # pixels: a block in the map of all
LINE, TOP = 18, 30


def holders(heads=12, cluster=8, width=768, *, caption=None):
    """Draw all blocks, and what one of them holds.

    Args:
        heads: of a layer, a cluster each.
        cluster: blocks of a cluster.
        width: of the model.
        caption: a sentence below it.

    Returns:
        A ``Picture``.
    """
    title = "A cluster is a head, a block is a slice of it"
    held = held_by_a_block(heads, cluster, width)
    said = "; ".join(f"{what}: {how}" for what, how in held)
    alt = (
        f"{title}. {heads} columns of {cluster} blocks: a column is a cluster and computes one head of the attention. "
        f"A block holds, of each layer: {said}. Within a column blocks write into each other's shared memory: query, "
        "key and value, the parts of the attention, and the parts of the sums. Between columns what each adds to x "
        "goes through the L2 cache, twice a layer."
    )
    rows, narrow = ([Panel("", _draw(heads, cluster, held, one))] for one in (WIDTH, NARROW))
    return Picture(title, rows, caption, alt=alt, narrow=narrow)


def held_by_a_block(heads, cluster, width):
    """Return what a block holds of a layer, as (what, how much) pairs of words."""
    head = width // heads
    return [
        ("query, key, value", f"{head // cluster} of the head's {head} rows each"),
        ("keys and values kept", f"every {cluster}th position, of this head"),
        ("projection", f"{width // cluster} of {width} outputs, from this head"),
        ("feed-forward", f"{4 * width // (heads * cluster)} of {4 * width} hidden units"),
        ("x, the residual", f"all {width} numbers, like every block"),
    ]


def _draw(heads, cluster, held, width):
    step = SQUARE + GAP
    across, down = heads * step - GAP, cluster * step - GAP
    left = (width - across) / 2
    below = TOP + down + 34
    lines_of = [[*wrapped(f"{what}: {how}", width - 28)] for what, how in held]
    tall = sum(LINE * len(rows) + 4 for rows in lines_of) + 34
    with rc_context(STYLE):
        fig, ax = canvas(width, below + tall + 74)
        write(ax, width / 2, 16, f"{heads} clusters of {cluster} blocks", bold=True, align="center")
        places = [
            (left + column * step, TOP + row * step, SQUARE, SQUARE)
            for column in range(heads)
            for row in range(cluster)
        ]
        bars(ax, places, edge=MUTED)
        chosen = heads // 3
        x = left + chosen * step
        bars(ax, [(x, TOP + row * step, SQUARE, SQUARE) for row in range(cluster)], fill=WORK)
        bars(ax, [(x - 3, TOP - 3, SQUARE + 6, down + 6)], edge=CHECK, width=2)
        middle = TOP + down + 3
        arrow(ax, (x + SQUARE / 2, middle), (x + SQUARE / 2, below - 4), colour=MUTED)
        write(ax, x + SQUARE + 8, middle + 20, "one of its blocks", muted=True)
        bars(ax, [(1, below, width - 2, tall)], edge=FOREGROUND)
        write(ax, 12, below + 20, "a block, of each layer", bold=True)
        y = below + 42
        for rows in lines_of:
            for row in rows:
                write(ax, 12, y, row)
                y += LINE
            y += 4
        y = below + tall + 24
        for colour, words in (
            (CHECK, "within a cluster: into the other's shared memory"),
            (IDLE, "between all: what each head adds to x, through L2"),
        ):
            arrow(ax, (2, y - 4), (28, y - 4), colour=colour)
            shown = words if text_width(words) + 36 < width else wrapped(words, width - 40)[0]
            write(ax, 36, y, shown)
            if shown != words:
                y += LINE
                write(ax, 36, y, words[len(shown) :].strip())
            y += LINE + 6
        return fig
