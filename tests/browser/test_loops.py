"""The timelines of a race in a real browser: chosen and scrubbed by keyboard, still without a script."""

import re
from urllib.parse import urljoin

import pytest

CHAPTERS = ["notebooks/06_stop_check", "notebooks/07_two_streams"]
PIPELINE = f"{CHAPTERS[1]}.html"


@pytest.fixture
def figure(visit):
    return visit(PIPELINE).locator("figure.ttb-loops").first


def lanes(figure):
    return figure.locator("form svg").inner_html()


def said(figure):
    return " ".join(figure.locator("form p").inner_text().split())


def state(figure):
    return figure.locator("form svg").get_attribute("data-state").split(",")[:3]


def test_a_choice_leaves_the_one_before_as_an_outline(figure):
    assert state(figure) == ["1", "0", "0"]
    assert "before: asks at once" in lanes(figure) and "stroke-dasharray" in lanes(figure)
    figure.locator("fieldset").first.locator(":checked").press("ArrowDown")
    assert state(figure) == ["2", "0", "1"]
    assert "never asks" in lanes(figure) and "before: asks one step late" in lanes(figure)
    heard = figure.locator("form p").text_content()
    assert re.search(r"^Never asks: 6 tokens in [\d.]+ ms. Before: asks one step late", heard)
    figure.locator("fieldset").nth(1).locator(":checked").press("ArrowDown")
    assert state(figure) == ["2", "1", "1"]
    assert figure.locator("form svg").get_attribute("aria-label").startswith("Batch 8, Never asks")


def test_the_slider_says_what_host_and_gpu_do(figure):
    figure.locator("fieldset").first.get_by_text("at once").click()
    slider, heard = figure.locator("[type=range]"), set()
    slider.press("Home")
    for _ in range(40):
        slider.press("PageUp")
        heard.add(said(figure))
        assert slider.evaluate("one => one.ariaValueText").endswith(" ms")
    text = " ".join(heard)
    for words in (
        r"At \d\.\d\d ms the host launches token \d+",
        r"the host waits for token \d+’s flag",
        r"the GPU works on token \d+\.",
        r"the GPU has been idle for \d\.\d\d ms\.",
    ):
        assert re.search(words, text), words
    slider.press("End")
    assert said(figure).endswith("all of its tokens are done.")


def test_nothing_moves_when_another_loop_is_chosen(figure):
    page = figure.page
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        before = figure.bounding_box()
        for label in figure.locator("label:has([type=radio])").all():
            label.click()
            for key in ("Home", "PageUp", "PageUp", "PageUp", "End"):
                figure.locator("[type=range]").press(key)
                assert figure.bounding_box()["height"] == before["height"]
        svg = figure.locator("form svg")
        assert svg.evaluate("one => one.getBBox().x + one.getBBox().width <= one.clientWidth + 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_idle_time_stands_out(figure, theme):
    page = figure.page
    page.emulate_media(color_scheme=theme)
    page.wait_for_selector(f"html[data-theme={theme}]")
    ratio = figure.evaluate(
        """(one, names) => {
          const light = name => {
            const probe = Object.assign(document.createElement("i"), {style: `color: var(--ttb-${name})`});
            one.append(probe);
            const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255)
              .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
            probe.remove();
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          };
          const ground = Math.max(light("surface"), light("background")), dark = Math.min(light("surface"), light("background"));
          return ["idle", "work", "host"].map(name => {
            const of = light(name), other = of > ground ? ground : of < dark ? dark : ground;
            return (Math.max(of, other) + 0.05) / (Math.min(of, other) + 0.05);
          });
        }"""
    )
    assert min(ratio) >= 3, ratio


def test_without_a_script_and_in_print_there_are_still_pictures(browser, server, figure):
    page = figure.page
    page.emulate_media(media="print")
    assert not figure.locator("form").is_visible()
    assert figure.locator(".ttb-still .ttb-wide svg").count() == 2
    assert all(one.is_visible() for one in figure.locator(".ttb-still .ttb-wide svg").all())
    page.emulate_media(media="screen")
    assert figure.locator("form").is_visible() and not figure.locator(".ttb-still").is_visible()

    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(server + PIPELINE)
    figure = page.locator("figure.ttb-loops").first
    assert not figure.locator("form").is_visible()
    assert all(one.is_visible() for one in figure.locator(".ttb-still .ttb-narrow svg").all())
    assert not any(one.is_visible() for one in figure.locator(".ttb-still .ttb-wide svg").all())
    context.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_traces_can_be_downloaded_for_perfetto(visit, name):
    page = visit(f"{name}.html")
    links = page.locator("a.download[download]").all()
    names = {link.inner_text() for link in links}
    every = {"trace_pipeline.json", *(f"loops_b{size}.json" for size in (1, 8, 32, 128))}
    assert names == (every if name == CHAPTERS[0] else {"trace_pipeline.json", "loops_b1.json"})
    for link in links:
        answer = page.request.get(urljoin(page.url, link.get_attribute("href")))
        assert answer.ok and answer.json()["traceEvents"]


def test_on_a_phone_the_shorter_of_two_traces_looks_shorter(visit):
    page = visit(f"{CHAPTERS[0]}.html")
    page.set_viewport_size({"width": 390, "height": 844})
    found = page.locator("figure.ttb-figure:has(.ttb-narrow)").all()
    narrow = [one.locator(".ttb-narrow svg") for one in found if "profiler" in one.inner_text()]
    narrow += [one.locator(".ttb-narrow svg") for one in found if "same scale" in one.inner_text()]
    assert len(narrow) >= 2
    widths = set()
    for svg in narrow:
        box = svg.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        widths.add(round(box["width"]))
    assert len(widths) == 1
