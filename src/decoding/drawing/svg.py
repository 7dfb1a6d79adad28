"""A figure as one picture: an SVG that every viewer shows, and the same figure for the book's pages.

``Picture`` puts title, headings, drawings and caption below each other in one SVG with plain colours
and a white ground. ``for_page`` takes it apart again: what is text becomes HTML that wraps, drawings
stand beside each other where there is room, and colours follow the page's theme. The same figure
always gives the same bytes, and no id is used that two figures of a page could share.
"""

import copy
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from matplotlib.figure import Figure

from .drawn import drawn
from .shapes import wrapped
from .theme import BACKGROUND, FONT, FOREGROUND, LARGEST, MUTED, THEME, WIDTH

NAMESPACE = "http://www.w3.org/2000/svg"
FAMILY = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MARGIN, GAP = 16, 16  # pixels
SMALL, QUIET = FONT, "font-size:0.86em;line-height:1.45"


class Look(NamedTuple):
    """How a text looks in a picture, with its room above and below, and in a page: class and style."""

    size: float
    bold: bool
    colour: str
    above: float
    below: float
    html: str  # its class
    style: str = ""


TEXTS = {
    "title": Look(15, True, FOREGROUND, 0, 8, "ttb-title"),
    "headline": Look(14, True, FOREGROUND, 12, 2, "ttb-headline", "margin:1rem 0 0.2rem"),
    "detail": Look(SMALL, False, MUTED, 0, 2, "ttb-detail", f"{QUIET};color:{THEME[MUTED]}"),
    "note": Look(SMALL, False, FOREGROUND, 0, 2, "ttb-note", QUIET),
    "group": Look(13.5, True, FOREGROUND, 8, 6, "ttb-group", "margin-top:0.5rem"),
    "heading": Look(SMALL, False, FOREGROUND, 4, 4, "ttb-axis", f"{QUIET};margin-top:0.3rem"),
    "caption": Look(SMALL, False, MUTED, 6, 0, ""),
}


class Panel(NamedTuple):
    """A drawing with a heading above it, or words alone.

    ``kind`` is how the words look: "heading" (of an axis), "group" (of rows),
    "headline", "detail" (below it) or "note".
    ``alt`` says what this panel shows; with one drawing the picture's own is enough.
    """

    heading: str = ""
    drawing: Figure | None = None
    kind: str = "heading"
    alt: str = ""


class Picture:
    """A figure that displays itself: as an SVG, and as text what it says."""

    def __init__(self, title, rows, caption="", *, alt, kind="", narrow=()):
        """Put a figure together.

        Args:
            title: its message, above it; "" for none.
            rows: from top to bottom. A row is a list of panels, from left to right, or one panel: a
                ``Panel`` or (heading, matplotlib figure).
            caption: a sentence below it.
            alt: what the figure says, with its numbers.
            kind: a class name that it has in a page beside "ttb-figure".
            narrow: the rows again, drawn for a phone: a page shows those or these.

        Raises:
            ValueError: a drawing has hatching, a gradient or a clip, whose ids figures would share.
        """
        self.title, self.caption, self.alt = title or "", caption or "", alt
        self.kind = f"ttb-figure {kind}".strip()
        self._rows, self._narrow = _all_drawn(rows), _all_drawn(narrow)

    @property
    def svg(self):
        """The whole figure as one SVG."""
        root = _stacked(self)
        for element in root.iter():  # a panel a line: a small change is a small difference
            element.tail = "\n" if element.tag in ("g", "rect") else None
        return ElementTree.tostring(root, encoding="unicode")

    def with_caption(self, caption):
        """Return the same figure with another caption."""
        other = copy.copy(self)
        other.caption = caption
        return other

    def save(self, path):
        """Write the SVG to a file, for a README, say."""
        Path(path).write_text(self.svg + "\n", encoding="utf-8")

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/svg+xml": self.svg, "text/plain": self.alt}

    def __repr__(self):
        return self.alt


def _all_drawn(rows):
    rows = [row if isinstance(row, list) else [row] for row in rows]
    return [[_Drawn(Panel(*panel)) for panel in row] for row in rows]


class _Drawn:
    """A panel with its drawing as an element, and its size in pixels."""

    def __init__(self, panel):
        self.words, self.kind, self.alt = panel.heading, panel.kind, panel.alt
        self.element = drawn(panel.drawing) if panel.drawing else None
        size = self.element.get("viewBox").split()[2:] if panel.drawing else (0, 0)
        self.width, self.height = map(float, size)


def _stacked(picture):
    """The element of the whole picture: everything below each other."""
    rows = picture._rows
    widths = [sum(panel.width for panel in row) + GAP * (len(row) - 1) for row in rows]
    inside = max([WIDTH, *widths])
    root = ElementTree.Element("svg", xmlns=NAMESPACE)
    y = MARGIN + _put(root, "title", picture.title, MARGIN, MARGIN, inside)
    for row in rows:
        y += _put_row(ElementTree.SubElement(root, "g", {"class": "row"}), row, y, inside)
    for row in picture._narrow:  # seen in a page only
        group = ElementTree.SubElement(root, "g", {"class": "row narrow", "display": "none"})
        _put_row(group, row, 0, inside)
    y += _put(root, "caption", picture.caption, MARGIN, y, inside)
    width, height = f"{inside + 2 * MARGIN:g}", f"{y + MARGIN:.0f}"
    ground = {"width": width, "height": height, "fill": BACKGROUND}
    root.insert(0, ElementTree.Element("rect", ground))
    root.attrib |= {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    root.attrib |= {"class": picture.kind, "font-family": FAMILY}
    root.attrib |= {"role": "img", "aria-label": picture.alt}
    return root


def _put_row(group, row, y, inside):
    """Put panels beside each other, their drawings at one height; return the height of the row."""
    x, placed = MARGIN, []
    for panel in row:
        cell = ElementTree.SubElement(group, "g", {"class": "panel"})
        room = panel.width or inside
        placed.append((cell, panel, x, _put(cell, panel.kind, panel.words, x, y, room)))
        x += room + GAP
    words = max(height for *_, height in placed)
    for cell, panel, x, _ in placed:
        if panel.element is None:
            continue
        drawing = copy.copy(panel.element)
        place = {"x": f"{x:g}", "y": f"{y + words:.1f}"}
        place |= {"width": f"{panel.width:g}", "height": f"{panel.height:g}"}
        drawing.attrib = place | drawing.attrib | ({"aria-label": panel.alt} if panel.alt else {})
        cell.append(drawing)
    tallest = max(panel.height for panel in row)
    return words + tallest + (6 if tallest else 0)


def _put(parent, kind, words, x, y, room):
    """Write text that wraps, from ``y`` down; return its height, 0 for no text."""
    look = TEXTS[kind]
    lines = wrapped(words, room, look.size, look.bold)
    if not lines:
        return 0
    style = {"class": kind, "font-size": f"{look.size:g}", "fill": look.colour}
    text = ElementTree.SubElement(parent, "text", style)
    if look.bold:
        text.set("font-weight", "600")
    step = 1.35 * look.size
    for number, line in enumerate(lines):
        baseline = y + look.above + number * step + look.size
        place = {"x": f"{x:g}", "y": f"{baseline:.1f}"}
        ElementTree.SubElement(text, "tspan", place).text = line
    return look.above + len(lines) * step + look.below


def for_page(svg):
    """Return the HTML of a figure for the book, from a ``Picture``'s SVG; any other SVG as it is."""
    root = ElementTree.fromstring(svg)
    if not root.get("class", "").startswith("ttb-figure"):
        return svg
    return ElementTree.tostring(_page_figure(root), encoding="unicode")


def page_element(picture):
    """Return what ``for_page`` writes of a ``Picture``, as an element."""
    return _page_figure(ElementTree.fromstring(picture.svg))


def _page_figure(root):
    for element in root.iter():
        element.tag, element.tail = element.tag.rpartition("}")[2], None
    figure = ElementTree.Element("figure", {"class": root.get("class")})
    alts, narrow_alts = [root.get("aria-label")], [root.get("aria-label")]
    groups = [part for part in root if part.tag == "g"]
    both = any(_is_narrow(part) for part in groups)
    for part in root:
        if part.tag == "text":
            figure.append(_page_text(part))
        elif part.tag == "g":
            row = _page_row(part, narrow_alts if _is_narrow(part) else alts)
            if both:
                row.set(
                    "class", f"{row.get('class')} ttb-{'narrow' if _is_narrow(part) else 'wide'}"
                )
            if _is_narrow(part):
                row.set("style", f"{row.get('style', '')};display:none".lstrip(";"))
            figure.append(row)
        part.tail = "\n"
    return figure


def _is_narrow(part):
    return "narrow" in part.get("class", "").split()


def _page_text(text):
    look = TEXTS[text.get("class")]
    tag = "figcaption" if text.get("class") == "caption" else "div"
    attributes = {"class": look.html, "style": look.style}
    element = ElementTree.Element(tag, {key: value for key, value in attributes.items() if value})
    inner = ElementTree.SubElement(element, "strong") if look.bold else element
    inner.text = " ".join(text.itertext())
    return element


def _page_row(row, alts):
    """A row of panels: beside each other where there is room, else below each other."""
    if len(row) == 1:
        return _page_panel(row[0], {"class": "ttb-panel"}, alts)
    style = "display:flex;flex-wrap:wrap;align-items:flex-end;gap:0.5rem 1rem"
    element = ElementTree.Element("div", {"class": "ttb-row", "style": style})
    for panel in row:
        attributes = {"class": "ttb-panel", "style": "flex:1 1 290px;min-width:0"}
        element.append(_page_panel(panel, attributes, alts))
    return element


def _page_panel(panel, attributes, alts):
    """The heading of a panel as text and its drawing. ``alts`` holds what the first one is to say."""
    element = ElementTree.Element("div", attributes)
    for part in panel:
        if part.tag == "text":
            element.append(_page_text(part))
        else:
            own = part.get("aria-label") or (alts.pop() if alts else None)
            element.append(_page_drawing(part, own))
    return element


def _page_drawing(drawing, alt):
    """A drawing in the colours of the page; one that is wide scrolls where the page is narrow."""
    width = float(drawing.attrib.pop("width"))
    for key in ("x", "y", "height"):
        del drawing.attrib[key]
    for element in drawing.iter():
        for key in {"style", "fill"} & element.attrib.keys():
            element.set(key, _themed(element.get(key)))
    size = f"display:block;width:100%;max-width:{LARGEST * width:.0f}px;height:auto"
    wide = width > LARGEST * WIDTH
    drawing.set("style", f"{size};overflow:visible" + (f";min-width:{width:.0f}px" if wide else ""))
    drawing.attrib |= {"role": "img", "aria-label": alt} if alt else {"aria-hidden": "true"}
    if not wide:
        return drawing
    style = {"class": "ttb-scroll", "style": "overflow-x:auto", "tabindex": "0"}
    box = ElementTree.Element("div", style | {"role": "group", "aria-label": "wide drawing"})
    box.append(drawing)
    return box


def _themed(style):
    return re.sub(r"#[0-9A-Fa-f]{6}\b", lambda found: THEME.get(found[0].upper(), found[0]), style)
