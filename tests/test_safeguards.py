"""Safeguards taken out: the experiment, on a CPU, where its shape and its arithmetic can be checked."""

import pytest
import torch

from decoding.measuring import NeedsGpu, safeguards
from decoding.measuring.safeguards import AS_IS, BETWEEN_CALLS, NOTHING_OUT, PROVOKED, verdict

SMALL = {"model_name": "gpt2-tiny", "device": "cpu"}


def test_on_a_cpu_only_what_is_wrong_in_every_order_shows():
    cases = (
        NOTHING_OUT,
        "the wait between the streams",
        "a flag for each step in flight",
        BETWEEN_CALLS,
    )
    found = safeguards.safeguards(**SMALL, calls=2, new_tokens=12, cases=cases)
    assert list(found) == list(cases)
    for case in found.values():
        assert case.keys() == {AS_IS, PROVOKED}
        for way in case.values():
            assert way["error"] is None and way["tokens"] > 2 and way["ms"] > 0
    wrong = {name: case[AS_IS]["wrong"] for name, case in found.items()}
    # One flag for two steps: each of the two calls stops a token early.
    assert list(wrong.values()) == [0, 0, 2, 0]


def test_a_process_that_ends_does_not_end_the_experiment(monkeypatch):
    found = safeguards.safeguards(**SMALL, calls=1, new_tokens=8, cases=("no such case",))
    assert found["no such case"][AS_IS]["wrong"] == 0  # nothing is taken out
    found = safeguards.safeguards("no/such model", "cpu", 1, 8, cases=(NOTHING_OUT,))
    assert found[NOTHING_OUT][AS_IS]["error"]


def test_under_the_sanitizer():
    found = safeguards.sanitized(
        **SMALL, new_tokens=6, cases=(NOTHING_OUT, "the wait for the flag")
    )
    assert found == {NOTHING_OUT: {"error": None}, "the wait for the flag": {"error": None}}


def test_verdicts():
    right = {"wrong": 0, "tokens": 9, "ms": 1.0, "error": None}
    assert verdict(right, right) == "nothing"
    assert verdict(right | {"ms": 1.3}, right) == "slower"
    assert verdict(right | {"wrong": 1, "ms": 1.3}, right) == "wrong"
    assert (
        verdict(right | {"error": "AcceleratorError: CUDA error: device-side assert"}, right)
        == "dead"
    )
    assert verdict(right | {"error": "its process ended with exit code -6."}, right) == "dead"
    assert verdict(right | {"error": "RuntimeError: overwritten"}, right) == "refused"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
@pytest.mark.parametrize("find", [safeguards.safeguards, safeguards.sanitized])
def test_without_a_gpu_it_says_so(find):
    with pytest.raises(NeedsGpu):
        find()
