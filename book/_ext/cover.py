"""The directive ``{ladder}``: the book's first figure, drawn from its records while it is built."""

from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from decoding.chapter import BOOK_GPU
from decoding.recording import ladder_figure

NOT_RECORDED = "Not recorded yet: the ladder stands here once its rungs have been measured."


def figure_of(folder):
    """Return the figure as nodes, or words where ``folder`` holds no record at batch 32 at all.

    Raises:
        FileNotFoundError: some rungs have a record, others have none.
    """
    if not any(Path(folder).glob("*_gpt2_b32_*.json")):
        return [nodes.paragraph("", NOT_RECORDED)]
    drawn = ladder_figure(folder)
    return [nodes.raw("", drawn.html, format="html"), nodes.raw("", drawn.text, format="text")]


class Ladder(SphinxDirective):
    """Show time per token for every rung at batch 32."""

    def run(self):
        folder = Path(self.env.srcdir) / "book" / "records" / BOOK_GPU
        for path in folder.glob("*_b32_*.json"):
            self.env.note_dependency(str(path))
        try:
            return figure_of(folder)
        except (FileNotFoundError, ValueError) as error:
            raise self.error(str(error)) from error


def setup(app):
    app.add_directive("ladder", Ladder)
    return {"parallel_read_safe": True, "version": "1"}
