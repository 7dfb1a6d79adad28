"""The step card, which sets a step beside the step before, and the ladder, which shows all steps."""

from decoding.measuring.comparing import FEWEST

from .curves import has, panel_of
from .shapes import bars, canvas, lines
from .svg import Panel, Picture
from .theme import GRID, PANEL, WIDTH, WORK
from .words import (
    Words,
    as_fast,
    medians,
    ms,
    reserved,
    share_of_limit,
    speed,
    workload_words,
)
from .work import Bar, work_and_idle

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

    Where the GPU's busy time is known, its part of the bar is blue and the idle part red.

    Args:
        records: in the order of the ladder; failed ones are told in words.
        title: the message of the figure.
        caption: a sentence below it.

    Returns:
        A ``Picture``.
    """
    failures = [medians(record) for record in records if record.error]
    caption = " ".join(filter(None, (caption, *failures)))
    return work_and_idle({"": rungs_as_bars(records, times=True)}, title, caption=caption)


def rungs_as_bars(records, *, times=False):
    """Return a ``Bar`` for each record; with ``times``, also × the first that succeeded.

    Args:
        records: a list, or a dict with names for them.
    """
    named = records.items() if isinstance(records, dict) else [(one.name, one) for one in records]
    first = next((record for _, record in named if not record.error), None)
    return [
        Bar(name, record.ms, failed=medians(record).partition(": ")[2].rstrip("."))
        if record.error
        else Bar(
            name,
            record.ms,
            record.idle,
            as_fast(first, record) if times and record is not first else "",
        )
        for name, record in named
    ]
