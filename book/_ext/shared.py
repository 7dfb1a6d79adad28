"""What others show of the book: the picture where its address is shared, and the page at its root."""

from html import escape
from pathlib import Path

from page_extras import summary

from decoding.drawing import rungs_as_bars
from decoding.drawing.social import SIZE, social_card
from decoding.pages import cover
from decoding.pages.machines import BOOK_GPU, BOOK_RECORDS

CARD = "_static/social.png"
SUBTITLE = "Optimizing PyTorch decoder inference"
ROOT_PAGE = Path(__file__).with_name("root.html")


def found_panels():
    """Return the cover's records, or None where a rung has none."""
    try:
        return cover.panels(BOOK_RECORDS / BOOK_GPU)
    except FileNotFoundError:
        return None


def show_card(app, pagename, templatename, context, doctree):
    """Name the picture in the page's head: by its whole address where the book's own is known."""
    panels = found_panels()
    if doctree is None or panels is None:
        return
    base = app.config.html_baseurl
    address = f"{base.rstrip('/')}/{CARD}" if base else context["pathto"](CARD, 1)
    tags = tags_of(address, cover.answer(panels))
    context["metatags"] = context.get("metatags", "") + "\n" + tags


def tags_of(address, alt):
    """Return the tags that name the picture at ``address``."""
    width, height = SIZE
    properties = {"og:image": address, "og:image:width": width, "og:image:height": height}
    properties["og:image:alt"] = alt
    tags = [
        f'<meta property="{key}" content="{escape(str(value))}" />'
        for key, value in properties.items()
    ]
    return "\n".join([*tags, '<meta name="twitter:card" content="summary_large_image" />'])


def write_files(app, exception):
    """Write the picture, and a page at the root that says what the book is and leads to its cover."""
    if exception or app.builder.format != "html":
        return
    out, panels, base = Path(app.outdir), found_panels(), app.config.html_baseurl
    title, first = app.config.html_title, app.builder.get_target_uri(app.config.root_doc)
    description = summary(app.env.get_doctree(app.config.root_doc)) or title
    head = {"og:title": title, "og:description": description, "og:type": "website"}
    tags = [f'<meta name="description" content="{escape(description)}" />']
    tags += [f'<meta property="{key}" content="{escape(value)}" />' for key, value in head.items()]
    if panels:
        shown = {
            f"{words.capitalize()} (batch {size})": rungs_as_bars(panels[size])
            for size, words in cover.REGIMES.items()
        }
        card = social_card(shown, name=title, subtitle=SUBTITLE, message=cover.sentences(panels))
        (out / CARD).write_bytes(card)
        address = f"{base.rstrip('/')}/{CARD}" if base else CARD
        tags.append(tags_of(address, cover.answer(panels)))
    page = ROOT_PAGE.read_text(encoding="utf-8").format(
        title=escape(title),
        description=escape(description),
        tags="\n".join(tags),
        first=first,
        canonical=f"{base.rstrip('/')}/{first}" if base else first,
    )
    (out / "index.html").write_text(page, encoding="utf-8")


def setup(app):
    app.connect("html-page-context", show_card, priority=600)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "version": "1"}
