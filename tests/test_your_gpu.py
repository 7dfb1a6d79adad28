"""Your GPU beside ours: the named parts, the page's own outputs, and the records kept."""

import re
import shutil
from datetime import timedelta
from pathlib import Path

import nbformat
import pytest
from factories import record

from decoding.chapter import BOOK_GPU, BOOK_RECORDS, RECENT
from decoding.records import file_name, load, save
from decoding.rungs import RUNGS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "your_gpu.ipynb"
KEPT = sorted((ROOT / "book" / "records").glob("*/*.json"))


@pytest.fixture(scope="module")
def page():
    names = {"__name__": "your_gpu"}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if {"imports", "comparison"} & set(cell.metadata.get("tags", [])):
            exec(cell.source, names)
    return names


def shown_with(records):
    """What the page's cells show, as text, with the machines in the folder ``records``."""
    shown = []
    names = {"__name__": "your_gpu"}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            names |= {"display": shown.append, "BOOK_RECORDS": records}
    widgets = [html for one in shown for html in htmls_of(one)]
    texts = [getattr(one, "text", None) or getattr(one, "data", None) for one in shown]
    return [text for text in texts if text] + alternatives(widgets)


def htmls_of(widget):
    """The HTML in a widget and in everything that it holds."""
    own = [widget.value] if type(widget).__name__ == "HTML" else []
    return own + [html for child in getattr(widget, "children", ()) for html in htmls_of(child)]


def alternatives(htmls):
    """The alternative texts of the drawings in ``htmls``: they hold all numbers."""
    return sorted(re.findall(r'<svg[^>]* aria-label="([^"]+)"', " ".join(htmls)))


def shown_as_committed():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    data = [out.data for cell in notebook.cells for out in cell.get("outputs", ())]
    texts = [
        each.get("text/markdown") or each["text/plain"] for each in data if not is_widget(each)
    ]
    (widgets,) = notebook.metadata["widgets"].values()
    return texts + alternatives(
        one["state"]["value"]
        for one in widgets["state"].values()
        if one["model_name"] == "HTMLModel"
    )


def is_widget(data):
    return any("widget" in mimetype for mimetype in data)


# 2 ms of work, 6 ms of waiting
OURS = record("kv_cache", per_token=8.0, idle=0.75)
# 1 ms of work, 1 ms of waiting
COMPILED = record("compiled", per_token=2.0, idle=0.5)


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (OURS, record("kv_cache", per_token=8.1, idle=0.75), "about the same time"),
        (
            OURS,
            record("kv_cache", per_token=8.1, idle=0.5),
            "about the same time, though the GPU works ×2.0 as long",
        ),
        (
            OURS,
            record("kv_cache", per_token=9.0, around=1.0, idle=0.75),
            "about the same time",
        ),
        (
            OURS,
            record("kv_cache", per_token=14.0, idle=0.0),
            "the GPU's work: ×7.0 as long",
        ),
        (
            OURS,
            record("kv_cache", per_token=4.0, idle=0.75),
            "the host: 40.0 µs of time per kernel instead of 80.0 µs",
        ),
        # A GPU that is slower, too, but still waits: the host sets the time on both machines.
        (
            OURS,
            record("kv_cache", per_token=12.0, idle=0.6),
            "the host: 120.0 µs of time per kernel instead of 80.0 µs",
        ),
        (
            OURS,
            record("kv_cache", per_token=4.0, idle=0.0),
            "the host: the GPU waits 0.00 ms a token instead of 6.00 ms",
        ),
        (
            record("kv_cache", per_token=8.0, idle=0.3),
            record("kv_cache", per_token=16.0, idle=0.3),
            "the GPU's work: ×2.0 as long",
        ),
        (
            COMPILED,
            record("compiled", per_token=4.0, idle=0.5),
            "both: the GPU works ×2.0 as long and waits 2.00 ms a token instead of 1.00 ms",
        ),
        (
            COMPILED,
            record("compiled", per_token=3.0, idle=2 / 3),
            "the host: the GPU waits 2.00 ms a token instead of 1.00 ms",
        ),
        (
            record("two_streams", per_token=2.0, idle=0.75),
            record("two_streams", per_token=4.0, idle=0.75),
            "the host: 4.00 ms of time per replay instead of 2.00 ms",
        ),
        (OURS, record("kv_cache", error="Out of GPU memory."), "Out of GPU memory."),
        (OURS, record("kv_cache", gpu=False), "not measured on a GPU"),
    ],
)
def test_the_part_that_differs_is_named(page, ours, theirs, reason):
    assert page["reason_for"](ours, theirs) == reason


def test_other_dtypes_and_kernels_are_named_too(page):
    theirs = record("kv_cache", per_token=8.0, idle=0.75)
    theirs["workload"]["dtype"] = "float16"
    theirs["gpu"]["kernels_per_token"] = 150.0
    said = page["reason_for"](OURS, theirs)
    assert "measured in float16, not in bfloat16" in said
    assert "150 kernels a token instead of 100" in said


@pytest.mark.parametrize(
    ("idle", "who"), [(0.1, "the GPU"), (0.3, "both"), (0.5, "both"), (0.6, "the host")]
)
def test_who_sets_the_time(page, idle, who):
    assert page["binds"](record(idle=idle)) == who


def test_machines_are_found_and_their_variants_left_out(page, tmp_path):
    for folder in ("one", "two"):
        for variant in ({}, {"compile_mode": "default"}, {"stop_check": False}):
            made = record("compiled", variant=variant)
            save(made, tmp_path / folder / file_name(made))
        short = record("compiled", prompt=32, new=128)  # as in the races
        save(short, tmp_path / folder / file_name(short))
    (tmp_path / "empty").mkdir()
    found = page["machines_in"](tmp_path, tmp_path / "nowhere")
    assert {name: len(kinds) for name, kinds in found.items()} == {"one": 1, "two": 1}


def test_the_committed_outputs_show_the_records_in_the_tree(tmp_path, monkeypatch):
    # Only the machines that the page shows: who adds one need not redraw the page.
    committed = shown_as_committed()
    for folder in BOOK_RECORDS.iterdir():
        if folder.name == BOOK_GPU or any(f"({folder.name})" in text for text in committed):
            (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert shown_with(tmp_path) == committed


def test_the_made_up_machine_goes_when_another_has_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(BOOK_RECORDS / BOOK_GPU, tmp_path / BOOK_GPU)
    alone = "\n".join(shown_with(tmp_path))
    assert "Made up, not measured" in alone and "not measured**" in alone
    shutil.copytree(BOOK_RECORDS / BOOK_GPU, tmp_path / "another")
    beside = "\n".join(shown_with(tmp_path))
    assert "(another) beside the book's" in beside and "about the same time" in beside
    assert "made up" not in beside.lower()


def test_the_page_says_how_long_a_record_counts_as_recent():
    assert timedelta(hours=6) == RECENT
    assert "less than six hours old" in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_kept_record_is_whole_and_says_where_it_comes_from(path):
    kept = load(path)
    assert {"gpu", "gpu_id", "driver", "torch", "transformers", "date", "code"} <= set(
        kept["machine"]
    )
    assert not any("/" in str(value) for value in kept["machine"].values()), "no paths"
    if "rung" in kept:
        assert kept["rung"] in RUNGS
        assert path.name == file_name(kept)
        assert bool(kept["error"]) != bool(kept["time"])
