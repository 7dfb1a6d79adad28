"""Safeguards taken out: the experiment, on a CPU, where its shape and its arithmetic can be checked."""

import functools
import os

import pytest
import torch

from decoding.measuring import MeasurementError, NeedsGpu, safeguards
from decoding.measuring.records import load, save
from decoding.measuring.safeguards import (
    AS_IS,
    BETWEEN_CALLS,
    NOTHING_OUT,
    PROVOKED,
    SANITIZED,
    verdict,
)
from decoding.pages import Chapter
from decoding.pages.machines import book_folder
from decoding.pages.shelf import Sitting

SMALL = {"model_name": "gpt2-tiny", "device": "cpu"}


def test_on_a_cpu_only_what_is_wrong_in_every_order_shows():
    cases = (
        NOTHING_OUT,
        "the wait between the streams",
        "a flag for each step in flight",
        BETWEEN_CALLS,
    )
    found = safeguards.safeguards(**SMALL, calls=2, new_tokens=12, cases=cases)
    assert list(found) == list(cases)
    for case in found.values():
        assert case.keys() == {AS_IS, PROVOKED}
        for way in case.values():
            assert way["error"] is None and way["tokens"] > 2 and way["ms"] > 0
    wrong = {name: case[AS_IS]["wrong"] for name, case in found.items()}
    # One flag for two steps: each of the two calls stops a token early.
    assert list(wrong.values()) == [0, 0, 2, 0]


def test_a_process_that_ends_does_not_end_the_experiment(tmp_path):
    parts = [[case, AS_IS] for case in (NOTHING_OUT, "hangs", "raises", BETWEEN_CALLS)]
    record = tmp_path / "record.json"
    found = safeguards._one_after_another(_ends_itself, "Ending", parts, record, {})
    assert found[NOTHING_OUT][AS_IS]["error"] is None
    assert "exit code 3" in found["hangs"][AS_IS]["error"]
    assert "ValueError" in found["raises"][AS_IS]["error"]
    assert found[BETWEEN_CALLS][AS_IS]["error"] is None  # by a third process
    assert list(found)[:2] == [NOTHING_OUT, BETWEEN_CALLS]  # in the order of the page's table
    assert load(record)["found"].keys() == found.keys()


def _ends_itself(report, notes):
    for part in notes.left():
        notes.begin(part)
        if part[0] == "hangs":
            os._exit(3)
        if part[0] == "raises":
            raise ValueError("as asked")
        notes.put(part, {"error": None})


def test_what_does_not_even_begin_is_an_error():
    with pytest.raises(MeasurementError, match="no/such model"):
        safeguards.safeguards("no/such model", "cpu", 1, 8, cases=(NOTHING_OUT,))
    with pytest.raises(MeasurementError, match="all its safeguards"):
        safeguards._one_after_another(_does_nothing, "Nothing", [[NOTHING_OUT, AS_IS]], None, {})


def _does_nothing(report, notes):
    pass


def test_a_record_has_the_complete_cases_only_and_a_chapter_reads_it(tmp_path):
    file = tmp_path / "records" / "safeguards.json"
    parts = [[case, way] for case in (BETWEEN_CALLS, NOTHING_OUT) for way in (AS_IS, PROVOKED)]
    notes = safeguards.Notes(tmp_path / "notes.json", parts, file)
    for part in parts[:3]:
        notes.put(part, {"error": None})
    assert notes.left() == parts[3:]
    kept = load(file)
    assert list(kept["found"]) == [BETWEEN_CALLS]
    on_the_gpu = load(book_folder() / "hazards.json")["machine"]
    code = {"code": kept["machine"]["code"]}
    save(kept | {"machine": on_the_gpu | code}, file)
    chapter = Chapter("12", Sitting(redraw=True, folder=str(file.parent)))
    assert chapter.evidence("safeguards", safeguards.safeguards) == kept["found"]


def test_the_command_writes_both_records(tmp_path, monkeypatch, capsys):
    cases = (NOTHING_OUT, "the wait between the streams")
    small = {**SMALL, "cases": cases, "new_tokens": 6}
    for find, more in ((safeguards.safeguards, {"calls": 1}), (safeguards.sanitized, {})):
        on_a_cpu = functools.wraps(find)(functools.partial(find, **small, **more))
        monkeypatch.setattr(safeguards, find.__name__, on_a_cpu)
    safeguards.main(["--out", str(tmp_path)])
    for name in ("safeguards", "sanitized"):
        assert list(load(tmp_path / f"{name}.json")["found"]) == list(cases)
    assert "sanitized: 2 cases in" in capsys.readouterr().out


def test_every_case_has_its_turn():
    assert sorted(safeguards.TELLING_FIRST) == sorted(safeguards.CASES)
    assert set(safeguards.ASKED) < set(safeguards.CASES)


def test_under_the_sanitizer():
    cases = (NOTHING_OUT, "the wait for the flag")
    found = safeguards.sanitized(**SMALL, new_tokens=6, cases=cases)
    assert found == {case: {SANITIZED: {"error": None}} for case in cases}


def test_verdicts():
    right = {"wrong": 0, "tokens": 9, "ms": 1.0, "error": None}
    assert verdict(right, right) == "nothing"
    assert verdict(right | {"ms": 1.3}, right) == "slower"
    assert verdict(right | {"wrong": 1, "ms": 1.3}, right) == "wrong"
    assert (
        verdict(right | {"error": "AcceleratorError: CUDA error: device-side assert"}, right)
        == "dead"
    )
    assert verdict(right | {"error": "its process ended with exit code -6."}, right) == "dead"
    assert verdict(right | {"error": "RuntimeError: overwritten"}, right) == "refused"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
@pytest.mark.parametrize("find", [safeguards.safeguards, safeguards.sanitized])
def test_without_a_gpu_it_says_so(find):
    with pytest.raises(NeedsGpu):
        find()
