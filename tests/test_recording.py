"""Pages: what is executed, kept, stamped and shown, and what a failed run leaves behind."""

import io
import os
import signal
import threading
import time
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta

import nbformat
import pytest
from factories import record as made_up
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from decoding import measuring
from decoding.measuring import MeasurementError, NeedsGpu, NotMeasured, NotRecorded, Record
from decoding.measuring.experiments import provoke
from decoding.measuring.records import load, save
from decoding.pages import chapter as chapters
from decoding.pages import copies, execute, machines, reading, shelf, stamp
from decoding.pages.chapter import Chapter
from decoding.pages.files import notebooks
from decoding.pages.inline import KEY, MISSING, asked_in, filled, store, stored_in
from decoding.pages.kept import WAITING
from decoding.pages.kernel import Ran
from decoding.pages.kernel import execute as run_cells
from decoding.pages.names import cells_behind, names_in
from decoding.pages.shelf import Shelf, Sitting

MACHINE = {
    "device": "cuda",
    "gpu": "a GPU",
    "gpu_memory_mib": 80_000,
    "driver": "1",
    "cuda": "13.0",
    "torch": "2.11.0",
    "transformers": "5.17.0",
    "python": "3.12.3",
    "date": "2026-11-23T12:00:00Z",
}


def cell(source, *tags, **more):
    """A code cell, or a Markdown cell where the source begins with #."""
    make = new_markdown_cell if source.startswith("# ") else new_code_cell
    return make(source, metadata={"tags": list(tags)} if tags else {}, **more)


def notebook_of(*cells):
    return new_notebook(cells=[one if isinstance(one, dict) else cell(one) for one in cells])


def notebook_at(path, *cells):
    nbformat.write(notebook_of(*cells), path)
    return path


def shown(one):
    """What a cell shows, as one text."""
    parts = [out.get("text") or out.get("data", {}).get("text/markdown") for out in one.outputs]
    return "".join(filter(None, parts))


def stamped(notebook):
    """``notebook`` as recorded just now."""
    stamp.put_facts(notebook, MACHINE, [MACHINE["date"]])
    stamp.put(notebook)
    return notebook


class TestNames:
    """Which cells a cell depends on."""

    def behind(self, *sources):
        return cells_behind([names_in(source) for source in sources])

    @pytest.mark.parametrize(
        ("sources", "found"),
        [
            (["a = 1", "b = a", "c = 2", "print(b)"], [0, 1]),
            (["a = 1", "b = [2]", "print([a for a in b])"], [1]),
            (["a = 1", "b = {a: 2 for a in (3, 4)}", "print(a)"], [0]),
            (["a = 1", "a = 2", "print(a)"], [1]),
            (["a = 1", "if b:\n    a = 2", "print(a)"], [0, 1]),
            (["a = []", "a.append(1)", "print(a)"], [0, 1]),
            (["a = {}", "a['b'].c = 1", "print(a)"], [0, 1]),
            (["a = 1", "a += 1", "print(a)"], [0, 1]),
            (["a = 1", "a += 1"], [0]),
            (["a = 1", "for b in c:\n    a += b"], [0]),
            (["a = 1", "a = 2\na += 1"], []),
            (["a = 1", "def f(a):\n    a += 1"], []),
            (["def f():\n    return a", "a = 1", "print(f())"], [0, 1]),
            (["class A:\n    b = c", "A()"], [0]),
            (["import a", "from a import b\nc = 1", "print(a, b)"], []),
            (["a = 1", "def f(a):\n    return a\nf(2)"], []),
            (["a = 1", "for a in range(3):\n    print(a)"], []),
            (["a = 1", "a = 2\nprint(a)"], []),
            (["a = 1", "with f() as a:\n    print(a)"], []),
            (["a = 1", "[a for a in ()]"], []),
            (["%pip install x\na = 1", "print(a)"], [0]),
        ],
    )
    def test_they_are_told_by_the_names_that_it_reads(self, sources, found):
        assert self.behind(*sources) == found


class TestFreshness:
    CELLS = ('a = "kv_cache"', "b = 2", "print(a)", "# It is {eval}`a`.")

    def page(self, *cells):
        notebook = notebook_of(*(cells or self.CELLS))
        for one in notebook.cells:
            store(one, dict.fromkeys(asked_in(one), "kv_cache"))
        return stamped(notebook)

    def test_what_was_stamped_is_fresh(self, tmp_path):
        notebook = self.page()
        assert stamp.examine(notebook) == ("fresh", [])
        nbformat.write(notebook, tmp_path / "01.ipynb")
        assert stamp.freshness(tmp_path / "01.ipynb") == "fresh"

    def test_what_was_never_recorded(self):
        assert stamp.examine(notebook_of(*self.CELLS)) == ("unrecorded", [])

    @pytest.mark.parametrize(
        "source",
        ["a='kv_cache'  # why", "import os\na = (\n    'kv_cache')", "'said'\na = 'kv_cache'"],
    )
    def test_layout_comments_and_imports_do_not_count(self, source):
        notebook = self.page()
        notebook.cells[0].source = source
        assert stamp.examine(notebook) == ("fresh", [])

    def test_a_changed_cell_is_stale_and_so_are_those_that_depend_on_it(self):
        notebook = self.page()
        notebook.cells[0].source = 'a = "naive"'
        state, cells = stamp.examine(notebook)
        assert state == "stale"
        assert cells == [notebook.cells[at].id for at in (0, 2, 3)]

    def test_a_cell_that_is_gone_or_new(self):
        notebook = self.page()
        first = notebook.cells.pop(0)
        assert stamp.examine(notebook) == ("stale", [one.id for one in notebook.cells[1:]])
        notebook.cells.insert(0, first)
        notebook.cells.append(new_code_cell("c = 3"))
        assert stamp.examine(notebook) == ("stale", [notebook.cells[-1].id])

    @pytest.mark.parametrize("names", ["'kv_cache'", "RUNGS"])
    def test_a_loop_that_changed_counts_where_it_is_named(self, names, monkeypatch):
        notebook = self.page(f"a = {names}", "b = 'no rung'", "print(a)", "# {eval}`a`")
        changed = {"kv_cache": "new"}
        monkeypatch.setattr(
            stamp, "fingerprint", lambda rungs: "".join(changed.get(one, one) for one in rungs)
        )
        stamp.put(notebook)
        changed["kv_cache"] = "newer"
        assert stamp.examine(notebook) == ("stale", [notebook.cells[at].id for at in (0, 2, 3)])

    def test_a_conclusion_that_changed_counts_where_it_is_drawn(self, tmp_path, monkeypatch):
        module = tmp_path / "results.py"
        module.write_text("def f():\n    return g()\n\n\ndef g():\n    return 1\n")
        monkeypatch.setattr(stamp, "RESULTS", module)
        notebook = self.page(
            "results.f()", "results.h()", "a = 1", "# {eval}`results.g()`, {eval}`a`"
        )
        module.write_text(module.read_text().replace("1", "2") + "\n\nH = 1\n")
        assert stamp.examine(notebook) == ("stale", [notebook.cells[at].id for at in (0, 3)])

    def test_outputs_that_were_not_recorded(self):
        notebook = self.page()
        notebook.cells[2].outputs = [new_output("stream", text="from Jupyter")]
        assert stamp.examine(notebook) == ("edited", [notebook.cells[2].id])

    def test_outputs_that_are_gone(self):
        notebook = notebook_of("print(1)")
        notebook.cells[0].outputs = [new_output("stream", text="1")]
        stamped(notebook)
        notebook.cells[0].outputs = []
        assert stamp.examine(notebook)[0] == "edited"

    def test_counts_of_executions_do_not_matter(self):
        notebook = notebook_of("1 + 1")
        notebook.cells[0].outputs = [
            new_output("execute_result", {"text/plain": "2"}, execution_count=1)
        ]
        stamped(notebook)
        notebook.cells[0].outputs[0].execution_count = notebook.cells[0].execution_count = 7
        assert stamp.examine(notebook)[0] == "fresh"

    def test_inline_values_that_were_not_recorded(self):
        notebook = self.page()
        store(notebook.cells[3], {"a": "naive"})
        assert stamp.examine(notebook) == ("edited", [notebook.cells[3].id])

    def test_words_may_change_and_new_values_need_a_run(self):
        notebook = self.page()
        notebook.cells[3].source = "# They are {eval}`a`."
        assert stamp.examine(notebook) == ("fresh", [])
        notebook.cells[3].source = "# They are {eval}`b`."
        assert stamp.examine(notebook) == ("stale", [notebook.cells[3].id])

    def test_a_kept_cell_keeps_its_stamp(self):
        notebook = self.page()
        notebook.cells[1].source = "b = 3"
        stamp.put(notebook, kept={notebook.cells[1].id})
        assert stamp.examine(notebook) == ("stale", [notebook.cells[1].id])
        stamp.put(notebook)
        assert stamp.examine(notebook) == ("fresh", [])

    def test_the_cell_that_installs_the_package_does_not_count(self):
        notebook = self.page()
        copies.set_up(notebook, "https://example.org/book")
        assert len(notebook.cells) == 5
        assert stamp.examine(notebook) == ("fresh", [])

    def test_the_line_tells_what_is_wrong(self):
        recorded = self.page().metadata["recorded"]
        lines = {state: stamp.line(recorded, state) for state in ("fresh", "stale", "edited")}
        assert len(set(lines.values())) == 3
        assert all("a GPU" in line and "23 November 2026" in line for line in lines.values())
        assert stamp.line(None, "unrecorded") not in lines.values()

    def test_the_line_tells_the_days(self):
        notebook = self.page()
        stamp.put_facts(notebook, MACHINE, ["2026-11-20T01:00:00Z", MACHINE["date"]], waiting=1)
        assert "20 to 23 November 2026" in stamp.line(notebook.metadata["recorded"], "fresh")


class TestInlineValues:
    def test_they_take_the_place_of_their_roles(self):
        one = new_markdown_cell(
            "**{eval}`ratio(a)`**, {eval}`` f`x` ``, {eval}`no`.\n| {eval}`b` |"
        )
        assert asked_in(one) == ["ratio(a)", "f`x`", "no", "b"]
        store(one, {"ratio(a)": "×2.4", "f`x`": "'in quotes'", "b": "a*b_c 1 ms"})
        assert filled(one) == "**×2.4**, in quotes, –.\n| a\\*b\\_c 1\u00a0ms |"

    def test_they_are_stored_as_jupyterlab_myst_does(self):
        one = new_markdown_cell("{eval}`a`")
        store(one, {"a": "1"})
        (kept,) = one.metadata[KEY]
        assert kept["expression"] == "a"
        assert kept["result"]["status"] == "ok"
        assert kept["result"]["data"] == {"text/plain": "1"}
        assert stored_in(one) == {"a": "1"}
        store(one, {})
        assert KEY not in one.metadata

    def test_the_book_reads_values_and_figures_and_no_empty_cells(self):
        from decoding.drawing import ladder

        figure = ladder([made_up()], "A figure")._repr_mimebundle_()
        explorer = figure | {"text/html": "<b>kept</b>"}
        notebook = notebook_of(
            "# {eval}`a`", "draw()", "explore()", cell("claim()", "remove-input")
        )
        store(notebook.cells[0], {"a": "1"})
        for one, data in zip(notebook.cells[1:], (figure, explorer)):
            one.outputs = [new_output("display_data", data)]
        read = reading.read(nbformat.writes(notebook)).cells
        assert [one.source for one in read] == ["# 1", "draw()", "explore()"]
        drawn, explored = (one.outputs[0].data for one in read[1:])
        assert drawn["text/html"].startswith("<figure")
        assert "image/svg+xml" not in drawn
        assert explored["text/html"] == "<b>kept</b>"

    def test_the_set_up_is_folded_below_the_prediction(self):
        predict = "## Predict\n\n```{admonition} Predict\n:class: predict\n\nGuess.\n```\n"
        notebook = notebook_of(
            "# Title", "import os", "# seat", f"# {predict}\n## The idea\n\nText.", "draw()"
        )
        notebook.cells[2].update(id="01-001-seat", source="Measured on {eval}`a`.")
        notebook.cells[3].source = f"{predict}\n## The idea\n\nText."
        store(notebook.cells[2], {"a": "it"})
        title, asks, setup, rest, code = (
            one.source for one in reading.read(nbformat.writes(notebook)).cells
        )
        assert (title, asks.strip(), code) == ("# Title", predict.strip(), "draw()")
        assert rest == "## The idea\n\nText."
        assert setup.startswith("<details") and "Measured on it." in setup
        assert "```python\nimport os\n```" in setup
        notebook.cells[1].outputs = [new_output("stream", text="it says something")]
        kept = [one.source for one in reading.read(nbformat.writes(notebook)).cells]
        assert kept[:3] == ["# Title", "import os", "Measured on it."]


class TestRecording:
    def test_it_keeps_what_cells_and_sentences_show_and_says_where_and_when(self, tmp_path):
        path = notebook_at(
            tmp_path / "01.ipynb",
            "import sys\na = 2\nprint(a)\nprint('x', file=sys.stderr)",
            "# It is {eval}`a`, then {eval}`a`.",
            "a = 3",
            "# Now {eval}`a`.",
        )
        execute.record(path, MACHINE)
        notebook = nbformat.read(path, as_version=4)
        assert [out["name"] for out in notebook.cells[0].outputs] == ["stdout"]
        assert shown(notebook.cells[0]) == "2\n"
        assert [stored_in(notebook.cells[at]) for at in (1, 3)] == [{"a": "2"}, {"a": "3"}]
        assert notebook.metadata["recorded"]["gpu"] == "a GPU"
        assert notebook.metadata["recorded"]["date"] == MACHINE["date"]
        assert len(notebook.cells) == 4
        assert stamp.freshness(path) == "fresh"

    @pytest.mark.parametrize(
        ("last", "reason"),
        [
            ("1 / 0", "ZeroDivisionError"),
            ("# A typo: {eval}`b`.", "b cannot be evaluated"),
            (
                "from IPython.display import display\n"
                "display({'text/plain': 'x'}, raw=True, metadata={'claim': 'c', 'holds': False})",
                "claim c does not hold",
            ),
        ],
    )
    def test_a_page_that_would_not_be_true_is_left_as_it_was(self, last, reason, tmp_path, capsys):
        path = notebook_at(tmp_path / "01.ipynb", "print(1)", last)
        before = path.read_bytes()
        assert execute._each([path], "recorded", lambda one: execute.record(one, MACHINE)) == 1
        assert reason in capsys.readouterr().err
        assert path.read_bytes() == before
        assert [item.name for item in tmp_path.iterdir()] == ["01.ipynb"]

    def test_the_kernel_has_the_settings_and_tells_which_records_were_shown(self, tmp_path):
        notebook = notebook_of(
            "from decoding.measuring import NotMeasured\n"
            "from decoding.pages import Chapter\n"
            "mine = Chapter('02')",
            "print(mine.shelf.sitting.reuse_days, mine.shelf.folder)\n"
            "mine.shelf.shown.append({'date': 'then'})",
            "raise NotMeasured('Out of memory.')",
        )
        sitting = {"reuse_days": 3, "folder": tmp_path / "kept"}
        ran = run_cells(notebook, tmp_path / "01.ipynb", sitting, allow_errors=True)
        assert shown(notebook.cells[1]) == f"3.0 {tmp_path / 'kept'}\n"
        assert ran.shown == [{"date": "then"}]
        (error,) = notebook.cells[2].outputs
        assert error.ename == "NotMeasured"
        assert error.traceback == ["Out of memory."], "the sentence alone"

    def test_a_page_tells_since_when_its_records_are(self, tmp_path, monkeypatch):
        ran = Ran([MACHINE | {"date": "2026-11-20T12:00:00Z"}], {})
        monkeypatch.setattr(execute, "execute", lambda *_: ran)
        path = notebook_at(tmp_path / "01.ipynb", "1")
        execute.record(path, MACHINE)
        recorded = nbformat.read(path, as_version=4).metadata["recorded"]
        assert (recorded["since"][:10], recorded["date"]) == ("2026-11-20", MACHINE["date"])

    def test_recording_needs_a_gpu(self, tmp_path, monkeypatch):
        monkeypatch.setattr(execute, "machine", lambda: {"device": "cpu"})
        with pytest.raises(SystemExit, match="needs a CUDA GPU"):
            execute.record_notebooks(tmp_path)

    @pytest.fixture
    def here(self, monkeypatch):
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        machine = MACHINE | {"date": now}
        monkeypatch.setattr(execute, "machine", lambda: machine)
        return machine

    @pytest.fixture
    def recorded(self, tmp_path, here, monkeypatch):
        """The names of notebooks that are recorded, as they are; three notebooks stand in ``tmp_path``."""
        for name in ("01_one", "02_two", "scoreboard"):
            notebook_at(tmp_path / f"{name}.ipynb", "print(1)")
        names, whole = [], execute.record
        monkeypatch.setattr(execute, "execute", lambda *_: Ran([], {}))

        def record(path, *args, **sitting):
            names.append(path.stem)
            if path.stem == self.interrupted:
                raise KeyboardInterrupt
            whole(path, *args, **sitting)

        monkeypatch.setattr(execute, "record", record)
        self.interrupted = None
        return names

    def test_after_an_interruption_it_goes_on_where_it_ended(self, recorded, tmp_path):
        self.interrupted = "02_two"
        assert execute.record_notebooks(tmp_path) == 130
        self.interrupted = None
        recorded.clear()
        assert execute.record_notebooks(tmp_path) == 0
        assert recorded == ["02_two", "scoreboard"]
        assert execute.record_notebooks(tmp_path, ["01"]) == 0
        assert recorded[-1] == "01_one", "who names a page wants it recorded"

    @pytest.mark.parametrize("reason", ["edited", "old", "another driver", "drawn again"])
    def test_what_is_not_as_a_run_just_left_it_is_recorded_again(self, reason, recorded, tmp_path):
        execute.record_notebooks(tmp_path)
        path = tmp_path / "02_two.ipynb"
        notebook = nbformat.read(path, as_version=4)
        if reason == "edited":
            notebook.cells[0].source = "print(2)"
        facts = {"old": ("date", "2026-01-01T00:00:00Z"), "another driver": ("driver", "0")}
        if reason in facts:
            key, value = facts[reason]
            notebook.metadata["recorded"][key] = value
        if reason == "drawn again":
            notebook.metadata["recorded"]["redrawn"] = "2026-11-27"
        nbformat.write(notebook, path)
        recorded.clear()
        execute.record_notebooks(tmp_path)
        assert recorded == ["02_two"]

    def test_an_old_page_is_left_where_old_records_may_be_read(self, recorded, here, tmp_path):
        here["date"] = (datetime.now(UTC) - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
        execute.record_notebooks(tmp_path)
        recorded.clear()
        execute.record_notebooks(tmp_path, reuse_days=7)
        assert recorded == []
        execute.record_notebooks(tmp_path)
        assert len(recorded) == 3

    def test_with_no_day_at_all_nothing_is_read_again(self, recorded, tmp_path):
        execute.record_notebooks(tmp_path)
        recorded.clear()
        execute.record_notebooks(tmp_path, reuse_days=0)
        assert len(recorded) == 3

    def test_it_says_beforehand_how_long_it_takes(self, recorded, tmp_path, capsys):
        execute.record_notebooks(tmp_path, ["02"])
        path = tmp_path / "01_one.ipynb"
        notebook = stamped(nbformat.read(path, as_version=4))
        notebook.metadata["recorded"]["seconds"] = 95
        nbformat.write(notebook, path)
        capsys.readouterr()
        execute.record_notebooks(tmp_path)
        said = capsys.readouterr().err.splitlines()
        assert said[0] == (
            "2 notebooks to record; the last time 01: 95 s; 95 s in all; not known how long: scoreboard; "
            "recorded lately and fresh, so left: 02_two."
        )

    def test_a_name_that_fits_no_notebook(self, tmp_path):
        notebook_at(tmp_path / "01_naive.ipynb", "1")
        with pytest.raises(SystemExit, match="01_naive"):
            notebooks(tmp_path, ["9"])
        assert [path.name for path in notebooks(tmp_path, ["01"])] == ["01_naive.ipynb"]


def without_kernel(notebook, path, sitting=None, allow_errors=False):
    """Do what ``kernel.execute`` does, in this process and in no time."""
    names, failed = {}, {}
    for one in notebook.cells:
        if one.cell_type == "code":
            printed = io.StringIO()
            one.outputs, one.execution_count = [], 1
            try:
                with redirect_stdout(printed):
                    exec(one.source, names)
            except Exception as error:
                said = {"ename": type(error).__name__, "evalue": str(error), "traceback": []}
                one.outputs = [new_output("error", **said)]
            if printed.getvalue():
                one.outputs.insert(0, new_output("stream", text=printed.getvalue()))
            continue
        values = {}
        for asked in asked_in(one):
            try:
                values[asked] = repr(eval(asked, names))
            except Exception as error:
                values[asked] = MISSING
                failed[one.id, asked] = str(error)
        store(one, values)
    return Ran([], failed)


class TestRedrawing:
    """From the book's records: their numbers, no measurement, and no failure passed over."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(execute, "execute", without_kernel)

    MISSING = "class NotRecorded(LookupError): pass\nraise NotRecorded('no race')\nraced = 1"

    def redrawn(self, tmp_path, *cells, earlier=(), change=None):
        """Redraw a page whose code cells have shown ``earlier``, after ``change`` to it."""
        path = tmp_path / "01.ipynb"
        notebook = notebook_of(*cells)
        code = [one for one in notebook.cells if one.cell_type == "code"]
        for one, text in zip(code, earlier):
            one.outputs = [new_output("stream", text=text)] if text else []
            one.execution_count = 1
        for one in notebook.cells:
            store(one, dict.fromkeys(asked_in(one), "measured"))
        stamped(notebook).metadata["recorded"]["seconds"] = 42
        if change:
            change(notebook)
        nbformat.write(notebook, path)
        execute.redraw(path)
        return nbformat.read(path, as_version=4)

    def test_what_waits_for_a_gpu_says_so_and_the_rest_is_drawn(self, tmp_path):
        notebook = self.redrawn(tmp_path, self.MISSING, "print(raced)", "print('drawn')")
        assert [shown(one) for one in notebook.cells] == [WAITING, WAITING, "drawn\n"]
        assert notebook.metadata["recorded"]["waiting"] == 2
        assert stamp.examine(notebook)[0] == "fresh"

    def test_a_sentence_that_waits_is_of_today(self, tmp_path):
        def change(notebook):  # a new sentence: no run has filled its value
            store(notebook.cells[1], {})
            del notebook.cells[1].metadata["recorded"]

        notebook = self.redrawn(tmp_path, self.MISSING, "# {eval}`raced`", change=change)
        assert stored_in(notebook.cells[1]) == {"raced": MISSING}
        assert stamp.examine(notebook) == ("fresh", [])

    def test_what_a_gpu_has_shown_stays(self, tmp_path):
        cells = (self.MISSING, "print(2)", "assert raced", "# {eval}`raced`, {eval}`1 + 1`")
        notebook = self.redrawn(tmp_path, *cells, earlier=["measured", "old", ""])
        assert [shown(one) for one in notebook.cells[:3]] == ["measured", "2\n", ""]
        assert stored_in(notebook.cells[3]) == {"raced": "measured", "1 + 1": "2"}
        assert notebook.metadata["recorded"]["waiting"] == 0
        assert notebook.metadata["recorded"]["seconds"] == 42
        assert stamp.examine(notebook) == ("fresh", [])

    @pytest.fixture
    def spot(self):
        """Cells of which the first measures on the spot."""
        return cell("a = 1\nprint(a)", "on-the-spot"), "print(a)", "print(2)", "# {eval}`a`"

    def test_what_was_measured_on_the_spot_stays_and_so_does_what_it_gave(self, spot, tmp_path):
        notebook = self.redrawn(tmp_path, *spot, earlier=["measured"] * 3)
        assert [shown(one) for one in notebook.cells[:3]] == ["measured", "measured", "2\n"]
        assert stored_in(notebook.cells[3]) == {"a": "measured"}
        assert stamp.examine(notebook) == ("fresh", [])

    def test_whatever_fails_on_the_spot_keeps_what_it_has(self, spot, tmp_path):
        failing = cell("raise RuntimeError\na = 1", "on-the-spot")
        notebook = self.redrawn(tmp_path, failing, *spot[1:], earlier=["measured"] * 3)
        assert [shown(one) for one in notebook.cells[:3]] == ["measured", "measured", "2\n"]
        assert stamp.examine(notebook) == ("fresh", [])

    def test_what_was_never_measured_on_the_spot_waits(self, spot, tmp_path):
        notebook = self.redrawn(tmp_path, *spot)
        assert [shown(one) for one in notebook.cells[:3]] == [WAITING, WAITING, "2\n"]

    def test_redrawing_makes_no_stale_cell_fresh(self, spot, tmp_path):
        def change(notebook):
            notebook.cells[0].source = "a = 5\nprint(a)"

        notebook = self.redrawn(tmp_path, *spot, earlier=["measured"] * 3, change=change)
        ids = [one.id for one in notebook.cells]
        assert shown(notebook.cells[0]) == "measured"
        assert stamp.examine(notebook) == ("stale", [ids[0], ids[1], ids[3]])

    def test_redrawing_makes_nothing_from_elsewhere_the_gpus(self, spot, tmp_path):
        def change(notebook):
            notebook.cells[0].outputs = [new_output("stream", text="a CPU's")]
            store(notebook.cells[3], {"a": "a CPU's"})

        notebook = self.redrawn(tmp_path, *spot, earlier=["measured"] * 3, change=change)
        ids = [one.id for one in notebook.cells]
        assert stamp.examine(notebook) == ("edited", [ids[0], ids[3]])

    def test_a_page_tells_the_days_of_what_it_kept(self, spot, tmp_path):
        def change(notebook):
            notebook.metadata["recorded"] |= {"since": "2026-01-01T00:00:00Z"}

        notebook = self.redrawn(tmp_path, *spot, earlier=["measured"] * 3, change=change)
        assert notebook.metadata["recorded"]["since"] == "2026-01-01T00:00:00Z"

    @pytest.mark.parametrize(
        "cells",
        [
            ["raise RuntimeError('Found no NVIDIA driver for CUDA')"],
            [MISSING, "print(never_defined)"],
            ["raced = 1", MISSING, "1 / 0"],
        ],
    )
    def test_any_other_failure_stops_it(self, cells, tmp_path):
        with pytest.raises(CellExecutionError):
            self.redrawn(tmp_path, *cells, earlier=["measured"] * 3)

    def test_a_value_that_fails_for_no_such_reason_stops_it(self, tmp_path):
        with pytest.raises(execute.FalsePage, match="nothing cannot"):
            self.redrawn(tmp_path, self.MISSING, "# {eval}`nothing`")


class TestRunning:
    def test_copies_say_what_is_missing_and_go_on(self, tmp_path):
        raised = "class NotMeasured(Exception): pass\nraise NotMeasured('Out of memory.')\na = 1"
        path = tmp_path / "01.ipynb"
        cells = raised, "print(a)", "print(1)", "# {eval}`a`"
        nbformat.write(stamped(notebook_of(*cells)), path)
        before = path.read_bytes()
        assert execute.run_notebooks(tmp_path, target=tmp_path / "run") == 0
        notebook = nbformat.read(tmp_path / "run" / "01.ipynb", as_version=4)
        first, second, third = (shown(one) for one in notebook.cells[:3])
        assert "Not shown: Out of memory." in first
        assert "it needs the part above" in second
        assert third == "1\n"
        assert stored_in(notebook.cells[3]) == {"a": "–"}
        assert "recorded" not in nbformat.writes(notebook)
        assert path.read_bytes() == before

    def test_any_other_failure_stops_it(self, tmp_path):
        notebook_at(tmp_path / "01.ipynb", "1 / 0")
        assert execute.run_notebooks(tmp_path, target=tmp_path / "run") == 1
        assert not (tmp_path / "run" / "01.ipynb").exists()

    @pytest.fixture
    def ctrl_c(self):
        """Let Ctrl-C interrupt Python also where the tests run in the background of a shell."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_ctrl_c_ends_in_one_sentence(self, ctrl_c, tmp_path, capsys):
        begun = tmp_path / "begun"
        source = f"open({str(begun)!r}, 'w')\nimport time\ntime.sleep(60)"
        notebook_at(tmp_path / "01.ipynb", source)

        def interrupt():
            while not begun.exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        assert execute.run_notebooks(tmp_path, target=tmp_path / "run") == 130
        last = capsys.readouterr().err.rstrip().split("\n")[-1]
        assert last == "01.ipynb: interrupted, left as it was."


class TestShelf:
    """A recent record, or a new one."""

    def shelf(self, folder, **settings):
        return Shelf(Sitting(folder=str(folder), **settings))

    def measured(self, **machine):
        self.times = getattr(self, "times", 0) + 1
        return {"machine": machines_here() | machine}

    def test_a_record_is_made_once_and_read_while_it_is_recent(self, tmp_path):
        one = self.shelf(tmp_path)
        for _ in range(2):
            found = one.recent_or("a.json", ["naive"], self.measured)
        assert self.times == 1
        assert one.shown == [found["machine"]] * 2
        old = load(tmp_path / "a.json")
        old["machine"]["date"] = "2020-01-01T00:00:00Z"
        save(old, tmp_path / "a.json")
        one.recent_or("a.json", ["naive"], self.measured)
        assert self.times == 2
        save(old, tmp_path / "a.json")
        self.shelf(tmp_path, reuse_days=1e5).recent_or("a.json", ["naive"], self.measured)
        assert self.times == 2

    @pytest.mark.parametrize("change", ["code", "torch", "asked"])
    def test_one_that_does_not_fit_is_made_anew(self, change, tmp_path):
        one = self.shelf(tmp_path)
        kept = one.recent_or("a.json", ["naive"], self.measured, asked="this")
        if change == "asked":
            kept["asked"] = "that"
        else:
            kept["machine"][change] = "another"
        save(kept, tmp_path / "a.json")
        one.recent_or("a.json", ["naive"], self.measured, asked="this")
        assert self.times == 2

    def test_while_redrawing_nothing_is_measured(self, tmp_path):
        self.shelf(tmp_path).recent_or("a.json", ["naive"], self.measured)
        book = self.shelf(tmp_path, redraw=True)
        book.recent_or("a.json", ["naive"], None)
        with pytest.raises(NotRecorded):
            book.recent_or("b.json", ["naive"], None)
        with pytest.raises(NotRecorded):
            book.recent_or("a.json", ["naive"], None, asked="something else")

    def test_a_copy_without_the_book_says_where_its_records_are(self, tmp_path, monkeypatch):
        monkeypatch.setattr(machines, "BOOK_RECORDS", tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="clone"):
            Shelf(Sitting(redraw=True))


def machines_here():
    return measuring.machine.machine() | {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


class TestChapter:
    @pytest.fixture
    def chapter(self, tmp_path, capsys):
        return Chapter("02", Sitting(folder=str(tmp_path)))

    @pytest.fixture
    def on_a_gpu(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shelf, "machine", lambda: MACHINE)
        monkeypatch.setattr(machines, "_dtype_of_this_gpu", lambda: "bfloat16")
        return Chapter("02", Sitting(folder=str(tmp_path)))

    def test_without_a_gpu_it_runs_small(self, chapter):
        assert not chapter.on_gpu
        assert chapter.device == "cpu"
        assert chapter.batched.model == chapter.single.model == "gpt2-tiny"

    def test_with_another_model_its_ladder_is_that_models(self, on_a_gpu, tmp_path, monkeypatch):
        asked = []

        def ladder(entries, workload):
            asked.append(workload)
            return []

        monkeypatch.setattr(measuring, "ladder", ladder)
        monkeypatch.setattr(measuring, "measure", lambda rung, workload, **_: made_up(rung))
        other = Chapter("02", Sitting(folder=str(tmp_path)), model="gpt2-medium")
        other.measure("naive")
        other.measure("naive", other.single)
        assert [(one.model, one.batch_size) for one in asked] == [
            ("gpt2-medium", 32),
            ("gpt2-medium", 1),
        ]
        assert on_a_gpu.batched.model == "gpt2"

    def test_while_redrawing_it_has_the_books_workloads_and_no_device(self, monkeypatch):
        monkeypatch.setattr(chapters.torch.cuda, "is_available", lambda: False)
        chapter = Chapter("02", Sitting(redraw=True))
        assert (chapter.batched.batch_size, chapter.batched.new_tokens) == (32, 512)
        assert (chapter.single.batch_size, chapter.single.new_tokens) == (1, 256)
        with pytest.raises(NeedsGpu):
            _ = chapter.device

    @pytest.mark.parametrize("raises", [True, False])
    def test_a_measurement_that_fails_is_a_record_of_nan(
        self, raises, chapter, monkeypatch, capsys
    ):
        def failing(rung, workload, **_):
            if raises:
                raise MeasurementError("Out of memory.")
            variant = measuring.describe_variant(rung, workload)
            return Record.failed(
                rung, "naive", variant, vars(workload), machines_here(), "Out of memory."
            )

        monkeypatch.setattr(measuring, "measure", failing)
        record = chapter.measure("naive")
        assert record.error == "Out of memory."
        assert not record.ms > 0
        assert not record.ms <= 0

    def test_a_race_that_fails_has_records_of_nan(self, chapter, monkeypatch):
        def failing(*_, **__):
            raise MeasurementError("Out of memory.")

        monkeypatch.setattr(measuring, "race", failing)
        found = chapter.race("a", {"x": {"rung": "naive"}, "y": {"rung": "kv_cache"}})["results"]
        assert list(found) == ["x", "y"]
        assert all(one.error and one.ms != one.ms for one in found.values())

    def test_what_needs_a_gpu_is_the_books_elsewhere(self, chapter):
        kept = chapter.trace("pipeline", {"check": {"rung": "compiled"}})
        assert "check" in kept
        assert chapter.evidence("hazards", provoke)
        assert chapter.allocations("naive")["events"]
        assert len(chapter.shelf.shown) == 3
        assert all(one["device"] == "cuda" for one in chapter.shelf.shown)

    def test_evidence_is_found_once_and_kept(self, on_a_gpu, monkeypatch):
        tries = []
        monkeypatch.setattr(chapters, "machine", lambda: MACHINE)
        monkeypatch.setattr(Shelf, "_is_recent", lambda *_: True)

        def find():
            tries.append(1)
            return {"here": [1, 2]}

        assert on_a_gpu.evidence("small", find) == on_a_gpu.evidence("small", find)
        assert len(tries) == 1

    def test_evidence_that_fails_says_why(self, on_a_gpu):
        def failing():
            raise MeasurementError("Out of memory.")

        with pytest.raises(NotMeasured, match=r"Out of memory\."):
            on_a_gpu.evidence("small", failing)


class TestCopies:
    def test_solutions_go_and_everything_else_stays(self):
        notebook = stamped(
            notebook_of(
                "# Exercise {eval}`a`",
                cell("# Start of the solution", "solution"),
                cell("secret = 1", "solution"),
                cell("kept = 1", "hide-input"),
            )
        )
        store(notebook.cells[0], {"a": "1"})
        notebook.cells[-1].outputs = [new_output("stream", text="x")]
        notebook.metadata["keywords"] = "kept"
        copy = copies.without_solutions(notebook)
        assert [one.source for one in copy.cells] == ["# Exercise {eval}`a`", "kept = 1"]
        assert copy.cells[0].metadata == {}
        assert copy.cells[1].metadata == {"tags": ["hide-input"]}
        assert copy.cells[1].outputs == []
        assert copy.metadata == {"keywords": "kept"}

    def test_the_address_comes_and_goes(self, tmp_path):
        path = notebook_at(tmp_path / "01.ipynb", "# Title", "print(1)")
        before = nbformat.read(path, as_version=4)
        configuration = tmp_path / "_config.yml"
        for url in ("https://example.org/one", "https://example.org/two", ""):
            configuration.write_text(f"repository:\n  url: '{url}'\n", encoding="utf-8")
            copies.write_address(tmp_path, configuration)
            cells = nbformat.read(path, as_version=4).cells
            if url:
                assert len(cells) == 3
                assert cells[1].source.startswith("%pip install")
                assert url in cells[1].source
                assert cells[1].metadata["tags"] == [stamp.SETUP, "remove-cell"]
        assert cells == before.cells
