"""The ladder: who runs when, and what becomes of what the processes find."""

import pytest

from decoding.measuring import MeasurementError, Workload, ladder, measure, ratio_of, session
from decoding.measuring.ladders import times_of
from decoding.measuring.records import percentiles
from decoding.rungs import EXPANDABLE

SMALL = Workload("gpt2-tiny", 1, 4, 6, dtype="float32", device="cpu", repeats=2)
MODULE = "decoding.measuring.ladders"


def run_of(*curve, prefill=2.0):
    return {"total": prefill + sum(curve), "prefill": prefill, "curve": list(curve), "generated": 3}


def found(*warm, cold=None, **changes):
    """What one process finds, by the curves of its timed runs."""
    cold = run_of(*(cold or warm[0]), prefill=100.0)
    process = {"initialize_s": 1.0, "first_run_s": cold["total"] / 1000, "clocks": None}
    rest = {"memory": None, "gpu": None, "tokens_sha256": "0", "tokens_generated": 3}
    rest |= {"notes": [], "workload": vars(SMALL), "machine": {"gpu_id": "x"}, "error": None}
    warm = [run_of(*curve) for curve in warm]
    return {"process": process, "cold": cold, "warm": warm} | rest | changes


@pytest.fixture
def asked(monkeypatch):
    """Processes that find at once; a list of how each was asked, and what those in ``finds`` find."""
    calls = []

    def run_fresh(task, what, environment=None, *, caches=None, **arguments):
        assert task is session.measured
        calls.append(arguments | {"caches": caches, "environment": environment})
        answer = calls_find.get(arguments["rung"], found([1.0, 1.0]))
        if isinstance(answer, Exception):
            raise answer
        return answer

    calls_find = {}
    monkeypatch.setattr(f"{MODULE}.run_fresh", run_fresh)
    return calls, calls_find


class TestOrder:
    RUNGS = ("naive", "kv_cache", "expandable_segments")

    def test_every_round_runs_every_rung_in_turn(self, asked):
        calls, _ = asked
        ladder(self.RUNGS, SMALL, progress=False)
        order = [call["rung"] for call in calls]
        assert order == [*self.RUNGS, *["naive", "kv_cache"] * 2]
        assert [call["first"] for call in calls] == [True] * 3 + [False] * 4
        assert not any(call["all_runs"] for call in calls)

    def test_a_rung_finds_its_own_compilers_folder_again(self, asked):
        calls, _ = asked
        ladder(["naive", "kv_cache"], SMALL, processes=2, progress=False)
        first, second, *again = [call["caches"] for call in calls]
        assert first != second and again == [first, second]
        ladder(["naive"], SMALL, processes=1, progress=False)
        assert calls[-1]["caches"] not in (first, second)

    def test_one_that_fails_is_not_run_again(self, asked):
        calls, finds = asked
        finds["naive"] = MeasurementError("It broke.")
        finds["kv_cache"] = {"error": "Out of GPU memory.", "machine": {"gpu_id": "x"}}
        records = ladder(["naive", "kv_cache", "static_cache"], SMALL, processes=2, progress=False)
        assert [call["rung"] for call in calls].count("naive") == 1
        assert [record.error for record in records] == ["It broke.", "Out of GPU memory.", None]
        with pytest.raises(MeasurementError, match="It broke"):
            measure("naive", SMALL)
        assert measure("kv_cache", SMALL).error == "Out of GPU memory."

    def test_an_edit_in_the_middle_spoils_the_record(self, asked, monkeypatch):
        hashes = iter(range(99))
        monkeypatch.setattr(f"{MODULE}.fingerprint", lambda rungs: next(hashes))
        (record,) = ladder(["naive"], SMALL, processes=2, progress=False)
        assert "edited" in record.error

    def test_an_environment_replaces_the_rungs_own(self, asked):
        calls, _ = asked
        measure("expandable_segments", SMALL)
        measure("expandable_segments", SMALL, environment={})
        assert "expandable" in str(calls[0]["environment"]) and calls[1]["environment"] == {}

    def test_a_variant_has_its_own_settings(self, asked):
        calls, _ = asked
        apart = {"rung": "naive", "environment": EXPANDABLE, "once": True, "stop_check": False}
        plain, variant = ladder(["naive", apart], SMALL, processes=2, progress=False)
        assert [call["environment"] for call in calls] == [{}, EXPANDABLE, {}]
        assert [call["workload"].stop_check for call in calls] == [True, False, True]
        assert plain["variant"]["allocator"] == "default"
        assert variant["variant"]["allocator"] == "expandable_segments"
        assert not variant["variant"]["stop_check"] and apart["once"]

    def test_what_cannot_be_is_refused_before_anything_runs(self, asked):
        calls, _ = asked
        with pytest.raises(ValueError, match="no rung 'kv'"):
            ladder(["naive", "kv"], SMALL)
        with pytest.raises(TypeError, match="'naive' has no option cache_length"):
            ladder([{"rung": "naive", "cache_length": 9}], SMALL)
        with pytest.raises(ValueError, match="processes=0"):
            ladder(["naive"], SMALL, processes=0)
        assert not calls

    def test_the_rest_is_estimated_after_the_first_round(self, asked, capsys):
        ladder(["naive"], SMALL, processes=3)
        assert "Round 1 of 3 took" in capsys.readouterr().err


class TestTimes:
    def test_the_headline_is_over_processes_and_percentiles_over_tokens(self):
        sessions = [
            found([1.0, 3.0], [2.0, 2.0], [9.0, 9.0], cold=[50.0, 70.0]),  # means 2, 2, 9: median 2
            found([4.0, 4.0], cold=[5.0, 5.0]),
            found([3.0, 3.0], cold=[7.0, 7.0]),
        ]
        time = times_of(sessions)
        assert time["per_token_ms"] == {"median": 3.0, "min": 2.0, "max": 4.0}
        assert time["spread_over"] == 3
        assert time["cold_per_token_ms"] == 60.0
        assert time["curve_ms"] == [3.0, 3.0]
        tokens = [1, 3, 2, 2, 9, 9, 4, 4, 3, 3]
        assert time["tokens_ms"] == percentiles(tokens)
        once = time["once_s"]
        assert once["first_run"] == pytest.approx(0.22)
        assert once["first_run_warm_caches"] == pytest.approx(0.112)
        assert once["warm_run"] == pytest.approx(0.008)

    def test_of_one_process_the_range_is_over_its_runs(self):
        time = times_of([found([1.0], [2.0], [6.0])])
        assert time["per_token_ms"] == {"median": 2.0, "min": 1.0, "max": 6.0}
        assert time["spread_over"] == 1 and time["once_s"]["first_run_warm_caches"] is None


def test_percentiles():
    assert percentiles(range(101)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([]) is None


@pytest.mark.parametrize(
    ("milliseconds", "all_runs", "runs"), [(10, False, 5), (2000, False, 1), (2000, True, 5)]
)
def test_a_slow_loop_makes_one_run(monkeypatch, milliseconds, all_runs, runs):
    monkeypatch.setattr(session, "timed", lambda run: ({"total": milliseconds}, None))
    assert len(session._warm(None, 5, all_runs)[0]) == runs


def test_a_real_ladder():
    records = ladder(["kv_cache", "static_cache"], SMALL, processes=3, progress=False)
    assert len({record.together for record in records}) == 1
    for record in records:
        assert record.error is None and record.spread_over == 3
        assert [process["cold"] for process in record["processes"]] == [True, False, False]
        assert record.tokens_ms["p50"] <= record.tokens_ms["p99"]
        assert record.once_s["first_run_warm_caches"] > 0 and record.once_s["initialize"] > 0
        assert record.machine["cpu"] and record.allocator is None
    assert ratio_of(*records) > 0
    alone = measure("kv_cache", SMALL)
    with pytest.raises(MeasurementError, match="not measured in turn"):
        ratio_of(alone, records[0])
