"""Put the masthead under the title of every chapter, and under every notebook's where it was recorded."""

from html import escape
from pathlib import Path

import nbformat
from docutils import nodes

import decoding
from decoding.pages import elsewhere, masthead, stamp


class Masthead(nodes.General, nodes.Element):
    """HTML as it is, which the search does not read: every page has the same ladder."""


def write_html(translator, node):
    translator.body.append(node["html"])
    raise nodes.SkipNode


def add_masthead(app, doctree):
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    notebook = nbformat.read(path, as_version=4)
    recorded = notebook.metadata.get("recorded")
    folder = masthead.folder_for(recorded)
    # It tells of the code and of the records: read the page again when they change.
    behind = Path(decoding.__file__).parent.rglob("*.py")
    for each in (*behind, *(folder.glob("*") if folder else ())):
        app.env.note_dependency(str(each))
    pages = [page.stem for page in sorted(path.parent.glob("[0-9][0-9]_*.ipynb"))]
    html = masthead.masthead(path.stem, pages, folder, notebook.metadata.get("sentence", ""))
    state, _ = stamp.examine(notebook)
    line = _with_provenance(
        html, recorded, state, masthead.limit_line(folder), elsewhere.needs_of(path)
    )
    node = Masthead("", html=line)
    title = next(doctree.findall(nodes.title))
    title.parent.insert(title.parent.index(title) + 1, node)


def _with_provenance(html, recorded, state, limit, needs):
    """The masthead with lines on what and when its numbers were recorded, quiet if all is well, and on what it needs."""
    words, kind = escape(" ".join([stamp.line(recorded, state), limit]).strip()), f"ttb-{state}"
    line = f'<p class="ttb-recorded {kind}">{words}</p>'
    if state == "fresh":
        brief = f"<summary>{escape(stamp.brief(recorded))}</summary><p>{words}</p>"
        line = f'<details class="ttb-recorded {kind}">{brief}</details>'
    line += f'<p class="ttb-needs">{escape(needs)}</p>' if needs else ""
    return f"{html.removesuffix('</div>')}{line}</div>" if html else line


def setup(app):
    app.add_node(Masthead, html=(write_html, None))
    app.connect("doctree-read", add_masthead)
    return {"parallel_read_safe": True, "version": "1"}
