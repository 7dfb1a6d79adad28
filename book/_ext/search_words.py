"""Let the search find first what explains a word: the section, not a page that uses it or a glossary entry."""

from pathlib import Path

import yaml
from docutils import nodes
from sphinx import addnodes

WORDS = "book/search.yml"


def index_words(app, doctree):
    """Enter a page's words into the index: those of its sections, then those of the page itself.

    The page's own stand, with commas between them, under ``keywords`` in a notebook's metadata or at
    the head of a Markdown page. A section that is not there any more counts as the page.
    """
    page = app.env.docname
    app.env.note_dependency(str(Path(app.srcdir) / WORDS))
    sections, taken = words_of(app).get(page, {}), set()
    for section in list(doctree.findall(nodes.section)):
        names = [name for name in section["ids"] if name in sections]
        for name in names:
            words = sections[name]
            taken.update(map(str.lower, words))
            section.insert(1, _index(words, section["ids"][0]))
    lost = [word for words in sections.values() for word in words if word.lower() not in taken]
    own = app.env.metadata[page].get("keywords", "").split(",")
    own = [word.strip() for word in own if word.strip() and word.strip().lower() not in taken]
    if own or lost:
        doctree.insert(0, _index(dict.fromkeys(own + lost), ""))


def words_of(app):
    path = Path(app.srcdir) / WORDS
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def _index(words, target):
    return addnodes.index(entries=[("single", word, target, "main", None) for word in words])


def setup(app):
    app.connect("doctree-read", index_words)
    return {"parallel_read_safe": True, "version": "1"}
