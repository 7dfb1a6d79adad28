"""The numbers of the teaching guide, from the book's records.

The inline values of ``book/teaching.md`` are expressions over what is public here. Whatever asks for
a record that the book has not raises ``NotRecorded``.
"""

from contextlib import suppress
from math import nan
from pathlib import Path

import nbformat

from decoding.drawing import table
from decoding.drawing.words import count, known, number, percent, seconds, spread_words
from decoding.measuring import NotRecorded
from decoding.measuring.records import load
from decoding.measuring.timeline import Timeline

from . import results
from .machines import book_folder

WORKLOADS = {1: "gpt2_b1_p128_n256_bfloat16", 32: "gpt2_b32_p128_n512_bfloat16"}
RACED = (1, 8, 32, 128)
# What the tables list, in the order of the ladder: the beginning of a record's file name.
ROWS = (
    "naive",
    "naive_expandable_segments",
    "kv_cache",
    "expandable_segments",
    "static_cache",
    "compiled_default",
    "compiled",
    "two_streams",
)
# The three commands of the page, as rows; the last row of C stands in for the loop without a check.
COMMANDS = {
    "A": (("naive", 1), ("kv_cache", 1)),
    "B": (("naive", 32), ("kv_cache", 32)),
    "C": (("two_streams", 1), ("compiled", 1), ("compiled", 1)),
}
NOTEBOOKS = Path(__file__).resolve().parents[3] / "notebooks"


def single(name):
    """Return the record of a row of ``ROWS`` at batch 1."""
    return _kept(f"{name}_{WORKLOADS[1]}")


def batched(name):
    """Return the record of a row of ``ROWS`` at batch 32."""
    return _kept(f"{name}_{WORKLOADS[32]}")


def raced(batch):
    """Return what the race at a batch size found: a dict, loop -> its record."""
    return _kept(f"watch_b{batch}")["results"]


def cache_of(length):
    """Return what the race over cache lengths found for a static cache of ``length`` positions."""
    return _kept("race_cache_length")["results"][str(length)]


def traced(loop):
    """Return the recorded timeline of a few tokens of ``loop``."""
    return Timeline.from_dict(_kept("trace_pipeline")["timelines"][loop])


def took(command):
    """Return about how long one of ``COMMANDS`` takes, in seconds."""
    return sum(_measured_in(_row(*row)) for row in COMMANDS[command])


def one_by_one():
    """Return what each chapter took when it was recorded, as words, where that is known."""
    times = {name: time for name, time in _chapter_times(NOTEBOOKS).items() if known(time)}
    return ", ".join(f"{name.partition('_')[0]}: {seconds(time)}" for name, time in times.items())


def times_table():
    """Return what the commands and all chapters take, as a table."""
    rows = [(f"command {letter}", seconds(took(letter))) for letter in COMMANDS]
    times = _chapter_times(NOTEBOOKS).values()
    timed = [time for time in times if known(time)]
    which = "all chapters" if len(timed) == len(times) else f"{len(timed)} of {len(times)} chapters"
    return table(["what", "takes about"], [*rows, (f"{which}, `make run`", seconds(sum(timed)))])


def rungs_table(batch):
    """Return the rungs that the book has measured at a batch size, as a table."""
    head = [f"batch {batch}", "ms per token (range)", "GPU idle", "kernels a token"]
    head += ["reserved, MiB", "measuring takes"]
    rows = []
    for name in ROWS:
        with suppress(NotRecorded):
            rows.append(_cells(_row(name, batch)))
    return table(head, rows)


def races_table():
    """Return what the stop check costs and what two streams save, over batch sizes, as a table."""
    head = ["batch", "check, ms", "no check, ms", "two streams, ms"]
    head += ["the check costs, µs", "two streams save", "above no check"]
    rows = []
    for batch in RACED:
        race = raced(batch)
        times = (number(race[loop].ms) for loop in ("check", "no check", "two streams"))
        cost = count(results.cost_of_check(race))
        shares = (percent(of(race)) for of in (results.saved, results.above_bound))
        rows.append([str(batch), *times, cost, *shares])
    return table(head, rows)


def _row(name, batch):
    return _kept(f"{name}_{WORKLOADS[batch]}")


def _kept(name):
    path = book_folder() / f"{name}.json"
    if not path.exists():
        raise NotRecorded(f"The book has no record {path.name}.")
    return load(path)


def _cells(record):
    return (
        record.name,
        spread_words(record.spread),
        percent(record.idle),
        count(record.kernels),
        count(record.reserved_mib),
        seconds(_measured_in(record)),
    )


def _measured_in(record):
    """About how long a measurement takes, in s: the cold run, the timed ones, and two more."""
    if record.error:
        return nan
    runs = record["workload"]["repeats"] + 2
    return record.cold_s + runs * record["time"]["total_ms"]["median"] / 1000


def _chapter_times(notebooks):
    """How long the notebooks took when they were recorded: name -> s, nan where nobody knows."""
    found = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        metadata = nbformat.read(path, as_version=4).metadata
        if metadata.get("measures") is not False:
            found[path.stem] = (metadata.get("recorded") or {}).get("seconds", nan)
    return found
