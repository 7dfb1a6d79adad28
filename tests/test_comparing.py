"""What may be compared: a ratio is made of numbers taken together, or not at all."""

from math import isnan

import factories
import pytest

from decoding.measuring import NotComparable, change_of, may_compare, ratio_of, resolved
from decoding.measuring.records import with_results_as_records

EXPANDABLE = {"allocator": "expandable_segments", "rung_allocator": "expandable_segments"}


def made(rung="kv_cache", **given):
    return factories.record(rung, **given)


class TestRatio:
    def test_of_one_ladder(self):
        before, after = made("naive", per_token=8.0), made(per_token=2.0, reserved=600.0)
        assert ratio_of(before, after) == 4
        assert ratio_of(before, after, "reserved_mib") == pytest.approx(1000 / 600)
        assert change_of(before, after) == -400

    def test_of_one_race(self):
        spread = dict.fromkeys(("median", "min", "max"))
        results = {
            label: {"per_token_ms": dict.fromkeys(spread, ms)}
            for label, ms in (("a", 3.0), ("b", 1.5))
        }
        race = {"machine": {"gpu_id": "x"}, "workload": {}, "together": "t", "results": results}
        found = with_results_as_records(race)["results"]
        assert ratio_of(found["a"], found["b"]) == 2
        other = with_results_as_records(race | {"together": "u"})["results"]
        with pytest.raises(NotComparable, match="not measured in turn"):
            ratio_of(found["a"], other["b"])

    @pytest.mark.parametrize("pair", [("ok", "failed"), ("failed", "ok"), ("ok", "cpu")])
    def test_what_was_not_measured_is_nan(self, pair):
        records = {"ok": made(), "failed": made(error="No."), "cpu": made(gpu=False)}
        assert isnan(ratio_of(*(records[name] for name in pair), what="reserved_mib"))
        assert isnan(change_of(*(records[name] for name in pair)))


class TestRefusals:
    @pytest.mark.parametrize(
        ("differs", "reason"),
        [
            ({"together": "another"}, "not measured in turn"),
            ({"together": None}, "not measured in turn"),
            ({"card": "another"}, "two cards"),
            ({"code": "another"}, "code behind them"),
            ({"variant": EXPANDABLE}, "allocators differ"),
            ({"batch": 1}, "batch_size differs, 32 and 1"),
            ({"prompt": 1}, "prompt_tokens differs"),
        ],
    )
    def test_one_difference_is_enough(self, differs, reason):
        may_compare(made(), made("naive"))
        for pair in ((made(), made(**differs)), (made(**differs), made())):
            with pytest.raises(NotComparable, match=reason.split(",")[0]):
                ratio_of(*pair)

    def test_the_sentence_names_cards_days_and_allocators(self):
        with pytest.raises(NotComparable) as refused:
            ratio_of(made(card="one"), made(card="two", variant=EXPANDABLE))
        for word in (
            "GPU one",
            "GPU two",
            "2026-11-25",
            "default alloc",
            "expandable segments alloc",
        ):
            assert word in str(refused.value)

    def test_two_without_a_name_were_not_taken_together(self):
        with pytest.raises(NotComparable):
            ratio_of(made(together=None), made(together=None))


class TestSetting:
    def test_what_is_compared_may_differ_and_nothing_else(self):
        plain, expandable = made(), made("expandable_segments", reserved=400.0)
        assert plain.allocator != expandable.allocator
        assert change_of(plain, expandable, setting="allocator") == -600
        with pytest.raises(NotComparable, match="batch_size"):
            change_of(plain, made("expandable_segments", batch=1), setting="allocator")
        with pytest.raises(NotComparable, match="allocators"):
            ratio_of(plain, expandable, setting="batch_size")

    def test_an_unknown_one_is_refused(self):
        with pytest.raises(ValueError, match="'card' is unknown"):
            may_compare(made(), made(), "card")


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        ({}, {"per_token": 5.0}, True),
        ({"per_token": 5.0}, {}, True),
        ({}, {"per_token": 9.9}, False),
        ({}, {"per_token": 9.8}, False),  # the ranges touch
        ({}, {"per_token": 5.0, "processes": 2}, False),
        ({"processes": 1}, {"per_token": 5.0}, False),
        ({}, {"error": "No."}, False),
    ],
)
def test_resolved(before, after, answer):
    assert resolved(made(**before), made(**after)) is answer
