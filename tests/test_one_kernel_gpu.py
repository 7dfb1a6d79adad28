"""The loop as one kernel on a GPU: its tokens, its waits, and calls after whatever came before.

Run with ``pytest -m gpu`` on a GPU of compute capability 9.0 or later.
"""

import copy
import gc
import time
from itertools import count

import pytest
import torch
from models import prompt
from together import run_together
from transformers import GPT2Config

from decoding import generate, load_model, one_kernel, ranges, release
from decoding.measuring.one_kernel import Variant, exact_logits
from decoding.measuring.workload import Workload

able = torch.cuda.is_available() and torch.cuda.get_device_capability() >= one_kernel.OLDEST
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not able, reason="needs a GPU of compute capability 9.0 or later"),
]
VOCABULARY, NEW = 50256, 32


@pytest.fixture(scope="module")
def model():
    yield load_model("gpt2", device="cuda", dtype=torch.bfloat16)
    release()


@pytest.fixture(scope="module")
def exact(model):
    return copy.deepcopy(model).float()


def ids(length, seed=0):
    return prompt(1, length, seed, VOCABULARY).cuda()


def call(model, input_ids, new=NEW, ends=None):
    return generate(model, input_ids, rung="one_kernel", max_new_tokens=new, eos_token_id=ends)


@torch.no_grad()
def wanted(exact, input_ids, new=NEW, ends=None):
    return generate(exact, input_ids, rung="kv_cache", max_new_tokens=new, eos_token_id=ends)


@torch.no_grad()
def check(exact, found, prompt):
    """The tokens of ``found`` are the likeliest of float32 arithmetic, but for its own noise."""
    top = exact_logits(exact, found, prompt).topk(2)
    differs = (top.indices[:, 0] != found[0, prompt:]).nonzero().flatten().tolist()
    gaps = (top.values[:, 0] - top.values[:, 1])[differs].tolist()
    assert not differs, (prompt, differs, gaps)


class TestTokens:
    @pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 32, 133, 500])
    def test_they_are_those_of_float32(self, model, exact, length):
        found = call(model, ids(length, length))
        assert found.shape == (1, length + NEW)
        check(exact, found, length)
        assert torch.equal(call(model, ids(length, length)), found)

    def test_they_are_those_of_a_token_at_a_time(self, model, exact):
        for seed in range(3):
            assert torch.equal(call(model, ids(40, seed)), wanted(exact, ids(40, seed)))

    @pytest.mark.parametrize("at", [0, 1, 13, NEW - 1])
    def test_they_end_at_the_first_of_several_ends(self, model, at):
        found = call(model, ids(21, at))
        made = found[0, 21:].tolist()
        end = made.index(made[at])
        for ends in (made[at], [VOCABULARY, made[at]], [made[at], VOCABULARY, 7]):
            assert torch.equal(call(model, ids(21, at), ends=ends), found[:, : 22 + end])

    def test_one_token_and_two(self, model):
        found = call(model, ids(12), new=3)
        for new in (1, 2):
            assert torch.equal(call(model, ids(12), new=new), found[:, : 12 + new])

    def test_up_to_the_last_position(self, model, exact):
        found = call(model, ids(1000), new=24)
        assert found.shape == (1, 1024)
        check(exact, found, 1000)

    @pytest.mark.parametrize(
        ("width", "positions", "vocabulary"),
        [(256, 60, 503), (256, 100, 90), (512, 61, 2000), (768, 64, 1000)],
    )
    def test_those_of_other_sizes(self, width, positions, vocabulary):
        """With fewer rows of the output than warps, too, and with caches that end within a slot."""
        config = GPT2Config(
            n_layer=2,
            n_embd=width,
            n_head=width // 64,
            n_positions=positions,
            vocab_size=vocabulary,
        )
        config.update({"initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0})
        model = load_model(config, device="cuda", dtype=torch.bfloat16)
        exact = copy.deepcopy(model).float()
        for length in (1, 9, positions - 3):
            input_ids = prompt(1, length, length, vocabulary).cuda()
            check(exact, call(model, input_ids, new=3), length)
        release(model)

    @pytest.mark.parametrize("name", one_kernel.VARIANTS)
    def test_those_of_every_variant(self, model, exact, name):
        workload = Workload("gpt2", 1, 32, NEW, dtype="bfloat16")
        run = Variant(model, workload, one_kernel.VARIANTS[name])
        found = run()
        check(exact, found, 32)
        assert torch.equal(run(), found)


class TestTelling:
    def test_each_token_is_told_while_the_kernel_runs(self, model):
        steps = []
        with ranges.observe(lambda name, step: steps.append((name, step))):
            call(model, ids(9), new=5)
        assert [step for name, step in steps if name != "stop_check"] == list(range(5))
        assert [step for name, step in steps if name == "stop_check"] == list(range(5))


class TestFaults:
    def test_a_block_that_says_nothing_ends_in_an_error_not_in_a_hang(self, model):
        """In this process: the device must live on."""
        right = call(model, ids(32))
        workload = Workload("gpt2", 1, 32, NEW, dtype="bfloat16", stop_check=False)
        broken = Variant(model, workload, {"FAULT": 1, "PATIENCE": 1_000_000_000})
        for _ in range(2):
            began = time.perf_counter()
            with pytest.raises(RuntimeError, match="gave up: one of its blocks waited"):
                broken()
            assert time.perf_counter() - began < 5
            torch.cuda.synchronize()
            assert torch.equal(call(model, ids(32)), right)

    def test_a_card_with_too_little_room_is_refused(self, model, monkeypatch):
        release(model)
        check = one_kernel._check_room
        monkeypatch.setattr(one_kernel, "_check_room", lambda *given: check(*given[:2], 1000))
        with pytest.raises(RuntimeError, match="needs 1000 clusters of blocks at once.* room for"):
            call(model, ids(5), new=2)

    def test_an_exception_at_any_token_and_then_a_good_call(self, model):
        right = call(model, ids(32), new=6)
        for number in range(0, 12, 3):
            counted = count()

            def fail(name, step, counted=counted, number=number):
                if next(counted) == number:
                    raise KeyError("mine")

            with ranges.observe(fail), pytest.raises(KeyError, match="mine"):
                call(model, ids(32), new=6)
            litter = [torch.full((1 << 20,), -1, device="cuda") for _ in range(8)]
            assert torch.equal(call(model, ids(32), new=6), right), number
            del litter


class TestCalls:
    def test_from_fresh_streams_back_to_back(self, model):
        inputs = [ids(9 + seed, seed) for seed in range(8)]
        right = [call(model, one) for one in inputs]
        found = []
        for one in inputs:
            with torch.cuda.stream(torch.cuda.Stream()):
                torch.cuda._sleep(2_000_000)
                found.append(call(model, one))
        torch.cuda.synchronize()
        assert all(map(torch.equal, found, right))

    def test_from_several_threads(self, model):
        inputs = [ids(16, seed) for seed in range(6)]
        right = [call(model, one).tolist() for one in inputs]
        found = [[] for _ in inputs]
        jobs = [
            lambda one=one, into=into: into.append(call(model, one).tolist())
            for one, into in zip(inputs, found)
        ]
        run_together(jobs)
        assert found == [[one] * 4 for one in right]

    def test_weights_that_changed_in_place_are_packed_anew(self):
        model = load_model("gpt2", device="cuda", dtype=torch.bfloat16, seed=1)
        before = call(model, ids(20))
        with torch.no_grad():
            model.transformer.h[3].mlp.c_fc.weight.mul_(-3)
        after = call(model, ids(20))
        assert not torch.equal(before, after)
        check(copy.deepcopy(model).float(), after, 20)

    def test_under_inference_mode_autocast_and_another_default_device(self, model):
        right = call(model, ids(20))
        with torch.inference_mode():
            assert torch.equal(call(model, ids(20)), right)
        with torch.autocast("cuda", torch.bfloat16):
            assert torch.equal(call(model, ids(20)), right)
        torch.set_default_device("cuda")
        try:
            assert torch.equal(call(model, ids(20)), right)
        finally:
            torch.set_default_device(None)
        assert torch.equal(call(model, ids(20)), right)

    def test_all_goes_with_the_model(self):
        before = torch.cuda.memory_allocated()
        model = load_model("gpt2", device="cuda", dtype=torch.bfloat16, seed=2)
        call(model, ids(5), new=2)
        release(model)
        del model
        gc.collect()
        assert torch.cuda.memory_allocated() - before < 1 << 20
