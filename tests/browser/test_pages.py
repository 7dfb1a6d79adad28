"""What holds for every page of the book, in a real browser: each is opened once, for all checks."""

import gzip
import json
from urllib.parse import urljoin, urlsplit

import pytest
from pages import NOTEBOOKS, PAGES, ROOT

EVERY = [*PAGES, "search"]
HEAVIEST = 350e3  # bytes
TEXT = {".html", ".css", ".js", ".svg", ".json"}
UNFOLD = """() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  for (const fold of document.querySelectorAll("button.toggle-button-hidden")) fold.click();
}"""
SILENT = """[...document.querySelectorAll("main img, main svg")]
    .filter(one => !one.closest('[aria-hidden="true"], button, a[title]'))
    .filter(one => !(one.getAttribute("alt") ?? one.getAttribute("aria-label") ?? "").trim())
    .map(one => "a picture without words: " + one.outerHTML.slice(0, 200))"""
TOO_WIDE = """document.documentElement.scrollWidth <= window.innerWidth ? [] :
    [...document.querySelectorAll("main *")]
    .filter(one => one.getBoundingClientRect().right > window.innerWidth + 1)
    .slice(0, 5).map(one => "wider than a phone: " + one.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("name", EVERY)
def test_a_page_is_whole_and_accessible(visit, book, name):
    page = visit(f"{name}.html")
    if name in NOTEBOOKS:
        assert downloaded(page) == json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))
    explore(page)
    page.evaluate(UNFOLD)
    assert page.locator("html").get_attribute("data-theme") == "light"
    found = page.evaluate(SILENT) + serious(page)

    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")
    found += serious(page, "color-contrast", "link-in-text-block")

    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(400)  # the theme makes what now scrolls reachable by keyboard
    found += page.evaluate(TOO_WIDE)
    found += serious(page, "scrollable-region-focusable", "target-size")
    assert [*found, *page.problems, *page.foreign] == []
    assert weight(page, book) < HEAVIEST


def weight(page, book):
    """Return the bytes that a web server sends for a page and all that it loads."""
    loaded = page.evaluate("performance.getEntries().map(entry => entry.name)")
    paths = {urlsplit(address).path for address in loaded if address.startswith("http")}
    return sum(sent(book / path.lstrip("/")) for path in paths)


def sent(path):
    """Return the bytes that a web server sends for a file: text goes compressed."""
    content = path.read_bytes()
    return len(gzip.compress(content)) if path.suffix in TEXT else len(content)


def downloaded(page):
    """Return the notebook that the page's button leads to."""
    link = page.locator("a.btn-download-source-button").first
    address = urljoin(page.url, link.get_attribute("href"))
    assert urlsplit(address).path.endswith(".ipynb")
    return page.request.get(address).json()


def serious(page, *rules):
    """Return what axe finds serious or critical, by these of its rules or by all."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"resultTypes": ["violations"], "preload": False}  # it would fetch style sheets again
    if rules:
        options["runOnly"] = {"type": "rule", "values": rules}
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe.axe_script)
    return [
        f"{found['id']} ({found['impact']}), {len(found['nodes'])} ×: "
        f"{found['nodes'][0]['html'][:300]} {found['nodes'][0]['failureSummary']}"
        for found in page.evaluate("options => axe.run(options)", options)["violations"]
        if found["impact"] in ("serious", "critical")
    ]


def explore(page):
    """Try every control of every explorer: each has a name, and shows another picture."""
    for explorer in page.locator("figure.ttb-explorer").all():
        controls = explorer.locator("input[type=range], fieldset").all()
        assert controls or explorer.locator("[data-state]").count() == 0
        for control in controls:
            before = shown(explorer)
            assert len(before) == 1
            if control.get_attribute("type") == "range":
                at_the_end = control.input_value() == control.get_attribute("max")
                control.press("ArrowLeft" if at_the_end else "ArrowRight")
                assert shown(explorer) != before, "the arrow keys change nothing"
            else:
                control.locator("input:checked").press("ArrowDown")
                after = shown(explorer)
                assert after != before, "the arrow keys change nothing"
                control.locator("label:has(input:not(:checked))").first.click()
                assert shown(explorer) != after, "a click changes nothing"


def shown(explorer):
    """Return the states that an explorer shows."""
    return explorer.evaluate(
        """one => [...one.querySelectorAll("[data-state]")]
           .filter(state => state.checkVisibility({visibilityProperty: true})).map(state => state.dataset.state)"""
    )


def test_the_theme_can_be_changed_and_stays(visit):
    page = visit(f"{PAGES[0]}.html")
    theme = page.locator("html")
    page.locator(".theme-switch-button:visible").first.focus()
    for _ in range(3):
        if theme.get_attribute("data-theme") == "dark":
            break
        page.keyboard.press("Enter")
    assert theme.get_attribute("data-theme") == "dark"
    page.reload()
    assert theme.get_attribute("data-theme") == "dark"
    page.evaluate("localStorage.clear()")


def test_a_keyboard_can_skip_to_the_text(visit):
    page = visit(f"{PAGES[0]}.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent.trim()") == "Skip to main content"
