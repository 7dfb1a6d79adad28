"""The directive ``{ladder}``: the book's first figure, drawn from its records while it is built."""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

from decoding.chapter import BOOK_GPU, BOOK_RECORDS
from decoding.recording import ladder_figure


class Ladder(Directive):
    """Show time per token for every rung at batch 32."""

    def run(self):
        folder = BOOK_RECORDS / BOOK_GPU
        environment = self.state.document.settings.env
        for path in Path(folder).glob("*_b32_*.json"):
            environment.note_dependency(str(path))
        return [nodes.raw("", ladder_figure(folder).html, format="html")]


def setup(app):
    app.add_directive("ladder", Ladder)
    return {"parallel_read_safe": True, "version": "1"}
