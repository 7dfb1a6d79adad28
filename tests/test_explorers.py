"""Explorers: their states, their links and their size are in the HTML that a page holds."""

import re
from xml.etree import ElementTree

import pytest
from factories import entrant, record

from decoding import drawing
from decoding.drawing import Picture
from decoding.drawing.theme import THEME

RECORDS = [
    record("naive", per_token=12.0, growth=6.0, reserved=4000.0, allocated=1000.0),
    record("kv_cache", per_token=6.0, reserved=2000.0, allocated=900.0),
]
FAILED = record("naive", error="CUDA ran out of memory.")


def parsed(explorer):
    return ElementTree.fromstring(explorer.html)


def states(explorer):
    """The text of every state: its key -> what stands in it."""
    found = parsed(explorer).iterfind(".//div[@data-state]")
    return {state.get("data-state"): " ".join(state.itertext()) for state in found}


def shown(explorer):
    """The keys of the states that are not hidden."""
    found = parsed(explorer).iterfind(".//div[@data-state]")
    return [state.get("data-state") for state in found if state.get("hidden") is None]


def labels(explorer):
    """The labels of the first control."""
    root = parsed(explorer)
    slider = root.find(".//input[@type='range']")
    if slider is not None:
        return slider.get("data-labels").split("|")
    fieldset = root.find(".//fieldset")
    return ["".join(label.itertext()).strip() for label in fieldset.iter("label")]


@pytest.mark.parametrize("control", ["slider", "buttons"])
def test_the_control_chooses_the_picture(control):
    explorer = drawing.explorer(
        {1: "one", 8: Picture("", [], "eight", alt="8")},
        description="batch size",
        control=control,
        start=1,
    )
    root = parsed(explorer)
    assert labels(explorer) == ["1", "8"]
    assert states(explorer) == {"0": "one", "1": "eight"}
    assert shown(explorer) == ["1"]
    names = [state.get("aria-label") for state in root.iterfind(".//div[@data-state]")]
    assert names == ["batch size 1", "batch size 8"]
    if control == "slider":
        (slider,) = root.iter("input")
        assert (slider.get("min"), slider.get("max"), slider.get("value")) == ("0", "1", "1")
        assert slider.get("aria-valuetext") == root.find(".//output").text == "8"
        assert "batch size" in "".join(root.find(".//label").itertext())
    else:
        assert root.find(".//legend").text == "batch size"
        checked = [
            button.get("value") for button in root.iter("input") if "checked" in button.attrib
        ]
        assert checked == ["1"]


def test_the_html_needs_no_script_and_shares_no_id():
    explorer = drawing.position_explorer(RECORDS, positions=5)
    assert "<script" not in explorer.html and " id=" not in explorer.html
    assert "url(#" not in explorer.html
    assert len(parsed(explorer).get("oninput")) <= 300
    assert explorer.html == drawing.position_explorer(RECORDS, positions=5).html


def test_without_html_the_first_state_stands_in():
    explorer = drawing.batch_explorer(
        {1: {"compiled": entrant(2.0)}, 8: {"compiled": entrant(4.0)}}
    )
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    ElementTree.fromstring(bundle["image/svg+xml"])
    for said in (bundle["text/plain"], bundle["image/svg+xml"]):
        assert "2.00 ms" in said and "Shown: batch size 1" in said
    assert "4.00 ms" not in bundle["text/plain"]


def test_few_states_have_buttons_and_many_a_slider():
    few = parsed(drawing.explorer(dict.fromkeys(range(5), "x"), description="n"))
    many = parsed(drawing.explorer(dict.fromkeys(range(6), "x"), description="n"))
    assert {field.get("type") for field in few.iter("input")} == {"radio"}
    assert {field.get("type") for field in many.iter("input")} == {"range"}


def test_no_states_and_unknown_controls_are_errors():
    with pytest.raises(ValueError, match="at least one"):
        drawing.explorer({}, description="n")
    with pytest.raises(ValueError, match="'knob'; choose one of slider"):
        drawing.explorer({1: "x"}, description="n", control="knob")
    for control in ("slider", "buttons"):
        with pytest.raises(ValueError, match="start is 2; there are 2 states, from 0"):
            drawing.explorer({1: "x", 2: "y"}, description="n", control=control, start=2)
    with pytest.raises(ValueError, match="same labels"):
        drawing.explorer2({1: {"a": "x"}, 2: {"b": "x"}}, descriptions=("n", "m"))
    with pytest.raises(ValueError, match="at least one"):
        drawing.explorer2({}, descriptions=("n", "m"))


def test_two_controls_choose_from_a_grid():
    grid = {
        batch: {loop: f"{batch} {loop}" for loop in ("before", "after")} for batch in (1, 8, 32)
    }
    explorer = drawing.explorer2(
        grid, descriptions=("batch size", "loop"), controls=("slider", None), start=(1, 0)
    )
    assert [field.get("type") for field in parsed(explorer).iter("input")] == [
        *("range", "radio", "radio")
    ]
    assert states(explorer)["1,1"] == "8 after" and len(states(explorer)) == 6
    assert shown(explorer) == ["1,0"]


def test_a_table_may_be_a_state():
    table = drawing.table(["rung", "ms"], [["naive", 12], ["KV cache", 6]], "A caption")
    root = parsed(drawing.explorer({"all figures": table, "x": "y"}, description="compare"))
    assert root.find(".//table/caption").text == "A caption"
    rows = [[cell.text for cell in row] for row in root.iter("tr")]
    assert rows == [["rung", "ms"], ["naive", "12"], ["KV cache", "6"]]
    assert [cell.get("style") for cell in root.findall(".//td")][1] == "text-align:right"


def test_positions_show_time_and_memory():
    explorer = drawing.position_explorer(RECORDS, positions=5)
    assert labels(explorer) == ["129", "257", "384", "511", "639"]
    first, *_, last = states(explorer).values()
    assert "9.09 ms" in first  # 12 − 3 ms, rising over the median's window
    assert "14.9 ms" in last
    assert "1,000 of 4,000 MiB" in last
    assert "501 of 2,004 MiB" in first


def test_positions_of_a_cpu_and_of_a_failure():
    on_cpu = states(drawing.position_explorer([record("naive", gpu=False, new=12, prompt=8)]))
    assert len(on_cpu) == 11
    assert "MiB" not in on_cpu["0"]
    with_failure = states(drawing.position_explorer([FAILED, RECORDS[1]]))
    assert "naive: no measurement (CUDA ran out of memory)." in with_failure["0"]
    assert "CUDA ran out of memory" in drawing.position_explorer([FAILED]).svg


def test_memory_alone():
    *_, last = states(drawing.memory_explorer(RECORDS, positions=3)).values()
    assert "1,000 of 4,000 MiB" in last
    assert " ms" not in last
    nothing = drawing.memory_explorer([record(gpu=False)])
    assert "Memory is measured on a GPU only." in nothing.alt


def test_batch_sizes_share_one_scale():
    results = {
        1: {"compiled": entrant(1.0), "no check": entrant(0.5)},
        32: {"compiled": record("compiled", per_token=4.0, around=0.0), "no check": FAILED},
    }
    explorer = drawing.batch_explorer(results)
    one, many = states(explorer).values()
    assert "1.00 ms · 1,000 tokens/s" in one
    assert "4.00 ms · 8,000 tokens/s" in many
    assert "CUDA ran out of memory" in many
    assert [float(w) for w in re.findall(r'd="M0 \d+h([\d.]+)v', explorer.html)] == [100, 50, 400]
    assert THEME[drawing.COLOURS["compiled"]].casefold() in explorer.html.casefold()


def test_cache_lengths_beside_the_dynamic_cache():
    results = {640: entrant(6.0), 2048: entrant(9.0), 4096: FAILED}
    explorer = drawing.cache_length_explorer(results, beside={"kv_cache": entrant(6.4)})
    short, long = states(explorer).values()
    assert "A cache of 640 positions: 6.00 ms per token." in short
    assert "A cache of 2,048 positions: 9.00 ms per token, ×1.50 that of 640." in long
    assert "KV cache" in long and "6.40 ms" in long
    assert "CUDA ran out of memory" in long
    assert "No cache length" in drawing.cache_length_explorer({640: FAILED}).alt


def test_cache_lengths_by_the_gpus_busy_time():
    results = {640: record(per_token=8.0, idle=0.75), 2048: record(per_token=8.0, idle=0.5)}
    explorer = drawing.cache_length_explorer(results, beside={"x": entrant(6.4)}, busy=True)
    short, long = states(explorer).values()
    assert "A cache of 640 positions: 2.00 ms per token." in short
    assert "A cache of 2,048 positions: 4.00 ms per token, ×2.00 that of 640." in long
    assert "not measured" in long
    assert "No cache length" in drawing.cache_length_explorer({640: entrant(6.0)}, busy=True).alt


def test_pictures_have_the_theme_s_colours():
    html = drawing.position_explorer(RECORDS, positions=2).html
    assert not re.search(r"(?:fill|stroke|color)[:=]\"?#", html)
    assert re.search(r"fill:var\(--ttb-naive, #D55E00\)", html)


def test_explorers_stay_small():
    two = drawing.position_explorer(RECORDS, positions=20)
    assert len(states(two)) == 20
    assert len(two.html) < 50_000
    each = 700  # bytes of a record at a position: two bars with a name and a number
    ladder = [record(name) for name in drawing.COLOURS]
    assert len(drawing.position_explorer(ladder, positions=20).html) < 20 * each * len(ladder)
