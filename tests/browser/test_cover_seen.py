"""The first screens of the cover and the scoreboard, and the page at the root."""

import pytest
from pages import PAGES

SCREEN = {"width": 1280, "height": 800}


@pytest.fixture
def cover(visit):
    page = visit("book/intro.html")
    page.set_viewport_size(SCREEN)
    return page


def bottom(found):
    box = found.bounding_box()
    return box["y"] + box["height"]


def test_the_first_screen_has_the_question_the_first_bars_and_a_way_in(cover):
    frame = cover.locator(".ttb-cover")
    assert "Why is a GPU idle" in frame.locator("strong").first.inner_text()
    start = frame.locator("a", has_text="Start")
    assert start.get_attribute("href").endswith("notebooks/01_naive.html")
    assert bottom(start) < SCREEN["height"]
    first, second = frame.locator(".ttb-row .ttb-panel").all()
    assert first.bounding_box()["y"] == second.bounding_box()["y"], "side by side"
    assert first.bounding_box()["y"] + 100 < SCREEN["height"]
    cover.set_viewport_size({"width": 390, "height": 844})
    assert bottom(first) <= second.bounding_box()["y"], "one below the other on a phone"


def test_cards_lead_to_the_chapters(cover, book):
    links = [card.get_attribute("href") for card in cover.locator("a.ttb-card").all()]
    assert len(links) >= 7
    pages = {f"../{page}.html" for page in PAGES}
    assert set(links) <= pages
    assert all((book / "book" / link).resolve().is_file() for link in links)


def test_the_root_page_says_what_the_book_is_and_leads_to_it(visit, book):
    written = (book / "index.html").read_text(encoding="utf-8")
    for part in ("<title>Token by Token</title>", 'name="description"', 'rel="canonical"'):
        assert part in written
    assert '<a href="book/intro.html">' in written, "without JavaScript and without a refresh"
    page = visit("index.html")
    page.wait_for_url("**/book/intro.html")


def test_every_page_names_a_picture_that_is_there(visit, book):
    page = visit("notebooks/01_naive.html")
    image = page.locator('meta[property="og:image"]').get_attribute("content")
    assert (book / "notebooks" / image).resolve().is_file()
    for name, value in (("og:image:width", "1200"), ("og:image:height", "630")):
        assert page.locator(f'meta[property="{name}"]').get_attribute("content") == value
    assert page.locator('meta[property="og:image:alt"]').get_attribute("content")


def test_the_board_of_verdicts_comes_first_and_opens_by_keyboard(visit):
    page = visit("notebooks/scoreboard.html")
    page.set_viewport_size(SCREEN)
    board = page.locator("figure.ttb-board")
    assert board.bounding_box()["y"] < 1000 - 200
    rows = board.locator("details")
    assert rows.count() == 13
    rows.first.locator("summary").press("Enter")
    assert rows.first.get_attribute("open") is not None
    for row in rows.all():
        anchor = row.locator("a").get_attribute("href", timeout=1000)
        assert page.locator(anchor).count() == 1, anchor
