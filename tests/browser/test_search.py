"""Search finds the chapter that teaches what was asked."""

from urllib.parse import quote_plus

import pytest
import yaml
from pages import PAGES, ROOT

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


# The section that explains a word, which should come first.
EXPLAINED = [
    ("stream", "notebooks/07_two_streams.html#the-idea-ping-pong"),
    ("bubble", "notebooks/06_stop_check.html#the-idea-asking-takes-an-answer"),
    ("KV cache", "notebooks/02_kv_cache.html#the-idea-keep-the-keys-and-values"),
    (
        "expandable segments",
        "notebooks/03_expandable_segments.html#the-idea-freed-memory-that-is-a-little-too-small",
    ),
    ("warm-up", "notebooks/01_naive.html#the-first-run-costs-extra"),
]


ASKED = [row for row in ASKED if row[1] in PAGES]


@pytest.mark.parametrize(("words", "wanted"), ASKED)
def test_search_finds_the_right_page(visit, words, wanted):
    assert f"{wanted}.html" in found(visit(f"search.html?q={quote_plus(words)}"), wanted)[:2]


@pytest.mark.parametrize(("word", "section"), EXPLAINED)
def test_search_leads_first_to_the_section_that_explains(visit, word, section):
    page = visit(f"search.html?q={quote_plus(word)}")
    page.locator(".search-summary", has_text="Search finished").wait_for()
    first = page.locator("#search-results ul.search > li").first
    assert first.locator("a").get_attribute("href") == section
    assert " > " in first.locator("a").inner_text()
    first.locator("p.context").wait_for()
    assert "import " not in first.locator("p.context").inner_text()


def test_every_word_of_the_search_has_its_section(book):
    words = yaml.safe_load((ROOT / "book" / "search.yml").read_text(encoding="utf-8"))
    for page, sections in words.items():
        html = (book / f"{page}.html").read_text(encoding="utf-8")
        assert [name for name in sections if f'<section id="{name}"' not in html] == [], page


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
