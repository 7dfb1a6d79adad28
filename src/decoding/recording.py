"""Execute notebooks in place, stamp them with where and when, and tell whether they are still true."""

import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_output
from tqdm import tqdm

from .chapter import BOOK_GPU, BOOK_RECORDS, PROMPT_TOKENS, machine_of_the_book
from .figures import ladder, save_svg
from .fingerprint import fingerprint, rungs_named_in
from .records import load, slug, write_whole
from .rungs import RUNGS
from .worker import machine

SOLUTION = re.compile(r"(?P<fence>`{3,}|:{3,})\{solution(?P<gate>-start|-end|)\}")
LADDER = BOOK_RECORDS.parent / "_static" / "ladder.svg"
WAITING = "*Not measured yet: this part needs a run on a GPU.*"
ON_THE_SPOT = "on-the-spot"  # the tag of cells that measure without leaving a record
SETUP = "setup"  # the tag of the cell that fetches the book where there is no clone of it
STAMPED = ("gpu", "driver", "cuda", "torch", "transformers", "python")
# Run after a notebook's last cell: which records has it shown?
ASK_WHAT_WAS_READ = """
import json, sys
chapter = sys.modules.get("decoding.chapter")
print(json.dumps(chapter.machines_read if chapter else []))
"""


def record_notebooks(folder="notebooks", names=(), reuse_days=None):
    """Execute notebooks on this machine's GPU, in place, and stamp them.

    A notebook is written only after its last cell has run, so an interrupted or failed one stays
    as it was.

    Args:
        folder: where the notebooks are.
        names: beginnings of file names, such as "02"; none means all.
        reuse_days: how old a record may be that is read in place of measuring; default: six hours.

    Returns:
        0 if every notebook ran, else 1.
    """
    here = machine()
    if here["device"] != "cuda":
        sys.exit(
            "error: recording needs a CUDA GPU; the tests run the notebooks small without one."
        )
    failed = []
    for path in notebooks(folder, names):
        try:
            record(path, here, reuse_days)
        except Exception as error:
            failed.append(path.name)
            print(f"{path.name}: not recorded, left as it was\n{error}", file=sys.stderr)
    records = BOOK_RECORDS / slug(here["gpu"])
    if records.name == BOOK_GPU and not names:
        save_svg(ladder_figure(records), LADDER)
    return 1 if failed else 0


def notebooks(folder, names=()):
    """Return the notebooks in ``folder`` whose names begin with one of ``names``, in order.

    Raises:
        SystemExit: a name fits no notebook.
    """
    paths = sorted(Path(folder).glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in paths):
            known = ", ".join(path.stem for path in paths) or "none"
            sys.exit(f"error: no notebook in {folder} begins with {name!r}; there are: {known}.")
    return [path for path in paths if not names or path.name.startswith(tuple(names))]


def record(path, here, reuse_days=None):
    """Execute the notebook at ``path`` on this machine and write it back with its stamp."""
    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    environment = {"DECODING_RECORDING": "1"}
    if reuse_days:
        environment["DECODING_REUSE_DAYS"] = str(reuse_days)
    read = execute_and_ask(notebook, path, environment)
    _stamp(
        notebook,
        here,
        [here["date"], *(machine["date"] for machine in read)],
        seconds=round(time.monotonic() - began),
    )
    write_whole(Path(path), nbformat.writes(notebook) + "\n")


def _stamp(notebook, machine, dates, **more):
    """Say in the notebook's metadata where and when its numbers were measured, and by what code."""
    cells = code_cells(notebook)
    first, last = min(dates), max(dates)
    notebook.metadata["recorded"] = {
        **{key: machine[key] for key in STAMPED},
        **({"since": first} if first[:10] != last[:10] else {}),
        "date": last,
        **more,
        "hash": fingerprint(rungs_named_in(cells), cells),
    }


def redraw_notebooks(folder="notebooks", names=()):
    """Execute notebooks in place with the book's records in place of measurements.

    For a machine without a GPU: after a change to a figure, say, or before every part of a chapter
    has been measured. What needs a GPU keeps the outputs that it has; if it has none, the page says
    that it is still to be measured. Cells tagged "on-the-spot" measure something without leaving a
    record: they keep their outputs, too, so change the code of such a cell only where you can run it.

    Its arguments are those of ``record_notebooks``.

    Returns:
        0 if every notebook was redrawn, else 1.
    """
    failed = []
    for path in notebooks(folder, names):
        try:
            redraw(path)
        except Exception as error:
            failed.append(path.name)
            print(f"{path.name}: not redrawn, left as it was\n{error}", file=sys.stderr)
    if not names:
        save_svg(ladder_figure(BOOK_RECORDS / BOOK_GPU), LADDER)
    return 1 if failed else 0


def redraw(path):
    """Redraw the notebook at ``path`` from the book's records and stamp it with their machine.

    Raises:
        CellExecutionError: a cell failed for another reason than a missing record or GPU.
    """
    notebook = nbformat.read(path, as_version=4)
    earlier = notebook.metadata.get("recorded", {})
    before = {
        cell.id: cell.outputs
        for cell in notebook.cells
        if cell.get("execution_count") and not is_waiting(cell)
    }
    read = execute_and_ask(notebook, path, {"DECODING_REDRAWING": "1"}, allow_errors=True)
    waiting, kept = 0, False
    for cell, _ in stopped_cells(notebook, _needs_a_gpu):
        if cell.id in before:
            cell.outputs = before[cell.id]
        else:
            waiting += 1
            show_instead(cell, WAITING)
    for cell in notebook.cells:
        if ON_THE_SPOT in cell.metadata.get("tags", ()) and cell.id in before:
            cell.outputs, kept = before[cell.id], True
    there = max(read or [machine_of_the_book()], key=lambda machine: machine["date"])
    dates = [machine["date"] for machine in read or [there]]
    if kept and "date" in earlier:  # then it was measured on the spot
        dates.append(earlier["date"])
    _stamp(
        notebook,
        there,
        dates,
        **{key: earlier[key] for key in ("seconds",) if key in earlier},
        redrawn=datetime.now(UTC).strftime("%Y-%m-%d"),
        waiting=waiting,
    )
    write_whole(Path(path), nbformat.writes(notebook) + "\n")


def is_waiting(cell):
    """Whether a cell's output says that it is still to be measured."""
    return any(out.get("data", {}).get("text/markdown") == WAITING for out in cell.outputs)


def _needs_a_gpu(error):
    """Whether a cell failed because there is no record of what it asks for, or no GPU."""
    return error.ename == "NotRecorded" or "NVIDIA" in error.evalue or "CUDA" in error.evalue


def stopped_cells(notebook, excused):
    """Yield the cells that an excused error stopped, and those that miss a name from such a cell.

    Yields:
        Pairs: the cell, its error output.

    Raises:
        CellExecutionError: a cell failed for another reason.
    """
    stopped = 0
    for cell in notebook.cells:
        error = next((one for one in cell.get("outputs", ()) if one.output_type == "error"), None)
        if error is None:
            continue
        if not (excused(error) or (stopped and error.ename == "NameError")):
            raise CellExecutionError.from_cell_and_msg(cell, error)
        stopped += 1
        yield cell, error


def show_instead(cell, words):
    """Put ``words``, as Markdown, in the place of what a cell has shown."""
    cell.outputs = [new_output("display_data", {"text/markdown": words})]


def execute(notebook, path, environment=None, allow_errors=False):
    """Run every cell of ``notebook`` in a fresh kernel, its outputs put in place of the old ones.

    Args:
        notebook: as nbformat reads it; changed in place.
        path: where it stands; its cells run in that folder.
        environment: variables for the kernel, over those of this process.
        allow_errors: whether to go on after a cell that fails.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    with tqdm(total=cells, desc=Path(path).name, unit="cell") as bar:
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            allow_errors=allow_errors,
            resources={"metadata": {"path": str(Path(path).resolve().parent)}},
            on_cell_executed=lambda **_: bar.update(),
        )
        client.execute(env=os.environ | (environment or {}))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def execute_and_ask(notebook, path, environment, allow_errors=False):
    """Run ``notebook`` as ``execute`` does; return the machines of all records that it has shown."""
    notebook.cells.append(new_code_cell(ASK_WHAT_WAS_READ))
    execute(notebook, path, environment, allow_errors)
    return json.loads(notebook.cells.pop().outputs[0].text)


def run_notebooks(folder="notebooks", names=(), target="_build/run"):
    """Execute copies of the notebooks on this machine, with a GPU or small without one.

    A measurement that fails, for want of memory say, stops no notebook: the parts that need its
    numbers say what is missing.

    Args:
        folder: where the notebooks are; they stay as they are.
        names: beginnings of file names; none means all.
        target: the folder for the executed copies.

    Returns:
        0 if every notebook ran, else 1.
    """
    Path(target).mkdir(parents=True, exist_ok=True)
    failed = []
    for path in notebooks(folder, names):
        notebook = nbformat.read(path, as_version=4)
        try:
            execute(notebook, Path(target) / path.name, allow_errors=True)
            for cell, error in stopped_cells(notebook, lambda error: error.ename == "NotMeasured"):
                reason = error.evalue if error.ename == "NotMeasured" else "it needs the part above"
                show_instead(cell, f"*Not shown: {reason}*")
        except CellExecutionError as error:
            failed.append(path.name)
            print(f"{path.name}: stopped\n{error}", file=sys.stderr)
        else:
            notebook.metadata.pop("recorded", None)
            write_whole(Path(target) / path.name, nbformat.writes(notebook) + "\n")
            NotebookNotary().sign(notebook)  # else JupyterLab would not show its figures
            print(f"{path.name}: {Path(target) / path.name}")
    return 1 if failed else 0


def student_notebooks(folder="notebooks", target="_build/student"):
    """Write copies of the notebooks without outputs and without the exercises' solutions.

    Args:
        folder: where the notebooks are; they stay as they are.
        target: the folder for the copies.

    Returns:
        Always 0, the shell's word for success.
    """
    Path(target).mkdir(parents=True, exist_ok=True)
    for path in notebooks(folder):
        notebook = without_solutions(nbformat.read(path, as_version=4))
        write_whole(Path(target) / path.name, nbformat.writes(notebook) + "\n")
        print(Path(target) / path.name)
    return 0


def without_solutions(notebook):
    """Return ``notebook`` without outputs, widgets, stamp and everything inside a solution."""
    kept, inside = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines = []
            fence = None
            for line in cell.source.split("\n"):
                opened = SOLUTION.match(line)
                if fence is None and opened and not inside:
                    if opened["gate"] == "-start":
                        inside = True
                    fence = opened["fence"]
                    continue
                if fence is not None:
                    if line.rstrip() == fence:
                        fence = None
                    continue
                if inside:
                    if opened and opened["gate"] == "-end":
                        inside, fence = False, opened["fence"]
                    continue
                lines.append(line)
            cell.source = "\n".join(lines).strip()
            if cell.source:
                kept.append(cell)
        elif not inside:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            kept.append(cell)
    notebook.cells = kept
    for key in ("recorded", "widgets"):
        notebook.metadata.pop(key, None)
    return notebook


def code_cells(notebook):
    """Return the sources of the notebook's code cells, without the one that sets it up."""
    return [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and SETUP not in cell.metadata.get("tags", ())
    ]


def setup_source(address=""):
    """Return the source of a notebook's first code cell.

    In a clone of the book it finds the package and does nothing. Elsewhere, as in Colab, it fetches
    the book and installs what it needs.

    Args:
        address: of the book's repository; without one, the cell says how to get the package.
    """
    fetch = """\
        raise ModuleNotFoundError(
            "The package decoding is not installed: in a clone of the book, `make lab` installs "
            "it and opens the notebooks."
        )
"""
    if address:
        fetch = f"""\
        clone = Path("token-by-token")
        address = "{address}"
        get_ipython().system(f"git clone --quiet --depth 1 {{address}} {{clone}}")
        get_ipython().run_line_magic("pip", f"install --quiet ./{{clone}}")
"""
    return f"""\
# In a clone of the book this does nothing. Elsewhere, in Colab say, it fetches the book.
import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("decoding") is None:
    clone = Path("..")
    if not (clone / "src" / "decoding").is_dir():
{fetch}    sys.path.insert(0, str((clone / "src").resolve()))"""


def write_address(folder="notebooks", configuration="_config.yml"):
    """Write the repository's address of ``configuration`` into every notebook's first code cell.

    Returns:
        0.
    """
    import yaml  # here, since only the book has a configuration

    settings = yaml.safe_load(Path(configuration).read_text(encoding="utf-8"))
    source = setup_source(settings["repository"]["url"])
    for path in notebooks(folder):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if SETUP in cell.metadata.get("tags", ()):
                cell.source = source
        write_whole(path, nbformat.writes(notebook) + "\n")
    return 0


def freshness(path):
    """Return whether the numbers in the notebook at ``path`` come from the code as it is now.

    Returns:
        One of three words. "fresh" says that the code is the same, "stale" that the chapter's
        cells, its rungs' loops or the measurement have changed since, "unrecorded" that the notebook
        was never recorded on a GPU.
    """
    notebook = nbformat.read(path, as_version=4)
    recorded = notebook.metadata.get("recorded")
    if not recorded:
        return "unrecorded"
    cells = code_cells(notebook)
    return "fresh" if recorded["hash"] == fingerprint(rungs_named_in(cells), cells) else "stale"


def ladder_figure(folder):
    """Return the book's first figure: time per token, rung by rung, from the records in ``folder``.

    Raises:
        FileNotFoundError: a rung has no record.
    """
    loaded = []
    for name in RUNGS:
        paths = sorted(Path(folder).glob(f"{name}_gpt2_b32_p{PROMPT_TOKENS}_*.json"))
        if not paths:
            raise FileNotFoundError(
                f"{folder} has no record of {name!r} at batch 32: run `make record`."
            )
        loaded.append(load(paths[0]))
    first, last = (record["time"]["per_token_ms"]["median"] for record in (loaded[0], loaded[-1]))
    title = f"A token takes {first:.1f} ms on the first rung and {last:.2f} ms on the last"
    return ladder(loaded, title, caption=f"{loaded[0]['machine']['gpu']}, GPT-2, batch 32.")
