"""An exercise stands alone: in cells of its own, with minutes and a hint; its solution runs by itself."""

import ast
import re
import runpy
from collections import defaultdict
from functools import cache, partial
from pathlib import Path

import nbformat
import pytest
import torch

from decoding.measuring.fingerprint import tree_of_cell
from decoding.pages import shelf
from decoding.pages.copies import SOLUTION
from decoding.pages.inline import asked_in
from decoding.pages.names import names_in

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
CHAPTERS = sorted(FOLDER.glob("[0-9]*.ipynb"))
LABEL = {
    "exercise": r"```\{exercise-start\}[^\n]*\n:label: (\S+)",
    "solution": r"```\{solution-start\} (\S+)",
}


@cache
def read(path):
    return nbformat.read(path, as_version=4)


@cache
def found_in(path, kind):
    """Return the cells of each exercise or each solution of a chapter: label -> cells."""
    found, label = {}, None
    for cell in read(path).cells:
        if begun := re.search(LABEL[kind], cell.source):
            label = begun[1]
            found[label] = []
        if label:
            found[label].append(cell)
        if f"{{{kind}-end}}" in cell.source:
            label = None
    return found


def sources(cells, cell_type):
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == cell_type)


def bound_by(source):
    """Return what binds each name that a code cell sets: name -> statements, as text."""
    found = defaultdict(set)
    for statement in tree_of_cell(source).body:
        text = ast.unparse(statement)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                origin = getattr(statement, "module", None), alias.name
                found[alias.asname or alias.name.partition(".")[0]].add(origin)
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name].add(text)
        else:
            for name in names_in(text).changes - {"_"}:
                found[name].add(text)
    return found


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs code by itself, with the book's records where it asks for any."""
    monkeypatch.setattr(shelf, "Sitting", partial(shelf.Sitting, redraw=True))

    def run(code):
        file = tmp_path / "alone.py"  # a loop is checked from its source, so it needs a file
        file.write_text(code, encoding="utf-8")
        with torch.random.fork_rng():
            runpy.run_path(str(file))

    return run


@pytest.mark.parametrize(
    ("path", "label"),
    [
        pytest.param(path, label, id=label)
        for path in CHAPTERS
        for label in found_in(path, "exercise")
    ],
)
class TestAnExercise:
    def test_it_has_cells_of_its_own(self, path, label):
        for kind in ("exercise", "solution"):
            text = sources(found_in(path, kind)[label], "markdown")
            assert text.startswith(f"```{{{kind}-start}}")
            assert text.endswith(f"```{{{kind}-end}}\n```")

    def test_it_says_how_long_it_takes_and_has_a_hint(self, path, label):
        words = sources(found_in(path, "exercise")[label], "markdown")
        assert re.search(r"^Minutes: \d+\. Hint: \S", words, re.M)

    def test_its_solution_is_left_out_of_copies_for_students(self, path, label):
        cells = found_in(path, "solution")[label]
        assert all(SOLUTION in cell.metadata.get("tags", ()) for cell in cells)

    def test_its_solution_asserts_what_it_finds_or_says_it_in_words(self, path, label):
        cells = found_in(path, "solution")[label]
        code, words = sources(cells, "code"), sources(cells, "markdown")
        if code and "Chapter(" not in code:  # what is measured depends on the machine
            assert "assert" in code
        else:
            assert re.sub(r"```\{solution-(start|end)\}[^`]*```", "", words).strip()

    @pytest.mark.parametrize("kind", ["exercise", "solution"])
    def test_its_code_runs_by_itself(self, path, label, kind, run):
        run(sources(found_in(path, kind)[label], "code"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_name_of_a_solution_means_the_same_in_the_cells_around(path):
    solutions = [cell for cells in found_in(path, "solution").values() for cell in cells]
    others = [cell for cell in read(path).cells if cell not in solutions]
    elsewhere, asked = defaultdict(set), set()
    for cell in others:
        if cell.cell_type == "code":
            for name, origins in bound_by(cell.source).items():
                elsewhere[name] |= origins
        for expression in [cell.source] if cell.cell_type == "code" else asked_in(cell):
            asked |= names_in(expression).reads
    for cell in (cell for cell in solutions if cell.cell_type == "code"):
        own = bound_by(cell.source)
        shared = {name for name in own if name in elsewhere or name in asked}
        assert not {name for name in shared if not own[name] <= elsewhere[name]}, cell.id
