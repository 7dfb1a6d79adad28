"""Copies of the notebooks to work on in JupyterLab, which shows exercises and citations in another way."""

import hashlib
import json
import re
from pathlib import Path

import nbformat

from .files import notebooks, write

COPIED = ".copied.json"  # what each copy was when it was made
START = re.compile(r"```\{(exercise|solution)-start\} *([^\n]*)\n((?::[^\n]*\n)*)```\n?")
END = re.compile(r"\n*```\{(?:exercise|solution)-end\}\n```\n?")
CITED = re.compile(r"\{cite\}`([^`]+)`")


def lab_notebooks(folder="notebooks", target="_build/lab/notebooks", book="book"):
    """Write copies of the notebooks to work on; a copy that was worked on stays as it is.

    Args:
        folder: where the notebooks are; they stay as they are.
        target: the folder for the copies. The book's pages, which they link, stand beside it.
        book: the folder of those pages.

    Returns:
        0.
    """
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    beside = target.parent / Path(book).name
    if not beside.exists():
        beside.symlink_to(Path(book).resolve(), target_is_directory=True)
    state = target / COPIED
    copied = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    names = citations(Path(book) / "references.bib")
    for path in notebooks(folder):
        copy = target / path.name
        if copy.exists() and content(nbformat.read(copy, as_version=4)) != copied.get(path.name):
            print(f"{copy}: it has your work and stays; delete it for the book's own.")
            continue
        notebook = reading_form(nbformat.read(path, as_version=4), path.name, names)
        write(notebook, copy)
        copied[path.name] = content(notebook)
    state.write_text(json.dumps(copied), encoding="utf-8")
    return 0


def content(notebook):
    """Return a hash of a notebook's sources and outputs; what a viewer notes beside them is left out."""
    parts = [
        [cell.source, *(str(output.get("data", output)) for output in cell.get("outputs", ()))]
        for cell in notebook.cells
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def reading_form(notebook, name, names):
    """Return ``notebook`` with exercises numbered and sources named as in the book's pages.

    Args:
        name: its file's, which begins with the chapter's number, if it has one.
        names: key of a source -> what the book calls it.
    """
    chapter = f"{int(name[:2])}." if name[:2].isdigit() else ""
    numbers = {}
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue

        def opened(found):
            kind, title, options = found.groups()
            if kind == "solution":
                return f"**Solution to Exercise {numbers.get(title.strip(), '')}**\n"
            label = re.search(r":label: *(\S+)", options)
            number = f"{chapter}{len(numbers) + 1}"
            numbers[label[1] if label else number] = number
            return f"**Exercise {number}** ({title.strip()})\n"

        source = END.sub("", START.sub(opened, cell.source))
        cell.source = CITED.sub(lambda found: _cited(found[1], names), source)
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip() or cell.get("outputs")]
    return notebook


def _cited(keys, names):
    said = "; ".join(names.get(key.strip(), key.strip()) for key in keys.split(","))
    return f"\\[[{said}](../book/bibliography.md)\\]"


def citations(bibliography):
    """Return key -> "Rand, 2026" of the sources in a BibTeX file."""
    names = {}
    text = Path(bibliography).read_text(encoding="utf-8") if Path(bibliography).exists() else ""
    for key, fields in re.findall(r"@\w+\{([^,\s]+),(.*?)\n\}", text, re.DOTALL):
        author = re.search(r"\bauthor\s*=\s*[{\"]+(.*?)[}\"]+,? *\n", fields, re.DOTALL)
        year = re.search(r"\byear\s*=\s*[{\"]*(\d{4})", fields)
        if author and year:
            authors = re.split(r"\s+and\s+", author[1].strip("{}"))
            last = [one.partition(",")[0] if "," in one else one.split()[-1] for one in authors]
            said = (
                f"{last[0]} et al." if len(last) > 2 or last[-1] == "others" else " and ".join(last)
            )
            names[key] = f"{said}, {year[1]}"
    return names
