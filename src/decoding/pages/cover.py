"""The book's first figure: the whole ladder, from its records."""

from pathlib import Path

from decoding.drawing import ladder
from decoding.drawing.words import ms
from decoding.measuring.records import load

from .machines import BOOK_RECORDS, PART_ONE, PROMPT_TOKENS, book_folder

LADDER = BOOK_RECORDS.parent / "_static" / "ladder.svg"  # for the README


def ladder_figure(folder):
    """Return the time per token at batch 32, rung by rung, from the records in ``folder``.

    Raises:
        FileNotFoundError: a rung has no record.
    """
    loaded = []
    for name in PART_ONE:
        paths = sorted(Path(folder).glob(f"{name}_gpt2_b32_p{PROMPT_TOKENS}_*.json"))
        if not paths:
            raise FileNotFoundError(
                f"{folder} has no record of {name!r} at batch 32: run `make record`."
            )
        loaded.append(load(paths[0]))
    title = (
        f"A token takes {ms(loaded[0].ms)} on the first rung and {ms(loaded[-1].ms)} on the last"
    )
    return ladder(loaded, title, caption=f"{loaded[0]['machine']['gpu']}, GPT-2, batch 32.")


def write():
    """Draw the figure of the book's records for the README."""
    ladder_figure(book_folder()).save(LADDER)
