"""Records: their arithmetic, on inputs with known answers, and their numbers by name."""

import json
import pickle
from math import isnan

import factories
import pytest

from decoding.measuring import Record, Workload, describe_variant
from decoding.measuring.records import (
    SCHEMA,
    file_name,
    load,
    median_curve,
    save,
    significant,
    slug,
    spread,
    with_results_as_records,
)
from decoding.rungs import EXPANDABLE

SMALL = Workload("gpt2-tiny", 2, 6, 10, dtype="float32", device="cpu", repeats=2)
NUMBERS = ("ms", "low", "high", "prefill_ms", "cold_ms", "cold_s", "busy_ms", "idle", "kernels")
MEMORY = ("allocated_mib", "reserved_mib")


def test_spread():
    assert spread([3.0, 1.0, 10.0]) == {"median": 3.0, "min": 1.0, "max": 10.0}
    assert spread(iter([1.0, 2.0]))["median"] == 1.5


def test_median_curve_is_taken_position_by_position():
    assert median_curve([[1, 10, 5], [3, 30, 5], [2, 20]]) == [2, 20]


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.00123456, 0.001235), (123456.0, 123500.0), (0.0, 0.0), (2, 2.0)]
)
def test_significant(value, rounded):
    assert significant(value) == rounded


def test_slug():
    assert slug("NVIDIA H100 80GB HBM3") == "NVIDIA-H100-80GB-HBM3"
    assert slug("a/../b") == "a-..-b"


class TestNumbers:
    def test_a_record_has_its_numbers_by_name(self):
        found = Record(factories.record("kv_cache", per_token=2.0, around=0.5, idle=0.25, new=4))
        assert (found.ms, found.low, found.high) == (2.0, 1.5, 2.5)
        assert (found.prefill_ms, found.cold_ms, found.cold_s) == (2.0, 6.0, 0.024)
        assert (found.busy_ms, found.idle, found.kernels) == (1.5, 0.25, 100.0)
        assert (found.allocated_mib, found.reserved_mib) == (800.0, 1000.0)
        assert (found.curve, found.batch, found.error) == ([2.0, 2.0, 2.0], 32, None)

    def test_a_failed_one_has_none(self):
        failed = Record.failed("naive", "naive", {}, vars(SMALL), {}, "It failed.")
        assert all(isnan(getattr(failed, name)) for name in NUMBERS + MEMORY)
        assert (failed.curve, failed.error, failed.batch) == ([], "It failed.", 2)
        assert isnan(failed.ms / 2) and not failed.ms < 1 and not failed.ms >= 1

    def test_one_from_a_cpu_has_times_only(self):
        found = Record(factories.record(gpu=False))
        assert found.ms == 10.0
        assert all(isnan(getattr(found, name)) for name in (*MEMORY, "busy_ms", "idle", "kernels"))

    def test_an_entrant_of_a_race(self):
        times = {"median": 4.0, "min": 3.0, "max": 5.0}
        results = {
            "ours": {"per_token_ms": times, "cold_total_ms": 500.0, "busy_ms_per_token": 3.0},
            "busier": {"per_token_ms": times, "busy_ms_per_token": 4.5},
            "transformers": {"total_ms": times},
        }
        race = with_results_as_records({"workload": vars(SMALL), "results": results})
        ours, busier, theirs = race["results"].values()
        assert (ours.ms, ours.high, ours.cold_s, ours.idle) == (4.0, 5.0, 0.5, 0.25)
        assert (ours.name, ours.batch, ours.curve, ours.error) == ("ours", 2, [], None)
        assert busier.idle == 0
        assert isnan(theirs.ms) and isnan(theirs.idle) and isnan(ours.reserved_mib)
        assert json.loads(json.dumps(race))["results"] == results


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ({}, "KV cache"),
        ({"allocator": "default"}, "KV cache"),
        ({"allocator": "expandable_segments"}, "KV cache, expandable segments"),
        ({"compile_mode": "default", "cache_length": 64}, "KV cache, default mode, cache of 64"),
        ({"stop_check": False}, "KV cache, no check"),
    ],
)
def test_a_name_says_what_sets_a_variant_apart(variant, name):
    assert Record(factories.record("kv_cache", variant=variant)).name == name


class TestFiles:
    def test_round_trip(self, tmp_path):
        record = Record(factories.record())
        save(record, tmp_path / "deep" / "record.json")
        found = load(tmp_path / "deep" / "record.json")
        assert found == record and found.ms == record.ms
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["record.json"]

    def test_a_race_s_results_are_records(self, tmp_path):
        results = {"a": {"per_token_ms": {"median": 1.0, "min": 1.0, "max": 1.0}}}
        race = {"schema": SCHEMA, "workload": vars(SMALL), "results": results}
        save(race, tmp_path / "race.json")
        found = load(tmp_path / "race.json")
        assert found == race and found["results"]["a"].name == "a"

    def test_another_schema_is_refused(self, tmp_path):
        save(factories.record() | {"schema": SCHEMA + 1}, tmp_path / "record.json")
        with pytest.raises(ValueError, match="measure it again"):
            load(tmp_path / "record.json")

    def test_a_record_can_be_sent(self):
        record = Record(factories.record(), label="mine")
        sent = pickle.loads(pickle.dumps(record))
        assert sent == record and sent.name == "mine"


class TestVariant:
    def test_the_rung_has_its_own_allocator(self):
        assert describe_variant("naive", SMALL)["allocator"] == "default"
        assert describe_variant("expandable_segments", SMALL)["allocator"] == "expandable_segments"

    def test_file_names_tell_variants_apart(self):
        def name(rung, workload=SMALL, **options):
            variant = describe_variant(rung, workload, **options)
            return file_name({"rung": rung, "variant": variant, "workload": vars(workload)})

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
