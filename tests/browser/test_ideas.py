"""Drawings that a slider moves: by keyboard, without moving the page, in print and without a script."""

import pytest

PAGES = {
    "notebooks/01_naive": "ttb-attention",
    "notebooks/02_kv_cache": "ttb-attention",
    "notebooks/03_expandable_segments": "ttb-scrubber",
    "notebooks/04_static_cache": "ttb-attention",
}
DRAWN = """one => [...one.querySelectorAll("[data-state] :is(path, [data-n], [data-head], [data-said])")]
    .map(part => [part.getAttribute("d"), getComputedStyle(part).display, getComputedStyle(part).fill,
        getComputedStyle(part).fillOpacity, part.textContent].join()).join()"""
HEIGHTS = """one => [...one.children].map(part => part.getBoundingClientRect().height)"""
SHIFTS = """() => { window.shifts = []; new PerformanceObserver(list => { for (const one of list.getEntries())
    window.shifts.push(one.value) }).observe({type: "layout-shift", buffered: false}) }"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_the_keyboard_changes_what_is_drawn_and_nothing_moves(visit, name, width):
    page = visit(f"{name}.html")
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)
    page.evaluate(SHIFTS)
    for drawing in page.locator(f"figure.{PAGES[name]}").all():
        slider = drawing.locator("[type=range]")
        slider.focus()
        before, heights, words = state_of(drawing, slider)
        for key in ("ArrowLeft", "Home", "End"):
            slider.press(key)
            now, still, said = state_of(drawing, slider)
            assert now != before and said != words
            assert still == heights
            before, words = now, said
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.shifts") == []
    assert page.problems == []


def state_of(drawing, slider):
    """Return what is drawn, how high each part is, and what the slider says."""
    return (
        drawing.evaluate(DRAWN),
        drawing.evaluate(HEIGHTS),
        slider.evaluate("one => one.ariaValueText"),
    )


def test_a_row_lights_the_keys_that_it_reads(visit):
    page = visit("notebooks/02_kv_cache.html")
    drawing = page.locator("figure.ttb-attention svg").first
    faded = """one => [...one.querySelectorAll("[data-key]")]
        .filter(key => key.style.opacity).map(key => key.dataset.key)"""
    drawing.locator("[data-reads='4']").hover()
    assert drawing.evaluate(faded) == ["5", "6"]
    page.mouse.move(0, 0)
    assert drawing.evaluate(faded) == []
    drawing.locator("[data-reads='2']").focus()
    assert drawing.evaluate(faded) == ["3", "4", "5", "6"]


def test_buttons_lead_to_the_card_and_to_where_it_breaks(visit):
    page = visit("notebooks/03_expandable_segments.html")
    drawing = page.locator("figure.ttb-scrubber").first
    said = drawing.locator("[data-said]")
    assert "out of memory" in said.inner_text()
    steps = []
    for _ in range(2):
        drawing.locator("button").click()
        steps.append(drawing.locator("output").inner_text())
        assert "are given back" in said.inner_text() or "out of memory" in said.inner_text()
    assert steps[0] != steps[1] and all(step.startswith("during") for step in steps)
    drawing.locator("[type=radio]").first.click()
    assert drawing.locator("output").inner_text().startswith("after")
    assert page.problems == []


def test_the_script_draws_what_was_drawn_without_it(visit):
    page = visit("notebooks/03_expandable_segments.html")
    for drawing in page.locator("figure.ttb-scrubber").all():
        before = drawing.evaluate(DRAWN)
        drawing.locator("[type=range]").dispatch_event("input")
        assert drawing.evaluate(DRAWN) == before


@pytest.mark.parametrize("how", ["print", "no script"])
def test_without_a_slider_both_moments_are_shown(browser, server, how):
    context = browser.new_context(java_script_enabled=how != "no script")
    page = context.new_page()
    page.goto(f"{server}notebooks/03_expandable_segments.html")
    if how == "print":
        page.emulate_media(media="print")
    for drawing in page.locator("figure.ttb-scrubber").all():
        assert drawing.locator(".ttb-still").is_visible()
        assert drawing.locator("[data-state]").is_visible()
        assert not drawing.locator("form").is_visible()
    page.goto(f"{server}notebooks/01_naive.html")
    assert page.locator("figure.ttb-attention [data-state]").is_visible()
    assert not page.locator("figure.ttb-attention form").is_visible()
    context.close()
