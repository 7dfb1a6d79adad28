"""The teaching guide: its values come from the records; its commands run what the book has recorded."""

import importlib
import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import nbformat
import pytest
from factories import entrant, record
from nbformat.v4 import new_notebook

from decoding import __main__ as shell
from decoding import measuring
from decoding.measuring import NotRecorded, describe_variant
from decoding.measuring.records import file_name, save
from decoding.pages import teaching
from decoding.pages.inline import ROLE
from decoding.pages.machines import book_folder

PAGE = (Path(__file__).parents[1] / "book" / "teaching.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/python -m decoding (measure (?:.*\\\n)*.*)$", PAGE, re.M)
(MODULES,) = re.findall(r"\{values\} (.*)", PAGE)
EXPRESSIONS = [role["expression"] for role in ROLE.finditer(PAGE)]
EXPRESSIONS += re.findall(r"\{show\} (.*)", PAGE)


def value_of(expression):
    names = {}
    for module in MODULES.split():
        names |= vars(importlib.import_module(module))
    return str(eval(expression, names))


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Made-up records at batch 1 and 32, and one race."""
    for batch, new in ((1, 256), (32, 512)):
        for number, rung in enumerate(("naive", "kv_cache", "compiled", "two_streams")):
            made = record(rung, per_token=16 / 2**number, around=0, batch=batch, new=new)
            save(made, tmp_path / file_name(made))
    times = {"check": 1.0, "no check": 0.5, "two streams": 0.6}
    raced = {loop: entrant(time) for loop, time in times.items()}
    save(
        {"schema": 2, "together": "a-race", "workload": {}, "machine": {}, "results": raced},
        tmp_path / "watch_b1.json",
    )
    monkeypatch.setattr(teaching, "book_folder", lambda: tmp_path)
    return tmp_path


class TestValues:
    @pytest.mark.parametrize("expression", dict.fromkeys(EXPRESSIONS))
    def test_the_book_has_every_one(self, expression):
        assert "–" not in re.sub(r"\d–\d", "", value_of(expression))
        assert "nan" not in value_of(expression)

    @pytest.mark.parametrize(
        ("expression", "words"),
        [
            ('percent(1 - single("naive").idle)', "75 %"),
            ('ms(batched("kv_cache").ms)', "8.00 ms"),
            ('ratio(single("naive").ms / single("two_streams").ms)', "×8.0"),
            ("us(cost_of_check(raced(1)))", "500 µs"),
            ("percent(saved(raced(1)))", "40 %"),
        ],
    )
    def test_they_are_made_from_the_records(self, book, expression, words):
        assert expression in EXPRESSIONS
        assert value_of(expression) == words

    def test_a_time_is_that_of_the_cold_run_the_timed_ones_and_two_more(self, book):
        # A cold run takes as long as three others, and there are three others and two more.
        assert teaching.took("A") == pytest.approx(8 * (16 + 8) * 256 / 1000)

    def test_what_is_not_recorded_raises(self, book):
        for ask in (lambda: teaching.single("static_cache"), lambda: teaching.raced(8)):
            with pytest.raises(NotRecorded):
                ask()

    def test_a_failed_measurement_has_no_time(self, book):
        failed = record("naive", batch=1, new=256, error="Out of GPU memory.")
        save(failed, book / file_name(failed))
        assert value_of('seconds(took("A"))') == "–"


class TestTables:
    def test_there_is_a_row_for_each_record_in_the_order_of_the_ladder(self, book):
        rows = teaching.rungs_table(1).rows
        assert [row[0] for row in rows] == ["naive", "KV cache", "compiled", "two streams"]
        assert rows[-1][1:] == ["2.00", "25 %", "100", "1,000", "4.1 s"]

    def test_the_races_are_laid_out_by_batch_size(self, book, monkeypatch):
        monkeypatch.setattr(teaching, "RACED", (1,))
        (row,) = teaching.races_table().rows
        assert row == ["1", "1.00", "0.500", "0.600", "500", "40 %", "20 %"]

    def test_the_chapters_that_were_timed_are_summed_and_the_others_named(
        self, book, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(teaching, "NOTEBOOKS", tmp_path)
        nbformat.write(new_notebook(metadata={"measures": False}), tmp_path / "other.ipynb")
        for name, stamp in {"01_a": {"seconds": 60}, "02_b": {"seconds": 90}}.items():
            nbformat.write(new_notebook(metadata={"recorded": stamp}), tmp_path / f"{name}.ipynb")
        assert teaching.times_table().rows[-1] == ["all chapters, `make run`", "2.5 min"]
        nbformat.write(new_notebook(), tmp_path / "03_c.ipynb")
        assert teaching.times_table().rows[-1] == ["all chapters but 03, `make run`", "2.5 min"]
        assert teaching.one_by_one() == "01: 60 s, 02: 90 s"


class TestCommands:
    def test_the_page_names_them_in_this_order(self):
        assert re.findall(r"^# ([A-Z])\. ", PAGE, re.M) == list(teaching.COMMANDS)
        assert len(COMMANDS) == len(teaching.COMMANDS)

    @pytest.mark.parametrize(
        ("command", "rows"), list(zip(COMMANDS, teaching.COMMANDS.values())), ids=teaching.COMMANDS
    )
    def test_they_measure_what_the_book_has_recorded(self, monkeypatch, command, rows):
        asked = []

        def compare(rungs, workload, **_):
            for entry in rungs:
                rung, check = entry.pop("rung"), entry.pop("stop_check")
                asked.append((rung, workload.but(stop_check=check), entry))
            return []

        monkeypatch.setattr(measuring, "compare", compare)
        shell.main(shlex.split(command.replace("\\\n", " ")))
        names = []
        for rung, workload, options in asked:
            workload = workload.but(model="gpt2", dtype="bfloat16")
            variant = describe_variant(rung, workload, **options)
            made = {"rung": rung, "variant": variant, "workload": asdict(workload)}
            names.append(file_name(made))
        recorded = [name for name in names if "no-check" not in name]
        wanted = [f"{rung}_{teaching.WORKLOADS[batch]}.json" for rung, batch in dict.fromkeys(rows)]
        assert recorded == wanted
        # What the book has no record of is the loop without a check, beside the compiled one.
        beside = [name.replace("compiled_", "compiled_no-check_") for name in recorded[-1:]]
        assert names[len(recorded) :] == beside[: len(rows) - len(recorded)]
        for name in recorded:
            kept = json.loads((book_folder() / name).read_text(encoding="utf-8"))
            assert kept["workload"]["repeats"] == asked[0][1].repeats


def test_the_questions_of_the_class_are_in_the_quiz():
    asked = re.search(r"Ask questions (\d+), (\d+) and (\d+) of", PAGE).groups()
    questions = re.findall(r"^\*\*(\d+)\.\*\* ", PAGE, re.M)
    assert set(asked) <= set(questions)
    assert questions == [str(number) for number in range(1, len(questions) + 1)]
    assert len(re.findall(r"^```\{dropdown\} Answer$", PAGE, re.M)) == len(questions) <= 24
