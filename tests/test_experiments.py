"""The experiments behind a number, on a CPU, where their shape and their arithmetic can be checked."""

import time
from statistics import median

import pytest
import torch
from torch._dynamo import eval_frame

from decoding import ranges
from decoding.measuring import NeedsGpu, Workload, experiments

SMALL = Workload("gpt2-tiny", 1, 6, 20, dtype="float32", device="cpu")


ROUNDS = 2


def skips_guards():
    return eval_frame._stance.skip_guard_eval_unsafe


@pytest.fixture(scope="module")
def watched():
    """What ``launch_times`` finds, and whether guards were skipped in each run that it watched."""
    skipped, watch = [], experiments._watched

    def spy(run):
        skipped.append(skips_guards())
        return watch(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "_watched", spy)
        return experiments.launch_times(SMALL, rounds=ROUNDS), skipped


def test_every_token_of_every_loop_is_watched(watched):
    found, _ = watched
    assert len(found["python_us"]) == ROUNDS and min(found["python_us"]) > 0
    assert list(found["loops"]) == list(experiments.LOOPS)
    tokens = ROUNDS * len(range(experiments.FIRST_STEP, SMALL.new_tokens - 1))
    for seen in found["loops"].values():
        assert len(seen["launch_us"]) == len(seen["wait_us"]) == tokens
        assert len(seen["per_token_ms"]) == ROUNDS
        # A CPU's streams do nothing: all of a token is its launch.
        assert median(seen["launch_us"]) > max(0, median(seen["wait_us"]))


def test_guards_are_skipped_while_loops_are_watched_and_not_afterwards(watched):
    _, skipped = watched
    assert skipped == [True] * ROUNDS * len(experiments.LOOPS)
    assert not skips_guards()


def test_launching_and_waiting_are_told_apart(monkeypatch):
    """A loop that is known to take 4 ms to launch a step and to wait for 2."""

    class Run:
        def __call__(self):
            for step in range(16):
                with ranges.token(step):
                    time.sleep(0.004)
                with ranges.stop_check(step):
                    time.sleep(0.002)

    def timed(run):
        run()
        return {"curve": [6.0, 7.0], "generated": 16}, None

    monkeypatch.setattr(experiments, "timed", timed)
    found = experiments._watched(Run())
    assert found["per_token_ms"] == [6.5]
    assert len(found["launch_us"]) == len(found["wait_us"]) == 15 - experiments.FIRST_STEP
    assert min(found["launch_us"]) >= 4000 and min(found["wait_us"]) >= 2000
    assert median(found["wait_us"]) < 4000  # it is not the launch


class TestRepeatedRuns:
    ARGUMENTS = ("gpt2-tiny", "cpu", 6, 3, (1, 2))

    def test_a_loop_on_a_cpu_does_not_differ_from_itself(self):
        found = experiments.repeated_runs(*self.ARGUMENTS)
        assert found["runs"] == 3 and len(found["cases"]) == 8
        assert {(case["differ"], case["first_token"]) for case in found["cases"]} == {(0, None)}

    def test_a_run_that_differs_is_counted_from_its_first_token(self, monkeypatch):
        calls = []

        def generate(model, prompt, rung, max_new_tokens):
            new = torch.zeros(len(prompt), max_new_tokens, dtype=torch.long)
            calls.append(rung)
            if len(calls) in (2, 3):  # later runs of the first case: from the 5th and the 3rd token
                new[:, 4 if len(calls) == 2 else 2 :] = 1
            return torch.cat([prompt, new], dim=1)

        monkeypatch.setattr(experiments, "generate", generate)
        first, *others = experiments.repeated_runs(*self.ARGUMENTS)["cases"]
        assert first == {
            "rung": "kv_cache",
            "batch_size": 1,
            "with_cudnn": True,
            "differ": 2,
            "first_token": 2,
        }
        assert not any(case["differ"] for case in others)

    def test_cudnn_is_ruled_out_where_the_case_says_so(self, monkeypatch):
        allowed = []

        def generate(model, prompt, rung, max_new_tokens):
            allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
            return prompt

        before = torch.backends.cuda.cudnn_sdp_enabled()
        torch.backends.cuda.enable_cudnn_sdp(True)
        monkeypatch.setattr(experiments, "generate", generate)
        found = experiments.repeated_runs("gpt2-tiny", "cpu", 6, 2, (1,))
        torch.backends.cuda.enable_cudnn_sdp(before)
        expected = [case["with_cudnn"] for case in found["cases"] for _ in range(2)]
        assert allowed == expected and set(allowed) == {True, False}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
@pytest.mark.parametrize(
    "find",
    [experiments.provoke, experiments.repeated_runs, lambda: experiments.stale_reads(0, True)],
)
def test_what_needs_a_gpu_says_so(find):
    with pytest.raises(NeedsGpu):
        find()
