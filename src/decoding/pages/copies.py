"""Copies for students, and the line that installs the package where there is no clone of the book."""

from pathlib import Path

import nbformat
import yaml
from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor
from nbformat.v4 import new_code_cell

from .elsewhere import needs_of
from .files import notebooks, write
from .inline import KEY
from .stamp import SETUP

SOLUTION = "solution"  # the tag of every cell that is part of a solution
MADE_BY_A_RUN = ("recorded", KEY, "widgets")  # keys of metadata
SETUP_TAGS = (SETUP, "remove-cell")


def student_notebooks(folder="notebooks", target="_build/student"):
    """Write copies of the notebooks without outputs and without the exercises' solutions.

    Args:
        folder: where the notebooks are; they stay as they are.
        target: the folder for the copies.

    Returns:
        0.
    """
    Path(target).mkdir(parents=True, exist_ok=True)
    for path in notebooks(folder):
        copy = Path(target) / path.name
        write(without_solutions(nbformat.read(path, as_version=4)), copy)
        print(copy)
    return 0


def without_solutions(notebook):
    """Return ``notebook`` without outputs, stamps, stored values and cells tagged "solution"."""
    for step in (TagRemovePreprocessor(remove_cell_tags={SOLUTION}), ClearOutputPreprocessor()):
        notebook, _ = step.preprocess(notebook, {})
    for part in (notebook, *notebook.cells):
        for key in MADE_BY_A_RUN:
            part.metadata.pop(key, None)
    return notebook


def write_address(folder="notebooks", configuration="_config.yml"):
    """Let every notebook install the package from the repository's address in ``configuration``.

    Without an address, no notebook has a cell for that.

    Returns:
        0.
    """
    settings = yaml.safe_load(Path(configuration).read_text(encoding="utf-8"))
    for path in notebooks(folder):
        notebook = nbformat.read(path, as_version=4)
        set_up(notebook, settings["repository"]["url"], needs_of(path))
        write(notebook, path)
    return 0


def set_up(notebook, address, needs=""):
    """Put a cell that installs the package at the head of ``notebook``; without an address take it away.

    Args:
        notebook: changed in place.
        address: of the repository, or "".
        needs: what the notebook needs, a line; it stands below.
    """
    cells = [cell for cell in notebook.cells if SETUP not in cell.metadata.get("tags", ())]
    if address:
        source = f'%pip install --quiet "decoding[pages] @ git+{address}"'
        source += f"\n# {needs}" if needs else ""
        metadata = {"tags": list(SETUP_TAGS), "jupyter": {"source_hidden": True}}
        first = next(at for at, cell in enumerate(cells) if cell.cell_type == "code")
        cells.insert(first, new_code_cell(source, id=SETUP, metadata=metadata))
    notebook.cells = cells
