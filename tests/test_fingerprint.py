"""The hash of the code behind a number: what changes it, and what does not."""

import ast
import shutil

import pytest

from decoding.measuring.fingerprint import FOLDER, canonical, fingerprint, rungs_named_in

CELLS = ['record = chapter.measure("kv_cache")', "print(record)  # show it"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A copy of the ground floor and of the measurement."""
    copy = tmp_path_factory.mktemp("tree") / "decoding"
    wings = shutil.ignore_patterns("drawing", "pages", "__pycache__")
    return shutil.copytree(FOLDER, copy, ignore=wings)


@pytest.fixture
def changed(pristine):
    """A function that changes a copied file and says whether the hash for kv_cache changed."""
    kept = {}

    def change(file, old, new):
        path = pristine / file
        kept[path] = path.read_text("utf-8")
        assert old in kept[path], f"{file} no longer holds {old!r}: adapt this test"
        before = fingerprint(["kv_cache"], folder=pristine)
        path.write_text(kept[path].replace(old, new, 1), "utf-8")
        return fingerprint(["kv_cache"], folder=pristine) != before

    yield change
    for path, text in kept.items():
        path.write_text(text, "utf-8")


RUNG = 'Rung("expandable_segments", "expandable segments", kv_cache.decode, EXPANDABLE),'


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("measuring/probes.py", "WINDOW_TOKENS = 6, 8", "WINDOW_TOKENS = 6, 9"),
        ("measuring/records.py", '"median": significant(median(values))', '"median": 1.0'),
        ("measuring/timeline.py", "start < item.end_us", "start <= item.end_us"),
        ("generation.py", "input_ids.long()", "input_ids"),
        ("models.py", '"initializer_range": 0.05', '"initializer_range": 0.06'),
        ("loops/kv_cache.py", "range(max_new_tokens)", "range(1, max_new_tokens)"),
        ("rungs.py", "expandable_segments:True", "expandable_segments:False"),
        ("rungs.py", "kv_cache.decode),", "kv_cache.decode, EXPANDABLE),"),
        ("rungs.py", "n=2, cutoff=0.3", "n=3, cutoff=0.3"),
    ],
)
def test_what_can_change_a_number_counts(changed, file, old, new):
    assert changed(file, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("checks.py", "ask for at least 1 token.", "one is the least."),
        ("measuring/errors.py", '"""Why there is no number."""', '"""Reasons."""'),
        ("measuring/probes.py", "import tempfile", "import tempfile  # why\nimport shutil"),
        ("measuring/report.py", "'p95 ms':>9", "'p95':>9"),
        ("loops/two_streams.py", "step % 2", "step % 3"),
        ("allocator.py", "MIN_BLOCK = 512", "MIN_BLOCK = 256"),
        ("captured.py", "WARM_UP = 3", "WARM_UP = 4"),
        ("measuring/endings.py", "step + 1", "step + 2"),
        ("__main__.py", "default: %(default)s", "%(default)s"),
        ("rungs.py", RUNG, RUNG + ' Rung("new", "new", two_streams.decode, EXPANDABLE),'),
        ("rungs.py", '"KV cache"', '"key and value cache"'),
        ("rungs.py", 'Rung("naive", "naive", naive', 'Rung("slow", "slow", naive'),
    ],
)
def test_what_changes_no_number_does_not(changed, file, old, new):
    assert not changed(file, old, new)


def test_every_rung_has_its_own(pristine):
    hashes = {fingerprint([name]) for name in ("naive", "kv_cache", "expandable_segments")}
    assert len(hashes) == 3
    assert fingerprint(["kv_cache"]) == fingerprint(["kv_cache", "no rung"], folder=pristine)


def test_what_stands_apart_counts_where_it_is_imported_or_named(pristine):
    asked = (["captured_graph"], ["device_loop"], ["endings"], ["two_streams"])
    before = [fingerprint(names, folder=pristine) for names in asked]
    for file, old, new, expected in (
        ("captured.py", "WARM_UP = 3", "WARM_UP = 4", [True, True, True, False]),
        ("while_graph.py", "THREADS = 128", "THREADS = 64", [False, True, False, False]),
        ("measuring/endings.py", "step + 1", "step + 2", [False, False, True, False]),
    ):
        text = (pristine / file).read_text("utf-8")
        assert old in text
        (pristine / file).write_text(text.replace(old, new), "utf-8")
        after = [fingerprint(names, folder=pristine) for names in asked]
        (pristine / file).write_text(text, "utf-8")
        assert [one != other for one, other in zip(before, after)] == expected, file


def test_cells_count():
    same = fingerprint(["kv_cache"], [CELLS[0], "%pip install x\nimport torch\nprint( record )"])
    assert fingerprint(["kv_cache"], CELLS) == same
    assert fingerprint(["kv_cache"], CELLS) != fingerprint(["kv_cache"], CELLS[:1])


def test_the_rungs_of_a_notebook_are_those_that_its_code_names():
    cells = ['a = "two_streams"', 'measure("naive"); b = "no rung"', "kv_cache = 1"]
    assert rungs_named_in(cells) == ["naive", "two_streams"]
    cells.append("from decoding.measuring.endings import endings")
    assert rungs_named_in(cells) == ["naive", "two_streams", "endings"]


class TestCanonical:
    def text(self, source):
        return canonical(ast.parse(source))

    def test_comments_docstrings_and_layout_do_not_count(self):
        one = 'def f(a):\n    """Say."""\n    # why\n    return (a +\n        1)\n'
        assert self.text(one) == self.text("def f(a): return a + 1")

    def test_imports_and_what_a_raise_says_do_not_count(self):
        one = 'import a\ndef f():\n    from b import c\n    raise E(f"no {x}", 1) from e'
        assert self.text(one) == self.text('def f():\n    raise E("none") from e')

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("f(1)", "f(2)"),
            ("f(a=1)", "f(b=1)"),
            ('x = "a"', 'x = "b"'),
            ("raise E(1)", "raise F(1)"),
            ("raise E(1) from a", "raise E(1) from b"),
        ],
    )
    def test_code_counts(self, one, other):
        assert self.text(one) != self.text(other)
