"""The grid of every page, in a real browser: weight, widths, text, code, focus, paper, and no script."""

import re
import statistics

import pytest
from pages import CHAPTERS, PAGES

from decoding.drawing import theme

UNPACKED = 700e3  # bytes of a page with all it loads, before a web server packs them
# The processor's time, unlike the clock's, is the same whatever else the machine does meanwhile.
MAIN_THREAD = (
    400  # ms that the browser computes until the middle page is loaded; half of it is usual
)
UNFOLD = """() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  for (const fold of document.querySelectorAll("button.toggle-button-hidden")) fold.click();
}"""
DRAWINGS = """() => [...document.querySelectorAll("figure.ttb-figure svg")]
    .filter(one => one.checkVisibility({visibilityProperty: true}))
    .map(one => [one.getBoundingClientRect().width, one.viewBox.baseVal.width,
        [...one.querySelectorAll("text")].map(text => parseFloat(getComputedStyle(text).fontSize))])"""
CODE = """() => [...document.querySelectorAll("div.highlight pre")]
    .filter(code => code.checkVisibility())
    .filter(code => {
      const style = getComputedStyle(code), output = code.closest(".output.stream, .output.text_plain");
      return style.whiteSpace !== "pre" || !output && code.scrollHeight > code.clientHeight + 1
          || !code.closest(".output") && code.scrollWidth > code.clientWidth + 1 && style.overflowX !== "auto";
    })
    .map(code => "cut or wrapped: " + code.textContent.slice(0, 100))"""
GAPS = """() => [...document.querySelectorAll("section > p + p, section > p + div.cell > .cell_output:first-child > p:first-child")]
    .filter(one => one.checkVisibility() && !one.matches(".ttb-recorded + p"))
    .map(one => {
      const before = (one.closest("div.cell") ?? one).previousElementSibling;
      return Math.round(one.getBoundingClientRect().top - before.getBoundingClientRect().bottom);
    })"""
RING = """one => {
  const style = getComputedStyle(one);
  return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
}"""
PALE = """() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return [...document.querySelectorAll("article p, article li, article h2, article pre, article pre span, article td")]
      .filter(one => one.checkVisibility() && light(parts(getComputedStyle(one).color)) > 130)
      .slice(0, 5).map(one => "pale on paper: " + one.outerHTML.slice(0, 150));
}"""


@pytest.fixture(scope="module")
def measured(browser, server):
    """Return every page as a browser loads it for the first time: page -> what it was seen to do."""
    found = {}
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    for name in PAGES:
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        bodies = []
        page.on("requestfinished", lambda request, seen=bodies: seen.append(request))
        page.goto(f"{server}{name}.html", wait_until="load")
        metrics = {
            one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]
        }
        page.evaluate(UNFOLD)
        seen = {
            "thread": 1000 * metrics["ThreadTime"],
            "bytes": sum(len(one.response().body()) for one in bodies),
        }
        seen |= {"drawings": page.evaluate(DRAWINGS), "gaps": page.evaluate(GAPS)}
        seen["code"] = page.evaluate(CODE)
        page.emulate_media(media="print", color_scheme="dark")
        seen["paper"] = page.evaluate(PALE)
        seen["page"] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        found[name] = seen
        page.close()
    context.close()
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(measured, name):
    assert measured[name]["bytes"] < UNPACKED


def test_a_page_takes_a_browser_little_time(measured):
    assert statistics.median(seen["thread"] for seen in measured.values()) < MAIN_THREAD


@pytest.mark.parametrize("name", PAGES)
def test_figures_have_two_widths_and_one_size_of_text(measured, name):
    for width, natural, sizes in measured[name]["drawings"]:
        assert natural in (theme.WIDTH, theme.PANEL, theme.WIDE, theme.NARROW), natural
        assert all(12.9 <= size * width / natural <= 14.1 for size in sizes), (width, set(sizes))


@pytest.mark.parametrize("name", PAGES)
def test_code_is_neither_cut_nor_wrapped(measured, name):
    assert measured[name]["code"] == []


def test_paragraphs_have_one_rhythm(measured):
    assert len({gap for seen in measured.values() for gap in seen["gaps"]}) == 1


@pytest.mark.parametrize("name", PAGES)
def test_paper_is_white_and_its_text_dark(measured, name):
    assert measured[name]["page"] == "rgb(255, 255, 255)"
    assert measured[name]["paper"] == []


def test_a_printed_chapter_has_no_buttons_and_keeps_figures_whole(visit):
    page = visit(f"{CHAPTERS[-1]}.html")
    page.emulate_media(media="print")
    for gone in (
        ".bd-sidebar-primary",
        ".bd-header-article",
        ".prev-next-area",
        ".ttb-explorer form",
    ):
        assert not page.locator(gone).first.is_visible(), gone
    kept = page.locator("figure.ttb-figure").first
    assert kept.evaluate("one => getComputedStyle(one).breakInside") == "avoid"
    assert (
        page.locator("div.highlight pre").first.evaluate("one => getComputedStyle(one).whiteSpace")
        == "pre-wrap"
    )
    assert len(page.pdf(format="A4")) > 50_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_focus_is_seen(browser, server, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"{server}{CHAPTERS[-1]}.html")
    page.keyboard.press("Tab")  # the browser shows the focus of those who use the keyboard
    for what in (
        ".bd-links li.current > a",
        ".primary-toggle",
        ".dropdown-download-buttons > button",
        ".theme-switch-button",
        "article a.reference",
        "article summary",
        ".toggle-button",
    ):
        one = page.locator(f"{what}:visible").first
        one.focus()
        assert one.evaluate(RING), what
    context.close()


def test_a_menu_opens_and_closes_by_keyboard(visit):
    page = visit(f"{CHAPTERS[0]}.html")
    button = page.locator(".dropdown-download-buttons > button")
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator(".dropdown-download-buttons .dropdown-menu").is_visible()
    assert button.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Escape")
    assert not page.locator(".dropdown-download-buttons .dropdown-menu").is_visible()


def test_without_scripts_a_chapter_can_be_read(browser, server):
    context = browser.new_context(java_script_enabled=False, color_scheme="dark")
    page = context.new_page()
    page.goto(f"{server}notebooks/07_two_streams.html")  # it has explorers
    assert page.locator("figure.ttb-explorer [data-state]:visible").count() >= 1
    assert not page.locator("figure.ttb-explorer form").first.is_visible()
    assert page.locator("div.solution").first.is_visible()
    assert page.locator("html").get_attribute("data-theme") == "light"
    link = page.locator('article a[href*="glossary.html#term-"]:visible').first
    link.click()
    assert re.search(r"glossary\.html#term-", page.url)
    context.close()


def test_a_term_is_explained_where_the_pointer_rests(visit):
    page = visit(f"{CHAPTERS[-1]}.html")
    link, note = (
        page.locator('article a[href*="glossary.html#term-"]:visible').first,
        "#ttb-term-note",
    )
    assert not page.locator(note).is_visible()
    link.hover()
    assert link.inner_text().lower().rstrip("s") in page.locator(note).inner_text().lower()
    page.keyboard.press("Escape")
    assert not page.locator(note).is_visible()
    page.mouse.move(0, 0)
    page.keyboard.press("Tab")
    link.focus()
    assert page.locator(note).is_visible()
    assert link.get_attribute("aria-describedby") == "ttb-term-note"


def test_a_tap_explains_a_term_and_stays_on_the_page(browser, server):
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{server}{CHAPTERS[-1]}.html")
    page.locator('article a[href*="glossary.html#term-"]:visible').first.tap()
    note = page.locator("#ttb-term-note")
    assert note.is_visible()
    assert "glossary" not in page.url
    box = note.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    note.locator("a").tap()
    page.wait_for_url("**/glossary.html#term-*")
    context.close()
