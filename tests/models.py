"""Small models for the tests, whose tokens depend on the whole sequence."""

import copy

import torch
from transformers import GPT2Config, LlamaConfig, MistralConfig, Qwen2Config

from decoding import RUNGS, load_model

#: Rungs with kernels of their own, which serve few models and not every machine: they have tests of their own.
OWN_KERNELS = ("fused_step", "one_kernel")
ANYWHERE = {name: rung for name, rung in RUNGS.items() if name not in OWN_KERNELS}

VOCABULARY = 61
WIDE = {"vocab_size": VOCABULARY, "initializer_range": 0.6, "pad_token_id": None}
GROUPED = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}

CONFIGURATIONS = {
    "gpt2": GPT2Config(
        n_layer=2, n_embd=32, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0, **WIDE
    ),
    "llama": LlamaConfig(**GROUPED, **WIDE, bos_token_id=0, eos_token_id=0),
    "qwen2": Qwen2Config(**GROUPED, **WIDE, bos_token_id=0, eos_token_id=0),
}
# Not in CONFIGURATIONS, which many tests go through: a window shorter than the texts of the tests.
WINDOW = MistralConfig(**GROUPED, **WIDE, bos_token_id=0, eos_token_id=0, sliding_window=6)


def tiny(architecture):
    """Return a small float32 model on the CPU."""
    config = WINDOW if architecture == "mistral" else CONFIGURATIONS[architecture]
    return load_model(copy.deepcopy(config), device="cpu", dtype=torch.float32)


def prompt(batch, length, seed=0, vocabulary=VOCABULARY):
    """Return random token ids, int64 [batch, length], without 0, the end of the tiny models' texts."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, vocabulary, (batch, length), generator=generator)


def reference(model, input_ids, max_new_tokens, eos_token_id):
    """Return what transformers' own greedy ``generate`` returns."""
    return model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        min_new_tokens=None,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id[0] if isinstance(eos_token_id, list) else eos_token_id,
    )
