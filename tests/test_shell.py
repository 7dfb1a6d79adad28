"""The shell: what is wrong is said before anything is measured, and every terminal can show it."""

import json
import os
import subprocess
import sys

import factories
import pytest
import torch

from decoding.__main__ import main
from decoding.measuring import Record, processes
from decoding.measuring.records import with_results_as_records
from decoding.measuring.report import UNRESOLVED, race_table, table

TINY = "--model gpt2-tiny --device cpu --batch-size 1 --prompt-tokens 4 --new-tokens 12 --repeats 2"


@pytest.fixture
def nothing_runs(monkeypatch):
    def run(*_, **__):
        raise AssertionError("something was measured")

    for module in ("ladders", "races"):
        monkeypatch.setattr(f"decoding.measuring.{module}.run_fresh", run)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("measure two_stream", "did you mean 'two_streams'"),
        ("race two_stream", "did you mean 'two_streams'"),
        ("measure naive --dtype float31 --device cpu", "dtype is 'float31'"),
        ("measure naive --repeats 0 --device cpu", "repeats is 0"),
        ("measure naive --processes 0 --device cpu", "processes=0"),
        ("measure naive --device cpu --cache-length 9", "No chosen rung takes --cache-length"),
        ("measure naive --device cpu --json /no/such/folder/out.json", "/no/such/folder/out.json"),
        ("race naive --device cpu --json /", "Is a directory"),
        ("measure naive --device nonsense", "nonsense"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_anything_runs(nothing_runs, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert said in str(ended.value) and str(ended.value).startswith("error: ")
    assert "\n" not in str(ended.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(nothing_runs):
    with pytest.raises(SystemExit, match="sees no CUDA GPU"):
        main(["measure", "naive", "--device", "cuda"])


def test_on_a_cpu_the_defaults_are_small_and_said(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        "decoding.measuring.compare", lambda rungs, workload, **_: asked.append(workload) or []
    )
    main(["measure", "kv_cache", "--device", "cpu", "--new-tokens", "12"])
    (workload,) = asked
    assert (workload.model, workload.batch_size, workload.new_tokens) == ("gpt2-tiny", 2, 12)
    said = capsys.readouterr().err
    assert "gpt2-tiny" in said and "new-tokens" not in said


def test_a_race_is_a_table_and_a_file(tmp_path, capsys):
    file = tmp_path / "race.json"
    arguments = f"race kv_cache compiled --no-check compiled {TINY} --json {file}".split()
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "kv_cache",
        "compiled",
        "compiled, no check",
    ]
    found = with_results_as_records(json.loads(file.read_text()))
    assert found["results"]["compiled, no check"].together == found["together"]


class TestTables:
    def test_what_is_not_resolved_is_marked(self):
        rows = [factories.record("naive", per_token=ms) for ms in (8.0, 4.0, 3.95)]
        lines = table(rows).splitlines()
        assert "2.00" in lines[2] and "~" not in lines[2]
        assert "~1.01" in lines[3] and lines[-1] == UNRESOLVED
        assert UNRESOLVED not in table(rows[:2])

    def test_an_allocator_of_its_own_is_what_is_compared(self):
        rows = [factories.record(rung) for rung in ("kv_cache", "expandable_segments")]
        rows[1]["memory"]["peak_reserved_mib"] = 400.0
        assert "-600" in table(rows).splitlines()[2]

    def test_a_race(self):
        found = [Record(factories.entrant(ms)) for ms in (2.0, 1.0)]
        race = {"together": "a", "workload": {}, "machine": {}, "results": dict(zip("ab", found))}
        lines = race_table(with_results_as_records(race)["results"]).splitlines()
        assert lines[2].startswith("b") and "2.00" in lines[2]


def test_a_terminal_of_ascii_and_a_long_tmpdir_do(tmp_path):
    """In one shell, for the time that it takes: and nothing is left in the folder."""
    scratch = tmp_path / ("long" * 30)
    scratch.mkdir()
    environment = dict(os.environ, PYTHONIOENCODING="ascii", TMPDIR=str(scratch), LC_ALL="C")
    environment |= {"PYTHONPATH": str(processes.PACKAGE.parent), "PYTORCH_ALLOC_CONF": "garbage:1"}
    command = [sys.executable, "-m", "decoding", "measure", "kv_cache", *TINY.split()]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert "x before" in shown.stdout and shown.stdout.isascii()
    # PyTorch makes a folder of its own whenever it is imported.
    assert not [path for path in scratch.iterdir() if not path.name.startswith("torchinductor_")]
