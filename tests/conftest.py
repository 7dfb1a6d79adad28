"""The book, built once for all tests that look at its pages."""

import pytest
from pages import ROOT, build


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The folder with the pages of the book as it stands."""
    return build(ROOT, tmp_path_factory.mktemp("book"))
