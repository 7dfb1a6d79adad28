"""Link each glossary term where a notebook first uses it, without a mark in its text.

Terms that are everyday words are linked by hand, with {term}, where they mean the term.
"""

import re

from docutils import nodes
from sphinx import addnodes

EVERYDAY = {
    *("block", "blocks", "bubble", "bubbles", "capture", "device", "eager", "event", "events"),
    *("fusion", "guard", "guards", "hazard", "hazards", "host", "interleaving", "launch"),
    *("launches", "median", "race", "record", "records", "replay", "rung", "rungs", "sampling"),
    *("segment", "segments", "stream", "streams", "synchronize", "temperature", "timeline"),
    *("trace", "profiler"),
}
CLOSED = (
    nodes.reference,
    nodes.literal,
    nodes.title,
    nodes.table,
    nodes.raw,
    addnodes.pending_xref,
)


def links_of(app):
    """Return term in lower case -> its anchor in the glossary."""
    objects = app.env.get_domain("std").get_objects()
    found = {name: (page, anchor) for name, _, kind, page, anchor, _ in objects if kind == "term"}
    return {name.lower(): where for name, where in found.items()}


def link_first_uses(app, doctree, docname):
    if not docname.startswith("notebooks/"):
        return
    links = links_of(app)
    words = sorted(set(links) - EVERYDAY, key=len, reverse=True)
    if not words:
        return
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)
    glossary_text = definitions(app, links)
    linked = set()
    for text in list(doctree.findall(nodes.Text)):
        closed = ancestor(text, CLOSED)
        if isinstance(closed, nodes.reference):
            linked.add(glossary_text.get(closed.get("refuri", "").partition("#")[2]))
        if closed is not None or ancestor(text, (nodes.paragraph,)) is None:
            continue
        pieces, done = [], 0
        for use in pattern.finditer(text):
            page, anchor = links[use[0].lower()]
            if glossary_text[anchor] in linked:
                continue
            linked.add(glossary_text[anchor])
            uri = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
            shown = nodes.inline("", use[0], classes=["xref", "std", "std-term"])
            pieces += [nodes.Text(text[done : use.start()])]
            pieces += [nodes.reference("", "", shown, internal=True, refuri=uri)]
            done = use.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text[done:])])


def definitions(app, links):
    """Return anchor -> the definition it leads to: names of one entry share it."""
    shared = {}
    for page in {page for page, _ in links.values()}:
        for item in app.env.get_doctree(page).findall(nodes.definition_list_item):
            ids = [name for term in item.findall(nodes.term) for name in term["ids"]]
            shared |= dict.fromkeys(ids, ids[0])
    return shared


def ancestor(node, kinds):
    """Return the nearest ancestor of one of these kinds, or None."""
    while (node := node.parent) is not None:
        if isinstance(node, kinds):
            return node
    return None


def setup(app):
    app.connect("doctree-resolved", link_first_uses)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
