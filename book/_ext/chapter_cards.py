"""The directive ``{chapters}``: every chapter as a card with its sentence and what it has gained."""

from html import escape

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from decoding.pages import cover


def html_of(parts, link):
    """Return the cards as HTML.

    Args:
        parts: caption -> a list of ``Card``.
        link: page -> its address.
    """
    lines = []
    for caption, cards in parts.items():
        lines.append(f'<p class="ttb-part" role="heading" aria-level="3">{escape(caption)}</p>')
        lines.append('<ol class="ttb-cards">')
        lines += [_card(card, link(card.page)) for card in cards]
        lines.append("</ol>")
    return "\n".join(lines)


def _card(card, address):
    number = f'<span class="ttb-card-number">{card.number}</span> ' if card.number else ""
    gains = "".join(
        f'<span class="ttb-card-gain"><span>{escape(regime)}</span> {escape(words)}</span>'
        for regime, words in card.gains.items()
    )
    return (
        f'<li><a class="ttb-card" href="{escape(address)}">'
        f'<span class="ttb-card-name">{number}{escape(card.name)}</span> '
        f'<span class="ttb-card-sentence">{escape(card.sentence)}</span> {gains}</a></li>'
    )


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
