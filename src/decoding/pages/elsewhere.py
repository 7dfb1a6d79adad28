"""What a chapter needs, and about how long it takes on a card that the book has not: an estimate."""

from contextlib import suppress
from math import nan
from pathlib import Path

import nbformat

from decoding.drawing.words import Words, count, known
from decoding.measuring import NotRecorded

from . import masthead
from .endings import SIZES
from .machines import LADDER
from .results import RACED

#: How many times as long as the book's machine an NVIDIA T4 is expected to take, as on Colab. The host
#: sets the time of most loops, and two slow cores take about twice as long to launch and to compile;
#: the memory sets that of the others, at about a tenth of the bandwidth, with a quarter of the rows.
#: A guess between these two, and no measurement.
T4 = 4
NEEDS = "Needs a CUDA GPU from 8 GB; runs small without one."


def needs(page, recorded):
    """Return one line: what a chapter needs, and about how long it takes on a T4.

    Args:
        page: its name, "05_torch_compile".
        recorded: what the notebook's metadata say of its recording, or None.
    """
    took = measuring_s(page, recorded)
    if not known(took):
        return Words(NEEDS)
    minutes = max(1, T4 * took / 60)
    return Words(f"{NEEDS} About {count(minutes)} min on a T4 (estimate: {T4} × the book's H100).")


def measuring_s(page, recorded):
    """Return how long a chapter takes on the book's machine that has no records yet, in seconds.

    That is its own time, and that of the ladder or the races that it shows and that an earlier chapter
    may have measured; nan where its own was not recorded.
    """
    folder = masthead.folder_for(recorded)
    if not recorded or "seconds" not in recorded or not folder:
        return nan
    records, chapter = masthead.Records(folder), masthead.chapter_of(page)
    shared = 0
    if chapter.raced or chapter.of is masthead.of_launch:
        shared = sum(_race_s(records.endings, size) for size in SIZES)
    elif chapter.of is masthead.of_check:
        shared = sum(_race_s(records.race, size) for size in RACED)
    elif page == masthead.SCOREBOARD or chapter.rung in LADDER:
        shared = sum(_rung_s(records, rung, size) for rung in LADDER for size in masthead.BATCHES)
    return recorded["seconds"] + shared


def needs_of(path):
    """Return ``needs`` of the notebook at ``path``; "" for one that measures nothing."""
    metadata = nbformat.read(path, as_version=4).metadata
    if metadata.get("measures") is False:
        return ""
    return needs(Path(path).stem, metadata.get("recorded"))


def _rung_s(records, rung, size):
    """How long all processes of a rung took, and the two runs more of the first; 0 of one not recorded."""
    with suppress(NotRecorded):
        record = records.rung(rung, size)
        if not record.error:
            run = record["time"]["total_ms"]["median"] / 1000
            each = [
                one["initialize_s"] + one["first_run_s"] + one["runs"] * run
                for one in record["processes"]
            ]
            return sum(each) + 2 * run
    return 0


def _race_s(race, size):
    """How long a race took: the cold runs, the rounds, and two runs more of each loop."""
    with suppress(NotRecorded):
        found = race(size).values()
        return sum(
            (one.get("cold_total_ms", 0) + (one.spread_over + 2) * one["total_ms"]["median"]) / 1000
            for one in found
            if not one.error
        )
    return 0
