"""What stays as it was when a page is redrawn: what only a GPU could show.

That is what a cell shows that ends without a record or a GPU, or that measures on the spot, and what
depends on such a cell. Where a GPU has shown nothing yet, the page says so.
"""

from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_output

from .inline import MISSING, asked_in, store, stored_in
from .names import cells_behind, names_in
from .stamp import code_cells, shown

WAITING = "*Not measured yet: this part needs a run on a GPU.*"
ON_THE_SPOT = "on-the-spot"  # the tag of cells that measure without leaving a record
EXCUSED = ("NotRecorded", "NotMeasured", "NeedsGpu")  # classes of errors


def stopped_cells(notebook, excused=()):
    """Return the cells that an excused error stopped, or that miss a name from such a cell.

    Args:
        notebook: after it was executed.
        excused: the ids of cells of which every error is excused.

    Returns:
        A dict, cell id -> error output, in order.

    Raises:
        CellExecutionError: a cell failed for another reason.
    """
    cells, names, stopped = code_cells(notebook), [], {}
    for cell in cells:
        names.append(names_in(cell.source))
        error = next((one for one in cell.outputs if one.output_type == "error"), None)
        if error is None:
            continue
        behind = {cells[at].id for at in cells_behind(names)}
        misses_a_name = error.ename == "NameError" and behind & stopped.keys()
        if cell.id not in excused and error.ename not in EXCUSED and not misses_a_name:
            raise CellExecutionError.from_cell_and_msg(cell, error)
        stopped[cell.id] = error
    return stopped


def keep(notebook, before):
    """Put back what only a GPU could show.

    Args:
        notebook: after it was executed from records; changed in place.
        before: the same notebook as it was.

    Returns:
        Three things: the ids of the cells that keep their stamps; which inline values were put back, as
        a set of (cell id, expression); how many cells wait for their first run on a GPU.

    Raises:
        CellExecutionError: a cell failed for a reason that is not excused.
    """
    earlier = {cell.id: cell for cell in before.cells}
    foreign = _foreign(notebook)
    kept, waiting = set(), 0
    for cell in code_cells(notebook):
        if cell.id not in foreign:
            continue
        if _has_run(earlier[cell.id]):
            cell.outputs = earlier[cell.id].outputs
            kept.add(cell.id)
        else:
            show_instead(cell, WAITING)
            waiting += 1
    values = _foreign_values(notebook, foreign)
    for cell in notebook.cells:
        own = {expression for cell_id, expression in values if cell_id == cell.id}
        if own:
            _put_back(cell, earlier[cell.id], own)
            old = stored_in(earlier[cell.id])
            if any(old.get(expression, MISSING) != MISSING for expression in own):
                # Otherwise it says that nothing has been measured yet, and that is of today.
                kept.add(cell.id)
    return kept, values, waiting


def _foreign(notebook):
    """The ids of the cells that only a GPU can fill, and of those that depend on them."""
    cells, names = code_cells(notebook), []
    found = {cell.id for cell in cells if ON_THE_SPOT in cell.metadata.get("tags", ())}
    found |= stopped_cells(notebook, excused=found).keys()
    for cell in cells:
        names.append(names_in(cell.source))
        if found & {cells[at].id for at in cells_behind(names)}:
            found.add(cell.id)
    return found


def _foreign_values(notebook, foreign):
    """The inline values that depend on ``foreign`` cells: a set of (cell id, expression)."""
    cells = {cell.id: cell for cell in code_cells(notebook)}
    above, names, found = [], [], set()
    for cell in notebook.cells:
        if cell.id in cells:
            above.append(cell.id)
            names.append(names_in(cell.source))
        for asked in asked_in(cell):
            behind = cells_behind([*names, names_in(asked)])
            if foreign & {above[at] for at in behind}:
                found.add((cell.id, asked))
    return found


def _put_back(cell, earlier, expressions):
    """Give a cell its earlier inline values; if these were as they were stamped, its stamp says so."""
    old, stamped = stored_in(earlier), earlier.metadata.get("recorded", {})
    store(cell, stored_in(cell) | {one: old.get(one, MISSING) for one in expressions})
    if stamped.get("shown") == shown(earlier):
        cell.metadata["recorded"] = stamped | {"shown": shown(cell)}


def _has_run(cell):
    """Whether a cell has shown, or silently done, what is to be kept."""
    waits = any(one.get("data", {}).get("text/markdown") == WAITING for one in cell.outputs)
    return bool(cell.execution_count) and not waits


def show_instead(cell, words):
    """Put ``words``, as Markdown, in the place of what a cell has shown."""
    cell.outputs = [new_output("display_data", {"text/markdown": words})]
