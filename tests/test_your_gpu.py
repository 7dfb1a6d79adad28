"""Your GPU beside ours: the named reasons, from the notebook's own cells; and the records kept."""

from pathlib import Path

import nbformat
import pytest
from factories import record

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


OURS = record("kv_cache", per_token=8.0, idle=0.75)  # 2 ms of work, 6 ms of waiting


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (record("kv_cache", per_token=8.2, idle=0.75), "about the same time"),
        (
            record("kv_cache", per_token=14.0, idle=0.4286),
            "memory bandwidth: its GPU works ×4.0 as long",
        ),
        (
            record("kv_cache", per_token=4.0, idle=0.5),
            "launch speed of the host: it waits 2.00 ms a token instead of 6.00 ms",
        ),
        (record("kv_cache", per_token=12.0, idle=2 / 3), "both clocks"),
        (record("kv_cache", error="Out of GPU memory."), "Out of GPU memory."),
        (record("kv_cache", gpu=False), "not measured on a GPU"),
    ],
)
def test_the_larger_part_of_the_difference_is_named(page, theirs, reason):
    assert page["reason_for"](OURS, theirs).startswith(reason)


def test_other_dtypes_and_kernels_are_named_too(page):
    theirs = record("kv_cache", per_token=8.0, idle=0.75)
    theirs["workload"]["dtype"] = "float16"
    theirs["gpu"]["kernels_per_token"] = 150.0
    said = page["reason_for"](OURS, theirs)
    assert "measured in float16, not in bfloat16" in said
    assert "150 kernels a token instead of 100" in said


def test_a_naive_batch_is_bound_by_arithmetic(page):
    assert page["limit_of"](record("naive", batch=32)) == "arithmetic"
    assert page["limit_of"](record("naive", batch=1)) == "memory bandwidth"


def test_machines_are_found_and_their_variants_left_out(page, tmp_path):
    for folder in ("one", "two"):
        for variant in ({}, {"compile_mode": "default"}):
            made = record("compiled", variant=variant)
            save(made, tmp_path / folder / file_name(made))
    (tmp_path / "empty").mkdir()
    found = page["machines_in"](tmp_path, tmp_path / "nowhere")
    assert {name: len(kinds) for name, kinds in found.items()} == {"one": 1, "two": 1}


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
