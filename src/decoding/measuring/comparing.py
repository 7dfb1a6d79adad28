"""Which two records may be compared: the one way to make a ratio of them.

Two numbers stand in one ratio only if they were taken together: in turn in one ladder or one race,
on one card, by the same code, under the same setting of the allocator.
"""

from math import isnan

from .errors import NotComparable

FEWEST = 3  # processes or rounds: a range over fewer says nothing
WORKLOAD = ("model", "dtype", "batch_size", "prompt_tokens", "new_tokens")
SETTINGS = ("allocator", *WORKLOAD)


def may_compare(one, other, setting=None):
    """Return if ``one`` and ``other`` may stand in one ratio, and raise if not.

    Args:
        one, other: records.
        setting: what is compared, so that it may differ: "allocator", or a part of the workload.

    Raises:
        NotComparable: they were not taken together, or differ in more than ``setting``.
        ValueError: there is no such setting.
    """
    if setting is not None and setting not in SETTINGS:
        raise ValueError(f"setting={setting!r} is unknown; choose from {', '.join(SETTINGS)}.")
    here, there = one.machine, other.machine
    if here.get("gpu_id") != there.get("gpu_id"):
        _refuse(one, other, "they ran on two cards")
    if one.together is None or one.together != other.together:
        _refuse(one, other, "they were not measured in turn, in one ladder or one race")
    if here.get("common_code") != there.get("common_code"):
        _refuse(one, other, "the code behind them is not the same")
    if setting != "allocator" and here.get("allocator") != there.get("allocator"):
        _refuse(one, other, "their allocators differ, and nobody asked for that comparison")
    for key in WORKLOAD:
        if key != setting and one.workload.get(key) != other.workload.get(key):
            values = f"{one.workload.get(key)} and {other.workload.get(key)}"
            _refuse(one, other, f"their {key} differs, {values}")


def ratio_of(before, after, what="ms", setting=None):
    """Return how many times ``what`` of ``after`` that of ``before`` is; of "ms", how much faster.

    Args:
        before, after: records.
        what: the name of one of their numbers, for example "ms", "busy_ms", "reserved_mib".
        setting: as for ``may_compare``.

    Returns:
        ``before`` / ``after``; nan where one of the two was not measured.

    Raises:
        NotComparable: the two may not be compared.
    """
    return _of_both(before, after, what, setting, lambda one, other: one / other)


def change_of(before, after, what="reserved_mib", setting=None):
    """Return by how much ``what`` of ``after`` is more than that of ``before``.

    The arguments, what is raised, and nan are as for ``ratio_of``.
    """
    return _of_both(before, after, what, setting, lambda one, other: other - one)


def resolved(before, after):
    """Return whether the times of two records differ by more than their processes (or rounds) do.

    They do if their ranges don't overlap. Over fewer than three processes or rounds nothing is known
    of the range, and the answer is False; likewise where something was not measured.
    """
    if min(before.spread_over, after.spread_over) < FEWEST:
        return False
    return after.high < before.low or before.high < after.low


def _of_both(before, after, what, setting, function):
    one, other = getattr(before, what), getattr(after, what)
    if isnan(one) or isnan(other):
        return float("nan")
    may_compare(before, after, setting)
    return function(one, other)


def _refuse(one, other, reason):
    raise NotComparable(
        f"{_told(one)} and {_told(other)} cannot be compared: {reason}; measure them together."
    )


def _told(record):
    """Return what sets a record apart: its name, its card, its day, its allocator."""
    machine = record.machine
    card = machine.get("gpu") or "a CPU"
    if machine.get("gpu_id"):
        card += f" {machine['gpu_id']}"
    parts = [card, machine.get("date", "day unknown")[:10]]
    if machine.get("allocator"):
        parts.append(f"{machine['allocator'].replace('_', ' ')} allocator")
    return f"{record.name or 'A record'} ({', '.join(parts)})"
