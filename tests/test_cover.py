"""The cover's ladder: drawn from the records, and what it says when some or all are missing."""

import re
import sys
from pathlib import Path

import pytest
from factories import record

from decoding.records import file_name, save
from decoding.rungs import RUNGS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book" / "_ext"))

import cover  # noqa: E402

TIMES = dict(zip(RUNGS, (24.0, 8.0, 7.0, 7.5, 2.0, 1.0)))


def write(folder, leave_out=()):
    for rung, per_token in TIMES.items():
        if rung not in leave_out:
            made = record(rung, per_token=per_token)
            save(made, folder / file_name(made))
    return folder


def test_it_shows_every_rung_in_order_with_alternative_text(tmp_path):
    drawn, words = cover.figure_of(write(tmp_path))
    assert drawn["format"] == "html"
    assert 'role="img"' in drawn.astext()
    found = re.findall(r"(\S+) ms per token", words.astext())
    assert [float(time) for time in found] == list(TIMES.values())


def test_a_ladder_with_a_missing_rung_fails_and_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="compiled"):
        cover.figure_of(write(tmp_path, leave_out=("compiled",)))


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_without_any_record_it_says_so(tmp_path, folder):
    (said,) = cover.figure_of(tmp_path / folder)
    assert "Not recorded yet" in said.astext()
