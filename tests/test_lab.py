"""Copies for JupyterLab: the committed notebooks stay, work on a copy stays, and the copies read as the book."""

import os
import shutil
import subprocess

import nbformat
import pytest
from pages import NOTEBOOKS, ROOT

from decoding.pages.lab import citations, lab_notebooks, reading_form


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "07_two_streams.ipynb", tmp_path / "notebooks")
    (tmp_path / "book").mkdir()
    return tmp_path


def copy_all(folder):
    target = folder / "lab" / "notebooks"
    assert lab_notebooks(folder / "notebooks", target, folder / "book") == 0
    return target / "07_two_streams.ipynb"


def test_a_copy_that_was_worked_on_stays_and_another_is_renewed(folder):
    copy = copy_all(folder)
    original = folder / "notebooks" / copy.name
    notebook = nbformat.read(original, as_version=4)
    notebook.cells[0].source += "\n\nNew in the book."
    nbformat.write(notebook, original)
    assert "New in the book." in copy_all(folder).read_text(encoding="utf-8")
    mine = nbformat.read(copy, as_version=4)
    mine.cells[0].source += "\n\nMy own note."
    nbformat.write(mine, copy)
    assert "My own note." in copy_all(folder).read_text(encoding="utf-8")
    assert "My own note." not in original.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_copy_has_no_markup_that_jupyterlab_shows_otherwise(page):
    path = ROOT / f"{page}.ipynb"
    names = citations(ROOT / "book" / "references.bib")
    assert names["rand2026"] == "Rand, 2026"
    copy = reading_form(nbformat.read(path, as_version=4), path.name, names)
    text = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    for gone in ("{exercise-", "{solution-", "{cite}"):
        assert gone not in text
    if path.name.startswith("07"):
        assert "**Exercise 7.1** (" in text and "**Solution to Exercise 7.1**" in text


def test_make_lab_passes_options_on_and_runs_as_root():
    printed = subprocess.run(
        ["make", "-n", "lab", "LAB=--no-browser --port 9000"],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in printed.splitlines() if "jupyter lab" in line]
    assert "--no-browser --port 9000" in line
    assert ("--allow-root" in line) == (os.getuid() == 0)
    assert line.endswith("_build/lab")


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_where_html_is_stripped_a_picture_and_words_stand_in(page):
    for cell in nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                assert {"image/svg+xml", "text/plain"} <= data.keys()
            if "image/svg+xml" in data:
                assert len(data["text/plain"]) > 20
