"""The gap between two steps as one bar in its parts, to scale."""

from matplotlib import rc_context

from .shapes import bars, canvas, lines, text_width, wrapped, write
from .svg import Picture
from .theme import BACKGROUND, IDLE, MUTED, STYLE, WIDTH, WORK
from .words import known, percent, us

STUB, BAR, ROW, LINE = (
    54,
    30,
    22,
    18,
)  # pixels: a step's end, the bar's height, lines above and below


def gap_parts(parts, *, steps, title=None, unprofiled_us=None, caption=None):
    """Draw for how long the GPU waits between two steps, and for what.

    Args:
        parts: name -> µs, in the order of time.
        steps: the numbers of the step before and the one after.
        title: its message; by default how much of the gap the first part is.
        unprofiled_us: how long the whole gap is without a profiler: a bar at the same scale.
        caption: a sentence below it.

    Returns:
        A ``Picture``. Only the ends of the two steps are drawn.

    Raises:
        ValueError: no parts, or one that is not above 0 µs.
    """
    if not parts or not all(length > 0 for length in parts.values()):
        raise ValueError(f"Each part of a gap takes more than 0 µs, and there is one: {parts}.")
    whole = sum(parts.values())
    first = next(iter(parts.values()))
    title = title or f"The flag takes {us(first)} of the gap of {us(whole)}"
    shown = known(unprofiled_us)
    scale = (WIDTH - 2 * STUB) / max(whole, unprofiled_us if shown else 0)
    placed, x = [], STUB
    for name, took in parts.items():
        placed.append((name, took, x, took * scale, _lines_of(name, took, took * scale)))
        x += took * scale
    above = [part for part in placed if not part[-1]]
    top = ROW * len(above) + 6
    below = top + BAR + LINE * max(len(words) for *_, words in placed) + 10
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, below + (2 * LINE + BAR + 2 if shown else 0))
        _draw_steps(ax, top, steps, x)
        for _, took, left, width, words in placed:
            bars(ax, [(left, top, width, BAR)], fill=IDLE, edge=BACKGROUND, width=0.8)
            if words:
                middle = left + width / 2
                write(ax, middle, top + 20, us(took), align="center", colour=BACKGROUND)
                for row, line in enumerate(words):
                    write(ax, middle, top + BAR + LINE * (row + 1), line, align="center")
        for row, (name, took, left, width, _) in enumerate(above):
            _write_above(ax, ROW * row, top, left + width / 2, f"{us(took)}: {name}")
        if shown:
            write(ax, STUB, below + LINE, "without the profiler", muted=True)
            y, width = below + LINE + 8, unprofiled_us * scale
            _draw_steps(ax, y, steps, STUB + width)
            bars(ax, [(STUB, y, width, BAR)], fill=IDLE)
            write(
                ax, STUB + width / 2, y + 20, us(unprofiled_us), align="center", colour=BACKGROUND
            )
    said = [f"{name}, {us(took)}, {percent(took / whole)}" for name, took in parts.items()]
    alt = (
        f"{title}. One bar from the end of step {steps[0]} to the beginning of step {steps[1]}, "
        f"{us(whole)} with the profiler, in {len(parts)} parts: {'; '.join(said)}."
    )
    alt += f" Without the profiler the GPU waits {us(unprofiled_us)}." if shown else ""
    return Picture(title, [("", fig)], caption, alt=alt)


def _draw_steps(ax, y, steps, right):
    """What is drawn of the step before and of the one after, torn where they go on."""
    for x, step in ((0, steps[0]), (right, steps[1])):
        bars(ax, [(x, y, STUB, BAR)], fill=WORK)
        words = f"step {step}" if text_width(f"step {step}") < STUB else f"{step}"
        write(ax, x + STUB / 2, y + 20, words, align="center", colour=BACKGROUND)


def _lines_of(name, took, width):
    """The lines in which a part's name stands below it; none where there is no room for it."""
    lines = wrapped(name, width - 6)
    return lines if all(text_width(line) < width for line in [*lines, us(took)]) else []


def _write_above(ax, y, bar, x, words):
    """Write the name of a narrow part above the bar, with a leader to it."""
    lines(ax, [((x, y + 4), (x, bar))], colour=MUTED, width=1)
    fits = x + 6 + text_width(words) <= WIDTH
    write(ax, x + 5 if fits else x - 5, y + 15, words, align="left" if fits else "right")
