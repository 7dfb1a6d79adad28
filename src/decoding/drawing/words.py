"""Numbers as text, the same in sentences, figures and tables. What was not measured is "–".

Each function returns ``Words``: text whose ``repr`` has no quotes, so that an inline value shows as
the sentence needs it. What a function names (ms, MiB, %) is part of its text; ``number`` has no unit.
"""

import math

from decoding.measuring.comparing import FEWEST, change_of, ratio_of, resolved
from decoding.measuring.errors import NotComparable

UNKNOWN = "–"
WITHIN = "≈"  # the same within the spread


class Words(str):
    """Text that shows itself without quotes, also after more text was added."""

    def __repr__(self):
        return str.__str__(self)

    def __add__(self, other):
        return Words(str.__add__(self, other))

    def __radd__(self, other):
        return Words(other + str.__str__(self))


def known(value):
    """Return whether ``value`` is a number: neither None nor nan."""
    return value is not None and not math.isnan(value)


def _measured(write):
    """Let a function that writes a number give "–" where there is none."""

    def words(value):
        return Words(write(value) if known(value) else UNKNOWN)

    words.__name__, words.__qualname__, words.__doc__ = (
        write.__name__,
        write.__name__,
        write.__doc__,
    )
    return words


@_measured
def number(value):
    """Return a number of any unit to three digits: 0.577, 6.41, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}".rstrip(".")


@_measured
def count(value):
    """Return a whole number: 1,234."""
    return f"{value:,.0f}"


@_measured
def ms(value):
    """Return a time in ms to three digits: 6.41 ms."""
    return f"{number(value)} ms"


@_measured
def us(value):
    """Return a time in µs: 429 µs."""
    return f"{value:,.0f} µs"


@_measured
def seconds(value):
    """Return a time in seconds; in minutes from 100 s on: 12 s, 2.5 min."""
    if value >= 100:
        return f"{value / 60:.1f} min"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


@_measured
def mib(value):
    """Return an amount of memory: 1,390 MiB."""
    return f"{value:,.0f} MiB"


@_measured
def change(mib):
    """Return a difference of memory, with its sign: −610 MiB."""
    return f"{'−' if mib < 0 else '+'}{abs(mib):,.0f} MiB"


@_measured
def ratio(value):
    """Return a ratio: ×12, ×1.8, ×1.04."""
    if value == 1:
        return "×1"
    digits = 0 if value >= 9.95 else 1 if value >= 1.095 else 2
    return f"×{value:.{digits}f}"


@_measured
def percent(share):
    """Return a share (0 to 1): 55 %."""
    return f"{100 * share:.0f} %"


def counted(n, noun):
    """Return a number of things: 1 line, 2 lines."""
    return Words(f"{n:,} {noun}" + ("" if n == 1 else "s"))


def listed(values, write=count):
    """Return several values as words: 8, 32, 128.

    Args:
        values: what to list; nothing gives "–".
        write: how each is written, a function of this module.
    """
    return Words(", ".join(map(write, values)) or UNKNOWN)


def spread_words(spread):
    """Return a spread (median, min, max), without a unit: 6.41 (6.30–6.52)."""
    middle, low, high = (number(spread[key]) for key in ("median", "min", "max"))
    return middle + (f" ({low}–{high})" if low != high else "")


def share_of_limit(record):
    """Return which share of the limit a record's step reaches: 12 %; "–" where that is not known.

    The limit is how long the step's weights and cache take to be read: ``record["floor_ms"]``.
    """
    return percent(record.get("floor_ms", math.nan) / record.ms)


def workload_words(record):
    """Return the workload of a record: batch 32, prompt 128, 512 new tokens."""
    workload = record.workload
    return Words(
        f"batch {workload['batch_size']}, prompt {workload['prompt_tokens']}, "
        f"{workload['new_tokens']} new tokens"
    )


def speed(before, after, setting=None):
    """Return what a step does to the time of a token: ×1.8 faster, ×1.1 slower.

    Args:
        before, after: records, or entrants of a race. A difference counts only where it is
            ``resolved``: where the ranges over at least three processes or rounds don't overlap.
        setting: as for ``may_compare``.

    Raises:
        NotComparable: the two were not measured together.
    """
    if before.error or after.error:
        return Words(UNKNOWN)
    factor = ratio_of(before, after, setting=setting)
    if not known(factor):
        return Words(UNKNOWN)
    if min(before.spread_over, after.spread_over) < FEWEST:
        return Words("no difference of time shown")
    if not resolved(before, after):
        return Words("same time within the spread")
    if max(factor, 1 / factor) < 1.005:
        return Words("same time within 0.5 %")
    return ratio(max(factor, 1 / factor)) + f" {'faster' if factor > 1 else 'slower'}"


def as_fast(before, after):
    """Return how many times as fast as ``before`` a token of ``after`` is: ×1.8.

    "–" where the two may not be compared; ``WITHIN`` where each has a range that says something, and
    their difference is not ``resolved``.
    """
    try:
        factor = ratio_of(before, after)
    except NotComparable:
        return Words(UNKNOWN)
    ranged = min(before.spread_over, after.spread_over) >= FEWEST
    if known(factor) and before is not after and ranged and not resolved(before, after):
        return Words(WITHIN)
    return ratio(factor)


def reserved(before, after, setting=None):
    """Return what a step does to the peak of reserved memory: −610 MiB reserved.

    From 1 MiB on a difference counts. Where memory was not measured (on a CPU) the words say so. The
    arguments and what is raised are as for ``speed``.
    """
    gained = change_of(before, after, setting=setting)
    if not known(gained):
        return Words("memory not measured")
    return Words("same memory reserved") if abs(gained) < 1 else change(gained) + " reserved"


def medians(record):
    """Return one sentence with the medians of a record, or why it has none."""
    if record.error:
        return Words(f"{record.name}: no measurement ({record.error.rstrip('.')}).")
    said = f"{record.name}: {spread_words(record.spread)} ms per token"
    if known(record.reserved_mib):
        said += f", peak memory {mib(record.allocated_mib)} allocated and "
        said += f"{mib(record.reserved_mib)} reserved"
    return Words(f"{said}.")
