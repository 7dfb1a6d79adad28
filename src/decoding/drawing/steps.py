"""Ideas, drawn by hand: what a step reads, keeps, launches and leaves behind. Nothing is measured."""

from itertools import pairwise

from matplotlib import rc_context

from .schedules import draw_schedule
from .shapes import bars, canvas, lines, text_width, write
from .svg import Picture
from .theme import COLOURS, FOREGROUND, HOST, IDLE, STYLE, WIDTH, WORK

PROMPT, STEPS = 4, 4  # tokens of the prompt, steps that are drawn
KEPT = 0.22  # how solid is what was kept from an earlier step
DASHES = (0, (3, 2))


def growing_tensor():
    """Draw a tensor that grows step by step: in new segments, and in one that expands.

    Returns:
        A ``Picture``.
    """
    steps, first, unit, row = 5, 4, 10, 27
    sizes = [first + step for step in range(steps)]
    panel = row * steps + 34
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, 2 * panel - 12)
        for top, words in ((16, "default"), (16 + panel, "expandable")):
            write(ax, 0, top - 2, words, bold=True)
            for step in range(steps):
                write(ax, 0, top + 21 + row * step, f"step {step + 1}")
        for step in range(steps):
            y, left = 24 + row * step, 56
            boxes = []
            for size in sizes[: step + 1]:
                boxes.append((left, y, size * unit, 18))
                left += size * unit + 5
            bars(ax, boxes[:-1], fill=IDLE, alpha=0.25)
            bars(ax, boxes[-1:], fill=COLOURS["naive"])
            grown = (56, y + panel, sizes[step] * unit, 18)
            bars(ax, [grown], fill=COLOURS["expandable_segments"])
            bars(ax, [*boxes, grown], edge=FOREGROUND)
    alt = (
        f"A tensor grows from {first} to {sizes[-1]} units in {steps} steps "
        "and is freed after each. By default every step needs a new segment: at last "
        f"{sum(sizes)} units are reserved, {sum(sizes[:-1])} of them free but too small. "
        f"With expandable segments one segment grows: {sizes[-1]} units are reserved."
    )
    caption = (
        "A tensor that grows by a unit a step and is freed after each. An outline "
        "is a segment. Solid: in use. Light: reserved, free, too small for the next step."
    )
    return Picture("", [("", fig)], caption, alt=alt)


def dead_positions():
    """Draw the two caches step by step: what is written, kept, and allocated but empty.

    Returns:
        A ``Picture``.
    """
    room, row = PROMPT + STEPS - 1, 29
    panel = row * STEPS + 34
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, 2 * panel - 12)
        for top, rung, name in (
            (16, "kv_cache", "dynamic"),
            (16 + panel, "static_cache", "static"),
        ):
            write(ax, 0, top - 2, name, bold=True)
            for step in range(STEPS):
                y, filled = top + 8 + row * step, PROMPT + step
                static = name == "static"
                kept = filled - 1 if static and step else 0
                boxes = [(52 + 27 * at, y, 23, 20) for at in range(room if static else filled)]
                write(ax, 0, y + 15, f"step {step}")
                bars(ax, boxes[:kept], fill=COLOURS[rung], alpha=KEPT)
                bars(ax, boxes[kept:filled], fill=COLOURS[rung])
                bars(ax, boxes[filled:], edge=FOREGROUND, dashes=DASHES)
                write(ax, 62 + 27 * room, y + 15, f"writes {filled - kept}")
    alt = (
        f"Two caches over {STEPS} steps, from a prompt of {PROMPT} tokens. The dynamic "
        f"cache is written anew at every step: {PROMPT}, then {PROMPT + 1}, then "
        f"{PROMPT + 2} positions. The static cache has {room} from the start; "
        "after the prompt each step writes one position and leaves the others in place."
    )
    caption = (
        "Filled: written in this step. Light: kept in place. Dashed: allocated, "
        "empty, hidden by the mask."
    )
    return Picture("", [("", fig)], caption, alt=alt)


def three_ways_to_launch():
    """Draw host and GPU for one step: eager, compiled, compiled and replayed.

    Returns:
        A ``Picture``.
    """
    each = [25 * n for n in range(14)]
    ways = (  # name, begin of each launch, begin of each kernel, length of a kernel
        ("eager: a launch for each kernel", each, [at + 23 for at in each], 6),
        ("compiled: a launch for each fused kernel", each[:7], [at + 23 for at in each[:7]], 8),
        ("compiled and replayed: one launch", [0], [38 + 9 * n for n in range(7)], 8),
    )
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, 84 * len(ways) - 16)
        for top, (name, launches, kernels, length) in zip(range(14, 900, 84), ways):
            write(ax, 0, top, name, bold=True)
            write(ax, 0, top + 22, "host")
            write(ax, 0, top + 46, "GPU")
            bars(ax, [(44 + at, top + 11, 21, 13) for at in launches], fill=HOST)
            bars(ax, [(44 + at, top + 35, length, 13) for at in kernels], fill=WORK)
    alt = (
        "One decode step on the host and on the GPU, three ways. Eager: fourteen launches, and "
        "after each a short kernel, with idle time between. Compiled: seven launches, seven "
        "kernels, still with idle time between. Compiled and replayed: one launch, and the "
        "seven kernels follow each other closely."
    )
    caption = "A sketch, not to scale. Grey: the host launches. Blue: the GPU works."
    return Picture("", [("", fig)], caption, alt=alt)


PIECES = [(at, at + 8) for at in range(12, 300, 23)]
# Each drawing of the board: its title, two steps as (from, to) on the host and on the GPU, one step
# of them, and its words.
BOARD = (
    (
        "Chapter 1, batch 1: many launches, little work",
        ((0, 150), (150, 300)),
        PIECES,
        (0, 150),
        "one step: the host's bar",
    ),
    (
        "Chapter 1, batch 32: many launches, much work",
        ((0, 50), (150, 200)),
        ((8, 150), (158, 300)),
        (8, 158),
        "one step: the GPU's bar",
    ),
    (
        "Chapter 6: one graph, checked every token",
        ((0, 60), (150, 210)),
        ((60, 150), (210, 300)),
        (60, 210),
        "one step: both bars",
    ),
    (
        "Chapter 7: one graph, the next launched first",
        ((0, 60), (60, 120)),
        ((60, 150), (150, 240)),
        (60, 150),
        "one step: the longer bar",
    ),
)


def two_bars():
    """Draw the host's and the GPU's bar of two steps, in the four ways in which a class draws them.

    Returns:
        A ``Picture``.
    """
    said = [f"{title}; {words}." for title, *_, words in BOARD]
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, 116 * len(BOARD) - 22)
        for at, (title, host, gpu, step, words) in enumerate(BOARD):
            _draw_two_bars(ax, 14 + 116 * at, title, host, gpu)
            _mark_step(ax, 14 + 116 * at + 64, step, words)
    alt = f"Four drawings of two decode steps, a bar for the host and one for the GPU. {' '.join(said)}"
    title = "How long a step takes: the longer bar, or both"
    return Picture(title, [("", fig)], alt=alt)


def _draw_two_bars(ax, top, title, host, gpu):
    write(ax, 0, top, title)
    for name, y in (("host", top + 24), ("GPU", top + 49)):
        write(ax, 0, y, name, muted=True)
    host, gpu, waits = (
        [(44 + a, y, b - a, 18) for a, b in found if b > a]
        for found, y in (
            (host, top + 10),
            (gpu, top + 35),
            ([(a, b) for (_, a), (b, _) in pairwise(gpu)], top + 35),
        )
    )
    bars(ax, host, fill=HOST)
    bars(ax, waits, fill=IDLE)
    bars(ax, gpu, fill=WORK)
    bars(ax, [*host, *gpu], edge=FOREGROUND)


def _mark_step(ax, y, step, words):
    """A measure below a step, with words beside it, or below where there is no room."""
    begin, end = (44 + at for at in step)
    lines(
        ax, [((begin, y), (end, y)), ((begin, y - 4), (begin, y + 4)), ((end, y - 4), (end, y + 4))]
    )
    x = min(end + 8, WIDTH - text_width(words))
    write(ax, x, y + 5, words, muted=True)


def finished_board():
    """Draw the schedule of two streams as it stands on the board at the end.

    Returns:
        A ``Picture``.
    """
    return draw_schedule(
        "two streams",
        tokens=4,
        title="The finished board",
        alt="The host launches step 1, then step 2, then reads the flag of step 1; launches step 3, "
        "reads the flag of step 2; launches step 4, reads the flag of step 3. Steps 1 and 3 run on "
        "stream A, steps 2 and 4 on stream B, each after the step before: a dashed arrow, an event. "
        "A solid arrow leads from the end of each step to the host's reading of its flag. The GPU is "
        "never idle between two steps.",
    )
