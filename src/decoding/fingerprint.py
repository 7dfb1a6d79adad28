"""A hash of the code behind a number, blind to comments, docstrings and formatting.

It covers the loops of the rungs in question and what runs them: the model, the step, the ranges,
the measurement. It leaves out figures, widgets and other rungs, so that work on those does not make
recorded numbers look old.
"""

import ast
import hashlib
import inspect
from pathlib import Path

from .rungs import RUNGS

FOLDER = Path(__file__).parent
MODULES = ("models", "step", "ranges", "prepared", "generation", "measurement", "worker")
TIMELINE_FUNCTIONS = ("read_trace", "union", "busy_us", "device_intervals")


def fingerprint(rungs, cells=()):
    """Return a short hash of the code behind measurements of ``rungs`` made by ``cells``.

    Args:
        rungs: names in ``RUNGS``; other names are passed over.
        cells: the source of a notebook's code cells.
    """
    parts = [canonical(ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))) for name in MODULES]
    timeline = ast.parse((FOLDER / "timeline.py").read_text("utf-8"))
    parts += [
        canonical(node)
        for node in timeline.body
        if isinstance(node, ast.FunctionDef) and node.name in TIMELINE_FUNCTIONS
    ]
    for name in sorted(set(rungs) & set(RUNGS)):
        rung = RUNGS[name]
        parts.append(f"{name} {sorted(rung.environment.items())} {sorted(rung.options)}")
        parts.append(canonical(ast.parse(Path(inspect.getfile(rung.decode)).read_text("utf-8"))))
    parts += [canonical(ast.parse(cell)) for cell in cells]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def rungs_named_in(cells):
    """Return the rungs whose names stand as strings in the source of ``cells``, in order."""
    words = {
        node.value
        for cell in cells
        for node in ast.walk(ast.parse(cell))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return [name for name in RUNGS if name in words]


def canonical(node):
    """Return ``node`` as text that is the same on every Python version and for every layout."""
    if isinstance(node, list):
        return "[" + ",".join(canonical(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [item for item in value if not _is_docstring(item)]
        # Empty and absent fields come and go with the version of Python.
        if value not in (None, []) and name not in ("kind", "type_comment"):
            fields.append(f"{name}={canonical(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_docstring(node):
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
