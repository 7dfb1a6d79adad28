"""Every family of causal LMs: right on a rung, or refused before any work, as its table says."""

import re
from pathlib import Path

import pytest
import torch
from families import VOCABULARY, build
from models import ANYWHERE as LADDER
from models import reference
from transformers import GenerationConfig

from decoding import generate, ranges

TABLE = Path(__file__).parent.parent / "book" / "architectures.md"
STATIC = tuple(name for name, rung in LADDER.items() if rung.needs_static_cache)
RUNGS = ("naive", "kv_cache", *STATIC)
PROMPT, NEW = 9, 12
# At least one of each kind: absolute, rotary and ALiBi positions, grouped and multi-query attention,
# sliding windows, experts, a state instead of a cache, no cache at all.
ALWAYS = [
    "bart",
    "bert",
    "bloom",
    "camembert",
    "codegen",
    "falcon",
    "falcon_mamba",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "llama",
    "mamba",
    "mistral",
    "mixtral",
    "mpt",
    "olmo",
    "openai-gpt",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_next",
    "stablelm",
    "starcoder2",
    "xlnet",
]


def promised():
    """The rows of the page's table, family -> the rungs on which it is right."""
    rows = re.findall(r"^\| `([\w-]+)` \| (.+?) \| (.+?) \| (.+?) \|$", TABLE.read_text(), re.M)
    meaning = ("naive",), ("kv_cache",), STATIC
    return {
        family: {rung for cell, rungs in zip(cells, meaning) if cell == "right" for rung in rungs}
        for family, *cells in rows
    }


PROMISED = promised()


@pytest.mark.parametrize(
    "family",
    [
        family if family in ALWAYS else pytest.param(family, marks=pytest.mark.long)
        for family in PROMISED
    ],
)
def test_right_or_refused_as_the_table_says(family):
    model = build(family)
    model.generation_config = GenerationConfig()  # of some families it asks for penalties
    before = model.config.to_dict()
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(2, VOCABULARY, (2, PROMPT), generator=generator)
    expected = None
    for rung in RUNGS:
        for _ in range(2):  # also with what the first call left
            ran = []
            try:
                with ranges.observe(lambda *event, ran=ran: ran.append(event)):
                    found = generate(model, input_ids, rung=rung, max_new_tokens=NEW)
            except ValueError as refusal:
                assert rung not in PROMISED[family] and not ran
                assert type(model).__name__ in str(refusal)
            else:  # also where a newer transformers is right on a rung that the table refuses
                if expected is None:
                    expected = reference(model, input_ids, NEW, None)
                assert found.tolist() == expected.tolist(), rung
    assert model.config.to_dict() == before


def test_the_table_has_every_family_that_is_always_tried():
    assert set(ALWAYS) <= PROMISED.keys()
    assert len(PROMISED) > 100


def test_settings_of_generate_that_change_greedy_tokens_are_refused():
    model = build("gpt2")
    input_ids = torch.ones(1, 4, dtype=torch.long)
    for name, value in (("repetition_penalty", 1.1), ("num_beams", 2), ("suppress_tokens", [3])):
        model.generation_config = GenerationConfig(**{name: value})
        with pytest.raises(ValueError, match=rf"generation_config\.{name} is .*{name} = None"):
            generate(model, input_ids, rung="kv_cache", max_new_tokens=2)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_p=0.8, top_k=20)
    found = generate(model, input_ids, rung="kv_cache", max_new_tokens=6)
    assert torch.equal(found, reference(model, input_ids, 6, None))


def test_a_masked_model_is_no_decoder():
    model = build("bert")
    model.config.is_decoder = False
    with pytest.raises(ValueError, match="is_decoder=False attends to later tokens"):
        generate(model, torch.ones(1, 4, dtype=torch.long), rung="kv_cache", max_new_tokens=2)


def test_a_model_on_several_devices():
    model = build("llama")
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": "cpu"}
    with pytest.raises(ValueError, match="spread over 0, cpu"):
        generate(model, torch.ones(1, 4, dtype=torch.long), rung="compiled", max_new_tokens=2)
