"""The teaching guide's figures: made from the records; its commands run what the book has recorded."""

import json
import re
import shlex
import sys
from pathlib import Path

import nbformat
import pytest
from factories import record
from nbformat.v4 import new_notebook

from decoding import __main__ as shell
from decoding.chapter import BOOK_GPU, BOOK_RECORDS
from decoding.measurement import describe_variant
from decoding.records import file_name, save

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import teaching  # noqa: E402

PAGE = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/python -m decoding (measure (?:.*\\\n)*.*)$", PAGE, re.M)


@pytest.fixture
def book(tmp_path):
    """Made-up records at batch 1 and 32, and one race."""
    for batch, prompt, new in ((1, 128, 256), (32, 128, 512)):
        for number, rung in enumerate(("naive", "kv_cache", "compiled", "two_streams")):
            made = record(
                rung, per_token=16 / 2**number, around=0, batch=batch, prompt=prompt, new=new
            )
            save(made, tmp_path / file_name(made))
    spreads = {"check": 1.0, "no check": 0.5, "two streams": 0.6}
    raced = {loop: {"per_token_ms": {"median": time}} for loop, time in spreads.items()}
    save({"schema": 1, "results": raced}, tmp_path / "race_stop_check_b1.json")
    return teaching.Book(tmp_path)


def plain(words):
    return words.replace("\u00a0", " ").replace("\u2060", "")


def rows_of(lines):
    """Return the cells of every row of the Markdown tables in ``lines``, by their first cell."""
    cells = [
        [plain(cell.strip()) for cell in line.strip("|").split("|")]
        for line in lines
        if "|" in line
    ]
    return {name: rest for name, *rest in cells}


class TestResults:
    def test_the_book_has_all_of_them(self):
        book = teaching.Book(BOOK_RECORDS / BOOK_GPU)
        missing = [
            key for key in teaching.RESULTS if teaching.result(book, key) == teaching.NOT_RECORDED
        ]
        assert missing == []

    def test_the_page_shows_all_of_them_and_no_others(self):
        assert set(re.findall(r"\{result\}`([^`]+)`", PAGE)) == set(teaching.RESULTS)

    @pytest.mark.parametrize(
        ("key", "words"),
        [
            (
                "naive-idle",
                "the GPU at work for 75 % at batch 1 (idle 25 %), for 75 % at batch 32 (idle 25 %)",
            ),
            ("cache-time", "16.0 → 8.00 ms a token at batch 1, 16.0 → 8.00 ms a token at batch 32"),
            ("ladder", "16.0 → 2.00 ms (×8.0) at batch 1, 16.0 → 2.00 ms (×8.0) at batch 32"),
            ("command-a", "naive 16.0 ms, KV cache 8.00 ms (× before 2.00)"),
            ("command-c", "two streams 2.00 ms, compiled 4.00 ms (× before 0.50)"),
            ("streams-memory", "+0 MiB at batch 1, +0 MiB at batch 32, reserved"),
        ],
    )
    def test_they_are_made_from_the_records(self, book, key, words):
        assert plain(teaching.result(book, key)) == words

    def test_a_time_is_that_of_the_cold_run_the_timed_ones_and_two_more(self, book):
        naive = book.rung("naive", 1)
        total = naive["time"]["total_ms"]["median"]
        assert teaching.seconds(naive) == (3 * total + 5 * total) / 1000
        assert (
            plain(teaching.result(book, "command-a-time"))
            == f"about {8 * (16 + 8) * 256 / 1000:.0f} s"
        )

    def test_what_is_not_recorded_says_so(self, book, tmp_path):
        assert teaching.result(book, "compile-time") == teaching.NOT_RECORDED
        assert (
            teaching.result(book, "check-cost") == teaching.NOT_RECORDED
        )  # one batch size of four
        assert teaching.reference(teaching.Book(tmp_path / "nowhere")) == [
            "The reference results are not recorded yet."
        ]

    def test_a_failed_measurement_is_none(self, book):
        failed = record("naive", batch=1, new=256, error="Out of GPU memory.")
        save(failed, book.folder / file_name(failed))
        assert teaching.result(book, "naive-idle") == teaching.NOT_RECORDED

    def test_an_unknown_one_is_an_error(self, book):
        with pytest.raises(ValueError, match="naive-idel"):
            teaching.result(book, "naive-idel")


class TestTables:
    def test_there_is_a_row_for_each_record_in_the_order_of_the_ladder(self, book):
        lines = teaching.reference(book)
        names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
        ladder = ["naive", "KV cache", "compiled", "two streams"]
        assert names == ["batch 1", "-", *ladder, "batch 32", "-", *ladder, "batch", "-", "1"]
        assert rows_of(lines)["two streams"] == ["2.00", "25 %", "100", "1,000", "8 s"]
        assert rows_of(lines)["1"] == ["1.00", "0.500", "0.600", "500", "40 %", "20 %"]

    def test_the_chapters_are_summed_and_one_without_a_time_is_named(self, book, tmp_path):
        stamps = {"01_a": {"seconds": 60}, "02_b": {"seconds": 90}, "03_c": {}, "04_d": None}
        for name, stamp in stamps.items():
            notebook = new_notebook(metadata={"recorded": stamp} if stamp is not None else {})
            nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        nbformat.write(new_notebook(metadata={"measures": False}), tmp_path / "other.ipynb")
        lines = teaching.times(book, tmp_path)
        assert rows_of(lines)["all chapters, `make run`"] == ["more than 2.5 min"]
        assert plain(lines[-1]) == (
            "The chapters one by one: 01: 60 s, 02: 90 s, 03: not timed yet, 04: not timed yet."
        )


class TestCommands:
    def test_the_page_names_them_in_this_order(self):
        assert re.findall(r"^# ([A-Z])\. ", PAGE, re.M) == list(teaching.COMMANDS)
        assert len(COMMANDS) == len(teaching.COMMANDS)

    @pytest.mark.parametrize(
        ("command", "rows"), list(zip(COMMANDS, teaching.COMMANDS.values())), ids=teaching.COMMANDS
    )
    def test_they_measure_what_the_book_has_recorded(self, monkeypatch, command, rows):
        asked = []
        monkeypatch.setattr(shell, "compare", lambda items, workload: asked.extend(items) or [])
        shell.main(shlex.split(command.replace("\\\n", " ")))
        names = []
        for rung, workload, options in asked:
            workload = workload.but(dtype="bfloat16")
            variant = describe_variant(rung, workload, **options)
            names.append(file_name({"rung": rung, "variant": variant, "workload": vars(workload)}))
        recorded = [name for name in names if "no-check" not in name]
        wanted = [f"{rung}_{teaching.WORKLOADS[batch]}.json" for rung, batch in dict.fromkeys(rows)]
        assert recorded == wanted
        # What the book has no record of is the loop without a check, beside the compiled one.
        beside = [name.replace("compiled_", "compiled_no-check_") for name in recorded[-1:]]
        assert names[len(recorded) :] == beside[: len(rows) - len(recorded)]
        for name in recorded:
            kept = json.loads((BOOK_RECORDS / BOOK_GPU / name).read_text(encoding="utf-8"))
            assert kept["workload"]["repeats"] == asked[0][1].repeats


@pytest.mark.parametrize("name", teaching.BOARDS)
def test_a_drawing_for_the_board_says_what_it_shows(name):
    drawn = teaching.BOARDS[name]()
    assert len(re.search(r'aria-label="([^"]+)"', drawn)[1]) > 100
    assert "NaN" not in drawn


def test_the_questions_of_the_class_are_in_the_quiz():
    asked = re.search(r"Ask questions (\d+), (\d+) and (\d+) of", PAGE).groups()
    questions = re.findall(r"^\*\*(\d+)\.\*\* ", PAGE, re.M)
    assert set(asked) <= set(questions)
    assert questions == [str(number) for number in range(1, len(questions) + 1)]
    assert len(re.findall(r"^```\{dropdown\} Answer$", PAGE, re.M)) == len(questions) <= 16
