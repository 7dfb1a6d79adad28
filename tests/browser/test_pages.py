"""What holds for every page of the book, in a real browser."""

import gzip
import json
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import nbformat
import pytest
from pages import NOTEBOOKS, PAGES, ROOT

EVERY = [*PAGES, "search"]
HEAVIEST = 3e6  # bytes
TEXT = {".html", ".css", ".js", ".svg", ".json"}
UNFOLD = """() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  for (const fold of document.querySelectorAll("button.toggle-button-hidden")) fold.click();
}"""
CUT_OFF = """[...document.querySelectorAll("div.highlight pre")]
    .filter(code => code.scrollWidth > code.clientWidth + 1)
    .map(code => code.textContent.slice(0, 200))"""
SILENT = """[...document.querySelectorAll("main img, main svg")]
    .filter(one => !one.closest('[aria-hidden="true"], button, a[title]'))
    .filter(one => !(one.getAttribute("alt") ?? one.getAttribute("aria-label") ?? "").trim())
    .map(one => one.outerHTML.slice(0, 200))"""
TOO_WIDE = """[...document.querySelectorAll("main *")]
    .filter(one => one.getBoundingClientRect().right > window.innerWidth + 1)
    .slice(0, 5).map(one => one.outerHTML.slice(0, 200))"""


def has_widgets(page):
    return bool(nbformat.read(ROOT / f"{page}.ipynb", as_version=4).metadata.get("widgets"))


EXPLORERS = list(filter(has_widgets, NOTEBOOKS))


@pytest.mark.parametrize("name", EVERY)
class TestEveryPage:
    def test_it_loads_cleanly_and_is_accessible(self, visit, book, name):
        with visit(f"{name}.html") as page:
            assert page.problems == []
            assert page.foreign == []
            assert page.locator("html").get_attribute("data-theme") == "light"
            loaded = page.evaluate("performance.getEntries().map(entry => entry.name)")
            page.evaluate(UNFOLD)
            assert page.evaluate(CUT_OFF) == [], "code that must be scrolled sideways"
            assert page.evaluate(SILENT) == [], "pictures without words"
            assert serious(page) == []
        paths = {urlsplit(address).path for address in loaded if address.startswith("http")}
        weight = {path: weight_of(book / path.lstrip("/")) for path in sorted(paths)}
        assert sum(weight.values()) < HEAVIEST, weight

    def test_the_dark_is_readable(self, visit, name):
        with visit(f"{name}.html", "dark") as page:
            assert page.problems == []
            assert page.foreign == []
            assert page.locator("html").get_attribute("data-theme") == "dark"
            page.evaluate(UNFOLD)
            assert serious(page, ["color-contrast", "link-in-text-block"]) == []

    def test_a_phone_shows_it_whole(self, visit, name):
        with visit(f"{name}.html", phone=True) as page:
            page.evaluate(UNFOLD)
            widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
            assert widths[0] <= widths[1], page.evaluate(TOO_WIDE)
            assert page.problems == []
            page.wait_for_timeout(400)  # the theme makes what now scrolls reachable by keyboard
            assert serious(page, ["scrollable-region-focusable", "target-size"]) == []


def weight_of(path):
    """Return the bytes that a web server sends for a file: text goes compressed."""
    content = path.read_bytes()
    return len(gzip.compress(content)) if path.suffix in TEXT else len(content)


def serious(page, rules=None):
    """Return what axe finds serious or critical, by some of its rules or by all."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": rules}
    return [
        f"{found['id']} ({found['impact']}), {len(found['nodes'])} ×: "
        f"{found['nodes'][0]['html'][:300]} {found['nodes'][0]['failureSummary']}"
        for found in axe.run(page, options=options).response["violations"]
        if found["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", EXPLORERS)
class TestExplorers:
    def test_each_is_drawn_once(self, visit, name):
        with visit(f"{name}.html") as page:
            placed = page.locator('script[type="application/vnd.jupyter.widget-view+json"]')
            drawn = page.locator(".widget-subarea > .jupyter-widgets")
            assert drawn.count() == placed.count() > 0

    def test_each_control_answers_to_the_keyboard(self, visit, name):
        with visit(f"{name}.html") as page:
            tried = 0
            for explorer in page.locator(".ttb-explorer").all():
                for control, keys in controls(explorer):
                    before = shown(explorer)
                    control.focus()
                    for key in keys:
                        page.keyboard.press(key)
                    page.wait_for_timeout(150)
                    assert shown(explorer) != before, control.evaluate("one => one.outerHTML")
                    tried += 1
            assert tried

    def test_each_group_of_buttons_answers_to_a_click(self, visit, name):
        with visit(f"{name}.html") as page:
            for group in page.locator(".ttb-explorer .widget-toggle-buttons").all():
                explorer = group.locator("xpath=ancestor::*[contains(@class, 'ttb-explorer')]")
                before = shown(explorer)
                group.locator("button[aria-pressed=false]").first.click()
                page.wait_for_timeout(150)
                assert shown(explorer) != before


def controls(explorer):
    """Yield the controls of an explorer, each with the keys that move it from where it stands."""
    for handle in explorer.locator(".noUi-handle").all():
        last = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        yield handle, ["ArrowLeft" if last else "ArrowRight"]
    for group in explorer.locator(".widget-toggle-buttons").all():
        yield group.locator("button[aria-pressed=false]").first, ["Space"]
    for select in explorer.locator("select").all():
        last = select.evaluate("one => one.selectedIndex === one.options.length - 1")
        yield select, ["ArrowUp" if last else "ArrowDown"]


def shown(explorer):
    """Return the names of the pictures that an explorer shows."""
    return explorer.evaluate(
        """one => [...one.querySelectorAll(".ttb-state")]
           .filter(state => state.offsetParent !== null)
           .map(state => state.getAttribute("aria-label"))"""
    )


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_can_be_downloaded(visit, name):
    with visit(f"{name}.html") as page:
        link = page.locator("a.btn-download-source-button").first
        address = urljoin(page.url, link.get_attribute("href"))
        answer = page.request.get(address)
        assert answer.ok
        assert Path(urlsplit(address).path).suffix == ".ipynb"
        ours = json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))
        assert answer.json()["cells"] == ours["cells"]


def test_the_theme_can_be_changed_and_stays(visit):
    with visit(f"{PAGES[0]}.html") as page:
        theme = page.locator("html")
        page.locator(".theme-switch-button:visible").first.focus()
        for _ in range(3):
            if theme.get_attribute("data-theme") == "dark":
                break
            page.keyboard.press("Enter")
        assert theme.get_attribute("data-theme") == "dark"
        page.reload()
        assert theme.get_attribute("data-theme") == "dark"


def test_a_keyboard_can_skip_to_the_text(visit):
    with visit(f"{PAGES[0]}.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent.trim()") == "Skip to main content"
