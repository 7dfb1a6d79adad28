"""What a class gets: questions to ask, sheets to print and figures to project, out of the book's own pages."""

import inspect
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import nbformat
import yaml

from decoding.drawing import table
from decoding.drawing.markdown import Markdown
from decoding.drawing.svg import NAMESPACE
from decoding.loops import two_streams
from decoding.ordering.broken import SAFEGUARDS

BOOK = Path(__file__).resolve().parents[3]
BOX = re.compile(r"^(`{3,})\{admonition\} Predict\n(?::[^\n]*\n)*(.*?)^\1$", re.M | re.S)
QUIZ = re.compile(r"^\*\*(\d+)\.\*\* (.*?)\n\n(`{3,})\{dropdown\} Answer\n(.*?)\n\3$", re.M | re.S)
NUMBERED = re.compile(r"^\d+\. ", re.M)
ANNOUNCED = re.compile(r"(?:^|(?<=[.?] ))[^.?]*:$")  # "Write down, before you scroll:"
#: The figures to project: the name of the file, and the cell that shows it in a notebook.
PROJECTED = {
    "batch-32": ("01", "01-021"),
    "batch-1": ("01", "01-023"),
    "kv-cache": ("02", "02-020"),
    "compiled": ("05", "05-020"),
    "stop-check": ("06", "06-033-loops"),
    "one-step-late": ("07", "07-019-loops"),
}


class Box(NamedTuple):
    """A *Predict* box.

    Attributes:
        title: the chapter's.
        given: what the box says before its questions, but for the call to write them down.
        questions: its questions, Markdown on one line each.
    """

    title: str
    given: str
    questions: list


class Question(NamedTuple):
    """A question of the quiz, and its answer."""

    words: str
    answer: str


def box(name):
    """Return the *Predict* box of the notebook whose name begins with ``name``, None if it has none."""
    (path,) = (BOOK / "notebooks").glob(f"{name}*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = BOX.search(text)
    if not found:
        return None
    given, *questions = map(_in_one_line, NUMBERED.split(found[2]))
    title = re.search(r"^# (.*)$", text, re.M)[1]
    return Box(title, ANNOUNCED.sub("", given).strip(), questions)


def quiz():
    """Return the questions of the quiz: a dict, number -> ``Question``."""
    text = (BOOK / "book" / "teaching.md").read_text(encoding="utf-8")
    return {
        int(found[1]): Question(_in_one_line(found[2]), found[4]) for found in QUIZ.finditer(text)
    }


def asked(name, *numbers):
    """Return questions of a *Predict* box as a quotation."""
    questions = dict(enumerate(box(name).questions, 1))
    return _quoted({number: questions[number] for number in numbers})


def quizzed(*numbers):
    """Return questions of the quiz as a quotation."""
    return _quoted({number: quiz()[number].words for number in numbers})


def quiz_sheet():
    """Return all questions of the quiz as a list."""
    return _listed([question.words for question in quiz().values()])


def predictions(*parts):
    """Return all *Predict* boxes of parts of the book, a list each.

    Args:
        parts: how the captions of these parts begin in the table of contents.
    """
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    pages = [
        Path(chapter["file"]).name
        for part in toc["parts"]
        for chapter in part["chapters"]
        if part["caption"].startswith(parts) and chapter["file"].startswith("notebooks/")
    ]
    found = []
    for page in pages:
        number, one = page[:2], box(page)
        if one:
            title = f"{int(number)} · {one.title}" if number.isdigit() else one.title
            title += "" if title.endswith("?") else "."
            found += [f"**{title}** {one.given}", _listed(one.questions).text]
    return Markdown("\n\n".join(found))


def loop():
    """Return the loop of two streams, with numbers before its lines."""
    code = inspect.getsource(two_streams.decode).rstrip()
    return Markdown(f"```{{code-block}} python\n:lineno-start: 1\n{code}\n```")


def hazards():
    """Return the safeguards of that loop and what can happen without them, with room for two answers."""
    head = ["without", "what can happen", "which lines?", "would a run show it?"]
    return table(head, [(name, one.threat, "", "") for name, one in SAFEGUARDS.items()])


def projected():
    """Return the figures to project: a dict, name -> an SVG that fills its window."""
    found = {}
    for name, (chapter, wanted) in PROJECTED.items():
        (path,) = (BOOK / "notebooks").glob(f"{chapter}*.ipynb")
        (cell,) = (one for one in nbformat.read(path, as_version=4).cells if one.id == wanted)
        (svg,) = (
            output.data["image/svg+xml"]
            for output in cell.outputs
            if "image/svg+xml" in output.get("data", {})
        )
        root = ElementTree.fromstring(svg)
        del root.attrib["width"], root.attrib["height"]
        ElementTree.register_namespace("", NAMESPACE)
        found[name] = ElementTree.tostring(root, encoding="unicode")
    return found


def _listed(questions):
    return Markdown("\n".join(f"{number}. {words}" for number, words in enumerate(questions, 1)))


def _quoted(questions):
    return Markdown("\n>\n".join(f"> **{number}.** {words}" for number, words in questions.items()))


def _in_one_line(text):
    return " ".join(text.split())
