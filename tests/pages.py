"""The book's pages, by their names in _toc.yml, and how to build them."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def in_toc(toc):
    """Return the pages that a table of contents names, the root first, in order."""
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(chapter["file"] for chapter in chapters)]


PAGES = in_toc(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").exists()]
CHAPTERS = [page for page in NOTEBOOKS if Path(page).name[0].isdigit()]


def build(source, target):
    """Build the book at ``source`` below ``target``, warnings as errors.

    Returns:
        The folder with its pages.
    """
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("jupyter-book")), "build", str(source)),
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
