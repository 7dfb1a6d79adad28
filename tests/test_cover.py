"""The cover: its figure, drawn from the records and never with a rung left out; the chapters as cards."""

import re

import pytest
from chapter_cards import html_of
from factories import entrant, record, save_endings

from decoding.drawing import Bar, headline
from decoding.drawing.social import SIZE, social_card
from decoding.measuring import NotRecorded
from decoding.measuring.records import file_name, load, save
from decoding.pages import cover, masthead, one_kernel
from decoding.pages.machines import LADDER, book_folder

TIMES = dict(zip(LADDER, (24.0, 8.0, 7.0, 7.5, 2.0, 1.0)))
IDLE = dict(zip(LADDER, (0.88, 0.9, 0.8, 0.7, 0.4, 0.2)))
NEW = {1: 256, 32: 512}  # batch size -> tokens of the book's workload
LONGEST = 90  # characters of a chapter's sentence


def write(folder, leave_out=()):
    for batch in cover.REGIMES:
        for rung, per_token in TIMES.items():
            if rung not in leave_out:
                times = {"per_token": per_token * batch, "idle": IDLE[rung]}
                made = record(rung, batch=batch, new=NEW[batch], **times)
                made["machine"]["gpu"] = "NVIDIA H100 80GB HBM3"
                save(made, folder / file_name(made))
    return folder


def test_it_shows_every_rung_in_order_for_one_user_and_for_many(tmp_path):
    drawn = cover.ladder_figure(write(tmp_path))
    found = [float(time.replace(",", "")) for time in re.findall(r"(\S+) ms per token", drawn.alt)]
    assert found == [time * batch for batch in (1, 32) for time in TIMES.values()]
    assert [f"GPU idle {100 * share:.0f} %" in drawn.alt for share in IDLE.values()] == [True] * 6


def test_its_title_answers_the_question_from_the_records(tmp_path):
    title = cover.ladder_figure(write(tmp_path)).title
    assert title == "For one user, an H100 waits 88 % of the time. After seven chapters: 20 %."


def test_a_rung_that_was_timed_apart_is_named(tmp_path):
    apart = record("expandable_segments", batch=1, new=NEW[1], together="another ladder")
    save(apart, write(tmp_path) / file_name(apart))
    assert "Expandable segments were timed apart" in cover.ladder_figure(tmp_path).caption


def test_a_ladder_with_a_missing_rung_fails_and_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="compiled"):
        cover.ladder_figure(write(tmp_path, leave_out=("compiled",)))


def test_the_readme_shows_the_figure_of_the_cover():
    drawn = cover.ladder_figure(book_folder()).svg
    assert cover.LADDER.read_text("utf-8").strip() == drawn.strip()


def test_records_of_another_length_are_not_of_the_ladder(tmp_path):
    drawn = cover.ladder_figure(write(tmp_path)).svg
    other = record("compiled", batch=32, prompt=1000, new=8, per_token=1.0)
    save(other, tmp_path / file_name(other))
    assert cover.ladder_figure(tmp_path).svg == drawn


def test_it_goes_on_to_the_last_rung_that_was_raced(tmp_path):
    with pytest.raises(NotRecorded):
        cover.way_figure(tmp_path)
    race = {"schema": 2, "together": "x", "machine": {"gpu_id": "a-card"}, "workload": {}}
    times = {one_kernel.BEFORE: 0.5, one_kernel.ALONE: 0.3, one_kernel.EARLY: 0.25}
    results = {loop: entrant(time) for loop, time in times.items()}
    save(race | {"results": results}, tmp_path / "race_fused.json")
    assert cover.way_figure(tmp_path).title.endswith("500 µs a token. Fused step: 250 µs.")
    times = {"device loop": 0.5, "fused step": 0.26, "numbered words": 0.2, "shared sums": 0.16}
    results = {name: entrant(time) for name, time in times.items()}
    found = {"machine": {}, "workload": {}, "results": results}
    save({"schema": 2, "machine": {}, "found": found}, tmp_path / "one_kernel_steps.json")
    drawn = cover.way_figure(tmp_path)
    assert drawn.title.endswith("500 µs a token. One kernel: 160 µs.")
    assert "fused step: 260 µs" in drawn.alt and "200" not in drawn.alt


class TestCards:
    def test_a_gain_is_in_the_words_of_the_step_card_and_of_the_masthead(self, tmp_path):
        folder = write(tmp_path)
        before, after = (
            load(next(folder.glob(f"{name}_gpt2_b1_*"))) for name in ("static_cache", "compiled")
        )
        found = cover.gains_of("05_torch_compile", folder)
        assert list(found) == ["one user", "32 at once"]
        assert found["one user"] == headline(before, after)
        rows = masthead.told("05_torch_compile", masthead.Records(folder)).rows
        assert [row.said for row in rows] == [found["32 at once"], found["one user"]]

    def test_chapter_3_tells_memory_and_chapter_6_what_the_check_costs(self, tmp_path):
        folder = write(tmp_path)
        assert cover.gains_of("03_expandable_segments", folder)["one user"].endswith("reserved")
        for batch in cover.REGIMES:
            loops = {"check": entrant(1.0), "no check": entrant(0.6), "two streams": entrant(0.7)}
            found = {"schema": 2, "machine": {"gpu_id": "a-card"}, "workload": {}}
            save(found | {"results": loops, "together": "x"}, folder / f"watch_b{batch}.json")
        said = cover.gains_of("06_stop_check", folder)["32 at once"]
        assert said == "the check costs 400 µs, 40 %"

    def test_chapters_8_to_10_have_what_their_race_says(self, tmp_path):
        pages = "08_deferred_check", "09_captured_graph", "10_device_loop"
        assert all(cover.gains_of(page, tmp_path) == {} for page in pages)
        save_endings(tmp_path)
        told = [cover.gains_of(page, tmp_path)["one user"] for page in pages]
        assert told[1] == "the check at once: 350 → 40 µs"
        assert "faster" in told[2] or "no " in told[2]

    def test_a_chapter_without_a_record_or_a_step_has_no_gain(self, tmp_path):
        assert cover.gains_of("05_torch_compile", tmp_path) == {}
        assert cover.gains_of("99_of_tomorrow", write(tmp_path)) == {}

    def test_every_chapter_has_one_sentence_without_a_measured_number(self):
        cards = [card for cards in cover.parts().values() for card in cards]
        assert [card.number for card in cards if card.number] == [str(n) for n in range(1, 16)]
        for card in cards:
            assert 0 < len(card.sentence) <= LONGEST and card.sentence.endswith(".")
            assert card.sentence.count(".") == 1 and not re.search(r"\d", card.sentence)

    def test_pages_without_a_sentence_are_left_out(self):
        toc = {"parts": [{"caption": "More", "chapters": [{"file": "book/method"}]}]}
        assert cover.parts(toc) == {}

    def test_a_card_is_one_link(self):
        card = cover.Card("a", "1", "<One>", "It & it.", {"one user": "×2.0 faster"})
        html = html_of({"Part": [card]}, lambda page: f"../{page}.html")
        assert html.count("<a ") == 1 and 'href="../a.html"' in html
        for words in ("&lt;One&gt;", "It &amp; it.", "one user", "×2.0 faster", "Part"):
            assert words in html

    def test_a_part_with_one_page_of_its_name_has_no_heading_of_its_own(self):
        card = cover.Card("a", "", "The claims", "They are checked.", {})
        html = html_of({"The claims": [card]}, str)
        assert html.count("The claims") == 1 and "heading" not in html


def test_the_social_card_has_its_size_and_always_the_same_bytes():
    panels = {"One": [Bar("naive", 8.0, 0.9)], "Many": [Bar("naive", 20.0)]}
    made = [
        social_card(panels, name="A name", subtitle="A subtitle", message=["A message."])
        for _ in range(2)
    ]
    assert made[0] == made[1] and made[0].startswith(b"\x89PNG")
    size = tuple(int.from_bytes(made[0][at : at + 4], "big") for at in (16, 20))
    assert size == SIZE == (1200, 630)
