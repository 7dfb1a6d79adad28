"""The masthead: its numbers are those of the records, and what is to be guessed is marked as such."""

import pytest
from bs4 import BeautifulSoup
from factories import record, save_endings
from pages import CHAPTERS, ROOT

from decoding.drawing.masthead import Masthead, Question, Row, Step, draw_masthead
from decoding.drawing.words import known, ms
from decoding.measuring.records import file_name, save
from decoding.pages import floor, masthead
from decoding.pages.machines import book_folder
from decoding.rungs import EXPANDABLE, RUNGS

PAGES = [page.partition("/")[2] for page in CHAPTERS]
NEXT = "01_naive", "02_kv_cache", "08_ask_late"  # of which the last has no rung


@pytest.fixture
def folder(tmp_path):
    """Records of every rung at both batch sizes, with round numbers."""
    for at, rung in enumerate(RUNGS):
        for batch, new in ((32, 512), (1, 256)):
            made = record(
                rung, per_token=(64.0 if batch == 32 else 16.0) / 2**at, batch=batch, new=new
            )
            save(made, tmp_path / file_name(made))
    return tmp_path


@pytest.fixture
def records(folder):
    return masthead.Records(folder)


def soup_of(html):
    return BeautifulSoup(html, "html.parser")


def words_of(element):
    return " ".join(element.get_text().split())


STEPS = [
    Step(1, "naive", "01_naive.html", {32: (8.0, 0.25), 1: (4.0, 0.5)}),
    Step(2, "cached", "02_kv_cache.html", {32: (2.0, 0.5), 1: (1.0, float("nan"))}, apart=True),
]
MADE = Masthead(
    "02_kv_cache",
    "It keeps <what> it has.",
    "Time of a token: naive → cached",
    (Row("batch 32", "8.00", "2.00 ms", "×4.0 faster", ("GPU idle 25 %", "50 %"), "12 %"),),
    (Question("b32", "A token at batch 32", "ms", 2.0, "2.00 ms", 8.0),),
    here=2,
)


class TestDrawing:
    def test_without_scripts_everything_can_be_read(self):
        drawn = soup_of(draw_masthead(MADE, STEPS, limit_href="glossary.html#limit"))
        for lid in drawn.select(".ttb-lid, .ttb-unit-of"):
            lid.decompose()
        assert words_of(drawn.select_one(".ttb-change")) == "8.00 → 2.00 ms"
        said = words_of(drawn.select_one(".ttb-detail"))
        assert said == "×4.0 faster · GPU idle 25 % → 50 % · share of the limit 12 %"
        assert drawn.select_one(".ttb-detail a")["href"] == "glossary.html#limit"
        assert words_of(drawn.select_one(".ttb-sentence")) == "It keeps <what> it has."

    def test_what_comes_after_is_marked_as_covered_and_what_was_before_is_not(self):
        drawn = soup_of(draw_masthead(MADE, STEPS))
        assert "ttb-asks" in drawn.div["class"]
        for hidden in drawn.select(".ttb-secret"):
            hidden.decompose()
        assert words_of(drawn.select_one(".ttb-change")) == "8.00 ms → ?"
        assert words_of(drawn.select_one(".ttb-detail")) == "GPU idle 25 % → ?"
        shown = words_of(drawn)
        for answer in ("2.00", "×4.0", "50 %", "12 %"):
            assert answer not in shown
        ahead = drawn.select(".ttb-ahead")
        assert [words_of(one.select_one(".ttb-number")) for one in ahead] == ["2"]

    def test_a_guess_has_a_label_and_its_answer(self):
        field = soup_of(draw_masthead(MADE, STEPS)).select_one("form input")
        assert field["aria-label"] == "A token at batch 32, in ms"
        given = {key: field[f"data-{key}"] for key in ("answer", "before", "words", "unit")}
        assert given == {"answer": "2.0", "before": "8.0", "words": "2.00 ms", "unit": "ms"}

    def test_where_nothing_is_asked_nothing_is_covered(self):
        drawn = soup_of(draw_masthead(MADE._replace(questions=(), here=None), STEPS))
        assert "ttb-asks" not in drawn.div["class"]
        assert not drawn.select("form, .ttb-ahead, .ttb-here")

    def test_each_bar_is_a_link_with_a_name_and_numbers_and_has_its_height(self):
        drawn = soup_of(draw_masthead(MADE, STEPS))
        links = drawn.select("nav li a")
        assert [link["href"] for link in links] == ["01_naive.html", "02_kv_cache.html"]
        named = [words_of(link).replace("? ", " ").replace("?", "") for link in links]
        assert named == [
            "1 naive 8.00 ms at batch 32, idle 25 % 4.00 ms at batch 1, idle 50 %",
            "2 cached 2.00 ms at batch 32, idle 50 % 1.00 ms at batch 1",
        ]
        assert links[1]["aria-current"] == "page"
        heights = [float(bar["height"]) for bar in drawn.select("nav svg rect")]
        sums = [a + b for a, b in zip(heights[::2], heights[1::2], strict=True)]
        assert [one / sums[0] for one in sums] == pytest.approx([1, 0.5, 0.25, 0.125], abs=0.002)
        assert heights[1] / sums[0] == pytest.approx(0.25, abs=0.002)  # the idle part

    def test_all_questions_stand_in_the_table_of_guesses(self):
        board = [(STEPS[1], "02_kv_cache", MADE.questions)]
        drawn = soup_of(draw_masthead(MADE._replace(questions=()), STEPS, all_questions=board))
        (row,) = drawn.select(".ttb-guesses tbody tr")
        given = [row[f"data-{key}"] for key in ("page", "key", "answer", "unit")]
        assert given == ["02_kv_cache", "b32", "2.0", "ms"]
        assert row.has_attr("hidden") and drawn.select_one(".ttb-guesses").has_attr("hidden")


class TestWhatItSays:
    def test_a_step_is_from_the_rung_before_with_the_same_allocator(self):
        assert [masthead.before(rung) for rung in RUNGS] == [
            *(None, "naive", "kv_cache", "kv_cache", "static_cache", "compiled"),
            *("two_streams", "deferred_check", "captured_graph", "device_loop"),
            "fused_step",
        ]

    def test_a_page_called_after_its_rung_needs_no_entry(self, monkeypatch, records):
        monkeypatch.delitem(masthead.CHAPTERS, "02_kv_cache")
        made = masthead.told("02_kv_cache", records)
        assert [row.after for row in made.rows] == ["32.0 ms", "8.00 ms"]
        assert [one.key for one in made.questions] == ["b32", "b1", "idle"]
        assert made.questions[-1].answer == 25

    def test_a_page_without_a_rung_has_its_place_in_no_headline(self, records):
        made = masthead.told("08_ask_late", records)
        assert (made.here, made.rows, made.questions) == (8, (), ())
        html = masthead.masthead("08_ask_late", NEXT, records.folder)
        assert len(soup_of(html).select("nav li")) == 2

    def test_without_records_there_are_no_numbers(self, tmp_path):
        for folder in (None, tmp_path):
            for page in PAGES:
                drawn = soup_of(masthead.masthead(page, PAGES, folder, "What it does."))
                assert not drawn.select("nav, form, .ttb-heads")
                assert words_of(drawn) == "What it does."

    def test_its_words_are_those_of_the_step_card(self, records):
        from decoding import drawing

        made = masthead.told("02_kv_cache", records)
        pair = records.rung("naive", 32), records.rung("kv_cache", 32)
        assert made.rows[0].said == drawing.headline(*pair)
        assert made.rows[0].share == ""  # no bandwidth was measured

    def test_it_has_the_share_of_the_limit_once_the_bandwidth_is_measured(self, folder):
        machine = {"gpu": "A made-up GPU", "date": "2026-11-25T00:00:00Z"}
        made = {"schema": 2, "machine": machine, "found": {"gb_per_s": 1000.0}}
        save(made, folder / floor.FILE)
        first, _ = masthead.told("02_kv_cache", masthead.Records(folder)).rows
        record = masthead.Records(folder).rung("kv_cache", 32)
        assert first.share == f"{100 * record[floor.KEY] / record.ms:.0f} %"
        assert "1,000 GB/s" in masthead.limit_line(folder)
        assert "25 November 2026" in masthead.limit_line(folder)

    def test_chapter_3_is_about_memory_and_claims_no_time(self, folder):
        for reserved, variant in ((9000.0, None), (500.0, EXPANDABLE)):
            given = {"allocator": "expandable_segments"} if variant else {}
            made = record("naive", reserved=reserved, variant=given)
            save(made, folder / file_name(made))
        made = masthead.told("03_expandable_segments", masthead.Records(folder))
        assert (made.rows[0].before, made.rows[0].after) == ("9,000", "500 MiB")
        assert {one.unit for one in made.questions} == {"MiB"}
        assert "ms" not in " ".join(row.after + row.said for row in made.rows)

    def test_what_was_not_measured_in_turn_is_told_apart(self, folder):
        made = record("expandable_segments", batch=32, processes=1)
        save(made, folder / file_name(made))
        steps = masthead.steps(PAGES, masthead.Records(folder))
        assert [step.number for step in steps if step.apart] == [3]

    def test_chapters_8_to_10_are_told_from_their_race(self, folder, records):
        steps = {one.number for one in masthead.steps(PAGES, records)}
        assert not masthead.told("08_deferred_check", records).rows and not steps & {8, 9, 10}
        save_endings(folder)
        told = {page[:2]: masthead.told(page, records) for page in PAGES}
        assert told["08"].rows[1][:4] == ("batch 1", "0.560", "0.610 ms", told["08"].rows[1].said)
        assert told["08"].of == "Time of a token: two streams → deferred check"
        assert told["09"].rows[0][:4] == ("batch 32", "350", "40 µs", "7 % of a token")
        assert [one.answer for one in told["09"].questions] == pytest.approx([40, 40])
        assert told["10"].rows[0].after == "0.563 ms"
        assert not told["11"].rows and not told["12"].rows
        raced = {one.number: one for one in masthead.steps(PAGES, records) if one.number > 7}
        assert list(raced) == [8, 9, 10] and all(one.apart for one in raced.values())
        assert raced[9].bars[1][0] == pytest.approx(0.566)

    def test_the_whole_ladder_goes_from_the_first_rung_to_the_last(self, records):
        made = masthead.whole_ladder(records, PAGES)
        first, last = (records.rung(rung, 32) for rung in ("naive", "two_streams"))
        assert made.rows[0].after == ms(last.ms)
        assert made.rows[0].said == f"×{first.ms / last.ms:.0f} faster"
        assert not made.questions

    def test_a_rung_that_is_not_recorded_yet_does_not_end_the_ladder(self, records):
        whole = masthead.whole_ladder(records, PAGES)
        for path in records.folder.glob("device_loop_*"):
            path.unlink()
        assert masthead.whole_ladder(records, [*PAGES, "10_device_loop"]) == whole


class TestTheBook:
    """On the book's records."""

    @pytest.mark.parametrize("page", PAGES)
    def test_a_chapter_asks_one_to_three_questions_whose_answers_it_shows(self, page):
        made = masthead.told(page, masthead.Records(book_folder()))
        if not made.rows:
            pytest.skip("it measures nothing of the ladder, or not yet")
        assert len({one.key for one in made.questions}) == len(made.questions) <= 3
        shown = soup_of(draw_masthead(made, [])).select_one(".ttb-heads").get_text()
        for one in made.questions:
            assert known(one.answer) and one.words in shown

    def test_a_name_that_is_not_a_page_is_no_entry(self):
        assert set(masthead.CHAPTERS) <= {path.stem for path in (ROOT / "notebooks").glob("*")}
