"""The stamp: what changes it, what does not, and what a failed recording leaves behind."""

import ast
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from decoding import recording
from decoding.fingerprint import FOLDER, canonical, fingerprint, rungs_named_in

ROOT = Path(__file__).resolve().parent.parent
CELLS = ['record = chapter.measure("kv_cache")', "print(record)  # show it"]
MACHINE = {
    "device": "cuda",
    "gpu": "a GPU",
    "driver": "1",
    "cuda": "13.0",
    "torch": "2.11.0",
    "transformers": "5.17.0",
    "python": "3.12.3",
    "date": "2026-11-23T12:00:00Z",
}


def notebook_at(path, cells):
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    return path


class TestFingerprint:
    def test_comments_docstrings_and_layout_do_not_count(self):
        one = 'def f(a):\n    """Say."""\n    # why\n    return (a +\n        1)\n'
        other = "def f(a): return a + 1"
        assert canonical(ast.parse(one)) == canonical(ast.parse(other))

    def test_code_counts(self):
        assert canonical(ast.parse("f(1)")) != canonical(ast.parse("f(2)"))
        assert canonical(ast.parse("f(a=1)")) != canonical(ast.parse("f(b=1)"))

    def test_a_string_that_is_used_counts(self):
        assert canonical(ast.parse('x = "a"')) != canonical(ast.parse('x = "b"'))

    def test_cells_and_rungs_count(self):
        assert fingerprint(["kv_cache"], CELLS) == fingerprint(
            ["kv_cache"], [CELLS[0], "print( record )"]
        )
        assert fingerprint(["kv_cache"], CELLS) != fingerprint(["kv_cache"], CELLS[:1])
        assert fingerprint(["kv_cache"]) != fingerprint(["naive"])
        assert fingerprint(["kv_cache"]) != fingerprint(["expandable_segments"])

    def test_the_rungs_of_a_notebook_are_those_that_its_code_names(self):
        cells = ['a = "two_streams"', 'measure("naive"); b = "no rung"', "kv_cache = 1"]
        assert rungs_named_in(cells) == ["naive", "two_streams"]

    @pytest.mark.parametrize(
        ("module", "matters"),
        [
            ("worker.py", True),
            ("loops/kv_cache.py", True),
            ("loops/naive.py", False),
            ("figures.py", False),
        ],
    )
    def test_a_page_grows_old_only_by_the_code_behind_it(
        self, module, matters, tmp_path, monkeypatch
    ):
        import shutil

        from decoding import fingerprint as at_work

        copy = tmp_path / "decoding"
        shutil.copytree(FOLDER, copy)
        monkeypatch.setattr(at_work, "FOLDER", copy)
        real = at_work.inspect.getfile
        monkeypatch.setattr(
            at_work.inspect, "getfile", lambda item: real(item).replace(str(FOLDER), str(copy))
        )
        before = fingerprint(["kv_cache"])
        path = copy / module
        path.write_text(path.read_text() + "\n\nADDED = 1\n")
        assert (fingerprint(["kv_cache"]) != before) == matters


class TestFreshness:
    def test_unrecorded_fresh_stale(self, tmp_path):
        path = notebook_at(tmp_path / "01.ipynb", ['print("naive")'])
        assert recording.freshness(path) == "unrecorded"
        recording.record(path, MACHINE)
        assert recording.freshness(path) == "fresh"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.append(new_markdown_cell("More words do not make numbers old."))
        nbformat.write(notebook, path)
        assert recording.freshness(path) == "fresh"
        notebook.cells[0].source = 'print("naive", 2)'
        nbformat.write(notebook, path)
        assert recording.freshness(path) == "stale"

    def test_the_stamp_says_on_what_and_when(self, tmp_path):
        path = notebook_at(tmp_path / "01.ipynb", ["print(1 + 1)"])
        recording.record(path, MACHINE)
        notebook = nbformat.read(path, as_version=4)
        assert notebook.metadata["recorded"]["gpu"] == "a GPU"
        assert notebook.metadata["recorded"]["date"] == MACHINE["date"]
        assert notebook.cells[0].outputs[0].text == "2\n"

    def test_a_notebook_that_fails_is_left_as_it_was(self, tmp_path):
        path = notebook_at(tmp_path / "01.ipynb", ["print(1)", "1 / 0"])
        before = path.read_bytes()
        with pytest.raises(Exception, match="ZeroDivisionError"):
            recording.record(path, MACHINE)
        assert path.read_bytes() == before
        assert [item.name for item in tmp_path.iterdir()] == ["01.ipynb"]

    OLDER = (
        "import decoding.chapter\n"
        "decoding.chapter.machines_read.append({'date': '2026-11-20T12:00:00Z'})"
    )

    def test_the_stamp_tells_since_when_the_records_are(self, tmp_path):
        path = notebook_at(tmp_path / "01.ipynb", [self.OLDER])
        recording.record(path, MACHINE)
        notebook = nbformat.read(path, as_version=4)
        assert notebook.metadata["recorded"]["since"] == "2026-11-20T12:00:00Z"
        assert notebook.metadata["recorded"]["date"] == MACHINE["date"]
        assert len(notebook.cells) == 1, "the cell that asks is gone"

    def test_what_went_to_stderr_is_not_kept(self, tmp_path):
        path = notebook_at(
            tmp_path / "01.ipynb", ["import sys; print('x', file=sys.stderr); print('y')"]
        )
        recording.record(path, MACHINE)
        outputs = nbformat.read(path, as_version=4).cells[0].outputs
        assert [output["name"] for output in outputs] == ["stdout"]

    def test_recording_needs_a_gpu(self, tmp_path, monkeypatch):
        monkeypatch.setattr(recording, "machine", lambda: {"device": "cpu"})
        with pytest.raises(SystemExit, match="needs a CUDA GPU"):
            recording.record_notebooks(tmp_path)

    def test_a_name_that_fits_no_notebook(self, tmp_path):
        notebook_at(tmp_path / "01_naive.ipynb", ["1"])
        with pytest.raises(SystemExit, match="01_naive"):
            recording.notebooks(tmp_path, ["9"])
        assert [path.name for path in recording.notebooks(tmp_path, ["01"])] == ["01_naive.ipynb"]


class TestRedrawing:
    """From the book's records: their numbers, no measurement, and no failure passed over."""

    MISSING = "class NotRecorded(LookupError): pass\nraise NotRecorded('no race')"

    def redrawn(self, tmp_path, cells, earlier=()):
        path = notebook_at(tmp_path / "01.ipynb", cells)
        notebook = nbformat.read(path, as_version=4)
        for cell, text in zip(notebook.cells, earlier):
            cell.outputs = [nbformat.v4.new_output("stream", text=text)] if text else []
            cell.execution_count = 1
        nbformat.write(notebook, path)
        recording.redraw(path)
        return path, nbformat.read(path, as_version=4)

    def test_what_waits_for_a_gpu_says_so_and_the_rest_is_drawn(self, tmp_path):
        cells = [self.MISSING, "print(raced)", "print('drawn')"]
        path, notebook = self.redrawn(tmp_path, cells)
        shown = [cell.outputs[0] for cell in notebook.cells]
        assert [one.get("data", {}).get("text/markdown") for one in shown[:2]] == [
            recording.WAITING,
            recording.WAITING,
        ]
        assert shown[2].text == "drawn\n"
        assert notebook.metadata["recorded"]["waiting"] == 2
        assert recording.freshness(path) == "fresh"

    def test_what_a_gpu_has_shown_stays(self, tmp_path):
        _, notebook = self.redrawn(tmp_path, [self.MISSING, "print(2)"], ["measured", "old"])
        assert [cell.outputs[0].text for cell in notebook.cells] == ["measured", "2\n"]
        assert notebook.metadata["recorded"]["waiting"] == 0

    def test_what_ran_on_a_gpu_and_said_nothing_does_not_wait(self, tmp_path):
        cells = [self.MISSING, "assert raced"]
        _, notebook = self.redrawn(tmp_path, cells, ["measured", ""])
        assert notebook.cells[1].outputs == []
        assert notebook.metadata["recorded"]["waiting"] == 0

    def test_what_was_measured_on_the_spot_stays(self, tmp_path):
        path = notebook_at(tmp_path / "01.ipynb", ["print(1)", "print(2)"])
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.outputs = [nbformat.v4.new_output("stream", text="recorded")]
            cell.execution_count = 1
        notebook.cells[0].metadata["tags"] = [recording.ON_THE_SPOT]
        notebook.metadata["recorded"] = {"seconds": 42, "hash": "old"}
        nbformat.write(notebook, path)
        recording.redraw(path)
        notebook = nbformat.read(path, as_version=4)
        assert [cell.outputs[0].text for cell in notebook.cells] == ["recorded", "2\n"]
        assert notebook.metadata["recorded"]["seconds"] == 42

    def test_a_page_tells_the_days_of_the_records_that_it_reads_itself(self, tmp_path):
        read = (
            "from decoding import chapter\n"
            "from decoding.worker import machine\n"
            "for day in ('03', '01', '02'):\n"
            "    chapter.machines_read.append(machine() | {'date': f'2026-11-{day}T12:00:00Z'})"
        )
        _, notebook = self.redrawn(tmp_path, [read])
        stamp = notebook.metadata["recorded"]
        assert (stamp["since"][:10], stamp["date"][:10]) == ("2026-11-01", "2026-11-03")

    def test_what_waits_goes_on_waiting(self, tmp_path):
        path, _ = self.redrawn(tmp_path, [self.MISSING])
        recording.redraw(path)
        notebook = nbformat.read(path, as_version=4)
        assert recording.is_waiting(notebook.cells[0])
        assert notebook.metadata["recorded"]["waiting"] == 1

    def test_the_stamp_is_that_of_the_records(self, tmp_path):
        from decoding.chapter import machine_of_the_book

        _, notebook = self.redrawn(tmp_path, ["1"])
        stamp, machine = notebook.metadata["recorded"], machine_of_the_book()
        assert machine["device"] == "cuda"
        assert {key: stamp[key] for key in recording.STAMPED} == {
            key: machine[key] for key in recording.STAMPED
        }

    @pytest.mark.parametrize("cells", [["1 / 0"], ["print(raced)"], [MISSING, "assert False"]])
    def test_any_other_failure_leaves_the_notebook_as_it_was(self, tmp_path, cells):
        path = notebook_at(tmp_path / "01.ipynb", cells)
        before = path.read_bytes()
        with pytest.raises(recording.CellExecutionError):
            recording.redraw(path)
        assert path.read_bytes() == before

    def test_a_chapter_shows_the_books_records_and_measures_nothing(self, monkeypatch):
        from decoding import chapter, measurement

        monkeypatch.setenv("DECODING_REDRAWING", "1")
        monkeypatch.setattr(measurement, "run_task", None)
        at_work = chapter.Chapter("01")
        record = at_work.measure("naive")
        assert record["machine"]["gpu"] == at_work.machine["gpu"]
        assert record["workload"]["batch_size"] == at_work.batched.batch_size
        with pytest.raises(chapter.NotRecorded, match="no record race_none.json"):
            at_work.race("none", {"a": {"rung": "naive"}})


class TestReuse:
    """How old a record may be that is shown in place of measuring."""

    @pytest.mark.parametrize(
        ("days", "hours", "recent"),
        [(None, 5, True), (None, 7, False), (2, 30, True), (2, 50, False)],
    )
    def test_a_record_is_recent_for_six_hours_or_as_long_as_is_said(
        self, days, hours, recent, monkeypatch
    ):
        from datetime import UTC, datetime, timedelta

        from decoding import chapter

        monkeypatch.delenv("DECODING_REUSE_DAYS", raising=False)
        if days:
            monkeypatch.setenv("DECODING_REUSE_DAYS", str(days))
        at_work = chapter.Chapter("01")
        made = datetime.now(UTC) - timedelta(hours=hours)
        kept = at_work.machine | {"date": made.strftime("%Y-%m-%dT%H:%M:%SZ")}
        assert at_work._is_recent(kept) == recent
        assert not at_work._is_recent(kept | {"gpu": "another one"})

    def test_the_shell_passes_it_on_to_the_notebook(self, tmp_path, monkeypatch):
        from decoding.__main__ import main

        path = notebook_at(
            tmp_path / "01.ipynb", ["import os; print(os.environ['DECODING_REUSE_DAYS'])"]
        )
        monkeypatch.setattr(recording, "machine", lambda: MACHINE)
        assert main(["record", "01", "--reuse-days", "3", "--folder", str(tmp_path)]) == 0
        assert nbformat.read(path, as_version=4).cells[0].outputs[0].text == "3.0\n"


class TestSetupCell:
    """The first cell of a notebook: it matters where there is no clone of the book."""

    ADDRESS = "https://github.com/someone/a-book-with-quite-a-long-name-of-its-own"

    def run_outside(self, source, folder, monkeypatch):
        """Run the cell in ``folder`` as if the package were not installed; return what it asked for."""
        asked = []

        class Shell:
            def system(self, command):
                asked.append(command)
                subprocess.run(["git", "clone", "-q", str(ROOT), command.split()[-1]], check=True)

            def run_line_magic(self, name, line):
                asked.append(f"%{name} {line}")

        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        exec(source, {"get_ipython": Shell})
        return asked

    def test_elsewhere_it_fetches_the_book_and_installs_what_it_needs(self, tmp_path, monkeypatch):
        source = recording.setup_source(self.ADDRESS)
        (tmp_path / "content").mkdir()
        asked = self.run_outside(source, tmp_path / "content", monkeypatch)
        assert asked == [
            f"git clone --quiet --depth 1 {self.ADDRESS} token-by-token",
            "%pip install --quiet ./token-by-token",
        ]
        assert (Path(sys.path[0]) / "decoding" / "__init__.py").exists()
        assert (tmp_path / "content" / "token-by-token" / "pyproject.toml").exists()

    def test_in_a_clone_it_finds_the_package_without_fetching(self, monkeypatch):
        source = recording.setup_source(self.ADDRESS)
        assert self.run_outside(source, ROOT / "notebooks", monkeypatch) == []
        assert Path(sys.path[0]) == ROOT / "src"

    def test_without_an_address_it_says_how_to_get_the_package(self, tmp_path, monkeypatch):
        (tmp_path / "content").mkdir()
        with pytest.raises(ModuleNotFoundError, match="make lab"):
            self.run_outside(recording.setup_source(), tmp_path / "content", monkeypatch)

    def test_the_address_is_written_into_every_notebook_and_leaves_it_fresh(self, tmp_path):
        path = notebook_at(tmp_path / "01.ipynb", ["pass", "print(1)"])
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[0].metadata["tags"] = [recording.SETUP]
        nbformat.write(notebook, path)
        recording.redraw(path)
        configuration = tmp_path / "_config.yml"
        configuration.write_text(f"repository:\n  url: {self.ADDRESS}\n", encoding="utf-8")
        recording.write_address(tmp_path, configuration)
        cell = nbformat.read(path, as_version=4).cells[0]
        assert self.ADDRESS in cell.source
        assert max(map(len, cell.source.split("\n"))) <= 100
        assert recording.freshness(path) == "fresh"


class TestEvidence:
    """A small experiment is run once, kept as a record, and shown from it."""

    tries = 0

    def find(self):
        self.tries += 1
        return {"here": [1, 2]}

    def test_it_is_found_once_and_kept(self, tmp_path, monkeypatch):
        from decoding import chapter

        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setenv("DECODING_RECORDS", str(tmp_path))
        monkeypatch.setattr(chapter.Chapter, "_is_recent", lambda *_: True)
        for _ in range(2):
            assert chapter.Chapter("07").evidence("small", self.find) == {"here": [1, 2]}
        assert self.tries == 1
        assert (tmp_path / "small.json").exists()

    def test_the_book_shows_what_was_found_on_its_gpu(self, monkeypatch):
        from decoding import chapter, hazards

        monkeypatch.setenv("DECODING_REDRAWING", "1")
        found = chapter.Chapter("07").evidence("hazards", hazards.provoke)
        assert all(0 <= bare <= 20 and waited == 0 for bare, waited in found.values())


class TestFailedMeasurement:
    """Out of memory is a row on the page, and the notebook goes on."""

    CELLS = (
        "from decoding import measurement\n"
        "from decoding.chapter import Chapter\n"
        "from decoding.records import failed\n"
        "chapter = Chapter('01')\n"
        "def run_task(task, environment, rung, workload, options):\n"
        "    variant = measurement.describe_variant(rung, measurement.Workload(**workload))\n"
        "    machine = {'device': 'cpu', 'date': '2026-11-25T00:00:00Z'}\n"
        "    return failed(rung, 'naive', variant, workload, machine, 'Out of GPU memory.')\n"
        "measurement.run_task = run_task",
        "record = chapter.measure('naive')",
        "from decoding import figures\nfigures.table([record])",
        "median = figures.per_token(record)['median']",
        "print(median)",
        "print('further on')",
    )

    def test_the_copy_says_what_is_missing_and_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setenv("DECODING_RECORDS", str(tmp_path / "records"))
        notebook_at(tmp_path / "01.ipynb", self.CELLS)
        assert recording.run_notebooks(tmp_path, target=tmp_path / "run") == 0
        cells = nbformat.read(tmp_path / "run" / "01.ipynb", as_version=4).cells
        shown = [nbformat.v4.writes(new_notebook(cells=[cell])) for cell in cells]
        assert "Not measured: naive at batch 2: Out of GPU memory." in shown[1]
        assert "Out of GPU memory." in cells[2].outputs[0].data["text/html"]
        assert "Not shown: naive at batch 2: Out of GPU memory." in shown[3]
        assert "Not shown: it needs the part above" in shown[4]
        assert cells[5].outputs[0].text == "further on\n"

    def test_any_other_failure_still_stops_it(self, tmp_path):
        notebook_at(tmp_path / "01.ipynb", ["1 / 0"])
        assert recording.run_notebooks(tmp_path, target=tmp_path / "run") == 1
        assert not (tmp_path / "run" / "01.ipynb").exists()


class TestStudentCopies:
    def test_solutions_go_and_everything_else_stays(self):
        text = textwrap.dedent(
            """\
            Before.

            ````{exercise} Predict
            :label: one
            What is it?
            ````

            ````{solution} one
            :class: dropdown
            ```python
            answer = 42
            ```
            ````

            After.
            """
        )
        gated = [
            new_markdown_cell("```{solution-start} two\n:class: dropdown\n```"),
            new_code_cell("secret = 1"),
            new_markdown_cell("Explained."),
            new_markdown_cell("```{solution-end}\n```\n\nThe end."),
        ]
        notebook = new_notebook(cells=[new_markdown_cell(text), *gated, new_code_cell("kept = 1")])
        notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="x")]
        copy = recording.without_solutions(notebook)
        sources = [cell.source for cell in copy.cells]
        assert len(sources) == 3
        assert "Before." in sources[0]
        assert "After." in sources[0]
        assert "{exercise} Predict" in sources[0]
        assert "answer" not in sources[0]
        assert sources[1:] == ["The end.", "kept = 1"]
        assert copy.cells[-1].outputs == []


class TestLadder:
    def test_the_readme_shows_the_figure_that_the_records_give(self, tmp_path):
        from decoding.chapter import BOOK_GPU, BOOK_RECORDS
        from decoding.figures import save_svg

        save_svg(recording.ladder_figure(BOOK_RECORDS / BOOK_GPU), tmp_path / "ladder.svg")
        assert recording.LADDER.read_text() == (tmp_path / "ladder.svg").read_text()

    def test_records_of_another_length_are_not_of_the_ladder(self, tmp_path):
        from decoding.chapter import BOOK_GPU, BOOK_RECORDS

        for path in (BOOK_RECORDS / BOOK_GPU).glob("*_b32_p128_*.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        drawn = recording.ladder_figure(tmp_path).text
        other = (BOOK_RECORDS / BOOK_GPU / "compiled_gpt2_b32_p32_n128_bfloat16.json").read_bytes()
        (tmp_path / "compiled_gpt2_b32_p1000_n8_bfloat16.json").write_bytes(other)
        assert recording.ladder_figure(tmp_path).text == drawn

    def test_a_missing_record_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no record of 'naive'"):
            recording.ladder_figure(tmp_path)
