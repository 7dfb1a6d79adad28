"""What real answers waste in a batch, from the book's record of how long they are.

A batch goes on until its last row has ended. What the other rows compute after their own end is
thrown away. Rows don't influence each other, so the record of one batch tells of every other.
"""

from functools import cache
from statistics import median

from decoding.drawing import table
from decoding.drawing.words import count, percent
from decoding.measuring import NotRecorded
from decoding.measuring.records import load

from .machines import BOOK_RECORDS

SIZES = (1, 2, 4, 8, 16)


@cache
def answers():
    """Return the record of ``measuring.real_text.answer_lengths`` on a CPU.

    Raises:
        NotRecorded: there is none.
    """
    path = BOOK_RECORDS / "cpu" / "real_text.json"
    if not path.is_file():
        raise NotRecorded(f"{path} is not there: the answers have not been measured.")
    return load(path)


def wasted(lengths, batch_size):
    """Return which share of the tokens that a model computes belongs to rows that have ended.

    Args:
        lengths: tokens of each answer, in the order in which they are asked for.
        batch_size: rows; the answers are taken in their order.

    Returns:
        From 0 to below 1: rows times steps of all batches, less the answers' tokens, as a share of the former.
    """
    batches = [lengths[at : at + batch_size] for at in range(0, len(lengths), batch_size)]
    computed = sum(len(rows) * max(rows) for rows in batches)
    return 1 - sum(lengths) / computed


def waste_table():
    """Return a table: how much is wasted at each batch size, asked in order and sorted by length."""
    lengths = answers()["tokens"]
    rows = [
        (count(size), percent(wasted(lengths, size)), percent(wasted(sorted(lengths), size)))
        for size in SIZES
    ]
    return table(("batch size", "wasted, in the order asked", "wasted, sorted by length"), rows)


def shortest():
    """Return the tokens of the shortest answer."""
    return count(min(answers()["tokens"]))


def middle():
    """Return the median of the answers' tokens."""
    return count(median(answers()["tokens"]))


def cut():
    """Return how many answers were cut, since they had not ended."""
    return count(answers()["ended"].count(False))


def asked():
    """Return how many questions there were."""
    return count(len(answers()["questions"]))


def limit():
    """Return after how many tokens an answer was cut."""
    return count(answers()["max_new_tokens"])


def recorded_on():
    """Return the date of the record, and with which versions it was made."""
    machine = answers()["machine"]
    versions = f"torch {machine['torch']}, transformers {machine['transformers']}"
    return f"{machine['date'][:10]}, {versions}"
