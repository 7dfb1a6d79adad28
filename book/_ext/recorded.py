"""Put one line under the title of every chapter: on what and when its numbers were recorded."""

from pathlib import Path

import nbformat
from docutils import nodes

import decoding
from decoding.pages import stamp


def add_line(app, doctree):
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    for module in Path(decoding.__file__).parent.rglob("*.py"):
        app.env.note_dependency(str(module))  # the line tells of the code: read the page again
    notebook = nbformat.read(path, as_version=4)
    state, _ = stamp.examine(notebook)
    words = stamp.line(notebook.metadata.get("recorded"), state)
    line = nodes.paragraph("", words, classes=["ttb-recorded", f"ttb-{state}"])
    title = next(doctree.findall(nodes.title))
    title.parent.insert(title.parent.index(title) + 1, line)


def setup(app):
    app.connect("doctree-read", add_line)
    return {"parallel_read_safe": True, "version": "1"}
