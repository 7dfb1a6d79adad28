"""The book, built once for all tests that look at its pages; and what every process inherits."""

import os
from pathlib import Path

# Before torch and the hub's client are imported, which read them then: the tests' models are too small
# for two threads, and no test may wait for a network.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402
from pages import ROOT, build  # noqa: E402

LONGEST = ("test_safety.py", "test_notebooks.py", "test_your_model.py")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest: two processes then end together."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """A folder that all processes of this session share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def book(shared):
    """The folder with the pages of the book as it stands, built by the first that needs it."""
    built = shared / "book_is_built"
    with FileLock(shared / "book.lock"):
        if not built.exists():
            built.write_text(str(build(ROOT, shared / "book")))
    return Path(built.read_text())


@pytest.fixture(scope="session")
def records(shared):
    """A folder for the records of small runs: what one notebook has measured, others read."""
    return shared / "records"
