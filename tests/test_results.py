"""Conclusions from made-up records: each can be reckoned in the head."""

import json
from dataclasses import asdict
from math import isnan
from types import SimpleNamespace

import pytest
from factories import entrant, record

from decoding.allocator import MIB, replay
from decoding.measuring import Record, Workload
from decoding.measuring.records import load
from decoding.measuring.timeline import HostRange, Launch, Timeline
from decoding.pages import results
from decoding.pages.machines import book_folder

WORK = Workload("gpt2", batch_size=32, prompt_tokens=128, new_tokens=512, dtype="bfloat16")
FAILED = record(error="Out of memory.")
ON_A_CPU = record(gpu=False)


def raced(check, two, bound):
    """A race of the three loops; the pipeline's runs scatter by a tenth of a ms to either side."""
    found = {"check": entrant(check), "two streams": entrant(two), "no check": entrant(bound)}
    found["two streams"]["per_token_ms"] |= {"min": two - 0.1, "max": two + 0.1}
    for loop, rounds in {"check": [check] * 3, "two streams": [two, two + 0.1, two - 0.1]}.items():
        found[loop]["rounds_ms"] = rounds
    return found


class TestAlongARun:
    def test_ends_are_medians_of_eighths(self):
        values = [1, 2, 99, *[0] * 18, 5, 6, 7]
        assert results.ends(values) == (2, 6)
        assert results.growth(values) == 3
        assert results.ends([4]) == (4, 4)

    def test_pace_is_that_of_the_smoothed_curve(self):
        low, high = results.pace(record(per_token=10, growth=4))
        assert 8 <= low < 8.2
        assert 11.8 < high <= 12

    def test_speed(self):
        assert results.speed(record(per_token=10), record(per_token=4)) == 2.5

    def test_busy_time_at_both_ends_and_beside_the_time(self):
        one = record(per_token=10, prompt=128, new=512)
        assert results.busy_ends(one) == (5, 7)
        assert results.cold_ends(one) == pytest.approx((30, 30))
        rows = results.two_clocks(one)
        assert [row[0] for row in rows] == [256, 384, 512]
        assert rows[1] == (384, 10, 6, 0.6)

    def test_payback(self):
        before, after = record(per_token=10, new=100), record(per_token=5, new=100)
        after["time"] |= {"cold_total_ms": 4500.0, "total_ms": {"median": 500.0}}
        assert results.payback(before, after) == (2, 400)  # 4000 − 2000 ms more, 5 ms a token
        seconds, tokens = results.payback(after, before)
        assert seconds == -2
        assert isnan(tokens)


class TestMemory:
    def test_sizes_follow_from_the_shapes(self):
        assert results.token_bytes(WORK) == 2 * 12 * 768 * 2
        assert results.cache_mib(WORK, 1024) == 32 * 1024 * 36_864 / 2**20
        assert results.logits_mib(WORK.but(batch_size=1), 2**20) == 50_257 * 2

    def test_growth_from_the_first_token_to_the_last(self):
        assert results.allocated_ends(record(allocated=800)) == (400, 800)
        assert results.allocated_growth(record(allocated=800)) == 400

    def test_retries_are_drops_of_the_reserved_memory(self):
        one = record(new=30, per_token=10)
        one["memory"]["reserved_mib"] = [5.0] * 12 + [3.0] * 18
        one["time"]["cold_curve_ms"] = [10.0] * 11 + [50.0] + [10.0] * 17
        assert results.retries(one) == [(12, 2, 50, 10)]
        cost, share = results.cost_of_retries(one)
        assert (cost, share) == (40, pytest.approx(40 / 330))
        assert all(map(isnan, results.cost_of_retries(record())))

    def test_what_the_allocator_held(self):
        one = record(reserved=1000, new=3)
        assert results.reserved_along(one) == [500, 750, 1000]
        assert (results.times_full(one), results.most_segments(one)) == (0, 10)


class TestRecordings:
    @pytest.fixture
    def recording(self):
        """A tensor of 100 MiB that grows by 20 MiB at each of three tokens."""
        events = [(0, 100 * MIB), (1, 120 * MIB), (0, 0), (2, 140 * MIB), (1, 0)]
        curves = {"allocated_mib": [100, 120, 140], "reserved_mib": [110, 230, 370]}
        return curves | {"events": events, "marks": [1, 3, 5], "asked": json.dumps(asdict(WORK))}

    def test_a_recording_knows_its_workload(self, recording):
        assert results.workload_of(recording) == WORK

    def test_the_recording_stands_beside_the_model(self, recording):
        events, marks = recording["events"], recording["marks"]
        models = {one: replay(events, marks, expandable=one) for one in (False, True)}
        real, model, expandable = results.real_and_model("kv_cache", recording, models)
        assert (real.name, model.name) == ("KV cache", "KV cache")
        assert expandable.name == "KV cache, expandable segments"
        assert results.reserved_along(real) == [110, 230, 370]
        assert results.reserved_along(model) == [100, 220, 360]


class TestCheck:
    RACE = raced(check=2.0, two=1.2, bound=1.0)

    def test_its_cost_and_its_share(self):
        assert results.cost_of_check(self.RACE) == 1000
        assert results.share_of_check(self.RACE) == 0.5

    def test_what_two_streams_save_and_how_far_they_are_from_the_bound(self):
        assert results.saved(self.RACE) == pytest.approx(0.4)
        assert results.saved_range(self.RACE) == pytest.approx((0.35, 0.45))
        assert results.above_bound(self.RACE) == pytest.approx(0.2)


class TestRaces:
    @pytest.mark.parametrize(("on_gpu", "sizes"), [(True, [1, 8]), (False, [1, 2])])
    def test_each_batch_size_has_a_race_of_its_own(self, on_gpu, sizes):
        asked = []

        def watch(workload):
            asked.append(workload)
            return {"results": workload.batch_size}

        chapter = SimpleNamespace(on_gpu=on_gpu, single=WORK, watch=watch)
        assert results.races(chapter, sizes=(1, 8)) == {size: size for size in sizes}
        assert asked == [WORK.but(batch_size=size) for size in sizes]


class TestTraces:
    def test_the_hosts_side_of_a_token(self):
        steps = [HostRange("decode_step", t, t * 100, t * 100 + 60) for t in (1, 2)]
        calls = [
            Launch("launch", t, t * 100 + begin, t * 100 + begin + 5, blocking, number)
            for t in (1, 2)
            for begin, blocking, number in ((20, False, 2), (40, False, 1), (65, True, 1))
        ]
        timeline = Timeline([*steps, HostRange("stop_check", 1, 160, 190)], calls)
        assert results.host_side(timeline) == (60, 3, 20)

    def test_the_books_trace(self):
        kept = load(book_folder() / "trace_pipeline.json")["timelines"]["check"]
        timeline = Timeline.from_dict(kept)
        whole = timeline.extent[1] / len(timeline.tokens)
        assert 0 < results.pauses_us(timeline) < results.idle_us(timeline) < whole


@pytest.mark.parametrize("one", [FAILED, ON_A_CPU])
def test_what_was_not_measured_is_nan(one):
    values = [*results.busy_ends(one), results.allocated_growth(one), *results.reserved_along(one)]
    values += [results.times_full(one), results.most_segments(one), *results.cost_of_retries(one)]
    values += [value for row in results.two_clocks(one) for value in row]
    assert all(map(isnan, values))
    assert results.retries(one) == []


def test_a_failed_record_has_no_times():
    good = record()
    values = [
        *results.ends(FAILED.curve),
        *results.cold_ends(FAILED),
        *results.pace(FAILED),
        results.speed(good, FAILED),
        results.growth(FAILED.curve),
        *results.payback(good, FAILED),
        results.cost_of_check({"check": FAILED, "no check": good}),
    ]
    assert all(map(isnan, values))


def whole_runs(**tokens):
    """Results of a race: loop -> its tokens; later loops take longer, the prefill 5 ms a token."""
    found = {
        loop: {
            "per_token_ms": dict.fromkeys(("median", "min", "max"), 1.0),
            "total_per_token_ms": dict.fromkeys(("median", "min", "max"), 6.0 + at),
            "tokens_sha256": chosen,
        }
        for at, (loop, chosen) in enumerate(tokens.items())
    }
    return {loop: Record(result, label=loop) for loop, result in found.items()}


def out_of_memory():
    return Record.failed("compiled", "compiled", None, {}, {}, "Out of memory.")


def test_whole_runs_of_a_race_are_sorted_by_their_time():
    found = results.totals(whole_runs(kv_cache="a", compiled="b"))
    assert [(loop, record.ms) for loop, record in found.items()] == [
        ("compiled", 7.0),
        ("kv_cache", 6.0),
    ]
    assert isnan(results.totals({"compiled": out_of_memory()})["compiled"].ms)


def test_loops_with_the_same_tokens_stand_together():
    race = whole_runs(kv_cache="a", compiled="b", transformers="a") | {
        "two_streams": out_of_memory()
    }
    assert results.token_sets(race) == [["KV cache", "transformers"], ["compiled"]]


def test_a_note_tells_that_runs_disagree():
    found = record()
    assert not results.disagree(found)
    found["notes"].append("Two runs of this process chose different tokens.")
    assert results.disagree(found)


def test_runs_that_differ_are_counted_by_case():
    cases = [
        {"batch_size": batch, "with_cudnn": cudnn, "differ": batch * cudnn}
        for batch in (1, 32)
        for cudnn in (True, False)
    ]
    repeats = {"cudnn": 91900, "cases": cases}
    assert results.differing(repeats, with_cudnn=True) == 33
    assert results.differing(repeats, with_cudnn=False) == 0
    assert results.differing(repeats, batch_size=1) == 1
    assert str(results.cudnn_version(repeats)) == "9.19.0"
