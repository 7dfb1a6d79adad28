"""The canonical race: who starts when, under which settings, and what is concluded of a token."""

import gc
import os
import time
from statistics import median

import pytest
import torch
from torch._dynamo import eval_frame

from decoding import ranges
from decoding.measuring import Workload, ratio_of, watch, watching
from decoding.measuring.races import rotated

SMALL = Workload("gpt2-tiny", 2, 6, 24, dtype="float32", device="cpu")
ROUNDS = 2
TOKENS = len(range(watching.FIRST_STEP, SMALL.new_tokens - 1))


def skips_guards():
    return eval_frame._stance.skip_guard_eval_unsafe


@pytest.fixture(scope="module")
def found():
    """What ``watch`` finds on a CPU, in a process of its own."""
    return watch(SMALL, rounds=ROUNDS)


def test_every_entrant_is_watched_at_every_token(found):
    assert list(found["results"]) == [*watching.LOOPS, *watching.WITHOUT_GUARDS]
    for label, record in found["results"].items():
        assert len(record["rounds_ms"]) == record.spread_over == ROUNDS
        assert len(record["raw"]["launch_us"]) == len(record["raw"]["token_ms"]) == TOKENS
        assert record["settings"]["guards"] is ("no guards" not in label)
        assert record["L_us"] == record["launch_us"]["p50"] > 0
        assert record["measured_us"] == pytest.approx(1000 * record.ms, rel=1e-3)
        assert record.tokens_ms["p50"] <= record.tokens_ms["p95"] <= record.tokens_ms["p99"]
        assert record["G_us"] is record["predicted_us"] is record["bubble_us"] is None
        assert record["probe_us"]["p50"] > 0 and -1 <= record["probe_correlation"] <= 1
    assert found["bare_replay"] is None


def test_its_entrants_may_be_compared(found):
    check, bound = found["results"]["check"], found["results"]["no check"]
    assert ratio_of(check, bound) > 0
    assert check["check_us"] == pytest.approx(check["measured_us"] - bound["measured_us"], abs=0.5)
    assert bound["check_us"] == 0


def test_all_choose_the_same_tokens(found):
    assert len({record["tokens_sha256"] for record in found["results"].values()}) == 1


def test_every_round_begins_with_another():
    assert [rotated("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_guards_are_skipped_in_the_runs_that_ask_for_it_and_nowhere_else(monkeypatch):
    seen, probe = [], watching.host_times

    def spy(run, probes=None):
        seen.append(skips_guards())
        return probe(run, probes)

    monkeypatch.setattr(watching, "host_times", spy)
    entrants = {"with": {"rung": "kv_cache"}, "without": {"rung": "kv_cache", "guards": False}}
    watching.watched(lambda *_: None, entrants, SMALL, rounds=2, bare=False)
    timed = [False, True, True, False]  # the second round begins with the other
    probed = [False] * watching.PROBED_ROUNDS + [True] * watching.PROBED_ROUNDS
    assert seen == timed + probed
    assert not skips_guards()


class TestSettings:
    def test_a_stance_holds_inside_and_not_outside(self):
        with watching.under(guards=False):
            assert skips_guards()
        with watching.under():
            assert not skips_guards()
        with pytest.raises(KeyError), watching.under(guards=False):
            raise KeyError
        assert not skips_guards()

    def test_the_garbage_collector_is_kept_off(self):
        with watching.under(gc_freeze=True):
            assert not gc.isenabled() and gc.get_freeze_count() > 0
        assert gc.isenabled() and gc.get_freeze_count() == 0

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
    def test_the_thread_is_kept_on_one_core(self):
        allowed = os.sched_getaffinity(0)
        with watching.under(pin_core=True):
            assert len(os.sched_getaffinity(0)) == 1
        assert os.sched_getaffinity(0) == allowed

    def test_no_loop_or_no_round_is_refused(self):
        for given in ({"entrants": {}}, {"rounds": 0}):
            with pytest.raises(ValueError, match="at least 1"):
                watch(SMALL, **given)


class TestBalance:
    """L and G of a token that is known."""

    def balance(self, loop, launch, wait, busy, measured):
        made = object.__new__(watching._Loop)
        made.rung, made.stop_check = loop.get("rung"), loop.get("stop_check", True)
        return made._balance(
            {
                "launch_us": {"p50": launch},
                "per_token_ms": {"median": measured / 1000},
                "busy_ms_per_token": busy / 1000,
            }
        )

    @pytest.mark.parametrize(
        ("loop", "predicted"), [("check", 1000.0), ("two streams", 550.0), ("no check", 550.0)]
    )
    def test_checked_it_is_their_sum_and_else_the_larger(self, loop, predicted):
        found = self.balance(watching.LOOPS[loop], 550.0, 0.0, 450.0, 1010.0)
        assert (found["L_us"], found["G_us"]) == (550.0, 450.0)
        assert found["predicted_us"] == predicted
        assert found["bubble_us"] == 560.0


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

    monkeypatch.setattr(watching, "timed", timed)
    probes = []
    _, launch_us, wait_us = watching.host_times(Run(), probes)
    assert len(launch_us) == len(wait_us) == 15 - watching.FIRST_STEP
    assert len(probes) == 16 and median(probes) < 1000
    assert min(launch_us) >= 4000 and min(wait_us) >= 2000 and median(wait_us) < 4000


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_bare_replay_needs_a_gpu():
    from decoding import load_model
    from decoding.measuring import NeedsGpu
    from decoding.measuring.replays import bare_replay

    with pytest.raises(NeedsGpu):
        bare_replay(load_model("gpt2-tiny", device="cpu"), SMALL)
