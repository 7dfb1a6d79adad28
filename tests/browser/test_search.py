"""Search finds the chapter that teaches what was asked."""

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


@pytest.mark.parametrize(("words", "wanted"), [row for row in ASKED if row[1] in PAGES])
def test_search_finds_the_right_page(visit, words, wanted):
    with visit(f"{PAGES[0]}.html") as page:
        page.keyboard.press("Control+k")
        page.locator("#pst-search-dialog input[type=search]").fill(words)
        page.keyboard.press("Enter")
        page.wait_for_selector("#search-results ul.search li a")
        page.wait_for_selector("#search-results .search-summary")
        page.wait_for_timeout(300)
        links = page.locator("#search-results ul.search > li > a")
        found = [link.get_attribute("href") for link in links.all()]
        assert page.foreign == []
        pages = list(dict.fromkeys(address.split("#")[0].split("?")[0] for address in found))
        if wanted != "book/glossary":
            pages = [address for address in pages if not address.endswith("glossary.html")]
        assert f"{wanted}.html" in pages[:2], pages
