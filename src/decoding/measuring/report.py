"""Records as lines of text, for the shell."""

from math import isnan

HEADING = (
    f"{'rung':<26}{'ms per token (min–max)':>26}{'× before':>10}"
    f"{'× first':>9}{'cold ms':>9}{'reserved MiB':>14}{'change':>9}{'idle':>7}"
)


def table(records):
    """Return the records as lines of text, each beside the line before it."""
    lines, measured = [HEADING], []
    for record in records:
        if record.error:
            lines.append(f"{_name(record):<26}  {record.error}")
        else:
            measured.append(record)
            before = measured[-2] if len(measured) > 1 else None
            lines.append(f"{_name(record):<26}" + _row(record, before, measured[0]))
    lines += sorted({note for record in records for note in record["notes"]})
    return "\n".join(lines)


def _name(record):
    variant = record["variant"]
    name = record["label"] + ("" if variant["stop_check"] else ", no check")
    return name + (f" ({variant['compile_mode']})" if variant["compile_mode"] else "")


def _row(record, before, first):
    time = f"{record.ms:.3f} ({record.low:.3f}–{record.high:.3f})"
    ratios = (f"{before.ms / record.ms:.2f}" if before else "", f"{first.ms / record.ms:.2f}")
    row = f"{time:>26}{ratios[0]:>10}{ratios[1]:>9}{record.cold_ms:>9.2f}"
    if not isnan(record.reserved_mib):
        change = f"{record.reserved_mib - before.reserved_mib:+.0f}" if before else ""
        row += f"{record.reserved_mib:>14.0f}{change:>9}"
    if not isnan(record.idle):
        row += f"{record.idle:>7.0%}"
    return row
