"""The book's words: no number typed where a measurement belongs, no sentence in code, one anatomy."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")])
CHAPTERS = [path for path in PAGES if re.match(r"\d\d_.*\.ipynb$", path.name)]
NOTEBOOKS = [path for path in PAGES if path.suffix == ".ipynb"]

# Numbers with a unit that are no measurements: rules of PyTorch's caching allocator (its block and
# segment sizes, see decoding.allocator), and what chapter 3 asks the model of it for.
CONSTANTS = {"1 MiB", "2 MiB", "10 MiB", "20 MiB", "100 MiB"}

NUMBER = r"(?<![\w.])~?\d[\d,.]*(?:\s?[–-]\s?\d[\d,.]*)?"
UNIT = r"(?:[mµun]s|microseconds|milliseconds|[KMGT]iB|[TG]B/s|tokens/s)(?![\w/])"
# "4.5× the speed" and "×1.8", but not the product "4 × 48".
FACTOR = r"\d[\d.]*\s?×(?!\s?[\d(])|(?<![\w)\]}])(?<![\w)\]}] )×\s?\d[\d.]*"
MEASURED = re.compile(rf"{NUMBER}\s?{UNIT}|{FACTOR}")
MARKETING = re.compile(
    r"\b(simply|blazing\w*|blazingly|lightning[- ]fast|effortless\w*|seamless\w*|cutting[- ]edge|"
    r"state[- ]of[- ]the[- ]art|game[- ]chang\w+|revolution\w+|supercharge\w*|unleash\w*|"
    r"incredibl\w+|amazing\w*|awesome|magic\w*|of course|obviously|trivial\w*|just works)\b",
    re.IGNORECASE,
)


def markdown(path):
    """Return the Markdown of a page, without its code cells."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def prose(text):
    """Return ``text`` without what is no prose: fenced code, formulas, inline code and addresses.

    What a directive such as an admonition holds is prose and stays.
    """
    kept, fence = [], None
    for line in text.split("\n"):
        mark = re.match(r"\s*(`{3,}|~{3,})(.*)", line)
        if not mark:
            kept += [] if fence else [line]
        elif fence and mark[1].startswith(fence) and not mark[2].strip():
            fence = None
        elif not fence and re.match(r"\w|\{(code|eval-rst|math)", mark[2].strip()):
            fence = mark[1]
    text = "\n".join(kept)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"(?<!`)(`+)(?!`)((?:(?!\n\n).)*?)(?<!`)\1(?!`)", " ", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)|<https?:[^>]*>", "]", text)


def without_exercises(text):
    """Return ``text`` without exercises, solutions and quiz answers, whose numbers are given ones."""
    for name in ("exercise", "solution"):
        text = re.sub(rf"\{{{name}-start\}}.*?\{{{name}-end\}}", "", text, flags=re.DOTALL)
        text = re.sub(rf"^(`{{3,}}|:{{3,}})\{{{name}\}}.*?^\1$", "", text, flags=re.DOTALL | re.M)
    return re.sub(r"^(`{3,})\{dropdown\} Answer.*?^\1$", "", text, flags=re.DOTALL | re.M)


def typed_numbers(text):
    """Return the numbers with a unit of time, memory or speed-up that stand in prose."""
    found = [match[0].strip() for match in MEASURED.finditer(prose(without_exercises(text)))]
    return [number for number in found if number not in CONSTANTS]


def reading_minutes(path):
    """Return how long a notebook takes to read: its prose and the code that is not folded, without its exercises."""
    words = len(re.findall(r"\w[\w'’-]*", prose(without_exercises(markdown(path)))))
    cells = nbformat.read(path, as_version=4).cells
    tags = {"hide-input", "remove-input", "remove-cell", "solution"}
    shown = (
        cell.source
        for cell in cells
        if cell.cell_type == "code" and not tags & set(cell.metadata.get("tags", []))
    )
    lines = sum(bool(line.strip()) for source in shown for line in source.split("\n"))
    return words / WORDS_A_MINUTE + lines / LINES_A_MINUTE


def missing_parts(text):
    """Return what a chapter's anatomy asks for and ``text`` has not."""
    missing = []
    for kind in ("predict", "takeaway"):
        if not re.search(rf"\{{admonition\}}[^\n]*\n:class:[^\n]*\b{kind}\b", text):
            missing.append(f"an admonition of class {kind}")
    pairs = re.findall(r"\{(exercise|solution)(?:-start)?\}([^\n]*)\n(?::label: ([^\n]*))?", text)
    exercises = [label.strip() for kind, _, label in pairs if kind == "exercise"]
    if len(exercises) < 3:
        missing.append(f"three exercises (it has {len(exercises)})")
    after = [(kind, (label or title).strip()) for kind, title, label in pairs]
    for index, (kind, label) in enumerate(after):
        if kind == "exercise" and after[index + 1 : index + 2] != [("solution", label)]:
            missing.append(f"a solution right after the exercise {label!r}")
    positions = [
        text.find(mark) for mark in ("Predict\n:class:", "{exercise", "Takeaways\n:class:")
    ]
    if positions != sorted(positions):
        missing.append("the order: predict, exercises, takeaways")
    return missing


# Strings that are no part of a page's text: what a figure says and shows, an error, a command's help.
OF_FIGURES = {"title", "caption", "alt", "help"}
# What a run says where it has no GPU or no record, and the line under a title. No output of a page is
# a sentence: see below.
OF_THE_RUN = {"chapter.py", "stamp.py"}
WORDS_A_MINUTE, LINES_A_MINUTE = 220, 40  # of prose, and of code that is read for its idea
LONGEST = 12  # words: beyond, it is a sentence


def sentences(code):
    """Return the strings in ``code`` that are sentences of a page."""
    tree, skipped, found = ast.parse(code), set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)  # a docstring
        if isinstance(node, ast.Raise | ast.Assert) or getattr(node, "arg", None) in OF_FIGURES:
            skipped.update(ast.walk(node))
        if isinstance(node, ast.JoinedStr | ast.Constant) and node not in skipped:
            skipped.update(ast.walk(node))
            parts = [getattr(part, "value", None) for part in getattr(node, "values", [node])]
            text = " ".join(part for part in parts if isinstance(part, str))
            if len(re.findall(r"[A-Za-z]{2,}", text)) > LONGEST:
                found.append(text)
    return found


def name_of(path):
    return path.name


class TestTheChecksThemselves:
    @pytest.mark.parametrize(
        "text",
        [
            "A token takes 3.2 ms.",
            "It costs 165 µs of host time.",
            "a gap of 40–60 us",
            "It reserves 2,338 MiB.",
            "- ×1.8 faster",
            "That is 4.5× the speed.",
            "```{admonition} Takeaways\n:class: takeaway\nIt saves 610 MiB.\n```",
            "```python\nx = 1\n```\nThen 7 ms.",
            "A `step` of 8 ms, see `loop`.",
        ],
    )
    def test_a_typed_number_is_found(self, text):
        assert typed_numbers(text)

    @pytest.mark.parametrize(
        "text",
        [
            "32 rows of 512 tokens",
            "`7 ms` and ```` ``3 ms`` ````",
            "```text\n7 ms\n```",
            "```python\nprint('7 ms')\n```",
            "4 × 48 tokens",
            "rounded up to 2 MiB",
            "an H100 80GB HBM3",
            "```{exercise-start} Predict\n:label: a\n```\n40 GiB\n```{exercise-end}\n```",
            "```{solution} a\n:class: dropdown\n40 GiB\n```",
            "2 (a key and a value) × 24 × 16",
        ],
    )
    def test_other_numbers_are_left_alone(self, text):
        assert typed_numbers(text) == []

    def test_a_chapter_with_all_parts_passes_and_each_missing_part_is_named(self):
        predict = "```{admonition} Predict\n:class: predict\nGuess.\n```\n"
        takeaways = "```{admonition} Takeaways\n:class: takeaway\n- One.\n```\n"
        exercises = [
            f"```{{exercise-start}} Build: {label}\n:label: {label}\n```\n```{{exercise-end}}\n```\n"
            for label in "abc"
        ]
        solutions = [
            f"```{{solution-start}} {label}\n:class: dropdown\n```\n```{{solution-end}}\n```\n"
            for label in "abc"
        ]
        pairs = [exercise + solution for exercise, solution in zip(exercises, solutions)]
        assert missing_parts(predict + "".join(pairs) + takeaways) == []
        assert missing_parts("".join(pairs) + takeaways)
        assert missing_parts(predict + "".join(pairs))
        assert missing_parts(predict + "".join(pairs[:2]) + takeaways)
        assert missing_parts(predict + "".join(exercises + solutions) + takeaways)
        assert missing_parts(takeaways + "".join(pairs) + predict)

    def test_a_sentence_in_code_is_found(self):
        words = " ".join(["word"] * (LONGEST + 1))
        for code in (f"say({words!r})", f"x = f'{{y}} {words}'", f"def f():\n  return {words!r}"):
            assert sentences(code)
        for code in (f"draw(title={words!r})", f"raise E({words!r})", f"def f():\n  {words!r}"):
            assert sentences(code) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_says_nothing_in_its_code(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [
        cell.source for cell in cells if cell.cell_type == "code" and "%" not in cell.source[:1]
    ]
    assert [found for source in code for found in sentences(source)] == []


@pytest.mark.parametrize(
    "path",
    sorted({*ROOT.glob("src/decoding/pages/*.py"), *ROOT.glob("book/_ext/*.py")}),
    ids=name_of,
)
def test_what_makes_the_pages_holds_no_sentence_of_them(path):
    if path.name not in OF_THE_RUN:
        assert sentences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_no_output_is_a_sentence_of_the_page(path):
    shown = [
        output.get("data", {}).get("text/markdown", "")
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", ())
    ]
    words = [text for text in shown if not re.search(r"^(`{3}|\|)", text, re.M)]
    assert [text for text in words if len(re.findall(r"[A-Za-z]{2,}", text)) > LONGEST] == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
class TestEveryPage:
    def test_no_measured_number_is_typed(self, path):
        assert typed_numbers(markdown(path)) == []

    def test_it_has_no_marketing_words(self, path):
        assert [match[0] for match in MARKETING.finditer(prose(markdown(path)))] == []

    def test_it_has_no_formula_in_dollars(self, path):
        # They would be shown as they are: the book loads no MathJax.
        assert re.findall(r"\$[^$\n]+\$", prose(markdown(path))) == []

    def test_it_begins_with_its_only_title(self, path):
        levels = [len(mark) for mark in re.findall(r"^(#+) ", prose(markdown(path)), re.M)]
        assert levels.count(1) == 1 and levels[0] == 1


@pytest.mark.parametrize("path", CHAPTERS, ids=name_of)
def test_a_chapter_has_the_anatomy(path):
    assert missing_parts(markdown(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_reads_in_twenty_minutes(path):
    assert 2 < reading_minutes(path) <= 20
