"""Put one line under the title of every chapter: on what and when its numbers were recorded."""

from datetime import datetime
from pathlib import Path

import nbformat
from docutils import nodes

from decoding import fingerprint
from decoding.recording import freshness


def sentence(recorded, state):
    """Return the line's words for a notebook's stamp and its freshness."""
    if state == "unrecorded":
        return "Not recorded on a GPU yet: this page shows no measured numbers."
    words = (
        f"Recorded on {recorded['gpu']} · torch {recorded['torch']} · CUDA {recorded['cuda']} · "
        f"driver {recorded['driver']} · {days(recorded)}."
    )
    if recorded.get("redrawn"):
        words += f" Drawn again from these records on {day(recorded['redrawn'])}."
    if recorded.get("waiting"):
        words += " Parts that are not measured yet say so."
    if state == "stale":
        words += " The code behind this page has changed since: run it again for numbers that fit."
    return words


def day(date):
    """Return an ISO date or time as words: 24 November 2026."""
    when = datetime.fromisoformat(date.replace("Z", "+00:00"))
    return f"{when.day} {when:%B %Y}"


def days(recorded):
    """Return the days on which a page's numbers were measured as words: 24 to 25 November 2026."""
    last = day(recorded["date"])
    if "since" not in recorded:
        return last
    first = day(recorded["since"])
    number, _, month = first.partition(" ")
    return f"{number if last.endswith(f' {month}') else first} to {last}"


def add_line(app, doctree):
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    metadata = nbformat.read(path, as_version=4).metadata
    state = freshness(path)
    for module in Path(fingerprint.__file__).parent.rglob("*.py"):
        app.env.note_dependency(str(module))  # the line tells of the code: read the page again
    title = next(doctree.findall(nodes.title))
    text = sentence(metadata.get("recorded"), state)
    line = nodes.paragraph("", text, classes=["ttb-recorded", f"ttb-{state}"])
    title.parent.insert(title.parent.index(title) + 1, line)


def setup(app):
    app.connect("doctree-read", add_line)
    return {"parallel_read_safe": True, "version": "1"}
