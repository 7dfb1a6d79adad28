"""The first screen of every chapter: the headline, what it covers until there is a guess, the links."""

import json
from pathlib import Path
from urllib.parse import urljoin

import pytest
from pages import CHAPTERS

KEY = "token-by-token-guesses"
SCREENS = {"a laptop": (1280, 800), "a phone": (390, 844)}
SCOREBOARD = "notebooks/scoreboard.html"
# Whether an element is seen, and where a reader without eyes hears it, too.
SEEN = "all => all.map(one => one.checkVisibility({visibilityProperty: true}))"


@pytest.fixture
def fresh(browser, server):
    """A function that opens a page for somebody who has not been in the book before."""
    contexts = []

    def open_page(name, size=SCREENS["a laptop"], **options):
        viewport = dict(zip(("width", "height"), size))
        contexts.append(browser.new_context(viewport=viewport, reduced_motion="reduce", **options))
        page = contexts[-1].new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(server + name)
        return page

    yield open_page
    for each in contexts:
        each.close()


def seen(page, selector):
    """Return for each element that ``selector`` finds whether it is seen."""
    return page.locator(selector).evaluate_all(SEEN)


@pytest.fixture(params=CHAPTERS, ids=lambda page: Path(page).name[:2])
def chapter(request):
    return f"{request.param}.html"


@pytest.mark.parametrize("size", SCREENS.values(), ids=SCREENS.keys())
def test_the_first_screen_has_the_headline(fresh, chapter, size):
    page = fresh(chapter, size)
    head = page.locator(".ttb-masthead")
    assert head.count() == 1
    if head.locator(".ttb-heads").count() == 0:
        pytest.skip("the chapter has no headline")
    for one in head.locator(".ttb-change").all():
        box = one.bounding_box()
        assert box["y"] > 0 and box["y"] + box["height"] < 800
        assert box["x"] >= 0 and box["x"] + box["width"] <= size[0]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_answer_is_covered_until_it_is_asked_for(fresh, chapter):
    page = fresh(chapter)
    if page.locator(".ttb-guess").count() == 0:
        pytest.skip("the chapter asks nothing")
    assert not any(seen(page, ".ttb-asks .ttb-secret"))
    assert not any(seen(page, ".ttb-ahead svg"))
    answers = page.locator(".ttb-guess input").evaluate_all("all => all.map(f => f.dataset.words)")
    heard = page.locator(".ttb-masthead").aria_snapshot()
    assert not [words for words in answers if words in heard]
    page.get_by_role("button", name="Show me").press("Enter")
    assert all(seen(page, ".ttb-heads .ttb-secret"))
    assert all(seen(page, ".ttb-here svg"))
    assert not any(
        seen(page, ".ttb-ahead:not(.ttb-here) svg, .ttb-ahead:not(.ttb-here) .ttb-secret")
    )
    assert not any(seen(page, ".ttb-heads .ttb-lid, .ttb-here .ttb-lid, .ttb-unit-of, .ttb-guess"))
    assert page.evaluate("document.activeElement.className") == "ttb-heads"
    page.reload()
    assert all(seen(page, ".ttb-heads .ttb-secret"))
    assert page.problems == []


def test_a_rung_is_shown_once_its_own_page_was_asked(fresh):
    page = fresh(f"{CHAPTERS[1]}.html")
    page.get_by_role("button", name="Show me").click()
    page.goto(urljoin(page.url, f"/{CHAPTERS[0]}.html"))
    assert seen(page, ".ttb-ahead svg")[:3] == [False, True, False]
    assert seen(page, ".ttb-ahead .ttb-lid")[:3] == [True, False, True]


def test_a_guess_is_compared_kept_and_summed_up(fresh):
    page = fresh(f"{CHAPTERS[1]}.html")
    fields = page.locator(".ttb-guess input").all()
    answers = [float(field.get_attribute("data-answer")) for field in fields]
    compare = page.get_by_role("button", name="Compare")
    verdict = page.locator(".ttb-verdict")
    assert verdict.get_attribute("role") == "status"

    compare.click()  # nothing was typed
    assert "guess" in verdict.inner_text() and not any(seen(page, ".ttb-secret"))
    fields[0].fill("soon")
    compare.click()
    assert "number" in verdict.inner_text() and not any(seen(page, ".ttb-secret"))

    fields[0].fill(f"{3 * answers[0]:.5g}")
    fields[1].fill("×2")
    fields[1].press("Enter")
    first, second = page.locator(".ttb-verdict li").all_inner_texts()
    assert first.endswith("×3.0 off") and fields[0].get_attribute("data-words") in first
    half = float(fields[1].get_attribute("data-before")) / 2
    assert f"you said {half:.3g}" in second
    kept = json.loads(page.evaluate(f"localStorage.getItem('{KEY}')"))
    assert list(kept) == [page.locator(".ttb-masthead").get_attribute("data-page")]

    page.goto(urljoin(page.url, "/" + SCOREBOARD))
    near = 1 if max(half / answers[1], answers[1] / half) <= 2 else 0
    summary = page.locator(".ttb-guesses summary")
    total = page.locator(".ttb-guesses tbody tr").count()
    assert f"within ×2 in {near} of 2, of {total}" in summary.inner_text()
    summary.click()
    assert page.locator(".ttb-guesses tbody tr:visible").count() == 2
    page.get_by_role("button", name="Forget them").click()
    assert page.locator(".ttb-guesses").is_hidden()
    assert page.evaluate(f"localStorage.getItem('{KEY}')") is None
    page.go_back()
    assert not any(seen(page, ".ttb-asks .ttb-secret"))
    assert page.problems == []


@pytest.mark.parametrize(
    ("typed", "meant"), [("1,234", 1234), ("2,5", 2.5), (" .5 ms", 0.5), ("12 %", 12)]
)
def test_numbers_are_read_as_they_are_written(fresh, typed, meant):
    page = fresh(f"{CHAPTERS[1]}.html")
    page.locator(".ttb-guess input").last.fill(typed)
    page.get_by_role("button", name="Compare").click()
    kept = json.loads(page.evaluate(f"localStorage.getItem('{KEY}')"))
    assert meant in next(iter(kept.values())).values()


def test_where_nothing_may_be_kept_a_page_still_compares(fresh):
    page = fresh("book/glossary.html")  # which leads nowhere by itself, as the root does
    page.context.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('blocked'); }})"
    )
    page.goto(urljoin(page.url, f"/{CHAPTERS[1]}.html"))
    ours = "[...document.querySelectorAll('.ttb-guess input')].length"
    assert page.evaluate(ours)
    page.locator(".ttb-guess input").first.fill("3")
    page.get_by_role("button", name="Compare").click()
    assert page.locator(".ttb-verdict li").count() == 1
    assert all(seen(page, ".ttb-heads .ttb-secret"))


def test_without_scripts_and_in_print_everything_is_shown(fresh, chapter):
    page = fresh(chapter, java_script_enabled=False)
    for media in ("screen", "print"):
        page.emulate_media(media=media)
        for one in page.locator(".ttb-heads .ttb-secret, .ttb-rungs svg").all():
            assert one.is_visible()
        for one in page.locator(".ttb-lid, .ttb-guess").all():
            assert not one.is_visible()
    page = fresh(chapter)  # with scripts, and nothing guessed
    page.emulate_media(media="print")
    assert all(seen(page, ".ttb-heads .ttb-secret")) and all(seen(page, ".ttb-rungs svg"))
    assert not any(seen(page, ".ttb-lid, .ttb-guess"))


def test_every_bar_leads_to_a_page(fresh, chapter):
    page = fresh(chapter)
    links = page.locator(".ttb-rungs a")
    for href in links.evaluate_all("all => all.map(link => link.href)"):
        assert page.request.get(href).ok
    for link in links.all():
        assert link.get_attribute("href") and link.inner_text().strip()
    limits = page.locator(".ttb-detail a").evaluate_all("all => all.map(link => link.href)")
    for href in set(limits):
        assert f'id="{href.partition("#")[2]}"' in page.request.get(href).text()


def test_the_line_on_the_recording_opens(fresh):
    page = fresh(f"{CHAPTERS[0]}.html")
    line = page.locator("details.ttb-recorded")
    assert "driver" not in line.inner_text()
    line.locator("summary").click()
    assert "driver" in line.inner_text()
