"""What chapter 14 shows, on made-up records, and its drawings."""

from math import isnan, nan
from types import SimpleNamespace

import pytest
from factories import entrant

from decoding import drawing
from decoding.drawing.holders import held_by_a_block
from decoding.drawing.phases import KINDS, Phase, by_kind
from decoding.measuring import MeasurementError, NotMeasured, NotRecorded, Workload
from decoding.measuring.records import save
from decoding.pages import floor, masthead, one_kernel

SINGLE = Workload("gpt2", 1, 128, 256, dtype="bfloat16")
CODE = """\
// Of no use.

struct Pair { float a, b; };  // two numbers

// Adds them { and says so.
template <class T>
struct Sum {
  // In any order.
  float of(Pair pair) {
#if WIDE
    return pair.a + pair.b;
#endif
  }
  int token;
};
"""


def spread(median, around=0.0):
    return {"median": median, "min": median - around, "max": median + around}


def steps():
    """A made-up race of the one kernel."""
    times = {"device loop": 0.5, "weights when needed": 0.25, "shared sums": 0.2}
    results = {name: {"per_token_ms": spread(time, 0.01)} for name, time in times.items()}
    return {"workload": vars(SINGLE), "machine": {"gpu": "A made-up GPU"}, "results": results}


class Shelf:
    """What a chapter asks of its shelf; nothing is kept."""

    def __init__(self, folder, records=None):
        self.folder, self.records, self.asked = folder, records or {}, []

    def of_the_book(self, file):
        if file not in self.records:
            raise NotRecorded(file)
        return self.records[file]

    def recent_or(self, file, rungs, measured, asked=None):
        self.asked.append((file, tuple(rungs), asked))
        return self.records.get(file) or measured()


def chapter(tmp_path, records=None, on_gpu=True):
    machine = {"gpu": "A made-up GPU"}
    return SimpleNamespace(
        on_gpu=on_gpu, single=SINGLE, machine=machine, shelf=Shelf(tmp_path, records)
    )


class TestRecords:
    def test_what_a_cpu_does_not_race_has_no_numbers(self, tmp_path):
        raced = {"results": {"device loop": entrant(0.5)}}
        found = one_kernel.race(chapter(tmp_path, {"race_fused.json": raced}))
        assert list(found) == list(one_kernel.LOOPS)
        assert found[one_kernel.BEFORE].ms == 0.5
        assert isnan(found[one_kernel.EARLY].ms) and found[one_kernel.EARLY].error
        drawing.step_card(found[one_kernel.BEFORE], found[one_kernel.EARLY])

    def test_evidence_is_kept_with_the_kernel_s_code(self, tmp_path):
        def profile():
            return {"phases": {}}

        kept = chapter(tmp_path)
        assert one_kernel.evidence(kept, profile) == {"phases": {}}
        assert kept.shelf.asked == [("one_kernel_profile.json", ("one_kernel",), None)]

    def test_without_a_gpu_it_is_the_book_s_or_none(self, tmp_path):
        def profile():
            raise AssertionError("nothing is measured on a CPU")

        kept = {"one_kernel_profile.json": {"found": {"phases": {"embed": 1.0}}}}
        found = one_kernel.evidence(chapter(tmp_path, kept, on_gpu=False), profile)
        assert found == {"phases": {"embed": 1.0}}
        with pytest.raises(NotRecorded):
            one_kernel.evidence(chapter(tmp_path, on_gpu=False), profile)

    def test_a_card_that_cannot_says_so(self, tmp_path):
        def profile():
            raise MeasurementError("it needs a newer GPU")

        with pytest.raises(NotMeasured, match="newer GPU"):
            one_kernel.evidence(chapter(tmp_path), profile)

    def test_the_limit_is_that_of_the_workload(self, tmp_path):
        assert isnan(one_kernel.least_us(chapter(tmp_path)))
        made = {"schema": 2, "machine": {"gpu": "A made-up GPU"}, "found": {"gb_per_s": 1000.0}}
        save(made, tmp_path / floor.FILE)
        least = one_kernel.least_us(chapter(tmp_path))
        assert least == pytest.approx(1000 * floor.floor_ms(SINGLE, 1000.0))
        longer = vars(SINGLE.but(prompt_tokens=512)) | {"device": "cuda"}
        assert one_kernel.least_us(chapter(tmp_path), longer) > least

    def test_facts_are_single_values_in_words(self):
        found = {"prompts": 1000, "all_equal": True, "by_length": {"8": 1}, "longest": "500"}
        assert one_kernel.facts(found) == [
            ["prompts", "1,000"],
            ["all equal", "yes"],
            ["longest", "500"],
        ]


class TestPhases:
    def test_every_kind_has_its_phases(self):
        kinds = {
            "wait for the heads' sums": "exchange between all blocks",
            "next token": "exchange between all blocks",
            "wait for q, k, v": "exchange within a cluster",
            "wait for the feed-forward's weights": "wait for weights",
            "attention": "attention",
            "layer norm 1": "layer norm and the rest",
            "q, k, v": "matrix product",
            "lm_head": "matrix product",
        }
        assert {name: one_kernel.kind_of(name) for name in kinds} == kinds
        assert set(kinds.values()) == set(KINDS)

    def test_shares_are_of_the_whole(self):
        parts = {
            "wait for the heads' sums": 30.0,
            "wait for the last sums": 10.0,
            "wait for q, k, v": 20.0,
            "lm_head": 40.0,
        }
        assert one_kernel.share(parts, "exchange between all blocks") == 0.4
        assert one_kernel.share(parts, "exchange within a cluster", "matrix product") == 0.6
        assert isnan(one_kernel.share({}, "attention"))

    def test_their_drawing_says_every_number(self):
        found = one_kernel.phases(
            {"wait for the heads' sums": 30.0, "attention": 10.0, "lm_head": 40.0}
        )
        assert by_kind(found) == {
            "exchange between all blocks": 30.0,
            "matrix product": 40.0,
            "attention": 10.0,
        }
        drawn = drawing.phases(found, "Where", least=60.0)
        for words in ("80 µs", "30 µs (38 %)", "The line: 60 µs", "wait for the heads' sums 30.0"):
            assert words in drawn.alt
        assert "nothing was measured" in drawing.phases([Phase("x", "attention", nan)], "Where").svg


class TestLadder:
    def test_loops_of_earlier_chapters_stand_before(self):
        stages = one_kernel.stages(steps()["results"])
        assert [one.before for one in stages] == [True, False, False]
        assert [one.us for one in stages] == pytest.approx([500, 250, 200])
        assert (stages[1].low, stages[1].high) == pytest.approx((240, 260))
        raced = one_kernel.stages({loop: entrant(1.0) for loop in one_kernel.LOOPS})
        ours = [one.name for one in raced if not one.before]
        assert ours == [one_kernel.ALONE, one_kernel.EARLY]

    def test_the_way_has_what_ran(self):
        assert list(one_kernel.way(steps()["results"])) == ["device loop", "one kernel"]
        raced = {loop: entrant(at) for at, loop in enumerate(one_kernel.LOOPS, 1)}
        found = one_kernel.way(raced)
        assert found == {
            "device loop": raced["device loop"],
            "fused step": raced["dependent launch"],
        }
        assert [one.before for one in one_kernel.stages(found)] == [True, False]

    def test_the_way_comes_from_the_race_that_goes_farthest(self, tmp_path):
        raced = {"results": {loop: entrant(0.5) for loop in one_kernel.LOOPS}}
        kept = {"race_fused.json": raced, "one_kernel_steps.json": {"found": steps()}}
        stages, least = one_kernel.way_of(chapter(tmp_path, kept, on_gpu=False))
        assert [one.name for one in stages] == ["device loop", "one kernel"] and isnan(least)
        del kept["one_kernel_steps.json"]
        stages, _ = one_kernel.way_of(chapter(tmp_path, kept, on_gpu=False))
        assert [one.name for one in stages] == ["device loop", "fused step"]

    def test_its_drawing_says_what_is_missing(self):
        stages = one_kernel.stages(steps()["results"]) + [drawing.Stage("the last", nan)]
        drawn = drawing.descent(stages, "Down", least=100.0)
        assert "weights when needed: 250 µs, 40 % of the limit." in drawn.alt
        assert "the last: not measured." in drawn.alt and "not measured" in drawn.svg
        assert "The limit: 100 µs." in drawn.alt
        alone = drawing.descent(stages[:1], "Down")
        assert "limit" not in alone.alt and "limit" not in alone.svg


class TestHolders:
    def test_the_slices_of_all_blocks_make_the_whole(self):
        held = dict(held_by_a_block(12, 8, 768))
        assert held["query, key, value"].startswith("8 of the head's 64")
        assert held["projection"].startswith("96 of 768")
        assert held["feed-forward"] == "32 of 3072 hidden units"

    def test_it_draws_every_block(self):
        drawn = drawing.holders(heads=4, cluster=2, width=128)
        assert "4 columns of 2 blocks" in drawn.alt and "4 clusters of 2 blocks" in drawn.svg


class TestSource:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        (tmp_path / one_kernel.FILES[0]).write_text("// One.\n//   Two.\n#include <x>\n// No.\n")
        (tmp_path / one_kernel.FILES[1]).write_text(CODE)
        monkeypatch.setattr(one_kernel, "FOLDER", tmp_path)
        return tmp_path

    def test_a_part_ends_with_its_braces(self, folder):
        shown = one_kernel.part("float of(").text
        assert shown.startswith(
            "```cuda\n// In any order.\nfloat of(Pair pair) {\n#if WIDE\n  return"
        )
        assert shown.endswith("#endif\n}\n```")
        assert one_kernel.part("struct Pair").text.count("\n") == 2
        assert one_kernel.part("int token").text == "```cuda\nint token;\n```"

    def test_words_in_comments_only_are_no_part(self, folder):
        for words in ("says so", "nowhere"):
            with pytest.raises(ValueError, match=words):
                one_kernel.part(words)

    def test_the_head_is_the_first_comment(self, folder):
        assert one_kernel.head_of_source().text == "```cuda\n// One.\n//   Two.\n```"

    def test_a_triton_kernel_is_shown_whole(self):
        shown = one_kernel.triton_part("mlp_project").text
        assert shown.startswith("```python\n@triton.jit\ndef mlp_project(\n")
        assert "fmt: skip" not in shown and shown.count("@triton.jit") == 1
        assert shown.endswith("mask=n < OUTPUTS)\n```")
        with pytest.raises(ValueError, match="no kernel 'nothing'"):
            one_kernel.triton_part("nothing")


def test_the_masthead_has_a_row_for_each_stride(tmp_path):
    records = masthead.Records(tmp_path)
    assert not masthead.told("14_one_kernel", records).rows
    times = dict.fromkeys(one_kernel.LOOPS, 0.5) | {one_kernel.EARLY: 0.25}
    raced = {"schema": 2, "together": "x", "machine": {"gpu_id": "a-card"}, "workload": {}}
    raced["results"] = {loop: entrant(time) for loop, time in times.items()}
    save(raced, tmp_path / "race_fused.json")
    made = masthead.told("14_one_kernel", records)
    assert [row[:3] for row in made.rows] == [("fused step", "0.500", "0.250 ms")]
    save({"schema": 2, "machine": {}, "found": steps()}, tmp_path / "one_kernel_steps.json")
    made = masthead.told("14_one_kernel", records)
    assert made.rows[1][:4] == ("one kernel", "0.500", "0.200 ms", "×2.5 faster")
    assert [one.answer for one in made.questions] == [0.25, 0.2]


class TestAReadersExchange:
    def test_a_store_that_is_too_wide_is_refused(self):
        with pytest.raises(ValueError, match="64 bits"):
            one_kernel.wrong_order(lambda value, number: [("word", 2**64)], lambda *_: None)

    def test_a_value_that_is_never_found_is_wrong(self):
        stores = [("word", 1)]
        found = one_kernel.wrong_order(lambda value, number: stores, lambda *_: None)
        assert found == tuple(stores)
