"""Inline values and figures of a Markdown page, computed from the book's records while it is built.

``{values}`` names the modules that a page's expressions see. The role ``{eval}`` puts the value of an
expression into a sentence, as in a notebook: "–" where the book has no such record. ``{show}`` shows
what an expression returns, a picture or a table; its content stands in for what is not recorded.
"""

import importlib
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

import decoding
from decoding.drawing import for_page
from decoding.drawing.words import UNKNOWN
from decoding.measuring import NotRecorded
from decoding.pages.inline import unbroken
from decoding.pages.machines import BOOK_GPU, BOOK_RECORDS


class Values(SphinxDirective):
    """Name the modules whose public names the expressions of this page may use."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        found = {}
        for name in self.arguments[0].split():
            module = vars(importlib.import_module(name))
            found |= {key: value for key, value in module.items() if not key.startswith("_")}
        self.env.temp_data["values"] = found
        root = Path(self.env.srcdir)
        written = Path(decoding.__file__).parent.rglob("*.py")
        pages = (*root.glob("notebooks/*"), *root.glob("book/*.md"))
        for path in (*BOOK_RECORDS.glob("*/*"), *pages, *written):
            self.env.note_dependency(str(path))
        return []


def value_of(expression, env):
    """Return the value of ``expression`` on the page that is being read.

    Raises:
        NotRecorded: the book has no record of what it asks for.
        ExtensionError: the page names no modules, or the expression fails.
    """
    if not any((BOOK_RECORDS / BOOK_GPU).glob("*.json")):
        raise NotRecorded("The book has no records at all.")
    try:
        return eval(expression, dict(env.temp_data["values"]))
    except NotRecorded:
        raise
    except Exception as error:
        raise ExtensionError(f"{expression!r} on {env.docname}: {error!r}") from error


class Value(SphinxRole):
    """Put the value of an expression into the sentence."""

    def run(self):
        try:
            words = str(value_of(self.text, self.env))
        except NotRecorded:
            words = UNKNOWN
        return [nodes.Text(unbroken(words))], []


class Show(SphinxDirective):
    """Show the picture or the table that an expression returns."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        try:
            bundle = value_of(self.arguments[0], self.env)._repr_mimebundle_()
        except NotRecorded:
            return self.parsed(self.content or StringList([UNKNOWN], source=""))
        if "image/svg+xml" in bundle:
            return [nodes.raw("", for_page(bundle["image/svg+xml"]), format="html")]
        return self.parsed(StringList(bundle["text/markdown"].split("\n"), source=""))

    def parsed(self, lines):
        at = nodes.container()
        self.state.nested_parse(lines, self.content_offset, at)
        return at.children


def setup(app):
    app.add_directive("values", Values)
    app.add_directive("show", Show)
    app.add_role("eval", Value(), override=True)
    return {"parallel_read_safe": True, "version": "1"}
