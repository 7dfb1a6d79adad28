"""A few lines of a loop, taken from its file."""

import ast
import textwrap
from pathlib import Path

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


def part_of(path, words):
    """Return a part of a file in C++ or CUDA to display: with the comments right above it, to the end of its braces.

    Args:
        path: of the file.
        words: what stands in the part's first line; the first such line that is no comment counts. A part without
            braces ends with its statement.

    Raises:
        ValueError: no line of the file has these words.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    code = [line.partition("//")[0] for line in lines]
    first = next((at for at, line in enumerate(code) if words in line), None)
    if first is None:
        raise ValueError(f"No line of {path} has {words!r}: copy it from the file.")
    last, depth, opened = first, 0, False
    for last in range(first, len(code)):
        depth += code[last].count("{") - code[last].count("}")
        opened = opened or "{" in code[last]
        if depth <= 0 and (opened or code[last].rstrip().endswith(";")):
            break
    while first and lines[first - 1].lstrip().startswith("//"):
        first -= 1
    return listing("\n".join(_moved_left(lines[first : last + 1])), "cuda")


def _moved_left(lines):
    """Lines without the indentation that all share but those of the preprocessor, which begin at the margin."""
    own = [line for line in lines if line.strip() and not line.startswith("#")]
    margin = min((len(line) - len(line.lstrip()) for line in own), default=0)
    return [line if line.startswith("#") else line[margin:] for line in lines]
