"""The book, built once for all tests that look at its pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def build(source, target):
    """Build the book at ``source`` below ``target``, warnings as errors, and return its pages' folder."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jupyter_book", "build", str(source)),
            *("--path-output", str(target), "-W", "-n", "--keep-going", "--quiet"),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"The book does not build:\n{done.stdout[-4000:]}"
    return Path(target) / "_build" / "html"


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The folder with the pages of the book as it stands."""
    return build(ROOT, tmp_path_factory.mktemp("book"))
