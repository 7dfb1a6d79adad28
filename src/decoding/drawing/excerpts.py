"""A few lines of a loop, taken from its file."""

import ast
import textwrap

from .code import LOOPS, listing


def excerpt(loop, words):
    """Return one statement of a loop to display.

    Args:
        loop: its name, that of its file.
        words: what stands in the statement's first line; the outermost such statement is shown, whole.

    Raises:
        ValueError: no statement has these words in its first line.
    """
    code = (LOOPS / f"{loop}.py").read_text(encoding="utf-8")
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.stmt) and words in lines[node.lineno - 1]:
            return listing(textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])))
    raise ValueError(
        f"No statement of {loop} has {words!r} in its first line: copy it from the file."
    )
