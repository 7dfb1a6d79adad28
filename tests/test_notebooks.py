"""Every notebook runs from top to bottom on a machine without a GPU, in a scratch copy."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from decoding import fingerprint
from decoding.recording import (
    SETUP,
    code_cells,
    execute,
    freshness,
    setup_source,
    without_solutions,
)

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FOLDED = {"hide-input", "remove-input", "remove-cell", "solution"}
MEASURING = [
    path
    for path in NOTEBOOKS
    if nbformat.read(path, as_version=4).metadata.get("measures") is not False
]


def name_of(path):
    return path.stem


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tmp_path_factory.mktemp("records")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_it_runs_small(path, tmp_path, records, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("DECODING_RECORDS", str(records))
    before = path.read_bytes()
    copy = Path(shutil.copy(path, tmp_path))
    notebook = execute(nbformat.read(copy, as_version=4), copy)
    errors = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert not errors
    if path in MEASURING:
        shown = nbformat.writes(notebook)
        assert "Running small" in shown, "a notebook without a GPU must say so at its top"
    assert path.read_bytes() == before, "the committed outputs must stay as they were recorded"


def test_jupyterlab_shows_what_the_book_shows():
    command = [Path(sys.executable).with_name("jupyter"), "labextension", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    said = listed.stdout + listed.stderr
    for extension in ("jupyterlab-myst", "@jupyter-widgets/jupyterlab-manager"):
        (line,) = (line for line in said.split("\n") if extension in line)
        assert "OK" in line, said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
class TestAsCommitted:
    def test_it_has_outputs_and_no_errors_and_nothing_on_stderr(self, path):
        notebook = nbformat.read(path, as_version=4)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert bool(outputs) == ("recorded" in notebook.metadata)
        assert not [output for output in outputs if output.output_type == "error"]
        assert not [output for output in outputs if output.get("name") == "stderr"]

    def test_its_first_code_cell_sets_it_up_and_stays_out_of_the_book(self, path):
        settings = yaml.safe_load((FOLDER.parent / "_config.yml").read_text(encoding="utf-8"))
        cells = nbformat.read(path, as_version=4).cells
        first = next(cell for cell in cells if cell.cell_type == "code")
        assert set(first.metadata["tags"]) == {SETUP, "remove-cell"}
        assert first.source == setup_source(settings["repository"]["url"]), "run `make address`"

    def test_code_that_the_book_folds_is_folded_in_jupyter_too(self, path):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                tags, shown = set(cell.metadata.get("tags", ())), cell.metadata.get("jupyter", {})
                assert bool(shown.get("source_hidden")) == bool(FOLDED & tags)
                assert bool(shown.get("outputs_hidden")) == ("solution" in tags)

    def test_its_code_parses_on_every_python(self, path):
        fingerprint.fingerprint([], code_cells(nbformat.read(path, as_version=4)))

    def test_the_student_copy_keeps_the_exercises_and_no_answers(self, path):
        whole = nbformat.read(path, as_version=4)
        exercises = sum(cell.source.count("{exercise") for cell in whole.cells)
        copy = without_solutions(nbformat.read(path, as_version=4))
        text = "\n".join(cell.source for cell in copy.cells)
        assert "{solution" not in text
        assert sum(cell.source.count("{exercise") for cell in copy.cells) == exercises
        assert not any(cell.get("outputs") for cell in copy.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_its_numbers_come_from_a_gpu_and_from_the_code_as_it_is(path):
    notebook = nbformat.read(path, as_version=4)
    if "recorded" in notebook.metadata:
        assert notebook.metadata["recorded"]["gpu"]
        assert freshness(path) == "fresh"
    else:  # the page says so, and must show no numbers
        assert not any(cell.get("outputs") for cell in notebook.cells)
