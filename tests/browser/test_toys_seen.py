"""The toys in a real browser: by keyboard, without a jump, and still where nothing can run."""

import pytest

PAGES = {"streams": "notebooks/07_two_streams", "calculator": "notebooks/06_stop_check"}
HEIGHT = "one => one.getBoundingClientRect().height"
CHART = """one => [...one.querySelectorAll(".chart *")]
    .map(e => [e.tagName, e.textContent, parseFloat(e.getAttribute("x"))])"""
WIDE = "document.documentElement.scrollWidth <= window.innerWidth"


@pytest.fixture
def toy(visit):
    """A function that returns a toy on its page, by its name."""

    def find(name):
        page = visit(f"{PAGES[name]}.html")
        return page.locator(f".ttb-{name}").first

    return find


@pytest.mark.parametrize("width", [1400, 390])
def test_no_step_of_the_streams_moves_the_page(toy, width):
    streams = toy("streams")
    streams.page.set_viewport_size({"width": width, "height": 844})
    heights, said = set(), set()
    for radio in streams.locator("[type=radio]").all():
        radio.check()
        for _ in range(40):
            heights.add(streams.evaluate(HEIGHT))
            said.add(streams.locator(".said").text_content())
            at, _, last = streams.locator(".at").evaluate("one => one.value").split()
            if at == last:
                break
            streams.get_by_role("button", name="next").click()
        assert at == last
    assert len(heights) == 1
    assert sum(words.startswith("Wrong: ") for words in said) == 5
    assert streams.page.evaluate(WIDE) and streams.page.problems == []


def test_the_streams_work_by_keyboard(toy):
    streams = toy("streams")
    before = streams.locator(".said").text_content()
    streams.locator("[type=radio]").first.press("ArrowRight")
    assert streams.locator("[type=radio]").nth(1).is_checked()
    next_button = streams.get_by_role("button", name="next")
    next_button.focus()
    streams.page.keyboard.press("Enter")
    after = streams.locator(".said").text_content()
    assert after != before
    streams.get_by_role("button", name="back").press("Space")
    assert streams.locator(".said").text_content() == before
    next_button.press("Enter")
    streams.get_by_role("button", name="reset").press("Enter")
    assert streams.locator(".said").text_content() == before


def test_the_streams_play_and_pause(toy):
    streams = toy("streams")
    play = streams.locator("[data-do=p]")
    play.click()
    assert play.text_content() == "pause"
    streams.page.wait_for_function(
        "document.querySelector('.ttb-streams .at').value.startsWith('3 ')"
    )
    play.click()
    assert play.text_content() == "play"


def test_the_calculator_computes_what_is_asked(toy):
    calculator = toy("calculator")
    results = calculator.locator("dd")
    first = results.all_text_contents()
    number = calculator.locator("[type=number]")
    number.nth(0).fill("600")
    number.nth(1).fill("200")
    assert results.all_text_contents() == ["800 µs", "600 µs", "75 %", "200 µs", "1,250", "–"]
    assert calculator.locator("[name=measured]:checked").count() == 0
    calculator.locator("[name=loop]").first.press("ArrowRight")
    assert results.all_text_contents() == ["600 µs", "400 µs", "67 %", "0 µs", "1,667", "–"]
    calculator.locator("[type=range]").first.press("ArrowRight")
    assert results.first.text_content() == "601 µs"
    calculator.locator("[name=loop]").first.check()
    calculator.locator("[name=measured]").first.check()
    assert results.all_text_contents() == first


def test_what_runs_draws_what_was_drawn(toy):
    """The first picture of the chart is Python's; choosing its own preset again draws the same."""
    calculator = toy("calculator")
    before = calculator.evaluate(CHART)
    calculator.locator("[name=measured]").nth(1).check()
    assert [x for *_, x in calculator.evaluate(CHART)] != [x for *_, x in before]
    calculator.locator("[name=measured]").first.check()
    again = calculator.evaluate(CHART)
    assert [shape[:2] for shape in again] == [shape[:2] for shape in before]
    assert [x for *_, x in again] == pytest.approx([x for *_, x in before], abs=0.06)


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_and_every_preset_have_room(toy, name):
    one = toy(name)
    one.page.set_viewport_size({"width": 390, "height": 844})
    heights = set()
    for radio in one.locator("[type=radio]").all():
        radio.check()
        heights.add(one.evaluate(HEIGHT))
    assert len(heights) == 1 and one.page.evaluate(WIDE)


@pytest.mark.parametrize("name", PAGES)
def test_in_print_a_picture_stands_in(toy, name):
    one = toy(name)
    live, still = one.locator(".live"), one.locator(".still")
    assert live.is_visible() and not still.is_visible()
    one.page.emulate_media(media="print")
    assert still.is_visible() and not live.is_visible()


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_a_picture_stands_in(browser, server, name):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{server}{PAGES[name]}.html")
    one = page.locator(f".ttb-{name}").first
    assert one.locator(".still").is_visible() and not one.locator(".live").is_visible()
    context.close()
