"""Real measurements, on a CPU: what the processes send back, and what the shell prints of it."""

import json
import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from models import ANYWHERE

from decoding import RUNGS, load_model
from decoding.__main__ import main
from decoding.measuring import (
    MeasurementError,
    NeedsGpu,
    Record,
    Workload,
    allocations,
    compare,
    measure,
    race,
    trace,
)
from decoding.measuring.probes import profile_steps, timed
from decoding.measuring.processes import run_fresh
from decoding.measuring.records import SCHEMA
from decoding.measuring.report import table
from decoding.measuring.runs import Run, checksum

SMALL = Workload("gpt2-tiny", 2, 6, 10, dtype="float32", device="cpu", repeats=2)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """What ``python -m decoding measure`` prints and writes for three small measurements."""
    file = tmp_path_factory.mktemp("shell") / "out.json"
    arguments = "measure kv_cache compiled --no-check compiled --model gpt2-tiny --device cpu"
    arguments += f" --batch-size 2 --prompt-tokens 6 --new-tokens 10 --repeats 2 --json {file}"
    printed = StringIO()
    with redirect_stdout(printed):
        status = main(arguments.split())
    records = [Record(found) for found in json.loads(file.read_text())]
    return SimpleNamespace(status=status, lines=printed.getvalue().splitlines(), records=records)


@pytest.fixture(scope="module")
def record(shell):
    """A record of the KV cache."""
    return shell.records[0]


class TestRecord:
    def test_it_says_what_ran_on_what(self, record):
        assert record["schema"] == SCHEMA
        assert (record["rung"], record["label"]) == ("kv_cache", "KV cache")
        assert (record.batch, record.name) == (2, "KV cache")
        assert record["machine"]["device"] == "cpu"
        assert record["machine"]["torch"] == torch.__version__
        assert len(record["machine"]["code"]) == 16

    def test_times_add_up(self, record):
        time = record["time"]
        assert len(record.curve) == len(time["cold_curve_ms"]) == 9
        assert min(record.curve) > 0
        assert record.low <= record.ms <= record.high
        decode = sum(time["cold_curve_ms"])
        assert record.cold_ms == pytest.approx(decode / 9, rel=1e-2)
        assert time["cold_total_ms"] >= 0.95 * (decode + time["cold_prefill_ms"])

    def test_on_a_cpu_it_says_what_has_no_meaning(self, record):
        assert record["memory"] is None
        assert record["gpu"] is None
        assert "Measured on a CPU" in record["notes"][0]

    def test_the_tokens_are_those_of_every_rung(self, shell):
        assert len({record["tokens_sha256"] for record in shell.records}) == 1


class TestShell:
    def test_measure_prints_a_table_and_writes_json(self, shell):
        assert shell.status == 0
        assert shell.lines[0].split()[:2] == ["rung", "ms"]
        names = [line.split("  ")[0] for line in shell.lines[1:4]]
        assert names == ["KV cache", "compiled", "compiled, no check"]
        assert "Measured on a CPU" in shell.lines[4]
        assert [record["rung"] for record in shell.records] == ["kv_cache", "compiled", "compiled"]
        assert [record["variant"]["stop_check"] for record in shell.records] == [True, True, False]

    def test_an_unknown_rung_is_one_line(self):
        with pytest.raises(SystemExit, match="did you mean 'two_streams'"):
            main(["measure", "two_stream"])

    def test_help_names_every_rung(self, capsys):
        with pytest.raises(SystemExit):
            main(["--help"])
        said = capsys.readouterr().out
        assert all(rung in said for rung in RUNGS)


def ask(report, variables):
    """A task: return the values of environment variables."""
    report(1, 2)
    return [os.environ.get(name) for name in variables]


def compiled_before(report):
    """A task: note in the compilers' folder that it was there, and return whether it was before."""
    folder = Path(os.environ["TRITON_CACHE_DIR"])
    was = folder.exists()
    folder.mkdir(exist_ok=True)
    return was


def fail(report):
    """A task that raises."""
    raise KeyError("no such thing")


def die(report):
    """A task whose process ends without a word."""
    os._exit(7)


class TestProcesses:
    def test_each_has_its_own_environment(self, monkeypatch):
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "garbage:1")
        given = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
        names = ["PYTORCH_ALLOC_CONF", "OF_MINE"]
        assert run_fresh(ask, "Asking", given, variables=names) == [*given.values(), None]
        monkeypatch.setenv("OF_MINE", "set later")
        assert run_fresh(ask, "Asking", variables=names) == [None, "set later"]

    def test_compilers_find_nothing_unless_a_name_is_shared(self):
        assert not any(run_fresh(compiled_before, "Asking") for _ in range(2))
        found = [run_fresh(compiled_before, "Asking", caches="a") for _ in range(2)]
        assert found == [False, True]

    @pytest.mark.parametrize(
        ("task", "reason"), [(fail, "KeyError: 'no such thing'"), (die, "exit code 7")]
    )
    def test_one_that_ends_without_a_result_is_an_error(self, task, reason):
        with pytest.raises(MeasurementError, match=f"Trying failed: .*{reason}"):
            run_fresh(task, "Trying")

    def test_a_rung_that_fails_is_a_row_that_says_why(self):
        short = SMALL.but(new_tokens=2, repeats=1)
        too_short = {"rung": "static_cache", "cache_length": 3}
        records = compare([too_short, "kv_cache"], short, progress=False)
        assert "cache_length" in records[0].error
        assert records[1].error is None
        lines = table(records).splitlines()
        assert "cache_length" in lines[1]
        assert lines[2].startswith("KV cache")

    def test_a_misspelt_rung_or_option_is_refused_at_once(self):
        with pytest.raises(ValueError, match="no rung 'kv'"):
            measure("kv", SMALL)
        with pytest.raises(TypeError, match="cache_lenght"):
            measure("compiled", SMALL, cache_lenght=64)

    def test_what_needs_a_gpu_is_refused_at_once(self):
        with pytest.raises(NeedsGpu):
            allocations("kv_cache", SMALL)
        with pytest.raises(NeedsGpu):
            trace({"ours": {"rung": "kv_cache"}}, SMALL, first_token=2, tokens=2)

    def test_a_race_runs_all_in_one_process(self):
        entrants = {
            "ours": {"rung": "kv_cache"},
            "unchecked": {"rung": "static_cache", "stop_check": False, "cache_length": 32},
            "transformers": {"rung": "transformers"},
        }
        found = race(entrants, SMALL)
        assert found["workload"] == vars(SMALL)
        results = found["results"]
        assert len({result["tokens_sha256"] for result in results.values()}) == 1
        assert results["ours"].ms > 0 and results["ours"].name == "ours"
        assert "per_token_ms" not in results["transformers"]
        for result in results.values():
            assert result["total_ms"]["median"] > 0


@pytest.fixture(scope="module")
def model():
    return load_model("gpt2-tiny", device="cpu")


class TestProbes:
    @pytest.mark.parametrize("rung", ANYWHERE)
    def test_timed_takes_one_time_a_token(self, model, rung):
        times, tokens = timed(Run(model, rung, SMALL, {}))
        assert times["generated"] == 10
        assert len(times["curve"]) == 9
        assert tokens.shape == (2, 16)
        assert times["total"] >= times["prefill"] + sum(times["curve"]) - 1e-6

    def test_profiled_windows_hold_their_steps_and_no_others(self, model):
        activities = [torch.profiler.ProfilerActivity.CPU]
        run = Run(model, "kv_cache", SMALL, {})
        steps = [
            [span.token for span in timeline.host if span.name == "decode_step"]
            for timeline in profile_steps(run, [(2, 3), (5, 7)], activities)
        ]
        assert steps == [[2, 3], [5, 6, 7]]


def test_checksum_depends_on_the_values_not_on_the_integer_type():
    tokens = torch.tensor([[1, 2], [3, 4]])
    assert checksum(tokens) == checksum(tokens.int())
    assert checksum(tokens) != checksum(tokens.T.contiguous())
