"""Inline values: ``{eval}`` roles in a Markdown cell, and their stored results.

The form is that of jupyterlab-myst, which shows the stored results without a kernel: a list under
``user_expressions`` in the cell's metadata, each with its ``expression`` and a ``result``.
"""

import re

ROLE = re.compile(r"\{eval\}(?P<ticks>`+)(?P<expression>.+?)(?P=ticks)(?!`)", re.DOTALL)
UNIT = re.compile(r"(?<=\d) (?=[%\w])")
KEY = "user_expressions"
MISSING = "–"


def asked_in(cell):
    """Return the expressions of a Markdown cell, each once, in order."""
    if cell.cell_type != "markdown":
        return []
    return list(dict.fromkeys(role["expression"].strip() for role in ROLE.finditer(cell.source)))


def stored_in(cell):
    """Return the stored results of a cell: a dict, expression -> text."""
    results = {one["expression"]: one["result"] for one in cell.metadata.get(KEY, ())}
    return {
        expression: result.get("data", {}).get("text/plain", MISSING)
        for expression, result in results.items()
    }


def store(cell, values):
    """Keep ``values`` (a dict, expression -> text) as the results of a cell; {} removes them."""
    cell.metadata.pop(KEY, None)
    if values:
        cell.metadata[KEY] = [
            {
                "expression": expression,
                "result": {"status": "ok", "data": {"text/plain": text}, "metadata": {}},
            }
            for expression, text in values.items()
        ]


def filled(cell):
    """Return the source of a Markdown cell with its stored results in place of the roles."""
    stored = stored_in(cell)
    return ROLE.sub(
        lambda role: _plain(stored.get(role["expression"].strip(), MISSING)), cell.source
    )


def _plain(text):
    """A result as Markdown that reads as the plain text that it is: no quotes, no markup."""
    text = unbroken(re.sub(r"^(['\"])(.*)\1$", r"\2", text, flags=re.DOTALL))
    return re.sub(r"([\\`*_\[\]<>$|~#])", r"\\\1", text)


def unbroken(text):
    """Return ``text`` with no line's end between a number and its unit."""
    return UNIT.sub("\u00a0", text)
