"""Search finds the chapter that teaches what was asked."""

from urllib.parse import quote_plus

import pytest
from pages import PAGES

# What a reader types, and the page that should be the first or second chapter in the answer.
ASKED = [
    ("naive", "notebooks/01_naive"),
    ("greedy decoding", "notebooks/01_naive"),
    ("cold run", "notebooks/01_naive"),
    ("KV cache", "notebooks/02_kv_cache"),
    ("keys and values", "notebooks/02_kv_cache"),
    ("fragmentation", "notebooks/03_expandable_segments"),
    ("expandable segments", "notebooks/03_expandable_segments"),
    ("caching allocator", "notebooks/03_expandable_segments"),
    ("static cache", "notebooks/04_static_cache"),
    ("attention mask", "notebooks/04_static_cache"),
    ("torch.compile", "notebooks/05_torch_compile"),
    ("recompilation", "notebooks/05_torch_compile"),
    ("CUDA graph", "notebooks/05_torch_compile"),
    ("stop check", "notebooks/06_stop_check"),
    ("bubble", "notebooks/06_stop_check"),
    ("two streams", "notebooks/07_two_streams"),
    ("pinned memory", "notebooks/07_two_streams"),
    ("ping-pong", "notebooks/07_two_streams"),
    ("cuDNN plan", "notebooks/01_naive"),
    ("misconceptions", "book/teaching"),
    ("sampling", "book/your_model"),
    ("paged attention", "book/glossary"),
]


ASKED = [row for row in ASKED if row[1] in PAGES]


@pytest.mark.parametrize(("words", "wanted"), ASKED)
def test_search_finds_the_right_page(visit, words, wanted):
    assert f"{wanted}.html" in found(visit(f"search.html?q={quote_plus(words)}"), wanted)[:2]


def test_the_search_field_leads_to_what_it_finds(visit):
    words, wanted = ASKED[0]
    page = visit(f"{PAGES[0]}.html")
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input[type=search]").fill(words)
    page.keyboard.press("Enter")
    assert f"{wanted}.html" in found(page, wanted)[:2]
    assert page.foreign == []


def found(page, wanted):
    """Return the pages that a search has found, best first; the glossary only if it is wanted."""
    page.locator(".search-summary", has_text="Search finished").wait_for()
    links = page.locator("#search-results ul.search > li > a")
    addresses = links.evaluate_all("all => all.map(link => link.getAttribute('href'))")
    pages = dict.fromkeys(address.split("#")[0].split("?")[0] for address in addresses)
    return [
        address
        for address in pages
        if wanted == "book/glossary" or not address.endswith("glossary.html")
    ]
