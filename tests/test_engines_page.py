"""What chapter 15 says of its race, its count of wasted steps, and its part on vLLM."""

from heapq import heapreplace
from math import isnan
from types import SimpleNamespace

import pytest
from factories import entrant

from decoding import drawing
from decoding.measuring import MeasurementError, NotRecorded, Workload
from decoding.measuring.records import save
from decoding.pages import engines, masthead

TIMES = {
    engines.DYNAMIC: 7.0,
    engines.STATIC: 1.6,
    engines.CONTINUOUS: 9.0,
    engines.GRAPHS: 3.0,
    "KV cache": 6.4,
    "compiled": 1.1,
    "captured graph": 0.6,
    "device loop": 0.5,
}


def raced(times=TIMES, failed=None):
    results = {name: entrant(time, name) for name, time in times.items()}
    return {"results": results, "failed": failed or {}}


class TestTheRace:
    def test_the_best_of_either_side(self):
        assert engines.best(raced(), theirs=True) == engines.STATIC
        assert engines.best(raced(), theirs=False) == "device loop"
        assert list(engines.sorted_by_time(raced()))[0] == engines.CONTINUOUS

    def test_one_name_for_all_batches_is_said_once(self):
        assert repr(engines.said_of({1: "compiled", 8: "compiled"})) == "compiled every time"
        said = repr(engines.said_of({1: "compiled", 8: "device loop"}))
        assert said == "compiled at batch 1; device loop at batch 8"

    def test_a_table_has_a_row_for_each_entrant_also_for_one_that_failed(self):
        one = {name: time for name, time in TIMES.items() if name != engines.GRAPHS}
        races = {1: raced(one | {"one kernel": 0.2}, {engines.GRAPHS: "no"}), 8: raced()}
        rows = {name: cells for name, *cells in engines.rows_of(races)}
        assert rows[engines.GRAPHS] == ["failed", "3.00"]
        assert rows["one kernel"] == ["0.200", "–"]
        assert rows.keys() == TIMES.keys() | {"one kernel"}
        assert repr(engines.failures(races)) == f"*{engines.GRAPHS}: no*"

    def test_the_faster_continuous_batching_is_laid_beside_a_loop(self):
        assert engines.step_ratio(raced()) == pytest.approx(5)
        assert isnan(engines.step_ratio(raced({"captured graph": 1.0})))

    def test_the_masthead_tells_it_from_the_race(self, tmp_path):
        records = masthead.Records(tmp_path)
        page = "15_beside_the_engines"
        assert masthead.told(page, records).rows == ()
        for batch in masthead.BATCHES:
            found = {"schema": 2, "together": "x", "machine": {"gpu_id": "a-card"}, "workload": {}}
            save(found | raced(), tmp_path / f"engines_b{batch}.json")
        told = masthead.told(page, records)
        assert told.rows[0][:4] == ("batch 32, device loop", "1.60", "0.500 ms", "×3.2 faster")
        assert [one.answer for one in told.questions] == [0.5, 0.5]
        for path in tmp_path.glob("engines_*"):
            save(found | raced({"device loop": 0.5}), path)
        assert masthead.told(page, records).rows == ()


class TestWaste:
    LENGTHS = [9, 3, 6, 2, 8, 4, 5, 3]

    def test_a_batch_waits_for_its_longest_row(self):
        plan = engines.in_batches(self.LENGTHS, 4)
        assert plan.steps == 9 + 8
        assert plan.wasted == pytest.approx(1 - 40 / (4 * 17))
        assert [one.first for one in plan.held] == [0, 0, 0, 0, 9, 9, 9, 9]

    def test_a_request_takes_the_first_row_that_comes_free(self):
        plan = engines.continuously(self.LENGTHS, 4)
        assert plan.steps == 11
        assert [(one.row, one.first) for one in plan.held[4:]] == [(3, 2), (1, 3), (2, 6), (1, 7)]
        for row in range(4):
            ends = 0
            for one in (held for held in plan.held if held.row == row):
                assert one.first == ends
                ends = one.first + one.steps

    @pytest.mark.parametrize("rows", [1, 2, 5])
    def test_the_exact_share_is_that_of_all_cases(self, rows):
        # Three steps at most, each row ends with p in each: all cases, with their probabilities.
        p = 0.25
        chances = {1: p, 2: (1 - p) * p, 3: (1 - p) ** 2}
        mean = sum(steps * chance for steps, chance in chances.items())
        longest = sum(
            steps
            * (
                sum(chance for n, chance in chances.items() if n <= steps) ** rows
                - sum(chance for n, chance in chances.items() if n < steps) ** rows
            )
            for steps in chances
        )
        assert engines.wasted_share(rows, p, 3) == pytest.approx(1 - mean / longest)

    def test_what_wastes_half_is_worth_a_step_of_twice_the_time(self):
        assert engines.may_cost(0.5) == 2
        assert engines.wasted_share(1, 0.1, 50) == pytest.approx(0)

    def test_a_readers_count_is_checked(self):
        def right(lengths, rows):
            free = [0] * rows
            for steps in lengths:
                heapreplace(free, free[0] + steps)
            return max(free)

        assert engines.wrong_case(right) is None
        wrong = engines.wrong_case(lambda lengths, rows: max(lengths))
        assert wrong["right"] == right(wrong["lengths"], wrong["rows"]) != wrong["found"]

    def test_its_picture_says_the_steps_and_the_waste(self):
        plans = {
            "one": engines.in_batches(self.LENGTHS, 4),
            "two": engines.continuously(self.LENGTHS, 4),
        }
        picture = drawing.slots(plans, "A title")
        assert picture.alt == (
            "A title. one: 17 steps, 41 % of the work for nothing. "
            "two: 11 steps, 9 % of the work for nothing."
        )
        drawn = picture.svg
        assert all(f">{number}<" in drawn for number in range(1, 9))


class TestVllm:
    def chapter(self, recent_or):
        single = Workload("gpt2-tiny", 1, 4, 4)
        return SimpleNamespace(
            on_gpu=False, single=single, shelf=SimpleNamespace(recent_or=recent_or)
        )

    def test_where_it_is_not_installed_a_sentence_says_so(self, monkeypatch):
        monkeypatch.setattr(engines.engines, "has_vllm", lambda: False)
        said = repr(engines.vllm_beside(self.chapter(None), {1: raced()}))
        assert said.startswith("*vLLM is not installed here") and said.count(".") == 1

    def test_where_it_is_its_times_stand_beside_the_fastest_loop(self, monkeypatch):
        monkeypatch.setattr(engines.engines, "has_vllm", lambda: True)
        kept = {"per_token_ms": {"median": 0.8, "min": 0.7, "max": 0.9}}
        said = repr(engines.vllm_beside(self.chapter(lambda *_: kept), {8: raced()}))
        assert "| 8 | 0.800 (0.700–0.900) | device loop, 0.500 |" in said

    def test_what_it_has_timed_stays_where_it_fails_later(self, monkeypatch):
        monkeypatch.setattr(engines.engines, "has_vllm", lambda: True)

        def recent_or(file, *_):
            if file == "vllm_b8.json":
                raise MeasurementError("Out of memory.")
            return {"per_token_ms": {"median": 0.8, "min": 0.7, "max": 0.9}}

        races = {1: raced(), 8: raced()}
        said = repr(engines.vllm_beside(self.chapter(recent_or), races))
        assert "| 1 | 0.800" in said and said.endswith("\n\n*Not measured: Out of memory.*")

    @pytest.mark.parametrize("error", [MeasurementError("It broke."), NotRecorded("Not there.")])
    def test_where_it_fails_the_page_goes_on(self, monkeypatch, error):
        monkeypatch.setattr(engines.engines, "has_vllm", lambda: True)

        def fails(*_):
            raise error

        said = repr(engines.vllm_beside(self.chapter(fails), {8: raced()}))
        assert said == f"*Not measured: {error}*"
