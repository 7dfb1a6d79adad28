"""What chapter 11 says of its races, and its plot of two times against each other."""

from math import isnan, nan
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from decoding import drawing
from decoding.drawing.against import LOOKS, Mark, against
from decoding.drawing.svg import for_page
from decoding.measuring import NotRecorded
from decoding.measuring.endings import LOOPS
from decoding.measuring.records import Record
from decoding.pages import endings

#: loop -> L, G and the token, in µs.
TIMES = {
    "compiled, at once": (400, None, 900),
    "two streams": (410, None, 560),
    "deferred check": (600, None, 610),
    "compiled, never": (300, 500, 550),
    "captured, at once": (40, None, 600),
    "captured graph": (30, None, 566),
    "captured, never": (10, 500, 560),
    "device loop": (3000, None, 563),
}


def raced(times=TIMES, scale=1):
    race = {"together": "a-race", "workload": {}, "machine": {"gpu_id": "a-card"}}
    found = {}
    for loop, (launch, work, token) in times.items():
        spread = dict.fromkeys(("median", "min", "max"), scale * token / 1000)
        numbers = {"L_us": launch, "G_us": work and scale * work, "measured_us": scale * token}
        found[loop] = Record(
            numbers | {"per_token_ms": spread, "spread_over": 5}, label=loop, race=race
        )
    return found


def test_what_the_check_costs_at_once_is_beside_the_loop_of_the_same_step_that_never_asks():
    found = raced()
    assert endings.cost_at_once(found, "compiled") == pytest.approx(350)
    assert endings.cost_at_once(found, "captured") == pytest.approx(40)
    assert endings.share_at_once(found, "captured") == pytest.approx(40 / 600)


class TestPredicted:
    @pytest.mark.parametrize(
        "loop, expected",
        [
            ("compiled, at once", 900),
            ("two streams", 500),
            ("deferred check", 600),
            ("captured, at once", 540),
            ("captured graph", 500),
            ("device loop", 500),  # its launch is made once
        ],
    )
    def test_at_once_is_the_sum_and_later_the_larger(self, loop, expected):
        assert endings.predicted_us(raced(), loop) == expected

    def test_nothing_is_predicted_without_a_gpu(self):
        small = raced({loop: (one, None, token) for loop, (one, _, token) in TIMES.items()})
        assert isnan(endings.predicted_us(small, "captured graph"))
        assert {point.regime for point in endings.points_of(small, "tiny", 1)} == {"–"}

    def test_the_pauses_are_what_the_captured_step_takes_beside_its_work(self):
        assert endings.pauses_us(raced()) == 60
        assert isnan(endings.pauses_us({}))


class TestPoints:
    def found(self):
        return {point.loop: point for point in endings.points_of(raced(), "gpt2", 1)}

    def test_a_point_has_its_miss_and_its_regime(self):
        found = self.found()
        assert found.keys() == LOOPS.keys()
        assert found["compiled, at once"].miss == 0
        assert found["captured, at once"].miss == pytest.approx(540 / 600 - 1)
        assert found["captured, at once"].miss_with_pauses == 0
        assert found["deferred check"].regime == "host-bound"
        assert found["captured graph"].regime == found["device loop"].regime == "GPU-bound"

    def test_how_many_are_near(self):
        assert endings.share_within([0.1, -0.2, nan, 0.15], 0.15) == pytest.approx(2 / 3)
        assert isnan(endings.share_within([nan], 0.15))

    def test_the_best_loop_asks(self):
        loop, above = endings.best(raced())
        assert loop == "two streams" and above == pytest.approx(560 / 560 - 1)

    def test_what_the_book_has_not_is_named_and_left_out(self, monkeypatch):
        asked = []

        def race(chapter, batch_size, **more):
            asked.append((batch_size, more))
            if more.get("model") == "gpt2-xl":
                raise NotRecorded("The book has no record.")
            return raced()

        monkeypatch.setattr(endings, "race", race)
        chapter = SimpleNamespace(on_gpu=True, single=SimpleNamespace(model="gpt2"))
        points = endings.points(chapter, {"gpt2": (1, 2), "gpt2-xl": (1,)})
        assert points.missing == ["gpt2-xl at batch 1"]
        assert list(points.races) == [("gpt2", 1), ("gpt2", 2)]
        assert len(points.found) == 2 * len(LOOPS)
        assert asked[0] == (1, {}) and asked[2][1] == {"model": "gpt2-xl", "loops": endings.FEWER}

    def test_a_cpu_races_its_own_model_only(self, monkeypatch):
        monkeypatch.setattr(endings, "race", lambda *_, **__: raced())
        chapter = SimpleNamespace(on_gpu=False, single=SimpleNamespace(model="gpt2-tiny"))
        assert list(endings.points(chapter).races) == [("gpt2-tiny", 1), ("gpt2-tiny", 2)]

    def test_the_calculator_takes_its_presets(self):
        made = endings.presets({("gpt2", 1): raced(), ("gpt2", 2): raced()})
        assert list(made) == ["gpt2, compiled, batch", "gpt2, captured, batch"]
        assert made["gpt2, captured, batch"] == {
            "1": {
                "check at once": (40, 500, 600),
                "one step late": (30, 500, 566),
                "never": (10, 500, 560),
            }
        }
        html = drawing.calculator(made).html
        assert 'max="2000"' in html
        large = drawing.calculator(endings.presets({("gpt2-xl", 1): raced(scale=5)})).html
        assert 'max="3000"' in large and 'max="2000"' not in large


class TestAgainst:
    MARKS = [
        Mark("compiled, at once", 1.0, 1.1),
        Mark("compiled, at once", 1.0, 0.8),
        Mark("device loop", 2.0, 2.0),
        Mark("device loop", nan, 2.0),
    ]

    def drawn(self, **more):
        return against(self.MARKS, "They agree", x="measured, ms", y="predicted, ms", **more)

    def test_its_words_count_the_marks(self):
        said = repr(self.drawn(band=0.15))
        assert said.startswith("They agree. predicted, ms over measured, ms, 3 points.")
        assert "Within 15 % of the diagonal: 2." in said
        assert "compiled, at once: 1 of 2. device loop: 1 of 1." in said
        said = repr(self.drawn(sides=("GPU-bound", "host-bound")))
        assert "GPU-bound: 1. host-bound: 2." in said

    def test_it_is_drawn_for_a_page_and_for_a_phone(self):
        page = ElementTree.fromstring(for_page(self.drawn(band=0.15).svg))
        widths = {
            float(svg.get("viewBox").split()[2]) for svg in page.iter("svg") if svg.get("viewBox")
        }
        assert widths == {400, 326}

    def test_kinds_without_a_look_come_in_their_own_order(self):
        kinds = [f"loop {number}" for number in range(9)]
        marks = [Mark(kind, 1.0, 1.1) for kind in [*kinds, "device loop"]]
        said = repr(against(marks, "T", x="a", y="b", band=0.15))
        found = [part.partition(":")[0] for part in said.split(". ") if " of 1" in part]
        assert found == ["device loop", *kinds]

    def test_no_time_is_no_picture_but_words(self):
        nothing = against([Mark("device loop", nan, nan)], "T", x="a", y="b", band=0.15)
        assert "Nothing was measured." in repr(nothing)
        with pytest.raises(ValueError, match="above 0"):
            against([Mark("device loop", 0, 1)], "T", x="a", y="b")

    def test_every_loop_of_the_race_has_a_look_of_its_own(self):
        assert LOOKS.keys() == LOOPS.keys()
        assert len(set(LOOKS.values())) == len(LOOKS)
