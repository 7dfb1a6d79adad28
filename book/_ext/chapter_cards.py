"""The directive ``{chapters}``: every chapter as a card with its sentence and what it has gained."""

from xml.etree import ElementTree

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from decoding.pages import cover


def html_of(parts, link):
    """Return the cards as HTML.

    Args:
        parts: caption -> a list of ``Card``.
        link: a function from a page's name to its address.
    """
    box = ElementTree.Element("div")
    for caption, cards in parts.items():
        if [card.name for card in cards] != [caption]:  # a page that is a part of its own
            heading = {"class": "ttb-part", "role": "heading", "aria-level": "3"}
            ElementTree.SubElement(box, "p", heading).text = caption
        rows = ElementTree.SubElement(box, "ol", {"class": "ttb-cards"})
        for card in cards:
            item = ElementTree.SubElement(rows, "li")
            item.append(_card(card, link(card.page)))
    return ElementTree.tostring(box, encoding="unicode")


def _card(card, address):
    link = ElementTree.Element("a", {"class": "ttb-card", "href": address})
    name = _part(link, "name", "" if card.number else card.name)
    if card.number:
        _part(name, "number", card.number).tail = f" {card.name}"
    _part(link, "sentence", card.sentence)
    for regime, words in card.gains.items():
        gain = _part(link, "gain")
        ElementTree.SubElement(gain, "span").text = regime
        gain[0].tail = f" {words}"
    return link


def _part(parent, kind, words=""):
    part = ElementTree.SubElement(parent, "span", {"class": f"ttb-card-{kind}"})
    part.text, part.tail = words, " "
    return part


class Chapters(SphinxDirective):
    """Show the chapters of the table of contents as cards."""

    def run(self):
        self.env.note_dependency(str(cover.ROOT / "_toc.yml"))
        builder, page = self.env.app.builder, self.env.docname
        if builder.format != "html":
            return []
        html = html_of(cover.parts(), lambda name: builder.get_relative_uri(page, name))
        return [nodes.raw("", html, format="html")]


def setup(app):
    app.add_directive("chapters", Chapters)
    return {"parallel_read_safe": True, "version": "1"}
