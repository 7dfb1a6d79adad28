"""Find notebooks and write them."""

import sys
from pathlib import Path

import nbformat

from decoding.measuring.records import write_whole


def notebooks(folder, names=()):
    """Return the notebooks in ``folder`` whose names begin with one of ``names``, in order.

    Raises:
        SystemExit: a name fits no notebook.
    """
    paths = sorted(Path(folder).glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in paths):
            known = ", ".join(path.stem for path in paths) or "none"
            sys.exit(f"error: no notebook in {folder} begins with {name!r}; there are: {known}.")
    return [path for path in paths if not names or path.name.startswith(tuple(names))]


def write(notebook, path):
    """Write ``notebook`` to ``path``, whole or not at all."""
    write_whole(Path(path), nbformat.writes(notebook) + "\n")
