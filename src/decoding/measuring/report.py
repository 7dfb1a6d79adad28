"""Records as lines of text, for the shell."""

from math import isnan

from .comparing import change_of, ratio_of, resolved

HEADING = (
    f"{'rung':<26}{'ms per token (min–max)':>26}{'× before':>10}"
    f"{'× first':>9}{'p95 ms':>9}{'first run s':>13}{'reserved MiB':>14}{'change':>9}{'idle':>7}"
)
RACE_HEADING = (
    f"{'loop':<26}{'ms per token (min–max)':>26}{'× before':>10}{'× first':>9}"
    f"{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}"
)
UNRESOLVED = "~ not resolved: the ranges of the two overlap, or are over fewer than three processes or rounds."


def table(records):
    """Return the records as lines of text, each beside the line before it."""
    lines, measured = [HEADING], []
    for record in records:
        if record.error:
            lines.append(f"{_name(record):<26}  {record.error}")
            continue
        before, first = (measured[-1], measured[0]) if measured else (None, None)
        lines.append(f"{_name(record):<26}" + _row(record, before, first))
        measured.append(record)
    lines += sorted({note for record in records for note in record["notes"]})
    return "\n".join(_with_legend(lines))


def race_table(results):
    """Return the results of a race as lines of text, each beside the line before it."""
    lines, measured = [RACE_HEADING], []
    for label, record in results.items():
        before, first = (measured[-1], measured[0]) if measured else (None, None)
        row = _time(record, before, first)
        row += "".join(f"{record.tokens_ms[key]:>9.3f}" for key in ("p50", "p95", "p99"))
        lines.append(f"{label:<26}{row}")
        measured.append(record)
    return "\n".join(_with_legend(lines))


def _with_legend(lines):
    return [*lines, UNRESOLVED] if any("~" in line for line in lines) else lines


def _name(record):
    variant = record["variant"]
    name = record["label"] + ("" if variant["stop_check"] else ", no check")
    return name + (f" ({variant['compile_mode']})" if variant["compile_mode"] else "")


def _setting(before, record):
    """Return what two rows of one ladder differ in besides the loop, if only their allocator."""
    return "allocator" if before.allocator != record.allocator else None


def _ratio(before, record):
    if before is None:
        return ""
    mark = "" if resolved(before, record) else "~"
    return f"{mark}{ratio_of(before, record, setting=_setting(before, record)):.2f}"


def _time(record, before, first):
    time = f"{record.ms:.3f} ({record.low:.3f}–{record.high:.3f})"
    return f"{time:>26}{_ratio(before, record):>10}{_ratio(first, record):>9}"


def _row(record, before, first):
    row = _time(record, before, first)
    row += f"{record.tokens_ms['p95']:>9.3f}{record.once_s['first_run']:>13.1f}"
    if not isnan(record.reserved_mib):
        change = ""
        if before is not None:
            change = f"{change_of(before, record, setting=_setting(before, record)):+.0f}"
        row += f"{record.reserved_mib:>14.0f}{change:>9}"
    if not isnan(record.idle):
        row += f"{record.idle:>7.0%}"
    return row
