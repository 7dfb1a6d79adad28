"""Code to display: a loop's file, a function, and how one loop becomes the next."""

import ast
import inspect
import textwrap
from difflib import unified_diff
from pathlib import Path

from .markdown import Markdown
from .words import counted

LOOPS = Path(__file__).parents[1] / "loops"


def listing(code, language="python"):
    """Return code as a block to display."""
    return Markdown("\n".join([f"```{language}", code.strip("\n"), "```"]))


def source(what):
    """Return code to display.

    Args:
        what: the name of a loop, for its whole file; or a function, a method, a class or a module,
            for its code without its docstring.
    """
    if isinstance(what, str | Path):
        return listing(_path_of(what).read_text(encoding="utf-8"))
    return listing(_without_docstring(textwrap.dedent(inspect.getsource(what))))


def diff(before, after):
    """Return how one loop becomes the next: a diff of their files, whole.

    Args:
        before, after: names of loops, modules or functions of them, or paths of Python files.

    Of each module's docstring the first line stays. Two equal loops give one sentence.
    """
    paths = _path_of(before), _path_of(after)
    (old_idea, old), (new_idea, new) = (_idea_and_code(path.read_text("utf-8")) for path in paths)
    names = f"`{paths[0].name}` → `{paths[1].name}`"
    if old == new:
        return Markdown(f"{names}: no line of the loop changes.")
    whole = unified_diff(old, new, n=len(old) + len(new), lineterm="")
    lines = list(whole)[3:]  # without its heads: two names and one range
    removed, added = (sum(line.startswith(sign) for line in lines) for sign in "-+")
    said = f"{names}: {counted(removed, 'line')} removed, {counted(added, 'line')} added."
    ideas = [f'{sign}"""{idea}"""' for sign, idea in zip("-+", (old_idea, new_idea)) if idea]
    code = listing("\n".join(ideas + lines), "diff").text
    return Markdown(f"{said}\n\n{code}")


def _path_of(loop):
    if isinstance(loop, str) and loop.isidentifier():
        return LOOPS / f"{loop}.py"
    return Path(loop if isinstance(loop, str | Path) else inspect.getsourcefile(loop))


def _docstring(code):
    """The node of the docstring of a file, or of the one function or class in it, if there is one."""
    tree = ast.parse(code)
    definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for body in (tree.body, tree.body[0].body if isinstance(tree.body[0], definition) else []):
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            return first
    return None


def _without_docstring(code):
    found, lines = _docstring(code), code.splitlines()
    if not found:
        return code
    return "\n".join(lines[: found.lineno - 1] + lines[found.end_lineno :])


def _idea_and_code(code):
    """The first line of a file's docstring, and the lines below the docstring."""
    found, lines = _docstring(code), code.splitlines()
    if not found:
        return "", lines
    return inspect.cleandoc(found.value.value).split("\n")[0], lines[found.end_lineno :]
