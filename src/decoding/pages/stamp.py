"""The stamp: on what and when a page's numbers were measured, and whether they are still true.

A notebook's metadata say where and when; each of its cells says by which code its outputs were made:

- ``cell``: a hash of its source, of those of the cells it depends on, and of the ``results`` they use;
- ``code``: a hash of the kernels and the measurement behind the rungs that those sources name;
- ``shown``: a hash of its outputs, or of a Markdown cell's inline values.

Sources are hashed as syntax trees without comments, layout and imports. A cell whose outputs are kept
keeps its stamp with them, so a page that is drawn again makes no old number look new.
"""

import ast
import hashlib
import json
from datetime import datetime
from functools import cache
from pathlib import Path

import nbformat

from decoding.measuring.fingerprint import canonical, fingerprint, rungs_named_in, tree_of_cell

from .inline import KEY, asked_in, stored_in
from .machines import LADDER
from .names import cells_behind, names_in

STAMPED = ("gpu", "driver", "cuda", "torch", "transformers", "python")
RESULTS = Path(__file__).with_name("results.py")
SETUP = "setup"  # the tag of the cell that installs the package where there is no clone of the book


def freshness(path):
    """Return whether what the notebook at ``path`` shows was made by the code as it is now.

    Returns:
        One of four words. "fresh": the code is the same. "stale": a cell, its rungs' loops or the
        measurement have changed since. "edited": outputs or inline values are not those that were
        stamped, as after a run in Jupyter. "unrecorded": it was never recorded on a GPU.
    """
    return examine(nbformat.read(path, as_version=4))[0]


def examine(notebook):
    """Return the word that ``freshness`` gives, and the ids of the cells that are the reason."""
    if "recorded" not in notebook.metadata:
        return "unrecorded", []
    before = {cell.id: cell.metadata.get("recorded", {}) for cell in notebook.cells}
    stale = [cell.id for cell in notebook.cells if not set(asked_in(cell)) <= set(stored_in(cell))]
    edited = []
    for cell_id, now in stamps(notebook).items():
        if now["shown"] != before[cell_id].get("shown", NOTHING):
            edited.append(cell_id)
        elif now != before[cell_id]:
            stale.append(cell_id)
    if edited:
        return "edited", edited
    return ("stale", list(dict.fromkeys(stale))) if stale else ("fresh", [])


def stamps(notebook):
    """Return the stamps that the cells of ``notebook`` would get now: a dict, id -> stamp."""
    sources, names, codes, found = [], [], {}, {}
    for cell in notebook.cells:
        if _is_code(cell):
            sources.append(cell.source)
            names.append(names_in(cell.source))
            involved = [sources[at] for at in (*cells_behind(names), -1)]
        elif cell.metadata.get(KEY):
            asked = "\n".join(stored_in(cell))
            behind = cells_behind([*names, names_in(asked)])
            involved = [*(sources[at] for at in behind), asked]
        else:
            continue
        rungs = _rungs_in(involved)
        if rungs not in codes:
            codes[rungs] = fingerprint(rungs)
        own = _hash([*map(_canonical, involved), *_conclusions_in(involved)])
        found[cell.id] = {"cell": own, "code": codes[rungs], "shown": shown(cell)}
    return found


def _rungs_in(sources):
    """The rungs that sources name: each by its name, or those of Part I by the ladder's."""
    words = {name for source in sources for name in names_in(source).reads}
    named = rungs_named_in(sources)
    if "RUNGS" in words:
        named = [*LADDER, *(name for name in named if name not in LADDER)]
    return tuple(named)


def _conclusions_in(sources):
    """The functions of ``results`` that sources use, and what those use, as text."""
    used = {name for source in sources for name in _used_of_results(source)}
    texts, names = _statements(RESULTS.read_text(encoding="utf-8"))
    return [texts[at] for at in cells_behind([*names, names_in(", ".join(sorted(used)))])]


@cache
def _used_of_results(source):
    parts = [node for node in ast.walk(tree_of_cell(source)) if isinstance(node, ast.Attribute)]
    return {part.attr for part in parts if getattr(part.value, "id", None) == RESULTS.stem}


@cache
def _statements(module):
    """The statements of a module as canonical text, and the names of each."""
    body = ast.parse(module).body
    return [canonical(one) for one in body], [names_in(ast.unparse(one)) for one in body]


@cache
def _canonical(source):
    return canonical(tree_of_cell(source))


def shown(cell):
    """Return a hash of what a cell shows: its outputs, or its inline values."""
    if cell.cell_type == "markdown":
        return _hash(stored_in(cell))
    kept = ("output_type", "name", "text", "data", "metadata")
    return _hash([{key: one[key] for key in kept if key in one} for one in cell.outputs])


def code_cells(notebook):
    """Return the notebook's code cells, without the one that sets it up."""
    return [cell for cell in notebook.cells if _is_code(cell)]


def _is_code(cell):
    return cell.cell_type == "code" and SETUP not in cell.metadata.get("tags", ())


def put(notebook, kept=()):
    """Stamp every cell of ``notebook``, except those that ``kept`` names by their ids.

    A kept cell's outputs were not made now, so it keeps the stamp that it has, or none.
    """
    new = stamps(notebook)
    for cell in notebook.cells:
        if cell.id not in kept:
            cell.metadata.pop("recorded", None)
            if cell.id in new:
                cell.metadata["recorded"] = new[cell.id]


def put_facts(notebook, machine, dates, **more):
    """Say in the notebook's metadata on which machine and when its numbers were measured.

    Args:
        notebook: changed in place.
        machine: as in a record.
        dates: of all that it shows, as in records.
        **more: ``seconds``, ``redrawn``, ``waiting``.
    """
    first, last = min(dates), max(dates)
    notebook.metadata["recorded"] = {
        **{key: machine[key] for key in STAMPED},
        **({"since": first} if first[:10] != last[:10] else {}),
        "date": last,
        **more,
    }


def brief(recorded):
    """Return where and when a page's numbers were recorded, in a few words, from its metadata."""
    return f"Recorded on {recorded['gpu']}, {_days(recorded)}"


def line(recorded, state):
    """Return on what and when a page's numbers were recorded, in one line.

    Args:
        recorded: from the page's metadata; None where it was never recorded.
        state: its freshness, a word of ``freshness``; if it is not "fresh", the line says so.
    """
    if state == "unrecorded":
        return "Not recorded on a GPU yet: this page shows no measured numbers."
    words = (
        f"Recorded on {recorded['gpu']} · torch {recorded['torch']} · CUDA {recorded['cuda']} · "
        f"driver {recorded['driver']} · {_days(recorded)}."
    )
    if recorded.get("redrawn"):
        words += f" Drawn again from these records on {day(recorded['redrawn'])}."
    if recorded.get("waiting"):
        words += " Parts that are not measured yet say so."
    if state == "stale":
        words += " The code behind this page has changed since: run it again for numbers that fit."
    if state == "edited":
        words += " Some of what it shows is not what was recorded: it was run or changed elsewhere."
    return words


def _days(recorded):
    """The days on which a page's numbers were measured as words: 24 to 25 November 2026."""
    last = day(recorded["date"])
    if "since" not in recorded:
        return last
    first = day(recorded["since"])
    number, _, month = first.partition(" ")
    return f"{number if last.endswith(f' {month}') else first} to {last}"


def day(date):
    """Return an ISO date or time as words: 24 November 2026."""
    when = datetime.fromisoformat(date.replace("Z", "+00:00"))
    return f"{when.day} {when:%B %Y}"


def _hash(content):
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


NOTHING = _hash([])
