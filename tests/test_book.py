"""What holds for every page of the built book, and for every notebook, without a browser."""

import copy
import json
import re
import shutil

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pages import CHAPTERS, NOTEBOOKS, PAGES, ROOT, build

from decoding.pages.stamp import freshness

CALLOUTS = {"predict", "takeaway", "trap", "hardware"}
LONGEST_LINE = 80  # what fits on a page
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
NO_NEW_LOOP = ("notebooks/11", "notebooks/12", "notebooks/13", "notebooks/15")


@pytest.fixture(scope="session")
def soups(book):
    """Every page of the book, parsed."""
    return {
        page: BeautifulSoup((book / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        for page in PAGES
    }


def markdown_of(page):
    cells = nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def code_of(page):
    cells = nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def test_the_table_of_contents_names_every_page_there_is():
    there = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}
    there |= {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert sorted(PAGES) == sorted(there)


def test_pages_have_titles_and_descriptions_of_their_own(soups):
    titles, descriptions = [], []
    for page, soup in soups.items():
        for name, value in (("name", "description"), ("property", "og:description")):
            (tag,) = soup.find_all("meta", {name: value})
            assert 40 < len(tag["content"]) <= 203, page
        descriptions.append(tag["content"])
        (shared,) = soup.find_all("meta", {"property": "og:title"})
        assert "<" not in shared["content"]
        titles.append(shared["content"])
        assert soup.title.get_text(strip=True)
    assert len(set(titles)) == len(set(descriptions)) == len(soups)


def test_every_section_has_an_address_that_stays(soups):
    # Sphinx numbers what it cannot name (id1, id2, …): such an address moves with the text.
    for page, soup in soups.items():
        numbered = [
            part["id"] for part in soup.find_all("section") if re.match(r"id\d+$", part["id"])
        ]
        assert numbered == [], f"{page}: sections that share their title with another"


def test_a_citation_says_what_its_entry_is_called(soups):
    bibliography = soups["book/bibliography"]
    labels = {
        entry["id"]: entry.select_one(".label").get_text(strip=True).strip("[]")
        for entry in bibliography.select("div.citation")
    }
    assert len(labels) == len(set(labels.values())) > 10
    cited = {
        (link["href"].partition("#")[2], link.get_text(strip=True))
        for page, soup in soups.items()
        for link in soup.select('article a[href*="bibliography.html#"]')
        if link["href"].partition("#")[2] in labels
    }
    assert cited and all(labels[anchor] == words for anchor, words in cited)


def test_the_package_page_shows_the_help_of_the_shell(soups):
    assert "--no-check RUNG" in soups["book/api"].get_text()


def test_pages_load_nothing_from_elsewhere(soups):
    for page, soup in soups.items():
        sources = [tag.get("src") or "" for tag in soup.find_all(["script", "img", "iframe"])]
        sources += [tag.get("href") or "" for tag in soup.find_all("link")]
        assert [source for source in sources if re.match(r"(https?:)?//", source)] == [], page


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_the_line_under_the_title_says_where_the_numbers_come_from(soups, page):
    (line,) = soups[page].select(".ttb-recorded")
    under_the_title = line.find_parent(class_="ttb-masthead") or line
    assert under_the_title.find_previous_sibling().name == "h1"
    state = freshness(ROOT / f"{page}.ipynb")
    assert f"ttb-{state}" in line["class"]
    # What is fresh needs no more than to be found; what is not says so openly.
    assert line.name == ("details" if state == "fresh" else "p")
    assert "torch" in line.get_text() or state == "unrecorded"


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_begins_with_its_masthead_and_no_code_before_the_prediction(soups, page):
    main = soups[page].find("article")
    (head,) = main.select(".ttb-masthead")
    for link in head.select("nav a"):
        assert f"notebooks/{link['href'].removesuffix('.html')}" in PAGES
    if head.select("form"):
        assert head.select(".ttb-secret")
    prediction = main.select_one("div.admonition.predict")
    for part in prediction.find_all_previous(class_=["ttb-setup", "cell_output"]):
        assert "ttb-setup" not in part["class"]
    assert not prediction.find_all_previous("div", class_="tag_hide-input")
    (setup,) = main.select("details.ttb-setup")
    assert "import" in setup.get_text() and prediction.find_next("details") is not None


def test_the_search_does_not_read_the_ladder_on_every_page(book):
    index = (book / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    found = index["terms"].get("pale", [])  # a word of every masthead, and of some captions
    found = {index["docnames"][at] for at in (found if isinstance(found, list) else [found])}
    assert found < set(CHAPTERS)


@pytest.mark.parametrize("page", CHAPTERS)
class TestEveryChapter:
    def test_it_has_its_parts(self, soups, page):
        main = soups[page].find("article")
        for callout in ("predict", "takeaway"):
            assert main.select(f"div.admonition.{callout}"), callout
        exercises = main.select("div.exercise")
        assert len(exercises) >= 3
        folded = main.select("div.solution.dropdown")
        assert len(folded) == len(main.select("div.solution")) == len(exercises)
        # The first loop has none before it, and three chapters lay out what there is.
        if page != CHAPTERS[0] and not page.startswith(NO_NEW_LOOP):
            assert main.select(".ttb-step-card"), "no step card"
            assert "drawing.diff(" in code_of(page), "no diff from the step before"

    def test_it_links_terms_and_sources(self, soups, page):
        main = soups[page].find("article")
        assert main.select('a[href*="glossary.html#term-"]')
        assert main.select('a[href*="bibliography.html#"]')

    @pytest.mark.parametrize(
        "term",
        [
            "KV cache",
            "static cache",
            "stop check",
            "CUDA graph",
            "idle share",
            "prefill",
            "bfloat16",
        ],
    )
    def test_a_term_links_to_the_glossary_where_it_is_first_used(self, soups, page, term):
        main = copy.copy(soups[page].find("article"))
        for closed in main.select("h1, h2, h3, pre, code, svg, script, style, th, td"):
            closed.decompose()
        for text in main.find_all(string=re.compile(rf"\b{re.escape(term)}\b", re.IGNORECASE)):
            link, paragraph = text.find_parent("a"), text.find_parent("p")
            if paragraph is None or "admonition-title" in paragraph.get("class", []):
                continue
            if link and "glossary.html" not in link["href"]:
                continue  # a link of its own, to the term's chapter
            assert link, text.find_parent().get_text()
            return

    def test_its_callouts_are_known(self, page):
        for text in markdown_of(page):
            for classes in re.findall(r"\{admonition\}[^\n]*\n:class: *([^\n]*)", text):
                assert CALLOUTS & set(classes.split()), classes


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_code_fits_the_page(page):
    cells = nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells
    shown = [
        cell
        for cell in cells
        if cell.cell_type == "code" and not HIDDEN & set(cell.metadata.get("tags", []))
    ]
    lines = [line for cell in shown for line in cell.source.split("\n")]
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


STAMP = {
    "gpu": "a GPU of the test",
    "driver": "1.2",
    "cuda": "13.0",
    "torch": "2.11.0",
    "transformers": "5.17.0",
    "python": "3.12",
    "date": "2026-11-23T12:00:00Z",
    "seconds": 200,
}
VALUES = """# Values

```{values} decoding.drawing decoding.drawing.words decoding.pages.teaching
```

One rung of two: {eval}`ms(1.234)`, {eval}`ms(single("nowhere").ms)`.

```{show} single("nowhere")
Not there.
```

```{show} table(["made up"], [[1]])
```

```{show} Picture("A drawing", [], alt="What it shows.")
```
"""


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    """A book of a few small pages under this book's settings, its repository's address set."""
    source = tmp_path_factory.mktemp("small")
    for name in ("_ext", "_static", "_templates", "_vendor", "references.bib"):
        copy = shutil.copytree if (ROOT / "book" / name).is_dir() else shutil.copy
        (source / "book").mkdir(exist_ok=True)
        copy(ROOT / "book" / name, source / "book" / name)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["repository"]["url"] = "https://github.com/someone/a-book"
    (source / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    toc = {"format": "jb-book", "root": "intro"}
    names = ("values", "stale", "unrecorded")
    toc["parts"] = [{"chapters": [{"file": name} for name in names]}]
    (source / "values.md").write_text(VALUES, encoding="utf-8")
    (source / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (source / "intro.md").write_text("# A small book\n\nIts first paragraph.\n", encoding="utf-8")
    for name, metadata in (("stale", {"recorded": STAMP}), ("unrecorded", {})):
        cells = [
            new_markdown_cell(f"# A {name} page\n\nIt is here for a test."),
            new_code_cell("1"),
        ]
        metadata |= {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        metadata |= {"language_info": {"name": "python"}}
        metadata |= {"keywords": "a word, another one"}
        nbformat.write(new_notebook(cells=cells, metadata=metadata), source / f"{name}.ipynb")
    return build(source, tmp_path_factory.mktemp("small_built"))


def test_launch_buttons_come_with_the_address_of_the_repository(small_book, book):
    html = (small_book / "stale.html").read_text(encoding="utf-8")
    for service in ("colab.research.google.com/github", "mybinder.org/v2/gh"):
        assert f"https://{service}/someone/a-book" in html
    if not yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]:
        for page in NOTEBOOKS:
            html = (book / f"{page}.html").read_text(encoding="utf-8")
            assert "colab.research.google.com/github" not in html
            assert "mybinder.org" not in html


@pytest.mark.parametrize("page", ["stale", "unrecorded"])
def test_a_page_that_is_not_fresh_says_so(small_book, page):
    html = (small_book / f"{page}.html").read_text(encoding="utf-8")
    (line,) = BeautifulSoup(html, "html.parser").select(".ttb-recorded")
    assert f"ttb-{page}" in line["class"]


def test_a_markdown_page_shows_values_and_what_stands_in_for_missing_ones(small_book):
    html = (small_book / "values.html").read_text(encoding="utf-8")
    words = BeautifulSoup(html, "html.parser").find("article").get_text(" ", strip=True)
    assert "One rung of two: 1.23\u00a0ms, –." in words
    assert "Not there." in words
    assert "made up" in words
    assert '<figure class="ttb-figure">' in html


def test_keywords_reach_the_search(small_book):
    index = (small_book / "searchindex.js").read_text(encoding="utf-8")
    assert '"a word"' in index
    assert '"another one"' in index
