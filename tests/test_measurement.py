"""The arithmetic of a record, on inputs with known answers, and real measurements on a CPU."""

import json

import pytest
import torch

from decoding import Workload, compare, measure
from decoding.__main__ import main, table
from decoding.measurement import MeasurementError, describe_variant, race, run_task
from decoding.records import SCHEMA, file_name, load, median_curve, save, significant, slug, spread
from decoding.rungs import EXPANDABLE, RUNGS
from decoding.worker import Run, checksum, profile_steps, timed

SMALL = Workload("gpt2-tiny", 2, 6, 10, dtype="float32", device="cpu", repeats=2)


class TestArithmetic:
    def test_spread(self):
        assert spread([3.0, 1.0, 10.0]) == {"median": 3.0, "min": 1.0, "max": 10.0}
        assert spread(iter([1.0, 2.0]))["median"] == 1.5

    def test_median_curve_is_taken_position_by_position(self):
        assert median_curve([[1, 10, 5], [3, 30, 5], [2, 20]]) == [2, 20]

    @pytest.mark.parametrize(
        ("value", "rounded"), [(0.00123456, 0.001235), (123456.0, 123500.0), (0.0, 0.0), (2, 2.0)]
    )
    def test_significant(self, value, rounded):
        assert significant(value) == rounded

    def test_checksum_depends_on_the_values_not_on_the_integer_type(self):
        tokens = torch.tensor([[1, 2], [3, 4]])
        assert checksum(tokens) == checksum(tokens.int())
        assert checksum(tokens) != checksum(tokens.T.contiguous())

    def test_slug(self):
        assert slug("NVIDIA H100 80GB HBM3") == "NVIDIA-H100-80GB-HBM3"
        assert slug("a/../b") == "a-..-b"


class TestVariant:
    def test_the_rung_has_its_own_allocator(self):
        assert describe_variant("naive", SMALL)["allocator"] == "default"
        assert describe_variant("expandable_segments", SMALL)["allocator"] == "expandable_segments"

    def test_file_names_tell_variants_apart(self):
        def name(rung, workload=SMALL, **options):
            return file_name(
                {
                    "rung": rung,
                    "variant": describe_variant(rung, workload, **options),
                    "workload": vars(workload),
                }
            )

        names = {
            name("naive"),
            name("naive", environment=EXPANDABLE),
            name("naive", SMALL.but(batch_size=1)),
            name("compiled"),
            name("compiled", compile_mode="default"),
            name("compiled", cache_length=64),
            name("compiled", SMALL.but(stop_check=False)),
        }
        assert len(names) == 7
        assert name("naive") == "naive_gpt2-tiny_b2_p6_n10_float32.json"


@pytest.fixture(scope="module")
def record():
    return measure("kv_cache", SMALL)


class TestRecord:
    def test_it_says_what_ran_on_what(self, record):
        assert record["schema"] == SCHEMA
        assert (record["rung"], record["label"]) == ("kv_cache", "KV cache")
        assert record["workload"]["batch_size"] == 2
        assert record["machine"]["device"] == "cpu"
        assert record["machine"]["torch"] == torch.__version__
        assert len(record["machine"]["code"]) == 16

    def test_times_add_up(self, record):
        time = record["time"]
        assert len(time["curve_ms"]) == len(time["cold_curve_ms"]) == 9
        assert min(time["curve_ms"]) > 0
        assert time["per_token_ms"]["min"] <= time["per_token_ms"]["median"]
        assert time["per_token_ms"]["median"] <= time["per_token_ms"]["max"]
        decode = sum(time["cold_curve_ms"])
        assert time["cold_per_token_ms"] == pytest.approx(decode / 9, rel=1e-2)
        assert time["cold_total_ms"] >= 0.95 * (decode + time["cold_prefill_ms"])

    def test_on_a_cpu_it_says_what_has_no_meaning(self, record):
        assert record["memory"] is None
        assert record["gpu"] is None
        assert "Measured on a CPU" in record["notes"][0]

    def test_round_trip(self, record, tmp_path):
        save(record, tmp_path / "deep" / "record.json")
        assert load(tmp_path / "deep" / "record.json") == record
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["record.json"]

    def test_another_schema_is_refused(self, record, tmp_path):
        save(record | {"schema": SCHEMA + 1}, tmp_path / "record.json")
        with pytest.raises(ValueError, match="measure it again"):
            load(tmp_path / "record.json")

    def test_the_tokens_are_those_of_every_rung(self, record):
        other = measure("compiled", SMALL)
        assert other["tokens_sha256"] == record["tokens_sha256"]


class TestProcesses:
    def test_each_measurement_has_a_process_of_its_own_with_its_environment(self, monkeypatch):
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "garbage:1")
        with pytest.raises(MeasurementError, match="KeyError: 'no such task'"):
            run_task("no such task", {})

    def test_a_rung_that_fails_is_a_row_that_says_why(self):
        records = compare(
            [("naive", SMALL.but(new_tokens=2000), {}), "kv_cache"], SMALL, progress=False
        )
        assert "2006 positions" in records[0]["error"]
        assert records[1]["error"] is None
        lines = table(records).splitlines()
        assert "2006 positions" in lines[1]
        assert lines[2].startswith("KV cache")

    def test_an_unknown_rung_is_refused_at_once(self):
        with pytest.raises(ValueError, match="no rung 'kv'"):
            measure("kv", SMALL)

    def test_a_race_runs_all_in_one_process(self):
        entrants = {
            "ours": {"rung": "kv_cache"},
            "unchecked": {"rung": "static_cache", "stop_check": False, "cache_length": 32},
            "transformers": {"rung": "transformers"},
        }
        results = race(entrants, SMALL)["results"]
        assert len({result["tokens_sha256"] for result in results.values()}) == 1
        assert "per_token_ms" in results["ours"]
        assert "per_token_ms" not in results["transformers"]
        for result in results.values():
            assert result["total_ms"]["median"] > 0


class TestWorker:
    def run(self, rung, **options):
        from decoding import load_model

        model = load_model("gpt2-tiny", device="cpu")
        return Run(model, rung, SMALL, options)

    @pytest.mark.parametrize("rung", RUNGS)
    def test_timed_takes_one_time_a_token(self, rung):
        times, tokens = timed(self.run(rung))
        assert times["generated"] == 10
        assert len(times["curve"]) == 9
        assert tokens.shape == (2, 16)
        assert times["total"] >= times["prefill"] + sum(times["curve"]) - 1e-6

    def test_profiled_windows_hold_their_steps_and_no_others(self):
        activities = [torch.profiler.ProfilerActivity.CPU]
        timelines = profile_steps(self.run("kv_cache"), [(2, 3), (5, 7)], activities)
        steps = [
            [span.token for span in timeline.host if span.name == "decode_step"]
            for timeline in timelines
        ]
        assert steps == [[2, 3], [5, 6, 7]]


class TestShell:
    def test_measure_prints_a_table_and_writes_json(self, tmp_path, capsys):
        out = tmp_path / "out.json"
        arguments = "measure kv_cache compiled --no-check compiled --model gpt2-tiny --device cpu"
        arguments += f" --batch-size 1 --prompt-tokens 4 --new-tokens 6 --repeats 1 --json {out}"
        assert main(arguments.split()) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split()[:2] == ["rung", "ms"]
        assert [line.split("  ")[0] for line in lines[1:4]] == [
            "KV cache",
            "compiled",
            "compiled, no check",
        ]
        assert "Measured on a CPU" in lines[4]
        assert [record["rung"] for record in json.loads(out.read_text())] == [
            "kv_cache",
            "compiled",
            "compiled",
        ]

    def test_an_unknown_rung_is_one_line(self):
        with pytest.raises(SystemExit, match="did you mean 'two_streams'"):
            main(["measure", "two_stream"])

    def test_help_names_every_rung(self, capsys):
        with pytest.raises(SystemExit):
            main(["--help"])
        said = capsys.readouterr().out
        assert all(rung in said for rung in RUNGS)
