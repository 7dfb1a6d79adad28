"""A hash of the code behind a number.

It covers the ground floor and the measurement, whole folders, read from the files' syntax trees. It
is blind to comments, docstrings, layout, import statements and the wording of errors, and it leaves
out what no number depends on: other rungs, the shell, the model of the allocator, the checker of orders,
what the hub raises, this module. What only some numbers depend on (``APART``) counts for those.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]
LEFT_OUT = {"__init__", "__main__", "allocator", "checker", "fingerprint", "hub", "report"}
#: Modules that only some loops need, or one chapter's experiments: they count where a counted module
#: imports them, or where they are named.
APART = {
    "asking",
    "bandwidth",
    "captured",
    "checking_tokens",
    "endings",
    "engines",
    "fits",
    "fused",
    "fused_kernels",
    "fused_step",
    "hostless",
    "limits",
    "odd_vocabulary",
    "one_kernel",
    "real_text",
    "safeguards",
    "sampling",
    "text",
    "while_graph",
}
LABEL = "label"  # the one field of a rung that no measurement depends on


def fingerprint(rungs, cells=(), folder=FOLDER):
    """Return a short hash of the code behind measurements of ``rungs`` made by ``cells``.

    Args:
        rungs: names in ``RUNGS`` and in ``APART``; other names are passed over.
        cells: the source of a notebook's code cells.
        folder: where the package ``decoding`` is.
    """
    ladder = ast.parse(_text(folder / "rungs.py"))
    entries = _entries(ladder)
    named = {name: entries.pop(name) for name in sorted(set(rungs) & set(entries))}
    foreign = _names_in(entries.values()) - _names_in(named.values())
    paths = [
        *folder.glob("*.py"),
        *folder.glob("measuring/**/*.py"),
        *(path for path in folder.glob("loops/*.py") if path.stem not in foreign),
    ]
    paths = [path for path in paths if path.stem not in LEFT_OUT | {"rungs"}]
    paths = sorted(_counted(paths, set(rungs)))
    ladder.body.remove(_ladder(ladder))
    parts = [canonical(ladder), *(_canonical_of(_text(path)) for path in paths)]
    parts += [
        f"{field}={canonical(value)}"
        for entry in named.values()
        for field, value in entry.items()
        if field != LABEL
    ]
    parts += [canonical(tree_of_cell(cell)) for cell in cells]
    parts += [_without_layout(_text(path)) for path in _cuda_sources(folder, set(rungs))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def rungs_named_in(cells, folder=FOLDER):
    """Return the rungs whose names stand as strings in the source of ``cells``, in order.

    Behind them come the modules in ``APART`` that a cell imports.
    """
    nodes = [node for cell in cells for node in ast.walk(tree_of_cell(cell))]
    words = {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    imported = {name for cell in cells for name in _imported_by(tree_of_cell(cell))}
    entries = _entries(ast.parse(_text(folder / "rungs.py")))
    return [name for name in entries if name in words] + sorted(APART & imported)


def tree_of_cell(source):
    """Return the syntax tree of a notebook's code cell, without its lines for IPython."""
    return ast.parse(re.sub(r"(?m)^[%!].*$", "", source))


def canonical(node):
    """Return ``node`` as text that is the same on every Python version and for every layout.

    Docstrings, import statements and what a ``raise`` says are left out.
    """
    if isinstance(node, list):
        return "[" + ",".join(canonical(item) for item in node if not _says_nothing(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.Raise) and isinstance(value, ast.Call):
            value = value.func
        # Empty and absent fields come and go with the version of Python.
        if value not in (None, []) and name not in ("kind", "type_comment"):
            fields.append(f"{name}={canonical(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _says_nothing(node):
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, str)
    return isinstance(node, ast.Import | ast.ImportFrom)


def _counted(paths, named):
    """Return ``paths`` without the modules in ``APART`` that are not named, and that none of the rest imports."""
    counted = [path for path in paths if path.stem not in APART - named]
    while True:
        imported = {name for path in counted for name in _imported_by(ast.parse(_text(path)))}
        more = [path for path in paths if path not in counted and path.stem in imported]
        if not more:
            return counted
        counted += more


def _imported_by(tree):
    """Return the last parts of the names of the modules that a tree imports, or imports from."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {alias.name for node in nodes for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.rpartition(".")[2] for name in found}


def _cuda_sources(folder, named):
    """Return the files in CUDA that belong to named modules, in order: ``one_kernel.cu`` to ``one_kernel``."""
    return sorted(path for name in APART & named for path in folder.glob(f"{name}*.cu*"))


def _without_layout(source):
    """Return a source in CUDA without comments and white space."""
    return re.sub(r"//.*|\s", "", source)


def _text(path):
    return path.read_text("utf-8")


@cache
def _canonical_of(source):
    return canonical(ast.parse(source))


def _ladder(tree):
    """Return the statement of rungs.py that assigns ``RUNGS``."""
    return next(
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "RUNGS"
    )


def _entries(tree):
    """Return name -> field -> syntax tree of the value, for every ``Rung(...)`` in ``RUNGS``."""
    (rung,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Rung")
    fields = [node.target.id for node in rung.body if isinstance(node, ast.AnnAssign)]
    entries = {}
    for node in ast.walk(_ladder(tree)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Rung":
            given = dict(zip(fields, node.args))
            given |= {keyword.arg: keyword.value for keyword in node.keywords}
            entries[given["name"].value] = {key: given[key] for key in fields if key in given}
    return entries


def _names_in(entries):
    """Return the names that the ``entries`` use, those of their loops' modules among them."""
    return {
        node.id
        for entry in entries
        for value in entry.values()
        for node in ast.walk(value)
        if isinstance(node, ast.Name)
    }
