"""A tiny GPT-2 on Triton's interpreter, in a process of its own: it must be chosen before Triton is imported."""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402
from models import prompt, reference, tiny  # noqa: E402
from transformers import GPT2Config  # noqa: E402

from decoding import generate, load_model  # noqa: E402

NEW = 6


def same(model, input_ids, eos=None, new=NEW):
    found = generate(model, input_ids, rung="fused_step", max_new_tokens=new, eos_token_id=eos)
    return found.tolist() == reference(model, input_ids, new, eos).tolist()


def tokens():
    """Rows, ends of sequence, weights that change where they are, another width, the last position."""
    model = tiny("gpt2")
    input_ids = prompt(2, 4)
    expected = reference(model, input_ids, NEW, None)[:, 4:]
    assert same(model, input_ids), "without an end"
    early = expected[0, 2].item()
    assert same(model, input_ids[:1], early), "an early end"
    assert reference(model, input_ids[:1], NEW, early).shape[1] < 4 + NEW
    assert same(model, input_ids, [expected[0, 1].item(), expected[1, 3].item()]), "several ends"
    torch.nn.init.normal_(model.transformer.h[0].mlp.c_fc.weight)
    assert same(model, input_ids[:1]), "changed weights"
    assert same(model, prompt(1, 61), new=3), "the last position"
    odd = GPT2Config(
        n_layer=1,
        n_embd=48,
        n_head=3,
        n_inner=80,
        vocab_size=97,
        n_positions=64,
        initializer_range=0.6,
    )
    assert same(load_model(odd, device="cpu", dtype=torch.float32), input_ids[:1]), "another width"


def bfloat16():
    """Weights of two bytes are computed with in float32: close to that, closer than bfloat16 is."""
    model = load_model("gpt2-tiny", device="cpu", dtype=torch.bfloat16)
    found = generate(model, prompt(1, 5), rung="fused_step", max_new_tokens=NEW)
    exact = reference(
        load_model("gpt2-tiny", device="cpu", dtype=torch.bfloat16).float(), prompt(1, 5), NEW, None
    )
    assert found.tolist() == exact.tolist()


if __name__ == "__main__":
    {"tokens": tokens, "bfloat16": bfloat16}[sys.argv[1]]()
