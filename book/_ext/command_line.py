"""The directive ``{help} measure``: what ``python -m decoding measure --help`` prints."""

import io
import os
import textwrap
from contextlib import redirect_stdout, suppress
from unittest.mock import patch

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from decoding import __main__ as shell

COLUMNS = 80  # what fits the page, whatever the terminal of the build


def help_of(*command):
    """Return the help of a command as text."""
    printed = io.StringIO()
    plain = {"COLUMNS": str(COLUMNS), "NO_COLOR": "1"}
    with patch.dict(os.environ, plain), redirect_stdout(printed), suppress(SystemExit):
        shell.main([*command, "--help"])
    lines = printed.getvalue().rstrip().split("\n")
    # argparse leaves the lines of a description as they are where it has an epilog with examples.
    return "\n".join(
        line if line.startswith(" ") else textwrap.fill(line, COLUMNS) for line in lines
    )


class Help(SphinxDirective):
    """Show the help of ``python -m decoding``, or of one of its commands."""

    optional_arguments = 1

    def run(self):
        self.env.note_dependency(shell.__file__)
        text = help_of(*self.arguments)
        return [nodes.literal_block(text, text, language="text", classes=["ttb-help"])]


def setup(app):
    app.add_directive("help", Help)
    return {"parallel_read_safe": True, "version": "1"}
