"""Attention, drawn: what each form computes, reads and keeps in a step."""

from xml.etree import ElementTree

import pytest

from decoding.drawing import COLOURS, attention
from decoding.drawing.attention import LENGTH, WORDS
from decoding.drawing.theme import THEME

FORMS = ("naive", "kv_cache", "static_cache")


def drawings(*forms):
    """The drawings of the page: form -> element."""
    root = ElementTree.fromstring(attention(*forms).html)
    return dict(zip(forms, root.iter("svg"), strict=True))


def looks(svg, n, step, kind):
    """How the parts of word ``n`` look in a step: its row (``data-reads``) or its key (``data-key``)."""
    if kind == "data-key":
        groups = [key[0] for key in svg.iterfind(f".//g[@data-key='{n}']")]
    else:
        groups = [g for g in svg.iter("g") if g.get("data-n") == str(n) and g.get(kind)]
    place = 0 if n < step else 1 if n == step else 2
    return [group.get("data-looks").split("|")[place] for group in groups]


@pytest.mark.parametrize("step", [1, 3, len(WORDS)])
def test_one_row_is_new_and_the_naive_loop_computes_them_all(step):
    svgs = drawings("naive", "kv_cache")
    for n in range(1, len(WORDS) + 1):
        (naive,) = looks(svgs["naive"], n, step, "data-reads")
        (cached,) = looks(svgs["kv_cache"], n, step, "data-reads")
        hidden = n > step
        assert ("display:none" in naive) == ("display:none" in cached) == hidden
        assert (THEME[COLOURS["naive"]] in naive) == (not hidden)
        assert (THEME[COLOURS["kv_cache"]] in cached) == (n == step)
        assert ("fill-opacity" in naive) == (n < step)
        assert ("dasharray" in cached) == (n < step)


def test_a_static_cache_reads_what_is_not_written_yet():
    svg = drawings("static_cache")["static_cache"]
    rows = [g for g in svg.iter("g") if g.get("data-reads")]
    assert {row.get("data-reads") for row in rows} == {str(LENGTH)}
    assert f"all {LENGTH} positions" in rows[0].get("aria-label")
    for n in (7, LENGTH):
        (keys,) = looks(svg, n, 6, "data-key")
        assert "fill:none" in keys  # hatched, and there
    (dynamic,) = (g for g in drawings("kv_cache").values())
    assert len(dynamic.findall(f".//g[@data-key='{LENGTH}']")) == 0


def test_a_row_says_which_keys_it_reads():
    svg = drawings("naive")["naive"]
    third = svg.find(".//g[@data-reads='3']")
    assert third.get("aria-label") == "the query of “waits” reads the keys of The, GPU, waits"
    assert third.get("tabindex") == "0"


def test_the_words_tell_the_step_and_the_message():
    one = attention("naive")
    assert one.picture.title == "One row is new. Every other row was computed a step ago."
    assert "6 rows are computed" in one.picture.alt
    assert " ".join(WORDS) in one.picture.alt
    static = attention("static_cache").picture.alt
    assert f"all {LENGTH} positions" in static and "6 are written" in static


@pytest.mark.parametrize("forms", [("naive",), ("naive", "kv_cache"), ("static_cache",)])
def test_it_starts_at_the_last_step_and_stays_small(forms):
    found = attention(*forms)
    root = ElementTree.fromstring(found.html)
    control = root.find(".//input")
    assert control.get("value") == control.get("max") == str(len(WORDS) - 1)
    assert control.get("aria-valuetext") == "6, “host”"
    assert root.find(".//*[@data-state]").get("data-state") == "6"
    assert len(found.html) < 17_500
    assert " id=" not in found.html and "<script" not in found.html


@pytest.mark.parametrize("forms", [(), ("compiled",)])
def test_an_unknown_form_is_an_error(forms):
    with pytest.raises(ValueError, match="naive, kv_cache, static_cache"):
        attention(*forms)
