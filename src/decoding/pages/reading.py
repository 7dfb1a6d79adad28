"""What Sphinx reads of a notebook: its inline values put in, its figures in their form for a page."""

import nbformat

from decoding.drawing import for_page

from .inline import filled

SVG = "image/svg+xml"


def read(text):
    """Return the notebook in ``text`` as the book shows it; a reader for ``nb_custom_formats``.

    A cell whose code is not shown and that has no outputs is left out: it would be a gap in the page.

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
    return notebook


def _shows_nothing(cell):
    hidden = "remove-input" in cell.metadata.get("tags", ())
    return cell.cell_type == "code" and hidden and not cell.outputs
