"""Times as bars of their parts, to one scale, with a line where the least of them would end."""

from matplotlib import rc_context

from .shapes import bars, canvas, key, lines, swatch, write
from .svg import Panel, Picture
from .theme import BACKGROUND, CHECK, COPY, FOREGROUND, HOST, IDLE, NARROW, STYLE, WIDTH, WORK
from .words import count, known, percent, us

ROW, BAR = 46, 18  # pixels
HUES = (WORK, COPY, CHECK, HOST, FOREGROUND)
PAUSES = "pauses"  # the part in which nothing runs


def stacked(times, title, *, least=None, caption=None):
    """Draw for each time what it is made of.

    Args:
        times: name -> part -> µs, the same parts in the same order for each. One that is called
            ``PAUSES`` is drawn as idle time.
        title: the message of the figure.
        least: name -> µs, where a line stands; none where it is not known.
        caption: a sentence below it.

    Returns:
        A ``Picture``, whose alternative text gives every part.

    Raises:
        ValueError: there are more parts than colours.
    """
    parts = [*dict.fromkeys(part for found in times.values() for part in found)]
    works = [part for part in parts if part != PAUSES]
    if len(works) > len(HUES):
        raise ValueError(
            f"There are {len(HUES)} colours, for {len(works)} parts: join some of them."
        )
    hues = dict(zip(works, HUES)) | {PAUSES: IDLE}
    least = least or {}
    alt = f"{title.rstrip('.')}. {' '.join(_said(*item, least) for item in times.items())}"
    rows, narrow = (
        [
            Panel("", key([(part, swatch(hues[part])) for part in parts], width)),
            Panel("", _draw(times, hues, least, width)),
        ]
        for width in (WIDTH, NARROW)
    )
    return Picture(title, rows, caption, alt=alt, narrow=narrow)


def _said(name, parts, least):
    whole = sum(parts.values())
    each = ", ".join(f"{part} {us(took)} ({percent(took / whole)})" for part, took in parts.items())
    line = f" The line: {us(least[name])}." if known(least.get(name)) else ""
    return f"{name}, {us(whole)}: {each}.{line}"


def _draw(times, hues, least, width):
    longest = max(sum(parts.values()) for parts in times.values())
    with rc_context(STYLE):
        fig, ax = canvas(width, ROW * len(times) + 4)
        for at, (name, parts) in enumerate(times.items()):
            y, x = ROW * at, 0
            write(ax, 0, y + 13, name, bold=True)
            write(ax, width, y + 13, f"{count(sum(parts.values()))} µs", align="right")
            for part, took in parts.items():
                long = took / longest * width
                bars(ax, [(x, y + 20, long, BAR)], fill=hues[part], edge=BACKGROUND, width=0.8)
                x += long
            if known(least.get(name)):
                end = least[name] / longest * width
                lines(ax, [((end, y + 17), (end, y + 23 + BAR))], colour=FOREGROUND, width=2.5)
        return fig
