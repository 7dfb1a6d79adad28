"""The one table: Markdown, its numbers aligned on the right."""

import re

from decoding.measuring.comparing import change_of

from .markdown import Markdown
from .words import (
    WITHIN,
    as_fast,
    change,
    count,
    known,
    medians,
    number,
    percent,
    spread_words,
    workload_words,
)

NUMBER = re.compile(r"[-+−×≈<>~*_ ]*\d|[–≈]$")
LONGEST = 30  # characters: a longer cell is words, even where it begins with a number


class Table(Markdown):
    """A table that displays itself: ``head`` and ``rows`` of words, and the ``caption`` above it."""

    def __init__(self, head, rows, caption):
        self.head, self.rows, self.caption = head, rows, caption
        self.right = [_is_numbers(column) for column in zip(*rows)] or [False] * len(head)
        rule = ["-:" if right else ":-" for right in self.right]
        lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
        super().__init__("\n".join([f"{caption}\n"] * bool(caption) + lines))


def table(head, rows, caption=None):
    """Return a table to display.

    Args:
        head: the names of the columns.
        rows: sequences of what stands in the cells; a number that is no text is written whole.
        caption: what the table shows, above it.

    A column of numbers (with units, ratios, ranges, or "–") is aligned on the right.

    Raises:
        ValueError: a row has another number of cells than the head.
    """
    head, rows = _cells(head), [_cells(row) for row in rows]
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"The head has {len(head)} cells, the row {row} has {len(row)}.")
    return Table(head, rows, caption or "")


def _cells(row):
    return [_cell(value) for value in row]


def _cell(value):
    text = value if isinstance(value, str) else count(value) if _is_number(value) else value
    return " ".join(str("" if text is None else text).split("\n")).replace("|", "\\|")


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numbers(column):
    """Whether most cells begin with a number; a few words ("failed") may stand among them."""
    words = [cell for cell in column if cell]
    numbers = [cell for cell in words if NUMBER.match(cell)]
    return len(numbers) > len(words) / 2 and max(map(len, words)) <= LONGEST


def records_table(records, caption="Each row beside the row before"):
    """Return records as a table, each row beside the row before of the same workload.

    A row under another setting of the allocator than the first one's (expandable segments) is compared
    in its memory only, and the row behind it with the one before it.

    Args:
        records: in the order of the rows. What a failed one failed of stands below the table.
        caption: what the table shows.
    """
    on_gpu = any(known(record.reserved_mib) for record in records)
    workloads = [workload_words(record) for record in records]
    several = len(set(workloads)) > 1
    batches = len({words.partition(",")[2] for words in workloads}) == 1
    head = ["rung", *(["workload"] if several else []), "ms per token (range)"]
    head += ["speed × before", "speed × first", "first run, s"]
    head += ["peak reserved, MiB", "change, MiB", "GPU idle"] if on_gpu else []
    rows, firsts, befores = [], {}, {}
    for record, workload in zip(records, workloads, strict=True):
        shown = workload.partition(",")[0] if batches else workload
        start = [record.name, *([shown] if several else [])]
        if record.error:
            rows.append([*start, *["failed"], *[""] * (len(head) - len(start) - 1)])
            continue
        cells = _figures(record, befores.get(workload), firsts.setdefault(workload, record))
        rows.append(start + cells[: len(head) - len(start)])
        if record.allocator == firsts[workload].allocator:
            befores[workload] = record
    made = table(head, rows, caption)
    below = [medians(record) for record in records if record.error]
    if any(WITHIN in row for row in rows):
        below.insert(0, f"{WITHIN}: the same time within the spread.")
    made.text = "\n\n".join([made.text, *below])
    return made


def _figures(record, before, first):
    """The figures of a row; ``before`` is None in the first row of a workload."""
    cells = [spread_words(record.spread)]
    cells += [as_fast(other, record) if before else "" for other in (before or first, first)]
    cells += [number(record.cold_s), count(record.reserved_mib)]
    gained = change_of(before, record, setting="allocator") if before else float("nan")
    cells.append(change(gained).removesuffix(" MiB") if known(gained) else "")
    return [*cells, percent(record.idle)]
