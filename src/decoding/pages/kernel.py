"""Run a notebook's cells in a fresh kernel, its inline values with them."""

import ast
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from nbclient import NotebookClient
from tqdm import tqdm

from .inline import MISSING, asked_in, store
from .shelf import shown_in

# A notebook without a chapter has not imported the package, and is not made to.
WHAT_WAS_SHOWN = (
    f"(lambda shelf: shelf.{shown_in.__name__}(globals()) if shelf else [])"
    f"(__import__('sys').modules.get({shown_in.__module__!r}))"
)
QUIET = "--IPKernelApp.log_level=50"  # else each kernel warns that it listens on a port


class Ran(NamedTuple):
    """What is known after a run beside what the cells show.

    Attributes:
        shown: the machines of all records that the notebook has shown.
        failed: the inline values that could not be evaluated: a dict, (cell id, expression) -> why.
    """

    shown: list
    failed: dict


def execute(notebook, path, sitting=MappingProxyType({}), allow_errors=False):
    """Run ``notebook`` from top to bottom; what it shows is put in place of what it has shown.

    What goes to stderr is dropped. An inline value that fails is "–".

    Args:
        notebook: as nbformat reads it; changed in place.
        path: where it stands; its cells run in that folder.
        sitting: settings of the ``Sitting`` of its chapter, a dict.
        allow_errors: whether to go on after a cell that fails.

    Returns:
        A ``Ran``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        allow_errors=allow_errors,
        record_timing=False,
        extra_arguments=[QUIET, *(f"--Sitting.{key}={value}" for key, value in sitting.items())],
        resources={"metadata": {"path": str(Path(path).resolve().parent)}},
    )
    failed = {}
    with tqdm(notebook.cells, desc=Path(path).name, unit="cell") as bar, client.setup_kernel():
        for index, cell in enumerate(bar):
            if cell.cell_type == "code":
                client.execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
                cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
            elif cell.cell_type == "markdown":
                results = _ask(client, asked_in(cell))
                store(cell, {asked: _text(result) for asked, result in results.items()})
                for asked, result in results.items():
                    if result["status"] != "ok":
                        failed[cell.id, asked] = f"{result['ename']}: {result['evalue']}"
        (shown,) = _ask(client, [WHAT_WAS_SHOWN]).values()
    return Ran(ast.literal_eval(_text(shown)), failed)


def _ask(client, expressions):
    """What the kernel finds for ``expressions``: a dict, expression -> result."""
    if not expressions:
        return {}
    numbered = {str(number): expression for number, expression in enumerate(expressions)}
    asked = client.kc.execute("", silent=True, user_expressions=numbered)
    found = client.wait_for_reply(asked)["content"]["user_expressions"]
    return {expression: found[number] for number, expression in numbered.items()}


def _text(result):
    return result.get("data", {}).get("text/plain", MISSING)
