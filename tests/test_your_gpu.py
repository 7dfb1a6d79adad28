"""Machines beside each other: the named parts, what the page shows, and the records kept."""

import shutil
from pathlib import Path

import nbformat
import pytest
from factories import record

from decoding.measuring.errors import NotRecorded
from decoding.measuring.fingerprint import fingerprint
from decoding.measuring.records import file_name, load, save
from decoding.pages import your_gpu
from decoding.pages.machines import BOOK_GPU, BOOK_RECORDS
from decoding.pages.shelf import Sitting, shown_in
from decoding.rungs import RUNGS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "your_gpu.ipynb"
KEPT = sorted((ROOT / "book" / "records").glob("*/*.json"))

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
def test_the_part_that_differs_is_named(ours, theirs, reason):
    assert your_gpu.reason_for(ours, theirs) == reason


def test_other_dtypes_and_kernels_are_named_too():
    theirs = record("kv_cache", per_token=8.0, idle=0.75)
    theirs["workload"]["dtype"] = "float16"
    theirs["gpu"]["kernels_per_token"] = 150.0
    said = your_gpu.reason_for(OURS, theirs)
    assert "measured in float16, not in bfloat16" in said
    assert "150 kernels a token instead of 100" in said


@pytest.mark.parametrize(
    ("idle", "who"), [(0.1, "the GPU"), (0.3, "both"), (0.5, "both"), (0.6, "the host")]
)
def test_who_sets_the_time(idle, who):
    assert your_gpu.binds(record(idle=idle)) == who


@pytest.mark.parametrize(
    ("ours", "per_token", "works"),
    [
        (OURS, 4.0, 4.0),  # the host is the slower one: 8 / 2 ms, beside 2 · 2 ms of work
        (record("kv_cache", per_token=4.0, idle=0.0), 8.0, 8.0),  # the GPU is: 2 · 4 ms
        (COMPILED, 2.5, 2.0),  # in turns: 2 · 1 ms of work, then 1 / 2 ms of waiting
    ],
)
def test_a_made_up_machine_has_half_the_gpu_and_twice_the_host(ours, per_token, works):
    found = your_gpu.made_up(ours)
    assert (found.ms, found.busy_ms) == (per_token, works)
    assert found.idle == 1 - works / per_token


@pytest.fixture
def two_machines(tmp_path):
    """The book's machine and another, which has one rung more; both at one batch size."""
    made = {BOOK_GPU: ("kv_cache",), "another": ("kv_cache", "naive")}
    for folder, rungs in made.items():
        for rung in rungs:
            one = record(rung, per_token=8.0, idle=0.75)
            one["machine"] |= {"driver": "580", "torch": "2.11", "date": "2026-11-24T01:00:00Z"}
            save(one, tmp_path / folder / file_name(one))
    return tmp_path


def test_machines_are_found_and_their_variants_left_out(tmp_path):
    for folder in ("one", "two"):
        for variant in ({}, {"compile_mode": "default"}, {"stop_check": False}):
            made = record("compiled", variant=variant)
            save(made, tmp_path / folder / file_name(made))
        short = record("compiled", prompt=32, new=128)  # as in the races
        save(short, tmp_path / folder / file_name(short))
    (tmp_path / "empty").mkdir()
    found = your_gpu.Machines(tmp_path, tmp_path / "nowhere")
    assert {name: len(kinds) for name, kinds in found.items()} == {"one": 1, "two": 1}


@pytest.mark.parametrize(
    "variant",
    [
        {"compile_mode": "default"},
        {"cache_length": 1024},
        {"stop_check": False},
        {"allocator": "expandable_segments"},  # the rung's own is the other one
    ],
)
def test_only_the_rung_as_its_chapter_introduces_it_is_of_the_ladder(variant):
    assert your_gpu.is_of_the_ladder(record("compiled"))
    assert not your_gpu.is_of_the_ladder(record("compiled", variant=variant))


def test_a_page_without_any_machine_shows_no_rows(tmp_path):
    nobody = your_gpu.Machines(tmp_path)
    assert your_gpu.machines_table(nobody).rows == your_gpu.parts_table(nobody).rows == []
    assert your_gpu.machines_explorer(nobody) is None
    assert your_gpu.comparisons(nobody) == []


def test_the_records_of_the_books_machine_date_the_page(two_machines):
    assert shown_in({"machines": your_gpu.Machines(two_machines)}) == [
        found["machine"] for found in your_gpu.Machines(two_machines).ours.values()
    ]


def test_redrawing_shows_no_record_that_other_code_made(two_machines):
    sitting = Sitting(redraw=True, folder=str(two_machines / BOOK_GPU))
    with pytest.raises(NotRecorded, match="fits the code as it is"):
        your_gpu.Machines(two_machines, sitting=sitting)
    for path in (two_machines / BOOK_GPU).glob("*.json"):
        one = load(path)
        one["machine"]["code"] = fingerprint([one["rung"]])
        save(one, path)
    assert your_gpu.Machines(two_machines, sitting=sitting).shelf.shown


def test_another_machine_stands_beside_the_books(two_machines):
    machines = your_gpu.Machines(two_machines)
    assert [row[1] for row in your_gpu.machines_table(machines).rows] == [
        "the book's",
        "yours or a reader's",
    ]
    (comparison,) = your_gpu.comparisons(machines)
    assert "(another) beside the book's" in comparison.picture.title
    ((rung, ours, theirs, speed, reason),) = comparison.table.rows
    assert (rung, ours, theirs) == (
        "KV cache, batch\N{NO-BREAK SPACE}32",
        *["8.00 (7.90–8.10) ms"] * 2,
    )
    assert (speed, reason) == ("×1", "about the same time")


def test_a_machine_with_other_rungs_is_compared_with_nothing(two_machines):
    shutil.rmtree(two_machines / BOOK_GPU)
    shutil.copytree(two_machines / "another", two_machines / BOOK_GPU)
    next((two_machines / "another").glob("kv_cache*")).unlink()
    next((two_machines / BOOK_GPU).glob("naive*")).unlink()
    (comparison,) = your_gpu.comparisons(your_gpu.Machines(two_machines))
    assert comparison.rows == []
    assert "no rung measured alike" in comparison.caption


def test_the_made_up_machine_goes_when_another_has_records(two_machines):
    shutil.rmtree(two_machines / "another")
    (alone,) = your_gpu.comparisons(your_gpu.Machines(two_machines))
    assert "not measured" in alone.picture.title
    assert "made up" in alone.table.head


def test_a_failed_row_says_why(two_machines):
    (path,) = (two_machines / BOOK_GPU).glob("*.json")
    save(record("kv_cache", error="Out of GPU memory."), path)
    (comparison,) = your_gpu.comparisons(your_gpu.Machines(two_machines))
    assert comparison.table.rows == [
        ["KV cache, batch\N{NO-BREAK SPACE}32", "–", "–", "–", "Out of GPU memory."]
    ]


def test_several_machines_have_a_control(two_machines):
    machines = your_gpu.Machines(two_machines)
    assert "another" in your_gpu.machines_explorer(machines).html
    del machines["another"]
    assert "another" not in your_gpu.machines_explorer(machines).html


def test_the_page_shows_the_records_in_the_tree(tmp_path):
    # Only those of the book: who adds a machine need not redraw the page.
    (tmp_path / BOOK_GPU).symlink_to(BOOK_RECORDS / BOOK_GPU)
    machines = your_gpu.Machines(tmp_path)
    made = [your_gpu.machines_table(machines), your_gpu.parts_table(machines)]
    shown = nbformat.read(NOTEBOOK, as_version=4)
    outputs = [output.data for cell in shown.cells for output in cell.get("outputs", ())]
    texts = [data.get("text/markdown") for data in outputs]
    for rows in (table.rows for table in made):
        for row in rows:
            assert any(f"| {' | '.join(row)} |" in text for text in filter(None, texts))
    assert your_gpu.machines_explorer(machines).html in [data.get("text/html") for data in outputs]


def test_the_page_says_how_long_a_record_counts_as_recent():
    assert Sitting.class_traits()["reuse_days"].default_value * 24 == 6
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
