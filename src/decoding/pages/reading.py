"""What Sphinx reads of a notebook: its inline values put in, its figures in their form for a page.

A page begins with what it is about: its imports and the sentence that says on what it was measured are
folded, as "Setup", below the prediction.
"""

import re

import nbformat
from nbformat.v4 import new_markdown_cell

from decoding.drawing import for_page

from .inline import filled

SVG = "image/svg+xml"
PREDICT = re.compile(r"^:class: predict$", re.M)
SECTION = re.compile(r"^(?=## )", re.M)
SEAT = "-seat"  # the end of the id of the cell that says on what the page was measured
SETUP = """<details class="ttb-setup"><summary>Setup</summary>

{seat}

```python
{code}
```

</details>
"""


def read(text):
    """Return the notebook in ``text`` as the book shows it; a reader for ``nb_custom_formats``.

    A cell whose code is not shown and that has no outputs is left out: it would be a gap in the page.
    The set-up is folded below the prediction, if there is one.

    Args:
        text: of an .ipynb file.
    """
    notebook = nbformat.reads(text, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not _shows_nothing(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = filled(cell)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if SVG in data and "text/html" not in data:
                data["text/html"] = for_page(data.pop(SVG))
    notebook.cells = _with_setup_folded(notebook.cells)
    return notebook


def _with_setup_folded(cells):
    """The cells, with the code before the prediction and the seat in one, at the end of its section.

    They stay as they are on a page that predicts nothing. Code that shows something keeps its place.
    """
    at = next((at for at, cell in enumerate(cells) if _predicts(cell)), None)
    if at is None:
        return cells
    setup = [cell for cell in cells[:at] if cell.cell_type == "code" and not cell.outputs]
    seat = [cell for cell in cells if cell.id.endswith(SEAT)]
    if not setup:
        return cells
    code = "\n\n".join(cell.source for cell in setup)
    folded = SETUP.format(seat="\n\n".join(cell.source for cell in seat), code=code)
    source = cells[at].source
    section = SECTION.search(source, PREDICT.search(source).end())
    cut = section.start() if section else len(source)
    parts = {"predict": source[:cut], "setup": folded, "rest": source[cut:]}
    new = [new_markdown_cell(part, id=f"{cells[at].id}-{name}") for name, part in parts.items()]
    gone = {cell.id for cell in (*setup, *seat)}
    kept = [
        [cell for cell in some if cell.id not in gone] for some in (cells[:at], cells[at + 1 :])
    ]
    return [*kept[0], *new, *kept[1]]


def _predicts(cell):
    return cell.cell_type == "markdown" and PREDICT.search(cell.source)


def _shows_nothing(cell):
    hidden = "remove-input" in cell.metadata.get("tags", ())
    return cell.cell_type == "code" and hidden and not cell.outputs
