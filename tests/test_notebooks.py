"""Every notebook runs from top to bottom on a machine without a GPU, in a scratch copy."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from decoding.measuring.fingerprint import tree_of_cell
from decoding.pages import stamp
from decoding.pages.copies import set_up, without_solutions
from decoding.pages.elsewhere import needs_of
from decoding.pages.inline import asked_in, stored_in
from decoding.pages.kept import stopped_cells
from decoding.pages.kernel import execute

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
REMOVED = {"remove-input", "remove-cell"}
FOLDED = {"hide-input", "solution"} | REMOVED
LONGEST = 25  # lines of a cell that is no lesson
TITLE = 110  # characters of a table's caption, which is set as a title
LARGEST = 1_000_000  # bytes; GitHub shows no notebook that is much larger


def read(path):
    return nbformat.read(path, as_version=4)


def tags_of(cell):
    return set(cell.metadata.get("tags", ()))


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return read(path)


def test_it_runs_small(path, tmp_path, records):
    before = path.read_bytes()
    copy = Path(shutil.copy(path, tmp_path))
    notebook = read(copy)
    ran = execute(notebook, copy, {"folder": records}, allow_errors=True)
    stopped = stopped_cells(notebook)  # for a reason that is not excused, this raises
    assert bool(ran.failed) <= bool(stopped)
    if notebook.metadata.get("measures") is not False:
        assert "Running small" in nbformat.writes(notebook), "it must say so at its top"
    assert path.read_bytes() == before, "the committed outputs must stay as they were recorded"


def test_jupyterlab_shows_what_the_book_shows():
    command = [Path(sys.executable).with_name("jupyter"), "labextension", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    said = listed.stdout + listed.stderr
    (line,) = (line for line in said.split("\n") if "jupyterlab-myst" in line)
    assert "OK" in line, said


def _draws(value):
    """Whether an expression is a call of a function of ``drawing``, which a cell shows at its end."""
    function = getattr(value, "func", None)
    return getattr(getattr(function, "value", None), "id", None) == "drawing"


class TestAsCommitted:
    def test_its_numbers_come_from_a_gpu_and_from_the_code_as_it_is(self, notebook):
        if "recorded" in notebook.metadata:
            assert notebook.metadata["recorded"]["gpu"]
            assert stamp.examine(notebook) == ("fresh", [])
        else:  # the page says so, and must show no numbers
            assert not any(cell.get("outputs") or stored_in(cell) for cell in notebook.cells)

    def test_it_has_outputs_and_no_errors_and_nothing_on_stderr(self, notebook):
        outputs = [output for cell in code_of(notebook) for output in cell.outputs]
        assert bool(outputs) == ("recorded" in notebook.metadata)
        assert not [output for output in outputs if output.output_type == "error"]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        assert len(nbformat.writes(notebook).encode()) < LARGEST

    def test_what_it_shows_is_seen_without_html_and_without_scripts(self, notebook):
        for cell in code_of(notebook):
            for data in (output.get("data", {}) for output in cell.outputs):
                assert not any("widget" in kind for kind in data)
                assert "text/html" not in data or {"image/svg+xml", "text/markdown"} & data.keys()

    def test_its_address_is_that_of_the_configuration(self, path, notebook):
        settings = yaml.safe_load((FOLDER.parent / "_config.yml").read_text(encoding="utf-8"))
        as_it_should_be = read(path)
        set_up(as_it_should_be, settings["repository"]["url"], needs_of(path))
        assert as_it_should_be == notebook, "run `make address`"

    def test_code_that_the_book_folds_is_folded_in_jupyter_too(self, notebook):
        for cell in code_of(notebook):
            shown = cell.metadata.get("jupyter", {})
            assert bool(shown.get("source_hidden")) == bool(FOLDED & tags_of(cell)), cell.id
            assert bool(shown.get("outputs_hidden")) == ("solution" in tags_of(cell)), cell.id

    def test_its_code_is_mostly_to_be_read(self, notebook):
        cells = [cell for cell in code_of(notebook) if "solution" not in tags_of(cell)]
        lines = {cell.id: cell.source.count("\n") + 1 for cell in cells}
        hidden = {cell.id: lines[cell.id] for cell in cells if FOLDED & tags_of(cell)}
        assert 2 * sum(hidden.values()) <= sum(lines.values())
        assert not {id: count for id, count in hidden.items() if count > LONGEST}

    def test_it_shows_what_its_cells_draw(self, notebook):
        for cell in code_of(notebook):
            *before, _ = ast.parse(cell.source).body or [None]
            lost = [one for one in before if isinstance(one, ast.Expr) and _draws(one.value)]
            assert not lost, f"{cell.id}: {ast.unparse(lost[0])[:60]}"

    def test_a_table_has_a_title_and_no_text_above_it(self, notebook):
        for cell in code_of(notebook):
            for call in ast.walk(tree_of_cell(cell.source)):
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "table":
                    given = {one.arg: one.value for one in call.keywords}.get("caption")
                    assert len(getattr(given, "value", "")) <= TITLE, cell.id

    def test_its_imports_are_used_by_its_code_or_by_its_sentences(self, notebook):
        imported, used = set(), set()
        for cell in notebook.cells:
            sources = asked_in(cell) if cell.cell_type == "markdown" else [cell.source]
            for node in (node for source in sources for node in ast.walk(tree_of_cell(source))):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    imported |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.Name):
                    used.add(node.id)
        assert imported <= used

    def test_the_student_copy_keeps_the_exercises_and_no_answers(self, path):
        exercises = sum(cell.source.count("{exercise") for cell in read(path).cells)
        copy = without_solutions(read(path))
        text = "\n".join(cell.source for cell in copy.cells)
        assert "{solution" not in text
        assert sum(cell.source.count("{exercise") for cell in copy.cells) == exercises
        assert not any(cell.get("outputs") or stored_in(cell) for cell in copy.cells)
