"""HTML with a picture that stands in for it; a picture with its numbers folded below it."""

from xml.etree import ElementTree

from .svg import page_element


class HtmlPicture:
    """A piece of HTML that displays itself; where there is no HTML, its picture does.

    Attributes:
        html: works in the book, in JupyterLab and from a file, without a script file.
        picture: a ``Picture`` that says the same.
        table: the ``Table`` with its numbers, or None.
    """

    def __init__(self, html, picture, table=None):
        self.html, self.picture, self.table = html, picture, table

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {
            "text/html": self.html,
            "image/svg+xml": self.picture.svg,
            "text/plain": self.picture.alt,
        }

    def __repr__(self):
        return self.picture.alt


def with_numbers(picture, table):
    """Return a picture with the table of its numbers folded below it: a click or Enter opens it.

    Args:
        picture: a ``Picture``.
        table: a ``Table``.

    Returns:
        An ``HtmlPicture``.
    """
    figure = page_element(picture)
    fold = ElementTree.SubElement(figure, "details", {"class": "ttb-numbers"})
    ElementTree.SubElement(fold, "summary").text = "The numbers"
    fold.append(table_element(table))
    return HtmlPicture(ElementTree.tostring(figure, encoding="unicode"), picture, table)


def table_element(table):
    """Return a ``Table`` as an element, in a box that scrolls where it is too wide."""
    attributes = {"class": "ttb-scroll", "style": "overflow-x:auto", "tabindex": "0"}
    attributes |= {"role": "group", "aria-label": table.caption or "table"}
    box = ElementTree.Element("div", attributes)
    element = ElementTree.SubElement(box, "table", {"class": "ttb-table"})
    if table.caption:
        ElementTree.SubElement(element, "caption").text = table.caption
    for cells, tag in ((table.head, "th"), *((row, "td") for row in table.rows)):
        row = ElementTree.SubElement(element, "tr")
        for words, right in zip(cells, table.right, strict=True):
            align = {"style": f"text-align:{'right' if right else 'left'}"}
            ElementTree.SubElement(row, tag, align).text = words
    return box
