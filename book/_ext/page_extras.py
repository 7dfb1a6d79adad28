"""What every page needs besides its text: a description, and no script in vain."""

import re
from html import escape
from pathlib import Path

from docutils import nodes

LONGEST = 200
# Files that the theme loads on every page. icons.css and menus.js do what this book needs of the
# first two; the others serve a search that answers while one types, which this book does not have.
BALLAST = ("fontawesome.js", "bootstrap.js")
SEARCHING = ("searchtools.js", "language_data.js", "searchindex.js")
SYSTEM = '(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")'
EARLY = "documentation_options.js"  # scripts in the page itself need it


def set_theme_options(app, config):
    """Set what Jupyter Book has no key for; under sphinx: config: it would replace all others."""
    config.html_theme_options |= {
        "navbar_persistent": [],  # the search stands in the sidebar
        "toc_title": "On this page",
        "show_toc_level": 2,
    }
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options["launch_buttons"] = {}  # there is nothing to launch from


def add_scripts(app):
    """Load the book's own scripts, each a file in _static; those of one chapter stand in its outputs."""
    for path in sorted(Path(app.srcdir).glob("book/_static/*.js")):
        app.add_js_file(path.name)


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
    """Load no script and no style sheet in vain, and none before the page can be read.

    Thebe would be fetched from another host, and its settings come twice: a JavaScript error. The
    layout in _templates takes from the theme's own tags what stands in ``BALLAST``.
    """
    body = context.get("body", "")
    unused = ("thebe",) if "sd-" in body else ("thebe", "design")
    kept = {}
    for script in context["script_files"]:
        attributes = getattr(script, "attributes", {})
        text = f"{getattr(script, 'filename', script)} {attributes.get('body', '')}"
        if any(name in text.lower() for name in unused):
            continue
        if pagename != "search" and getattr(script, "filename", None) and EARLY not in text:
            attributes = attributes | {"defer": "defer"}
            script = type(script)(script.filename, priority=script.priority, **attributes)
        kept.setdefault(text, script)
    context["script_files"] = list(kept.values())
    context["css_files"] = [
        style
        for style in context["css_files"]
        if not any(name in str(style.filename) for name in unused)
    ]
    ballast = BALLAST if pagename == "search" else BALLAST + SEARCHING
    context["without_ballast"] = lambda html: without_ballast(html, ballast)


def without_ballast(html, ballast):
    """Return tags of the page's head or end without those that load a file in ``ballast``."""
    for tag in (r"<script\b[^>]*>\s*</script>", r"<link\b[^>]*>"):
        html = re.sub(
            tag, lambda found: "" if any(map(found[0].count, ballast)) else found[0], html
        )
    # The page is light where no script runs. Where one does, it follows the reader's system, and from
    # the first paint on: the theme's own script, which decides that too, comes last.
    for key, value in (("mode", '"auto"'), ("theme", SYSTEM)):
        html = html.replace(f'getItem("{key}") || "light"', f'getItem("{key}") || {value}')
    return html


def mend_citations(app, pagename, templatename, context, doctree):
    """Take away a list's role where docutils gives it to what holds no list items."""
    if "body" in context:
        body = context["body"]
        context["body"] = body.replace('role="list" class="citation-list"', 'class="citation-list"')


def setup(app):
    app.connect("config-inited", set_theme_options)
    app.connect("builder-inited", add_scripts)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", thin_out, priority=900)
    app.connect("html-page-context", mend_citations)
    return {"parallel_read_safe": True, "version": "1"}
