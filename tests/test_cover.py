"""The cover's ladder: drawn from the records, in order, and never with a rung left out."""

import re

import pytest
from factories import record

from decoding.measuring.records import file_name, save
from decoding.pages.cover import ladder_figure
from decoding.rungs import RUNGS

TIMES = dict(zip(list(RUNGS)[:6], (24.0, 8.0, 7.0, 7.5, 2.0, 1.0)))


def write(folder, leave_out=()):
    for rung, per_token in TIMES.items():
        if rung not in leave_out:
            made = record(rung, per_token=per_token)
            save(made, folder / file_name(made))
    return folder


def test_it_shows_every_rung_in_order_with_alternative_text(tmp_path):
    drawn = ladder_figure(write(tmp_path))
    found = re.findall(r"(\S+) ms per token", drawn.alt)
    assert [float(time) for time in found] == list(TIMES.values())


def test_a_ladder_with_a_missing_rung_fails_and_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="compiled"):
        ladder_figure(write(tmp_path, leave_out=("compiled",)))
