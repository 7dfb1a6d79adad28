"""The book's cover: its figure, drawn from the records, and the chapters with what each has gained."""

from pathlib import Path
from typing import NamedTuple

import nbformat
import yaml

from decoding.drawing import descent, rungs_as_bars, work_and_idle
from decoding.drawing.words import UNKNOWN, Words, as_fast, known, percent, us
from decoding.measuring import NotRecorded
from decoding.measuring.records import load

from . import masthead, one_kernel
from .machines import BOOK_RECORDS, PROMPT_TOKENS, book_folder
from .machines import LADDER as THE_LADDER

ROOT = BOOK_RECORDS.parent.parent
LADDER = BOOK_RECORDS.parent / "_static" / "ladder.svg"  # for the README
REGIMES = {1: "one user", 32: "32 at once"}  # batch size -> what it is called
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Card(NamedTuple):
    """A chapter on the cover.

    Attributes:
        page: its name in the table of contents.
        number: as in its file's name; "" of a page that has none.
        name: its title.
        sentence: what it does, from its metadata.
        gains: regime -> what its records say, in the words of its masthead; {} without records.
    """

    page: str
    number: str
    name: str
    sentence: str
    gains: dict


def panels(folder):
    """Return the ladder's records in ``folder``: batch size -> records, in order.

    Raises:
        FileNotFoundError: a rung has no record.
    """
    return {size: [_record(folder, name, size) for name in THE_LADDER] for size in REGIMES}


def sentences(found):
    """Return the answer to the book's question, from ``panels``: two sentences."""
    first, last = found[1][0], found[1][-1]
    return (
        f"For one user, {_a_gpu(first)} waits {percent(first.idle)} of the time.",
        f"{_later(last)}: {percent(last.idle)}.",
    )


def answer(found):
    """Return ``sentences`` as one text, the title of the cover's figure."""
    return Words(" ".join(sentences(found)))


def ladder_figure(folder):
    """Return the time per token rung by rung, for one user and for 32 at once.

    Raises:
        FileNotFoundError: a rung has no record in ``folder``.
    """
    found = panels(folder)
    shown = {
        f"{REGIMES[size].capitalize()} (batch {size})": rungs_as_bars(records)
        for size, records in found.items()
    }
    gpu = found[1][0]["machine"]["gpu"]
    names = (one.name for one in found[1] if as_fast(found[1][0], one) == UNKNOWN)
    apart = [f"{name.capitalize()} were timed apart: compare their memory." for name in names]
    return work_and_idle(
        shown,
        answer(found),
        caption=" ".join(
            [f"Time of one token of GPT-2, {gpu}. Each side has its own scale.", *apart]
        ),
        one_scale=False,
    )


def way_figure(folder):
    """Return what Part III makes of a token for one user, beside what the memory needs.

    Raises:
        NotRecorded: neither of its races is in ``folder``.
    """
    way, least = masthead.Records(folder).way()
    stages = one_kernel.stages(way)
    first, last = stages[0], stages[-1]
    needs = f", of which its memory needs {us(least)}" if known(least) else ""
    return descent(
        stages,
        Words(
            f"Then the GPU waits for itself: {us(first.us)} a token{needs}. {last.name.capitalize()}: {us(last.us)}."
        ),
        least=least,
        caption="One user, one race. Percent: of the memory's limit.",
    )


def write():
    """Draw the figure of the book's records for the README."""
    ladder_figure(book_folder()).save(LADDER)


def parts(toc=None):
    """Return the parts of the book whose notebooks have a sentence: caption -> their cards.

    Args:
        toc: what stands in _toc.yml; default: the book's.
    """
    toc = toc or yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = {
        part["caption"]: [*filter(None, (_card(each["file"]) for each in part["chapters"]))]
        for part in toc["parts"]
    }
    return {caption: cards for caption, cards in found.items() if cards}


def gains_of(chapter, folder):
    """Return what a chapter gains, regime by regime, in the words of its masthead.

    Args:
        chapter: the name of its file, without the suffix.
        folder: of the records.

    Returns:
        A dict, empty where the chapter has no step or the records don't tell.
    """
    records = masthead.Records(folder)
    try:
        gains = {words: masthead.gain(chapter, size, records) for size, words in REGIMES.items()}
    except NotRecorded:
        return {}
    return gains if all(gains.values()) else {}


def _card(page):
    path = ROOT / f"{page}.ipynb"
    if not path.exists():
        return None
    notebook = nbformat.read(path, as_version=4)
    if "sentence" not in notebook.metadata:
        return None
    number = path.stem.partition("_")[0]
    return Card(
        page,
        number.lstrip("0") if number.isdigit() else "",
        notebook.cells[0].source.partition("\n")[0].removeprefix("# "),
        notebook.metadata["sentence"],
        gains_of(path.stem, book_folder()),
    )


def _record(folder, name, size):
    paths = sorted(Path(folder).glob(f"{name}_gpt2_b{size}_p{PROMPT_TOKENS}_*.json"))
    if not paths:
        raise FileNotFoundError(
            f"{folder} has no record of {name!r} at batch {size}: run `make record`."
        )
    return load(paths[0])


def _a_gpu(record):
    """A GPU with its article, without maker and memory: an H100."""
    words = [word for word in record["machine"]["gpu"].split() if word != "NVIDIA"]
    name = words[0]
    return f"{'an' if name[0] in 'AEFHILMNORSX' else 'a'} {name}"


def _later(record):
    """How many chapters it takes to the rung of a record."""
    for path in sorted((ROOT / "notebooks").glob(f"[0-9][0-9]_{record['rung']}.ipynb")):
        number = int(path.stem[:2])
        return f"After {NUMBERS[number] if number < len(NUMBERS) else number} chapters"
    return "On the last rung"
