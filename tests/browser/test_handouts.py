"""The sheets for a class on paper: as many pages as the page says, and nothing else."""

import re

PAGES_OF_PDF = re.compile(rb"/Type\s*/Page\b")
ALONE = """at => document.querySelectorAll("section:has(> .ttb-sheet)").forEach((sheet, number) => {
  if (number !== at) sheet.remove();
})"""


def test_each_sheet_has_the_pages_that_the_list_gives(visit):
    page = visit("book/handouts.html")
    listed = (
        page.locator("article table").first.locator("tbody tr td:nth-child(2)").all_inner_texts()
    )
    taken, at = [], 1
    for number in range(len(listed)):
        page.reload()
        page.evaluate(ALONE, number)
        pages = len(PAGES_OF_PDF.findall(page.pdf(format="A4")))
        taken.append(f"{at}–{at + pages - 1}" if pages > 1 else f"{at}")
        at += pages
    assert taken == listed
    page.reload()
    assert len(PAGES_OF_PDF.findall(page.pdf(format="A4"))) == at - 1


def test_nothing_else_is_printed(visit):
    page = visit("book/handouts.html")
    page.emulate_media(media="print")
    for gone in ("h1", "article table", ".bd-sidebar-primary", ".bd-header-article", ".bd-footer"):
        assert not page.locator(gone).first.is_visible(), gone
    for sheet in page.locator(".ttb-sheet").all():
        assert sheet.is_visible()
    assert page.locator("article section h2").first.is_visible()
