"""The teaching guide: its values come from the records; its commands run what the book has recorded.

The plans add up, ask what the chapters ask, and lead to what is there; the sheets hold all questions and no answer.
"""

import importlib
import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from bs4 import BeautifulSoup
from factories import entrant, record
from nbformat.v4 import new_markdown_cell, new_notebook
from pages import NOTEBOOKS

from decoding import __main__ as shell
from decoding import measuring
from decoding.measuring import NotRecorded, describe_variant
from decoding.measuring.records import file_name, save
from decoding.ordering.broken import SAFEGUARDS
from decoding.pages import handouts, teaching
from decoding.pages.inline import ROLE
from decoding.pages.machines import book_folder

NAMES = ("teaching", "classes", "handouts")
TEXTS = {
    name: (Path(__file__).parents[1] / "book" / f"{name}.md").read_text(encoding="utf-8")
    for name in NAMES
}
PAGE, CLASSES = TEXTS["teaching"], TEXTS["classes"]
COMMANDS = re.findall(r"^\.venv/bin/python -m decoding (measure (?:.*\\\n)*.*)$", PAGE, re.M)
MODULES = " ".join(re.search(r"\{values\} (.*)", text)[1] for text in TEXTS.values())
EXPRESSIONS = [role["expression"] for text in TEXTS.values() for role in ROLE.finditer(text)]
EXPRESSIONS += [found for text in TEXTS.values() for found in re.findall(r"\{show\} (.*)", text)]


def value_of(expression):
    names = {}
    for module in MODULES.split():
        names |= vars(importlib.import_module(module))
    return str(eval(expression, names))


@pytest.fixture
def made_up(tmp_path, monkeypatch):
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
    def test_they_are_made_from_the_records(self, made_up, expression, words):
        assert expression in EXPRESSIONS
        assert value_of(expression) == words

    def test_a_time_is_that_of_the_cold_run_the_timed_ones_and_two_more(self, made_up):
        # A cold run takes as long as three others, and there are three others and two more.
        assert teaching.took("A") == pytest.approx(8 * (16 + 8) * 256 / 1000)

    def test_what_is_not_recorded_raises(self, made_up):
        for ask in (lambda: teaching.single("static_cache"), lambda: teaching.raced(8)):
            with pytest.raises(NotRecorded):
                ask()

    def test_a_failed_measurement_has_no_time(self, made_up):
        failed = record("naive", batch=1, new=256, error="Out of GPU memory.")
        save(failed, made_up / file_name(failed))
        assert value_of('seconds(took("A"))') == "–"


class TestTables:
    def test_there_is_a_row_for_each_record_in_the_order_of_the_ladder(self, made_up):
        rows = teaching.rungs_table(1).rows
        assert [row[0] for row in rows] == ["naive", "KV cache", "compiled", "two streams"]
        assert rows[-1][1:] == ["2.00", "25 %", "100", "1,000", "4.1 s"]

    def test_the_races_are_laid_out_by_batch_size(self, made_up, monkeypatch):
        monkeypatch.setattr(teaching, "RACED", (1,))
        (row,) = teaching.races_table().rows
        assert row == ["1", "1.00", "0.500", "0.600", "500", "40 %", "20 %"]

    def test_the_chapters_that_were_timed_are_summed_and_the_others_named(
        self, made_up, tmp_path, monkeypatch
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


def test_the_quiz_is_numbered_and_answered():
    assert list(handouts.quiz()) == list(range(1, len(handouts.quiz()) + 1))
    questions = re.findall(r"^\*\*(\d+)\.\*\* ", PAGE, re.M)
    assert len(questions) == len(handouts.quiz()) == PAGE.count("{dropdown} Answer") <= 24
    assert all(question.answer for question in handouts.quiz().values())


def tables(text):
    """Return the tables of a page as rows of cells, without their heads."""
    found = re.findall(r"^ *\|.*\n *\| ---.*\n((?: *\|.*\n)+)", text, re.M)
    return [
        [[cell.strip() for cell in row.strip(" |").split(" | ")] for row in table.split("\n")[:-1]]
        for table in found
    ]


def minutes(cell):
    begin, end = re.search(r"(\d+)–(\d+)", cell).groups()
    return int(begin), int(end)


PLANS = [table for table in tables(CLASSES) if re.match(r"\[?0–\d", table[0][0])]
SLOTS = dict(re.findall(r"^### (\d+–\d+) · (.*\n(?:(?!#).*\n)*)", CLASSES, re.M))


class TestPlans:
    def test_each_adds_up(self):
        totals = []
        for plan in PLANS:
            slots = [minutes(row[0]) for row in plan]
            assert [begin for begin, _ in slots] == [0, *(end for _, end in slots[:-1])]
            totals.append(slots[-1][1])
        assert totals == [90, 240, 180, 90]

    def test_talk_and_work_fill_each_slot_of_the_90_minutes(self):
        talk = [int(row[2]) for row in PLANS[0]]
        work = [int(row[3]) for row in PLANS[0]]
        lengths = [end - begin for begin, end in (minutes(row[0]) for row in PLANS[0])]
        assert [one + other for one, other in zip(talk, work)] == lengths
        assert f"You talk for {sum(talk)} of the 90 minutes." in CLASSES
        assert sum(talk) <= 45

    def test_each_slot_is_written_out_under_its_minutes(self):
        assert [f"{begin}–{end}" for begin, end in (minutes(row[0]) for row in PLANS[0])] == list(
            SLOTS
        )
        for row in PLANS[0]:
            begin, end = minutes(row[0])
            assert f"(#minute-{begin})" in row[0]
            assert f"(minute-{begin})=\n### {begin}–{end} · " in CLASSES

    def test_three_questions_have_a_branch(self):
        branches = [slot for slot in SLOTS.values() if "branch" in slot.split("\n")[0]]
        assert len(branches) == 3
        for slot in branches:
            question, _, branch = slot.partition("- **Most are right:**")
            assert re.search(r"\(a\).*\(b\).*\(c\).*\([abc][):]", question, re.DOTALL)
            assert re.search(r"- \*\*Most are wrong:\*\*.*five minutes", branch, re.DOTALL)

    def test_every_exercise_named_in_them_is_in_a_chapter(self):
        cells = [
            cell.source
            for path in (teaching.NOTEBOOKS).glob("*.ipynb")
            for cell in nbformat.read(path, as_version=4).cells
        ]
        titles = re.findall(r"\{exercise-start\} (.*)", "\n".join(cells))
        named = re.findall(r"\*((?:Predict|Change a cell|Build): [^*]+)\*", CLASSES)
        assert len(named) > 10
        assert [name for name in named if name not in titles] == []


class TestQuestions:
    def test_a_box_is_read_as_it_stands(self, tmp_path, monkeypatch):
        source = (
            "# A title\n\n```{admonition} Predict\n:class: predict\n\nA fact: it\nholds. Write down,"
            " now:\n\n1. How\n   many?\n2. Of *G*?\n```\n\n1. No question.\n"
        )
        (tmp_path / "notebooks").mkdir()
        for name, text in (("01_one", source), ("02_two", "# No box")):
            cells = [new_markdown_cell(text)]
            nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / f"{name}.ipynb")
        monkeypatch.setattr(handouts, "BOOK", tmp_path)
        assert handouts.box("01") == ("A title", "A fact: it holds.", ["How many?", "Of *G*?"])
        assert handouts.box("02") is None
        assert str(handouts.asked("01", 2)) == "> **2.** Of *G*?"
        with pytest.raises(KeyError):
            handouts.asked("01", 3)

    def test_the_plans_quote_what_they_ask(self):
        # Whoever teaches need not look a question up.
        assert re.findall(r"questions? \d[^.]* (?:of|in) [^.]*box", CLASSES) == []
        quoted = re.findall(r"\*\*Predict\*\*[^*]*\n\n  ```\{show\} asked\(", CLASSES)
        assert len(quoted) == CLASSES.count("**Predict**") == 5


@pytest.fixture(scope="module")
def soups(book):
    """The pages for a class, and every notebook's, as they are built."""
    pages = [f"book/{name}" for name in NAMES] + NOTEBOOKS
    return {
        page: BeautifulSoup((book / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        for page in pages
    }


def words_of(element):
    return " ".join(element.get_text().split())


class TestWhereLinksLead:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_anchor_is_there(self, soups, book, name):
        links = soups[f"book/{name}"].select('article a[href*="#"]:not(.headerlink)')
        assert len(links) > 5
        for link in links:
            page, _, anchor = link["href"].partition("#")
            path = (book / "book" / page).resolve() if page else book / "book" / f"{name}.html"
            if "://" not in page:
                assert f'id="{anchor}"' in path.read_text(encoding="utf-8"), link["href"]

    def test_six_figures_stand_where_the_list_says_and_alone(self, soups, book):
        rows = soups["book/classes"].select("#six-figures-to-project tbody tr")
        assert len(rows) == len(handouts.PROJECTED) == 6
        for row, name in zip(rows, handouts.PROJECTED):
            place, alone = row.select("a")
            assert alone["href"] == f"../_static/projected/{name}.svg"
            root = ElementTree.parse(book / "book" / alone["href"]).getroot()
            assert root.get("viewBox") and not {"width", "height"} & root.attrib.keys()
            (title,) = (part for part in root if part.get("class") == "title")
            page, _, anchor = place["href"].partition("#")
            section = soups[page.removeprefix("../").removesuffix(".html")].find(id=anchor)
            section = section if section.name == "section" else section.find_parent("section")
            titles = [words_of(one) for one in section.select(".ttb-title")]
            assert " ".join(title.itertext()) in titles, place["href"]


class TestHandouts:
    def test_they_hold_every_prediction(self, soups):
        asked = [
            words_of(question)
            for page in NOTEBOOKS
            for question in soups[page].select("div.admonition.predict ol > li")
        ]
        sheets = soups["book/handouts"].select(".ttb-sheet-guesses ol > li")
        assert len(asked) > 40
        assert sorted(map(words_of, sheets)) == sorted(asked)

    def test_they_hold_every_question_of_the_quiz_and_no_answer(self, soups):
        quiz, sheet = soups["book/teaching"].find(id="quiz"), soups["book/handouts"]
        quiz = quiz if quiz.name == "section" else quiz.find_parent("section")
        numbered = [words_of(one) for one in quiz.select(":scope > p") if one.find("strong")]
        questions = [re.sub(r"^\d+\. ", "", one) for one in numbered]
        answers = [words_of(one) for one in quiz.select("details p:not(.sd-summary-text)")]
        assert len(answers) >= len(questions) == len(handouts.quiz())
        (listed,) = sheet.select("#quiz ol")
        assert [words_of(one) for one in listed.find_all("li")] == questions
        text = words_of(sheet.find("article"))
        for answer in answers:
            for sentence in re.split(r"(?<=[.?:]) ", answer):
                assert len(sentence) < 12 or sentence not in text, sentence

    def test_they_leave_room_beside_every_safeguard(self, soups):
        rows = soups["book/handouts"].select("#hazards tbody tr")
        cells = [[words_of(cell).replace("’", "'") for cell in row.select("td")] for row in rows]
        assert cells == [[name, one.threat, "", ""] for name, one in SAFEGUARDS.items()]
        assert "wait_event" in words_of(soups["book/handouts"].select_one("#hazards pre"))
