"""The toy machine of two streams: right in every order, and wrong in some without a safeguard."""

import itertools
from pathlib import Path

import pytest

from decoding import loops
from decoding.drawing.pipelines import EXPECTED, LANES, SAFEGUARDS, Machine, outcomes, traced

ALONE = {"limit": 3}, {"limit": 4}, {"limit": 5}


@pytest.mark.parametrize("one_graph", [True, False])
@pytest.mark.parametrize("options", ALONE)
def test_with_every_safeguard_each_order_gives_the_right_text(options, one_graph):
    assert outcomes(one_graph=one_graph, **options) == {EXPECTED}


@pytest.mark.parametrize("one_graph", [True, False])
@pytest.mark.parametrize("without", ["wait", "two flags", "synchronize"])
def test_without_a_safeguard_some_order_is_wrong_and_some_right_by_luck(without, one_graph):
    found = outcomes(without, one_graph=one_graph)
    assert EXPECTED in found and found - {EXPECTED}


def test_without_the_clones_no_order_is_right():
    assert outcomes("clone") == {("■", "■", "■")}


def test_one_flag_cuts_off_a_good_token_and_nothing_else():
    assert outcomes("two flags") == {EXPECTED, EXPECTED[:-1]}


def test_the_last_wait_matters_only_where_the_run_ends_at_its_limit():
    assert outcomes("last wait", limit=4) == {EXPECTED}
    assert outcomes("last wait", limit=3) == {EXPECTED, (*EXPECTED[:2], "The")}


def test_steps_that_are_not_one_graph_have_more_wrong_orders():
    assert outcomes("wait") < outcomes("wait", one_graph=False)


def test_whoever_is_fast_the_pipeline_goes_through():
    for order in itertools.permutations(LANES):
        *_, (_, machine) = traced(order)
        assert machine.text == EXPECTED and not any(machine.queues.values())


def test_a_stream_runs_in_order_and_the_host_is_one_step_ahead():
    seen, launched, raised = {"A": [], "B": []}, 0, set()
    for item, machine in traced(("host", "A", "B", "caller")):
        if item.lane in seen:
            seen[item.lane].append((item.step, item.kind))
        launched += item.kind == "launch"
        raised = machine.raised
        assert launched <= len(raised) + 2
    kinds = ["step", "clone", "flag", "done"]
    assert seen["A"] == [(0, k) for k in kinds] + [(2, k) for k in ["wait", *kinds]]


def test_every_safeguard_is_a_line_of_the_loop():
    loop = Path(loops.__file__).with_name("two_streams.py").read_text("utf-8")
    for line in SAFEGUARDS.values():
        assert all(part in loop for part in line.split(", "))


def test_an_unknown_safeguard_is_named():
    with pytest.raises(ValueError, match="'hope' is no safeguard; choose from wait"):
        Machine("hope")
