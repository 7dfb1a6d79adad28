"""The tokens of every rung on a GPU: run with ``pytest -m gpu`` on a machine that has one."""

import copy

import pytest
import torch
from models import prompt, reference

from decoding import RUNGS, generate, load_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

PROMPT, NEW = 32, 64


@pytest.fixture(scope="module")
def float32_model():
    return load_model("gpt2", device="cuda", dtype=torch.float32)


@pytest.fixture(scope="module")
def bfloat16_model():
    return load_model("gpt2", device="cuda", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def float32_twin(bfloat16_model):
    """The bfloat16 model's weights, computed with in float32."""
    return copy.deepcopy(bfloat16_model).float()


def prompts(batch):
    return prompt(batch, PROMPT, vocabulary=50256).cuda()


@pytest.mark.parametrize("batch", [1, 32])
def test_float32_tokens_are_those_of_transformers(float32_model, batch):
    input_ids = prompts(batch)
    unstopped = reference(float32_model, input_ids, NEW, None)
    # An id that ends row 0 half-way, so that rows finish at different steps or not at all.
    eos = unstopped[0, PROMPT + NEW // 2].item()
    stopped = reference(float32_model, input_ids, NEW, eos)
    for rung in RUNGS:
        for eos_token_id, expected in ((None, unstopped), (eos, stopped)):
            found = generate(
                float32_model,
                input_ids,
                rung=rung,
                max_new_tokens=NEW,
                eos_token_id=eos_token_id,
            )
            assert torch.equal(found, expected), (rung, batch, eos_token_id)


@pytest.mark.parametrize("batch", [8])
def test_bfloat16_rows_depart_only_at_near_ties(bfloat16_model, float32_twin, batch):
    input_ids = prompts(batch)
    expected = generate(bfloat16_model, input_ids, rung="naive", max_new_tokens=NEW)
    for rung in RUNGS:
        found = generate(bfloat16_model, input_ids, rung=rung, max_new_tokens=NEW)
        same = (found == expected)[:, PROMPT:]
        print(f"{rung}, batch {batch}: {same.float().mean().item():.3f} of the tokens agree")
        for row in torch.where(~same.all(dim=1))[0].tolist():
            step = PROMPT + same[row].int().argmin().item()
            prefix = expected[row : row + 1, :step]
            logits = bfloat16_model(prefix).logits[0, -1].float()
            exact = float32_twin(prefix).logits[0, -1]
            # How far bfloat16 is off on this row: two runs may differ by twice that.
            error = (logits - exact).abs().max()
            assert error < 0.1 * exact.std(), "bfloat16 is worse than rounding explains"
            gap = exact.max() - exact[found[row, step]]
            assert gap <= 2 * error, (rung, row, step, gap.item(), error.item())
