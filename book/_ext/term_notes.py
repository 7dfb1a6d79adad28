"""Give every page the explanations of the glossary's terms that it links, for terms.js to show in place."""

import json
import re

from docutils import nodes

LINK = re.compile(r'href="[^"#]*glossary\.html#(term-[^"]+)"')
GLOSSARY = "book/glossary"


def explanations(env):
    """Return anchor -> [term, what it means] of the glossary; names of one entry share its meaning."""
    found = {}
    if GLOSSARY not in env.found_docs:
        return found
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        meaning = next(item.findall(nodes.definition)).astext()
        for term in item.findall(nodes.term):
            found |= {name: [term.astext(), " ".join(meaning.split())] for name in term["ids"]}
    return found


def add_notes(app, pagename, templatename, context, doctree):
    linked = sorted(set(LINK.findall(context.get("body", ""))))
    if not linked or pagename == GLOSSARY:
        return
    if not hasattr(app, "term_notes"):
        app.term_notes = explanations(app.env)
    notes = {name: app.term_notes[name] for name in linked if name in app.term_notes}
    words = json.dumps(notes, ensure_ascii=False).replace("<", "\\u003c")
    context["body"] += f'<script type="application/json" id="ttb-terms">{words}</script>\n'


def setup(app):
    app.connect("html-page-context", add_notes, priority=600)
    return {"parallel_read_safe": True, "version": "1"}
