"""Execute notebooks: record them on a GPU, redraw them from records, run copies of them."""

import copy
import sys
import time
from datetime import UTC, datetime, timedelta
from math import nan
from pathlib import Path

import nbformat
from nbformat.sign import NotebookNotary

from decoding.drawing.words import counted, known, seconds
from decoding.measuring.machine import machine
from decoding.measuring.records import slug

from . import cover, stamp
from .claims import failed_in
from .copies import student_notebooks, write_address
from .files import notebooks, write
from .kept import EXCUSED, keep, show_instead, stopped_cells
from .kernel import execute
from .machines import BOOK_GPU, SAME_MACHINE, book_folder, machine_of
from .shelf import Sitting

__all__ = [
    "FalsePage",
    "record",
    "record_notebooks",
    "redraw",
    "redraw_notebooks",
    "run",
    "run_notebooks",
    "student_notebooks",
    "write_address",
]

INTERRUPTED = 130  # the shell's code for what Ctrl-C has ended


class FalsePage(Exception):
    """A page would say what its run does not show; the message names it."""


def record_notebooks(folder="notebooks", names=(), reuse_days=None):
    """Execute notebooks on this machine's GPU, in place, and stamp them.

    A notebook is written only after its last cell has run, so an interrupted or failed one stays
    as it was. One line says beforehand how many are to be recorded and how long they took last time.

    Args:
        folder: where the notebooks are.
        names: beginnings of file names, such as "02". None means all but those that a run on this kind
            of machine has recorded within ``reuse_days`` and that are fresh: after an interruption
            the work is taken up where it ended.
        reuse_days: how old a record may be that is read in place of measuring, in days; default: six hours.

    Returns:
        0 if every notebook was recorded, 1 if not, 130 after Ctrl-C.

    Raises:
        SystemExit: there is no GPU, or a name fits no notebook.
    """
    here = machine()
    if here["device"] != "cuda":
        sys.exit("error: recording needs a CUDA GPU; `make run` runs copies small without one.")
    sitting = {} if reuse_days is None else {"reuse_days": reuse_days}
    paths = notebooks(folder, names)
    done = [] if names else [path for path in paths if _is_done(path, here, **sitting)]
    paths = [path for path in paths if path not in done]
    print(_what_is_ahead(paths, done), file=sys.stderr)
    code = _each(paths, "recorded", lambda path: record(path, here, **sitting))
    if slug(here["gpu"]) == BOOK_GPU and not names and code != INTERRUPTED:
        cover.write()
    return code


def _is_done(path, here, reuse_days=Sitting.reuse_days.default_value):
    """Whether a run on a machine like ``here`` has recorded the page lately, and nothing has changed since."""
    notebook = nbformat.read(path, as_version=4)
    recorded = notebook.metadata.get("recorded", {})
    if "redrawn" in recorded or any(recorded.get(key) != here[key] for key in SAME_MACHINE):
        return False
    date = datetime.fromisoformat(recorded["date"].replace("Z", "+00:00"))
    recently = datetime.now(UTC) - date < timedelta(days=reuse_days)
    return recently and stamp.examine(notebook)[0] == "fresh"


def _what_is_ahead(paths, done):
    """Return one line: how many pages are to be recorded, and how long each of them took last time."""
    took = {_short(path.stem): _seconds_of(path) for path in paths}
    timed, untimed = filter(known, took.values()), [name for name in took if not known(took[name])]
    parts = [f"{counted(len(paths), 'notebook')} to record"]
    if len(untimed) < len(took):
        each = ", ".join(f"{name}: {seconds(time)}" for name, time in took.items() if known(time))
        parts.append(f"the last time {each}; {seconds(sum(timed))} in all")
    if untimed:
        parts.append(f"not known how long: {', '.join(untimed)}")
    if done:
        parts.append(f"recorded lately and fresh, so left: {', '.join(path.stem for path in done)}")
    return "; ".join(parts) + "."


def _short(name):
    return name.partition("_")[0] if name[0].isdigit() else name


def _seconds_of(path):
    recorded = nbformat.read(path, as_version=4).metadata.get("recorded") or {}
    return recorded.get("seconds", nan)


def redraw_notebooks(folder="notebooks", names=(), records=None):
    """Execute notebooks in place with the book's records in place of measurements.

    For a machine without a GPU: after a change to a figure or a sentence, say, or before every part
    of a chapter has been measured. What needs a GPU keeps the outputs that it has; if it has none,
    the page says that it is still to be measured. So do cells tagged "on-the-spot", which measure
    something without leaving a record, and what depends on them.

    Args:
        folder, names: as for ``record_notebooks``.
        records: the folder of the records; default: the book's.

    Returns:
        0 if every notebook was redrawn, 1 if not, 130 after Ctrl-C.
    """
    sitting = {"folder": records} if records else {}
    code = _each(notebooks(folder, names), "redrawn", lambda path: redraw(path, **sitting))
    if not names and not records and code != INTERRUPTED:
        cover.write()
    return code


def run_notebooks(folder="notebooks", names=(), target="_build/run", records=None):
    """Execute copies of the notebooks on this machine, with a GPU or small without one.

    A measurement that fails, for want of memory say, stops no notebook: the parts that need its
    numbers say what is missing.

    Args:
        folder, names: as for ``record_notebooks``.
        target: the folder for the executed copies.
        records: the folder for this machine's records; default: a folder of the machine's own.

    Returns:
        0 if every notebook ran, 1 if not, 130 after Ctrl-C.
    """
    target, sitting = Path(target), {"folder": records} if records else {}
    target.mkdir(parents=True, exist_ok=True)
    return _each(
        notebooks(folder, names), "run", lambda path: run(path, target / path.name, **sitting)
    )


def _each(paths, done, work):
    """Do ``work`` on every notebook and say which was not ``done``; return the shell's code."""
    code = 0
    for path in paths:
        try:
            work(path)
        except KeyboardInterrupt:
            print(f"{path.name}: interrupted, left as it was.", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            code = 1
            print(f"{path.name}: not {done}, left as it was.\n{error}", file=sys.stderr)
    return code


def record(path, here, **sitting):
    """Execute the notebook at ``path`` on this machine and write it back with its stamp.

    Args:
        path: of the notebook.
        here: this machine, as in a record.
        **sitting: settings of the ``Sitting``.

    Raises:
        CellExecutionError: a cell failed.
        FalsePage: a claim or an inline value failed.
    """
    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    ran = execute(notebook, path, sitting)
    refuse_failures(notebook, ran.failed)
    dates = [here["date"], *(shown["date"] for shown in ran.shown)]
    stamp.put_facts(notebook, here, dates, seconds=round(time.monotonic() - began))
    stamp.put(notebook)
    write(notebook, path)


def redraw(path, **sitting):
    """Redraw the notebook at ``path`` from records and stamp it with their machine.

    Raises:
        CellExecutionError: a cell failed for another reason than a missing record or GPU.
        FalsePage: a claim or an inline value failed.
    """
    notebook = nbformat.read(path, as_version=4)
    before = copy.deepcopy(notebook)
    ran = execute(notebook, path, sitting | {"redraw": True}, allow_errors=True)
    kept, values, waiting = keep(notebook, before)
    refuse_failures(notebook, ran.failed.keys() - values, kept)
    folder = sitting.get("folder") or book_folder()
    shown = ran.shown or [machine_of(folder)]
    dates = [one["date"] for one in shown]
    earlier = before.metadata.get("recorded", {})
    if kept:  # what is kept was measured on days that the page tells already
        dates += [earlier[key] for key in ("since", "date") if key in earlier]
    more = {"redrawn": datetime.now(UTC).strftime("%Y-%m-%d"), "waiting": waiting}
    if "seconds" in earlier:
        more["seconds"] = earlier["seconds"]
    stamp.put_facts(notebook, max(shown, key=lambda one: one["date"]), dates, **more)
    stamp.put(notebook, kept)
    write(notebook, path)


def run(path, target, **sitting):
    """Execute the notebook at ``path`` and write what comes out to ``target``.

    Raises:
        CellExecutionError: a cell failed for a reason that is not excused.
    """
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, target, sitting, allow_errors=True)
    stopped = stopped_cells(notebook)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("recorded", None)
        if error := stopped.get(part.get("id")):
            reason = error.evalue if error.ename in EXCUSED else "it needs the part above"
            show_instead(part, f"*Not shown: {reason}*")
    write(notebook, target)
    NotebookNotary().sign(notebook)  # else JupyterLab would not show its figures
    print(f"{path.name}: {target}")


def refuse_failures(notebook, failed, kept=()):
    """Let no page be written that says what its run does not show.

    Args:
        notebook: after it was executed.
        failed: of inline values, (cell id, expression).
        kept: ids of cells whose outputs were made earlier.

    Raises:
        FalsePage: a claim does not hold, or an inline value has failed.
    """
    claims = [name for cell in notebook.cells if cell.id not in kept for name in failed_in(cell)]
    values = [expression for _, expression in sorted(failed)]
    reasons = [f"the claim {name} does not hold" for name in claims]
    reasons += [f"the inline value {value} cannot be evaluated" for value in values]
    if reasons:
        raise FalsePage(f"The page would not be true: {'; '.join(reasons)}.")
