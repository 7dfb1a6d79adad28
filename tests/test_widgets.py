"""Explorers: their pictures and links are in the state that a static page holds."""

import json
import re

import pytest
from factories import record
from ipywidgets.embed import dependency_state

from decoding import figures, widgets

RECORDS = [
    record("naive", per_token=12.0, growth=6.0, reserved=4000.0, allocated=1000.0),
    record("kv_cache", per_token=6.0, reserved=2000.0, allocated=900.0),
]
FAILED = record("naive", error="CUDA ran out of memory.")


def race(milliseconds):
    return {"per_token_ms": dict.fromkeys(("median", "min", "max"), milliseconds)}


def models(widget, kind):
    """The state of every model of a kind that a page needs to show ``widget``, by its id."""
    state = dependency_state([widget], drop_defaults=False)
    return {
        key: model["state"] for key, model in state.items() if model["model_name"] == f"{kind}Model"
    }


def pictures(widget):
    """The HTML of the pictures of an explorer with one control, in their order."""
    (stack,) = models(widget, "Stack").values()
    html = models(widget, "HTML")
    return [html[child.removeprefix("IPY_MODEL_")]["value"] for child in stack["children"]]


@pytest.mark.parametrize(
    ("control", "kind"),
    [("slider", "SelectionSlider"), ("toggle", "ToggleButtons"), ("dropdown", "Dropdown")],
)
def test_the_control_is_linked_to_the_pictures(control, kind):
    widget = widgets.explorer(
        {1: "<svg>one</svg>", 8: figures.Html("<svg>eight</svg>", "8")},
        description="batch size",
        control=control,
        start=1,
    )
    ((chooser, state),) = models(widget, kind).items()
    ((stack, shown),) = models(widget, "Stack").items()
    (link,) = models(widget, "Link").values()
    assert link["source"] == [f"IPY_MODEL_{chooser}", "index"]
    assert link["target"] == [f"IPY_MODEL_{stack}", "selected_index"]
    assert state["_options_labels"] == ("1", "8") or state["_options_labels"] == ["1", "8"]
    assert state["description"] == "batch size"
    assert state["index"] == shown["selected_index"] == 1
    assert "<svg>one</svg>" in pictures(widget)[0]
    assert "<svg>eight</svg>" in pictures(widget)[1]
    assert 'aria-label="batch size 8"' in pictures(widget)[1]


def test_few_states_have_buttons_and_many_a_slider():
    few = widgets.explorer(dict.fromkeys(range(5), "x"), description="n")
    many = widgets.explorer(dict.fromkeys(range(6), "x"), description="n")
    assert models(few, "ToggleButtons") and not models(few, "SelectionSlider")
    assert models(many, "SelectionSlider") and not models(many, "ToggleButtons")


def test_no_states_and_unknown_controls_are_errors():
    with pytest.raises(ValueError, match="at least one"):
        widgets.explorer({}, description="n")
    with pytest.raises(ValueError, match="'knob'; choose one of slider"):
        widgets.explorer({1: "x"}, description="n", control="knob")
    with pytest.raises(ValueError, match="same labels"):
        widgets.explorer2({1: {"a": "x"}, 2: {"b": "x"}}, descriptions=("n", "m"))
    with pytest.raises(ValueError, match="at least one"):
        widgets.explorer2({}, descriptions=("n", "m"))


def test_two_controls_choose_from_a_grid():
    grid = {
        batch: {loop: f"{batch} {loop}" for loop in ("before", "after")} for batch in (1, 8, 32)
    }
    widget = widgets.explorer2(grid, descriptions=("batch size", "loop"), controls=("slider", None))
    (outer,) = models(widget, "SelectionSlider")
    (inner,) = models(widget, "ToggleButtons")
    stacks = models(widget, "Stack")
    links = {(link["source"][0], link["target"][0]) for link in models(widget, "Link").values()}
    (top,) = (key for key, s in stacks.items() if len(s["children"]) == 3)
    rows = stacks[top]["children"]
    assert links == {(f"IPY_MODEL_{outer}", f"IPY_MODEL_{top}")} | {
        (f"IPY_MODEL_{inner}", row) for row in rows
    }
    html = models(widget, "HTML")
    second = stacks[rows[1].removeprefix("IPY_MODEL_")]["children"][1]
    assert ">8 after<" in html[second.removeprefix("IPY_MODEL_")]["value"]


def test_positions_show_time_and_memory():
    widget = widgets.position_explorer(RECORDS, positions=5)
    (slider,) = models(widget, "SelectionSlider").values()
    assert list(slider["_options_labels"]) == ["129", "257", "384", "511", "639"]
    first, *_, last = pictures(widget)
    assert "9.09 ms" in first  # 12 − 3 ms, rising over the median's window
    assert "14.9 ms" in last
    assert "1,000 of 4,000 MiB" in last
    assert "501 of 2,004 MiB" in first


def test_positions_of_a_cpu_and_of_a_failure():
    on_cpu = [record("naive", gpu=False, new=12, prompt=8)]
    shown = pictures(widgets.position_explorer(on_cpu))
    assert len(shown) == 11
    assert "MiB" not in shown[0]
    with_failure = pictures(widgets.position_explorer([FAILED, RECORDS[1]]))
    assert "naive: CUDA ran out of memory." in with_failure[0]
    (nothing,) = models(widgets.position_explorer([FAILED]), "HTML").values()
    assert "naive: CUDA ran out of memory." in nothing["value"]


def test_memory_alone():
    shown = pictures(widgets.memory_explorer(RECORDS, positions=3))
    assert "1,000 of 4,000 MiB" in shown[-1]
    assert " ms" not in shown[-1]
    (nothing,) = models(widgets.memory_explorer([record(gpu=False)]), "HTML").values()
    assert "Memory is measured on a GPU only." in nothing["value"]


def test_batch_sizes_share_one_scale():
    results = {
        1: {"compiled": race(1.0), "no check": race(0.5)},
        32: {"compiled": record("compiled", per_token=4.0, around=0.0), "no check": FAILED},
    }
    one, many = pictures(widgets.batch_explorer(results))
    assert "1.00 ms · 1,000 tokens/s" in one
    assert "4.00 ms · 8,000 tokens/s" in many
    assert "CUDA ran out of memory." in many
    widths = [float(w) for w in re.findall(r'<rect x="0.0" width="([\d.]+)"', one + many)]
    assert widths == [25, 12.5, 100]
    assert figures.THEME[figures.COLOURS["compiled"]] in one


def test_cache_lengths_beside_the_dynamic_cache():
    results = {640: race(6.0), 2048: race(9.0), 4096: FAILED}
    short, long = pictures(widgets.cache_length_explorer(results, beside={"kv_cache": race(6.4)}))
    assert "A cache of 640 positions: 6.00 ms per token." in short
    assert "A cache of 2,048 positions: 9.00 ms per token, ×1.50 that of 640." in long
    assert "KV cache" in long and "6.40 ms" in long
    assert "CUDA ran out of memory." in long
    (nothing,) = models(widgets.cache_length_explorer({640: FAILED}), "HTML").values()
    assert "No cache length" in nothing["value"]


def test_pictures_have_the_theme_s_colours():
    for html in pictures(widgets.position_explorer(RECORDS)):
        assert not re.search(r"(?:fill|stroke|color):(?!var|inherit|currentColor)", html)
        assert re.search(r"fill:var\(--ttb-naive, #D55E00\)", html)


def test_the_whole_ladder_stays_small():
    ladder = [record(name) for name in figures.COLOURS]
    widget = widgets.position_explorer(ladder, positions=24)
    size = len(json.dumps(dependency_state([widget], drop_defaults=True)))
    assert size < 400_000
    assert len(pictures(widget)) == 24
