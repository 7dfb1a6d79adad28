"""Asking late and seldom: the ends are real, the tokens right, the waste counted."""

import pytest
import torch

from decoding import generate, load_model
from decoding.measuring import MeasurementError, Workload, asking

WORK = Workload("gpt2-tiny", 3, 6, 24, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def model():
    return load_model("gpt2-tiny", device="cpu", dtype=torch.float32)


@pytest.mark.parametrize(("late", "every"), [(0, 1), (1, 1), (2, 1), (0, 4), (1, 4)])
@pytest.mark.parametrize("end", [2, 11])
def test_a_loop_returns_the_tokens_up_to_the_end_and_counts_its_steps(model, late, every, end):
    free = asking.Asking(model, WORK, None, 0, 1)
    ids, lasts = asking._ids_that_end(asking._free_tokens(free), end)
    run = asking.Asking(model, WORK, None, late, every)
    run.eos_token_id = ids
    expected = generate(model, run.input_ids, rung="kv_cache", max_new_tokens=24, eos_token_id=ids)
    assert max(lasts) == end and len(lasts) == 3
    assert torch.equal(run(), expected)
    asked = -(-(end + 1) // every) * every  # the step in which it asks and hears of the end
    assert run.steps == asked + late


def test_all_loops_come_to_the_same_end(model):
    loops = {late: asking.Asking(model, WORK, None, late, 1) for late in (0, 1)}
    end, lasts = asking._end_all(loops, 11)
    assert max(lasts) == end == 11
    loops[1].new_tokens = 5  # it can't come so far
    with pytest.raises(MeasurementError, match=r"\[11, 5\]"):
        asking._end_all(loops, 11)


def test_no_ids_end_a_run_that_repeats_one_token():
    with pytest.raises(ValueError, match="all its rows"):
        asking._ids_that_end(torch.full((2, 8), 7), 3)


def test_the_gate_of_transformers_needs_a_gpu():
    with pytest.raises(MeasurementError, match="GPU"):
        asking.transformers_gate(WORK)


@pytest.mark.parametrize("late", [False, True])
def test_the_gate_decides_which_check_transformers_makes(model, late):
    ids, made = torch.arange(4)[None], []
    options = {"max_new_tokens": 3, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    with asking._gate_open(late, made):
        if late:  # the deferred one records events, and a CPU has none
            with pytest.raises(RuntimeError, match="events"):
                model.generate(ids, **options)
        else:
            assert model.generate(ids, **options).shape == (1, 7)
    assert made == ([True] if late else [])
