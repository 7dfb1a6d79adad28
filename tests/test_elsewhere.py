"""What a chapter needs and how long it takes on a card that the book has not: marked as an estimate."""

import json
import tomllib
from pathlib import Path

import nbformat
import pytest
from packaging.version import Version

from decoding.pages import copies, elsewhere
from decoding.pages.elsewhere import NEEDS, T4, measuring_s, needs, needs_of

ROOT = Path(__file__).resolve().parent.parent
H100 = {"gpu": "NVIDIA H100 80GB HBM3", "seconds": 60}


def test_the_time_is_an_estimate_and_says_so():
    assert needs("12_what_can_go_wrong", H100) == (
        f"{NEEDS} About {T4} min on a T4 (estimate: {T4} × the book's H100)."
    )


@pytest.mark.parametrize("recorded", [None, {"gpu": H100["gpu"]}, {"gpu": "Another", "seconds": 9}])
def test_without_a_recorded_time_there_is_none(recorded):
    assert needs("01_naive", recorded) == NEEDS


def test_what_an_earlier_chapter_has_measured_counts():
    own = measuring_s("12_what_can_go_wrong", H100)
    ladder, race, late = (
        measuring_s(page, H100) for page in ("02_kv_cache", "06_stop_check", "09_captured_graph")
    )
    assert own == 60 < race < late < ladder
    assert measuring_s("scoreboard", H100) == ladder


def test_the_ladders_time_is_that_of_its_processes(tmp_path, monkeypatch):
    record = {
        "schema": 2,
        "error": None,
        "time": {"total_ms": {"median": 500}},
        "processes": [{"initialize_s": 1, "first_run_s": 10, "runs": 3}] * 2,
    }
    (tmp_path / "naive_gpt2_b1_p128_n256_bfloat16.json").write_text(json.dumps(record))
    monkeypatch.setattr(elsewhere.masthead, "folder_for", lambda _: tmp_path)
    assert measuring_s("01_naive", H100) == 60 + 2 * (1 + 10 + 1.5) + 1


def test_it_stands_in_the_first_cell_where_a_notebook_is_opened_elsewhere(tmp_path):
    path = tmp_path / "12_what_can_go_wrong.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", id="one")])
    notebook.metadata["recorded"] = H100
    nbformat.write(notebook, path)
    configuration = tmp_path / "_config.yml"
    configuration.write_text("repository:\n  url: https://example.org/one\n")
    copies.write_address(tmp_path, configuration)
    first = nbformat.read(path, as_version=4).cells[0].source.splitlines()
    assert first == [
        '%pip install --quiet "decoding[pages] @ git+https://example.org/one"',
        f"# {needs_of(path)}",
    ]


def test_a_page_that_measures_nothing_needs_nothing():
    assert needs_of(ROOT / "notebooks" / "your_gpu.ipynb") == ""


def test_what_a_notebook_installs_leaves_colabs_own_kernel_alone():
    """Colab pins its kernel: newer lower bounds than these would replace it under the running notebook."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = dict(
        one.split(">=") for one in project["optional-dependencies"]["pages"] if ">=" in one
    )
    colab = {"ipykernel": "6.17.1", "ipython": "7.34.0", "traitlets": "5.7.1"}
    for name, version in colab.items():
        assert Version(bounds[name]) <= Version(version), name


def test_the_pages_say_it(book):
    page = (book / "notebooks" / "12_what_can_go_wrong.html").read_text(encoding="utf-8")
    assert f'<p class="ttb-needs">{NEEDS}' in page
