"""A board of claims: a row a claim, a mark for each place where it was tested, opened for reasons."""

from typing import NamedTuple
from xml.etree import ElementTree

from matplotlib import rc_context

from .folded import HtmlPicture
from .shapes import bars, canvas, disc, lines, text_width, write
from .svg import Panel, Picture
from .theme import FOREGROUND, GRID, MUTED, STYLE, THEME, WIDE

MET, MORE, NOT_MET, NOT_SHOWN = "met", "more than claimed", "not met", "not shown"
# Filled, ringed and crossed: a mark tells by its form, and a colour says nothing more.
SHAPES = {
    MET: '<circle cx="8" cy="8" r="6" fill="currentColor"/>',
    MORE: '<path d="M8 1 15 14H1z" fill="currentColor"/>',
    NOT_MET: '<path d="M3 3 13 13M13 3 3 13" stroke="currentColor" stroke-width="2.6"/>',
    NOT_SHOWN: '<circle cx="8" cy="8" r="5.2" fill="none" stroke="currentColor" stroke-width="1.8"/>',
}
ROW = 46  # pixels, of the picture
LINE = f"1px solid {THEME[GRID]}"
# Beside each other where there is room; on a phone the claim has a line of its own.
COLUMNS = "display:flex;flex-wrap:wrap;gap:0.1rem 0.9rem"
CLAIM = "flex:1 1 16rem;padding-left:1.1rem;text-indent:-1.1rem"
MARKED, VERDICT = "flex:0 0 12.5rem", "flex:0 0 8.5rem;font-weight:600"
QUIET = f"color:{THEME[MUTED]};font-size:0.88em"


class Tested(NamedTuple):
    """A place where a claim was tested: "at batch 32", "32" for short, what came out, in figures."""

    place: str
    short: str
    mark: str
    figures: str = ""


class Row(NamedTuple):
    """A claim: its words, its verdict with a sign before it, where it was tested, its rule, a link."""

    claim: str
    verdict: str
    tested: list
    rule: str = ""
    link: str = ""


def board(rows, title, *, caption=None):
    """Draw the board.

    Args:
        rows: a ``Row`` for each claim.
        title: what the verdicts come to.
        caption: a sentence below it.

    Returns:
        An ``HtmlPicture``. A row opens by a click, or by Enter or Space.
    """
    figure = ElementTree.Element("figure", {"class": "ttb-board", "style": "margin:1em 0"})
    ElementTree.SubElement(
        ElementTree.SubElement(figure, "div", {"class": "ttb-title"}), "strong"
    ).text = title
    key = ElementTree.SubElement(figure, "div", {"class": "ttb-board-key", "style": QUIET})
    for mark in SHAPES:
        key.append(_marked(mark, mark))
    for row in rows:
        figure.append(_element(row))
    if caption:
        ElementTree.SubElement(figure, "figcaption").text = caption
    return HtmlPicture(
        ElementTree.tostring(figure, encoding="unicode"), _picture(rows, title, caption)
    )


def _element(row):
    element = ElementTree.Element("details", {"class": "ttb-claim", "style": f"border-top:{LINE}"})
    summary = ElementTree.SubElement(
        element, "summary", {"style": f"{COLUMNS};padding:0.45rem 0;cursor:pointer"}
    )
    claim = ElementTree.SubElement(summary, "span", {"style": CLAIM})
    arrow = {"class": "ttb-claim-arrow", "aria-hidden": "true", "style": f"color:{THEME[MUTED]}"}
    ElementTree.SubElement(claim, "span", arrow).text = "▸"
    claim[0].tail = f" {row.claim}"
    marks = ElementTree.SubElement(summary, "span", {"style": MARKED})
    for each in row.tested:
        marks.append(_marked(each.mark, each.short, f"{each.place}: {each.mark}"))
    ElementTree.SubElement(summary, "span", {"style": VERDICT}).text = row.verdict
    box = ElementTree.SubElement(element, "div", {"style": "padding:0 0 0.8rem 1.1rem"})
    if row.rule:
        ElementTree.SubElement(box, "p", {"style": "margin:0 0 0.3rem"}).text = row.rule
    places = ElementTree.SubElement(box, "ul", {"style": "margin:0 0 0.3rem"})
    for each in row.tested:
        said = f"{each.place}: {each.mark}" + (f" ({each.figures})" if each.figures else "")
        ElementTree.SubElement(places, "li").text = said
    if not row.tested:
        ElementTree.SubElement(places, "li").text = "not tested on this machine"
    if row.link:
        ElementTree.SubElement(box, "a", {"href": row.link}).text = "The reasons"
    element.tail = "\n"
    return element


def _marked(mark, words, said=None):
    """A mark and its words; ``said`` is what is read aloud in place of both."""
    element = ElementTree.Element(
        "span",
        {"style": "display:inline-block;position:relative;margin-right:0.75em;white-space:nowrap"},
    )
    size = {"viewBox": "0 0 16 16", "width": "0.85em", "height": "0.85em"}
    drawing = ElementTree.SubElement(
        element, "svg", size | {"style": "vertical-align:-0.06em", "aria-hidden": "true"}
    )
    drawing.append(ElementTree.fromstring(SHAPES[mark]))
    shown = ElementTree.SubElement(element, "span", {"aria-hidden": "true"} if said else {})
    shown.text = f"\N{NO-BREAK SPACE}{words}"
    if said:
        element.set("title", said)
        hidden = "position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden"
        ElementTree.SubElement(element, "span", {"style": hidden}).text = f"{said}; "
    return element


def _picture(rows, title, caption):
    said = [
        f"{row.claim}: {row.verdict}"
        + "".join(f"; {each.place} {each.mark}" for each in row.tested)
        + "."
        for row in rows
    ]
    alt = " ".join([f"{title.rstrip('.')}.", *said])
    key = "filled: met · triangle: more than claimed · cross: not met · ring: not shown"
    with rc_context(STYLE):
        fig, ax = canvas(WIDE, ROW * len(rows) + 4)
        for at, row in enumerate(rows):
            y = ROW * at
            lines(ax, [((0, y + 1), (WIDE, y + 1))], colour=GRID)
            write(ax, 0, y + 18, row.claim)
            write(ax, WIDE, y + 18, row.verdict, bold=True, align="right")
            x = 0
            for each in row.tested:
                _draw_mark(ax, x + 6, y + 33, each.mark)
                write(ax, x + 18, y + 37.5, each.short, muted=True)
                x += 36 + text_width(each.short)
    return Picture(title, [Panel(key, fig, "detail")], caption, alt=alt)


def _draw_mark(ax, x, y, mark):
    if mark == MET:
        disc(ax, x, y, 5, fill=FOREGROUND)
    elif mark == MORE:
        lines(ax, [((x - 5, y + 5), (x + 5, y + 5)), ((x + 5, y + 5), (x, y - 5))], width=2)
        lines(ax, [((x, y - 5), (x - 5, y + 5))], width=2)
        bars(ax, [(x - 2, y, 4, 4)], fill=FOREGROUND)
    elif mark == NOT_MET:
        lines(ax, [((x - 4, y - 4), (x + 4, y + 4)), ((x - 4, y + 4), (x + 4, y - 4))], width=2.2)
    else:
        disc(ax, x, y, 4.5, edge=FOREGROUND)
