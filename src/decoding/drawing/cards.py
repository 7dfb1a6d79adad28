"""The step card, which sets a step beside the step before, and the ladder, which shows all steps."""

from decoding.measuring.comparing import FEWEST

from .curves import has, panel_of
from .shapes import bars, canvas, lines, text_width, write
from .svg import Panel, Picture
from .theme import FONT, GRID, PANEL, WIDTH, WORK, colour_of
from .words import (
    Words,
    as_fast,
    known,
    medians,
    ms,
    percent,
    reserved,
    share_of_limit,
    speed,
    workload_words,
)

HEIGHT = 230


def headline(before, after, setting=None):
    """Return what a step changed, in a few words: "×1.8 faster, −610 MiB reserved".

    A difference of time counts only where it is ``resolved``; one of memory from 1 MiB on. Where
    memory was not measured (on a CPU) the headline says so; of a race it says nothing about memory.

    Args:
        before, after: records, or entrants of a race.
        setting: as for ``may_compare``.

    Raises:
        NotComparable: the two were not measured together.
    """
    for record in (before, after):
        if record.error:
            return Words(f"{record.name} gave no measurement")
    said = speed(before, after, setting)
    if "memory" not in before or "memory" not in after:
        return said
    return Words(f"{said}, {reserved(before, after, setting)}")


def step_card(before, after, *, before2=None, after2=None, title=None, setting=None):
    """Draw the step card: time per token and memory of a step beside the step before.

    Args:
        before, after: records of one workload.
        before2, after2: records of a second workload (batch 1, say).
        title: the message; by default the two names.
        setting: what is compared, as for ``may_compare``; "allocator", say.

    Returns:
        A ``Picture``. For each workload it has the headline, the share of the limit where the limit
        is known (``Record`` with ``floor_ms``), the medians, and a panel each for time and memory
        over the token position. A failed record is told in words.
    """
    pairs = [(before, after)] + ([(before2, after2)] if before2 and after2 else [])
    title = title or f"{before.name} → {after.name}"
    rows, alts = [], [f"{title.rstrip('.')}."]
    for pair in pairs:
        said, workload = headline(*pair, setting), workload_words(pair[1])
        limit = _limit(pair[1])
        own = [*map(medians, pair), *(panel.heading for panel in limit)]
        rows += [Panel(said, kind="headline"), Panel(workload, kind="detail"), *limit]
        panels = [_panel(pair, what) for what in ("time", "memory")]
        rows += [[panel for panel in panels if panel]] if any(panels) else []
        rows += [Panel(medians(record), kind="note") for record in pair]
        alts.append(f"{workload.capitalize()}: {said}. {' '.join(own)}")
    return Picture(title, rows, alt=" ".join(alts), kind="ttb-step-card")


def _limit(record):
    """Return a panel with the share of the limit, in words and as a part of a line; [] if unknown."""
    floor = record.get("floor_ms")
    if floor is None or record.error or record.spread_over < FEWEST:
        return []
    words = (
        f"Share of the limit: {share_of_limit(record)}. The weights and the cache cannot be read "
        f"in less than {ms(floor)}."
    )
    fig, ax = canvas(WIDTH, 14)
    part = min(1, floor / record.ms) * WIDTH
    bars(ax, [(0, 5, WIDTH, 4)], fill=GRID)
    bars(ax, [(0, 5, part, 4)], fill=WORK)
    lines(ax, [((part, 0), (part, 14))], width=2)
    return [Panel(words, fig, "note", alt=words)]


def _panel(records, what):
    shown = [(record, record.name) for record in records if has(record, what)]
    return panel_of(shown, what, PANEL, HEIGHT) if shown else None


def ladder(records, title, *, caption=None):
    """Draw the ladder: a bar of time per token for each record, and × the first that succeeded.

    Where the GPU's busy time is known, its part of the bar is solid and the idle part light.

    Args:
        records: in the order of the ladder; failed ones are told in words.
        title: the message of the figure.
        caption: a sentence below it.

    Returns:
        A ``Picture``.
    """
    good = [record for record in records if not record.error]
    first = good[0] if good else None
    longest = max((record.ms for record in good), default=1)
    step, top = 44, 28
    fig, ax = canvas(WIDTH, step * len(records) + top)
    idle_known = any(known(record.idle) for record in good)
    key = "solid: the GPU works · light: it waits" if idle_known else "time per token"
    write(ax, 0, 14, key, muted=True)
    write(ax, WIDTH, 14, f"× {good[0].name}" if good else "", muted=True, align="right")
    said = [
        _ladder_row(ax, top + step * at + 15, record, first, longest)
        for at, record in enumerate(records)
    ]
    alt = " ".join([f"{title.rstrip('.')}.", *said])
    failures = [medians(record) for record in records if record.error]
    caption = " ".join(filter(None, (caption, *failures)))
    return Picture(title, [("", fig)], caption, alt=alt)


def _ladder_row(ax, y, record, first, longest):
    """Draw a record's words at ``y`` and its bar below them, and return them as a sentence."""
    write(ax, 0, y, record.name, bold=True)
    if record.error:
        write(ax, WIDTH, y, "failed", align="right")
        return medians(record)
    write(ax, WIDTH - 56, y, ms(record.ms), align="right")
    times = as_fast(first, record)
    write(ax, WIDTH, y, times, bold=True, align="right")
    idle = record.idle if known(record.idle) else 0
    length = record.ms / longest * WIDTH
    works = length * (1 - idle)
    colour = colour_of(record)
    bars(ax, [(0, y + 6, works, 16)], fill=colour)
    if idle:
        bars(ax, [(works, y + 6, length - works, 16)], fill=colour, alpha=0.35)
    words = f"{percent(idle)} idle"
    if length - works > text_width(words, FONT - 1) + 12:
        write(ax, works + 6, y + 18.5, words, size=FONT - 1)
    said = f"{record.name}: {ms(record.ms)} per token, {times}"
    return said + (f", GPU idle {percent(record.idle)}." if known(record.idle) else ".")
