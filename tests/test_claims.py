"""Claims: nothing where they hold, one box where they do not."""

from math import nan

import pytest
from nbformat.v4 import new_code_cell, new_output

from decoding.pages import claims


@pytest.fixture
def displayed(monkeypatch):
    """What was displayed, as the outputs of a cell."""
    outputs = []

    def display(data, raw, metadata):
        assert raw
        outputs.append(new_output("display_data", data, metadata=metadata))

    monkeypatch.setattr(claims, "display", display)
    return outputs


def test_a_claim_that_holds_shows_nothing(displayed):
    assert claims.holds("the_cache_pays", 2 > 1) is None
    assert displayed == []


@pytest.mark.parametrize("condition", [False, nan > 1, nan < 1, nan, 0])
def test_one_that_fails_or_was_not_measured_shows_its_name_in_words(condition, displayed):
    claims.holds("the_cache_pays", condition)
    (box,) = displayed
    assert set(box.data) == {"text/markdown", "text/plain"}
    assert all("the cache pays" in text for text in box.data.values())
    assert claims.failed_in(new_code_cell(outputs=displayed)) == ["the_cache_pays"]


def test_outputs_of_other_kinds_are_no_claims():
    outputs = [new_output("stream", text="x"), new_output("display_data", {"text/plain": "y"})]
    assert claims.failed_in(new_code_cell(outputs=outputs)) == []


@pytest.mark.parametrize("name", ["the cache pays", "cache-pays", ""])
def test_its_name_is_in_snake_case(name, displayed):
    with pytest.raises(ValueError, match="snake case"):
        claims.holds(name, True)
