"""The book's timelines as files for Perfetto: written into the built book, and linked.

A sentence names such a file as code, ``trace_pipeline.json``: in the book the name is a link to it.
"""

from html import escape
from pathlib import Path

from docutils import nodes

from decoding.pages import perfetto
from decoding.pages.machines import BOOK_GPU, BOOK_RECORDS

FOLDER = "_static/traces"


def link(app, doctree):
    """Make a link of every name of such a file."""
    up = "../" * app.env.docname.count("/")
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext()
        if name in app.traces:
            html = (
                f'<a class="reference download" download href="{up}{FOLDER}/{escape(name)}">'
                f'<code class="docutils literal notranslate">{escape(name)}</code></a>'
            )
            literal.replace_self(nodes.raw("", html, format="html"))


def write(app, exception):
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, timelines in app.traces.items():
            perfetto.write(timelines, folder / name)


def setup(app):
    app.traces = perfetto.recorded(BOOK_RECORDS / BOOK_GPU)
    app.connect("doctree-read", link)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "version": "1"}
