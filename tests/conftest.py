"""The book, built once for all tests that look at its pages; and what every process inherits."""

import os

# Before torch and the hub's client are imported, which read them then: the tests' models are too small
# for two threads, and no test may wait for a network.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import pytest  # noqa: E402
from pages import ROOT, build  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Run what takes long first, and what needs the built book, or the GPU, in one process."""
    for item in items:
        if {"book", "small_book"} & set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group("book"))
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.xdist_group("gpu"))
    items.sort(
        key=lambda item: (not item.get_closest_marker("xdist_group"), "notebook" not in item.name)
    )


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The folder with the pages of the book as it stands."""
    return build(ROOT, tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="session")
def records(tmp_path_factory, worker_id):
    """A folder for the records of small runs, the same for all processes of this session."""
    own = tmp_path_factory.getbasetemp()
    return (own if worker_id == "master" else own.parent) / "records"
