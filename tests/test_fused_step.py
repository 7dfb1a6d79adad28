"""The step in kernels of our own: its tokens, on Triton's interpreter and on a GPU, and what it refuses."""

import copy
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from models import prompt, reference, tiny

from decoding import RUNGS, Workload, fused_step, generate, load_model, prepared, ranges, release
from decoding.sampling import sampled
from decoding.text import padded

TESTS = Path(__file__).parent
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
PROMPT, NEW = 32, 64


@needs_triton
@pytest.mark.parametrize("what", ["tokens", "bfloat16"])
def test_on_the_interpreter_its_tokens_are_those_of_transformers(what):
    command = [sys.executable, "-P", TESTS / "interpreted_step.py", what]
    path = f"{TESTS.parent / 'src'}:{TESTS}"
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class TestRefusals:
    def why(self, model, batch_size=1):
        return fused_step.why_not(model, batch_size)

    def test_on_a_cpu_it_says_what_it_needs(self):
        assert "set TRITON_INTERPRET=1" in self.why(tiny("gpt2")) or find_spec("triton") is None
        with pytest.raises(ValueError, match="rung 'fused_step' needs"):
            generate(tiny("gpt2"), prompt(1, 3), rung="fused_step", max_new_tokens=2)

    def test_another_model_is_refused(self):
        assert "this is a LlamaForCausalLM" in self.why(tiny("llama"))

    def test_a_forward_of_its_own_is_not_passed_over(self):
        model = tiny("gpt2")
        for view in (sampled(model), padded(model, 0)):
            assert "GPT-2's step" in self.why(view)

    @pytest.mark.parametrize(
        ("setting", "value", "words"),
        [
            ("activation_function", "relu", "gelu_new.*relu"),
            ("scale_attn_by_inverse_layer_idx", True, "scales attention"),
            ("scale_attn_weights", False, "scales attention"),
            ("n_head", 3, "power of two, and this model's are 10 wide"),
        ],
    )
    def test_another_gpt2_is_refused(self, setting, value, words):
        model = tiny("gpt2")
        setattr(model.config, setting, value)
        assert re.search(words, self.why(model))

    def test_many_rows_are_refused(self):
        many = fused_step.MOST_ROWS + 1
        assert f"and there are {many}" in self.why(tiny("gpt2"), many)


def test_wider_weights_get_narrower_tiles():
    """A program's tile stays as large as it was where it did best."""
    step = object.__new__(fused_step.FusedStep)
    tiles = {}
    for dtype in (torch.bfloat16, torch.float32):
        step.output = torch.empty(1, dtype=dtype)
        tiles[dtype] = [step._outputs("norm_qkv", width) for width in (64, 768, 1024, 1600)]
    assert tiles[torch.bfloat16] == [16, 16, 16, 8]
    assert tiles[torch.float32] == [16, 8, 8, 4]


def test_it_has_an_option_of_its_own():
    assert RUNGS["fused_step"].options == {"cache_length", "dependent_launch"}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def models(request):
    """GPT-2 in a dtype, and the same weights computed with in float32."""
    model = load_model("gpt2", device="cuda", dtype=getattr(torch, request.param))
    yield model, copy.deepcopy(model).float()
    release()


@pytest.mark.usefixtures("models")
class TestOnGpu:
    pytestmark = gpu

    def check(self, found, model, exact, input_ids, eos):
        """Equal to transformers in float32; in bfloat16 a row may depart where its prompt or cache is rounded.

        The prompt is read by the model in its own dtype, and so are the keys and values kept: a token may
        differ where the two best of float32 are closer than that rounding.
        """
        expected = reference(exact, input_ids, NEW, eos)
        if model.dtype == torch.float32:
            assert torch.equal(found, expected)
            return
        for row in range(len(found)):
            width = min(found.shape[1], expected.shape[1])
            different = (found[row, :width] != expected[row, :width]).nonzero()
            if not len(different):
                continue
            at = different[0].item()
            prefix = expected[row : row + 1, :at]
            logits = exact(prefix).logits[0, -1]
            error = (model(prefix).logits[0, -1].float() - logits).abs().max()
            assert logits.max() - logits[found[row, at]] <= 2 * error, (row, at)

    @pytest.mark.parametrize(
        ("batch", "dependent"), [(1, True), (1, False), (fused_step.MOST_ROWS, True)]
    )
    def test_tokens_are_those_of_float32(self, models, batch, dependent):
        model, exact = models
        input_ids = prompt(batch, PROMPT, vocabulary=50256).cuda()

        def call(eos):
            return generate(
                model,
                input_ids,
                rung="fused_step",
                max_new_tokens=NEW,
                eos_token_id=eos,
                dependent_launch=dependent,
            )

        unstopped = call(None)
        self.check(unstopped, model, exact, input_ids, None)
        assert all(torch.equal(call(None), unstopped) for _ in range(5))
        middle, early = unstopped[0, PROMPT + NEW // 2].item(), unstopped[-1, PROMPT + 3].item()
        for eos in (middle, [middle, early]):
            self.check(call(eos), model, exact, input_ids, eos)

    def test_with_dependent_launch_and_without_the_tokens_are_the_same(self, models):
        model, _ = models
        input_ids = prompt(1, PROMPT, vocabulary=50256).cuda()
        found = [
            generate(
                model, input_ids, rung="fused_step", max_new_tokens=NEW, dependent_launch=dependent
            )
            for dependent in (True, False)
        ]
        assert torch.equal(*found)

    def test_weights_that_changed_in_place_are_seen(self, models):
        model, exact = models
        input_ids = prompt(1, PROMPT, vocabulary=50256).cuda()
        for changed in (model, exact):
            with torch.no_grad():
                changed.transformer.h[3].mlp.c_fc.weight.mul_(2)
        found = generate(model, input_ids, rung="fused_step", max_new_tokens=NEW)
        self.check(found, model, exact, input_ids, None)
        for changed in (model, exact):
            with torch.no_grad():
                changed.transformer.h[3].mlp.c_fc.weight.mul_(0.5)

    def test_a_gpu_that_lags_changes_no_token(self, models):
        model, _ = models
        input_ids = prompt(1, PROMPT, vocabulary=50256).cuda()
        expected = generate(model, input_ids, rung="fused_step", max_new_tokens=NEW)
        eos = expected[0, PROMPT + NEW // 2].item()
        stop = PROMPT + 1 + (expected[0, PROMPT:] == eos).nonzero()[0].item()

        def lag(name, step):
            if step % 8 == 0:
                torch.cuda._sleep(2_000_000)

        with ranges.observe(lag):
            found = generate(
                model, input_ids, rung="fused_step", max_new_tokens=NEW, eos_token_id=eos
            )
        assert torch.equal(found, expected[:, :stop])

    def test_the_last_position_is_reached(self, models):
        model, exact = models
        input_ids = prompt(1, 1024 - NEW, vocabulary=50256).cuda()
        found = generate(model, input_ids, rung="fused_step", max_new_tokens=NEW)
        self.check(found, model, exact, input_ids, None)

    def test_a_step_is_five_kernels_a_layer_and_two(self, models):
        from decoding.measuring.probes import busy_time
        from decoding.measuring.runs import Run

        model, _ = models
        run = Run(model, "fused_step", Workload("gpt2", 1, PROMPT, NEW, stop_check=False), {})
        run()
        found = busy_time(run)
        # The loop copies its flag in every step besides.
        assert 62 <= found["kernels_per_token"] <= 64, found


@pytest.mark.parametrize("size", ["gpt2-medium", "gpt2-large", "gpt2-xl"])
class TestOtherSizes:
    pytestmark = gpu

    def test_tokens_are_those_of_transformers(self, size):
        model = load_model(size, device="cuda", dtype=torch.float32)
        input_ids = prompt(1, 8, vocabulary=50256).cuda()
        found = generate(model, input_ids, rung="fused_step", max_new_tokens=12)
        assert torch.equal(found, reference(model, input_ids, 12, None))
        prepared.release(model)
