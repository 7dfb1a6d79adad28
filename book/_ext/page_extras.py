"""What every page needs besides its text: its keywords, a description, and no script in vain."""

from html import escape

from docutils import nodes
from sphinx import addnodes

LONGEST = 200


def set_theme_options(app, config):
    """Set what Jupyter Book has no key for; under sphinx: config: it would replace all others."""
    config.html_theme_options |= {
        "navbar_persistent": [],  # the search stands in the sidebar
        "toc_title": "On this page",
        "show_toc_level": 2,
    }
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options["launch_buttons"] = {}  # there is nothing to launch from


def index_keywords(app, doctree):
    """Let the search find a page first for the words it is about.

    They stand, with commas between them, under ``keywords`` in a notebook's metadata or at the head
    of a Markdown page.
    """
    words = app.env.metadata[app.env.docname].get("keywords", "").split(",")
    entries = [("single", word.strip(), "", "main", None) for word in words if word.strip()]
    if entries:
        doctree.insert(0, addnodes.index(entries=entries))


def describe(app, pagename, templatename, context, doctree):
    """Say in the page's head what it is about, in the words of its first paragraph."""
    if doctree is None:
        return
    title = next(doctree.findall(nodes.title)).astext()
    book = app.config.html_title
    properties = {
        "og:title": title if title == book else f"{title} · {book}",
        "og:description": summary(doctree) or book,
        "og:type": "article",
        "og:site_name": book,
    }
    if context.get("pageurl"):
        properties["og:url"] = context["pageurl"]
    tags = [f'<meta name="description" content="{escape(properties["og:description"])}" />']
    tags += [f'<meta property="{key}" content="{escape(properties[key])}" />' for key in properties]
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def summary(doctree):
    """Return the first paragraph that says something, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        words = " ".join(paragraph.astext().split())
        if len(words) > 40:
            return words if len(words) <= LONGEST else words[:LONGEST].rsplit(" ", 1)[0] + " …"
    return None


def thin_out(app, pagename, templatename, context, doctree):
    """Drop scripts that come twice, and those of Thebe, which this book does not use.

    Thebe would be fetched from another host, and its settings come twice: a JavaScript error.
    """
    kept = {}
    for script in context["script_files"]:
        attributes = getattr(script, "attributes", {})
        text = f"{getattr(script, 'filename', script)} {attributes.get('body', '')}"
        if "thebe" not in text.lower():
            kept.setdefault(text, script)
    context["script_files"] = list(kept.values())
    styles = context["css_files"]
    context["css_files"] = [style for style in styles if "thebe" not in str(style.filename)]


def mend_citations(app, pagename, templatename, context, doctree):
    """Take away a list's role where docutils gives it to what holds no list items."""
    if "body" in context:
        body = context["body"]
        context["body"] = body.replace('role="list" class="citation-list"', 'class="citation-list"')


def setup(app):
    app.connect("config-inited", set_theme_options)
    app.connect("doctree-read", index_keywords)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", thin_out, priority=900)
    app.connect("html-page-context", mend_citations)
    return {"parallel_read_safe": True, "version": "1"}
