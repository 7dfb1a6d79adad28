"""What every page needs besides its text: local widget scripts and a description for sharing."""

from html import escape
from pathlib import Path

from docutils import nodes

SCRIPTS = Path(__file__).resolve().parent.parent / "_vendor"


def serve_widget_scripts(app, config):
    # Not through html_static_path in _config.yml: Jupyter Book would add every script there to
    # every page, and one that is on a page twice draws each widget twice.
    config.html_static_path.append(str(SCRIPTS))


def describe(app, pagename, templatename, context, doctree):
    if doctree is None:
        return
    paragraphs = (
        " ".join(paragraph.astext().split())
        for paragraph in doctree.findall(nodes.paragraph)
        if "ttb-recorded" not in paragraph["classes"]
    )
    text = next((words for words in paragraphs if len(words) > 40), app.config.html_title)
    summary = text if len(text) <= 200 else text[:197].rsplit(" ", 1)[0] + " …"
    title = escape(context.get("title", ""), quote=True)
    summary = escape(summary, quote=True)
    context["metatags"] = context.get("metatags", "") + (
        f'<meta name="description" content="{summary}" />'
        f'<meta property="og:title" content="{title}" />'
        f'<meta property="og:description" content="{summary}" />'
        '<meta property="og:type" content="article" />'
        f'<meta property="og:site_name" content="{escape(app.config.html_title)}" />'
    )


def setup(app):
    app.connect("config-inited", serve_widget_scripts)
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "version": "1"}
