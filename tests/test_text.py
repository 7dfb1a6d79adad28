"""Prompts of different lengths, and sampling: views of a model, right in every rung."""

import copy
import inspect
from collections import Counter

import pytest
import torch
from models import ANYWHERE, VOCABULARY, prompt, reference, tiny
from torch._dynamo.utils import counters
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from decoding import RUNGS, generate
from decoding.sampling import filtered, gumbel, sampled
from decoding.text import load_text_model, padded

ARCHITECTURES = ["gpt2", "llama", "mistral"]  # the last with a window shorter than the texts
FILLER = 0
NEW = 10
LENGTHS = (3, 7, 5)


def batch(lengths=LENGTHS, seed=0):
    """Return prompts of ``lengths``, padded on the left with ``FILLER``, and their mask."""
    longest = max(lengths)
    ids = torch.full((len(lengths), longest), FILLER)
    for row, length in enumerate(lengths):
        ids[row, longest - length :] = prompt(1, length, seed=seed + row)[0]
    return ids, (torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]).long()


def expected(model, ids, mask, eos_token_id=None):
    """Return what transformers' own greedy ``generate`` returns for a padded batch."""
    first = eos_token_id[0] if eos_token_id else None
    return model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=eos_token_id,
        pad_token_id=first,
    )


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def view(model):
    return padded(model, FILLER)


@pytest.fixture(scope="module")
def drawing(view):
    return sampled(view, temperature=5.0, top_k=20, top_p=0.9, seed=3)


@pytest.mark.parametrize("rung", ANYWHERE)
def test_padded_rows_get_the_tokens_that_transformers_gives_them(model, view, rung):
    ids, mask = batch()
    told = generate(view, ids, rung=rung, max_new_tokens=NEW)
    assert told.tolist() == expected(model, ids, mask).tolist()
    row, alone = 0, ids[:1, mask[0].argmax() :]
    assert told[row, -NEW:].tolist() == reference(model, alone, NEW, None)[0, -NEW:].tolist()


@pytest.mark.parametrize("rung", ANYWHERE)
def test_padded_rows_end_at_several_ids(model, view, rung):
    ids, mask = batch()
    free = expected(model, ids, mask)
    ends = [free[0, -NEW + 3].item(), free[1, -NEW + 5].item(), free[2, -NEW + 1].item()]
    told = generate(view, ids, rung=rung, max_new_tokens=NEW, eos_token_id=ends)
    assert told.tolist() == expected(model, ids, mask, ends).tolist()
    assert told.shape[1] < ids.shape[1] + NEW


@pytest.mark.parametrize("rung", ["naive", "kv_cache", "two_streams", "captured_graph"])
def test_one_view_serves_batch_after_batch(model, view, rung):
    options = {"cache_length": 64} if "cache_length" in RUNGS[rung].options else {}
    for lengths in (LENGTHS, (7, 1, 7), (1, 1, 1), (2, 9, 4)):  # (1, 1, 1) has no padding
        ids, mask = batch(lengths, seed=sum(lengths))
        told = generate(view, ids, rung=rung, max_new_tokens=NEW, **options)
        assert told.tolist() == expected(model, ids, mask).tolist(), lengths


def test_without_a_view_padded_prompts_are_refused_and_the_model_stays_as_it_is(model, view):
    ids, _ = batch()
    assert model.config.pad_token_id != -1 and type(model) is not type(view)
    assert type(view).__name__ == type(model).__name__
    assert all(one is other for one, other in zip(model.parameters(), view.parameters()))
    with pytest.raises(ValueError, match="fills rows up with"):
        generate(model, ids, rung="kv_cache", max_new_tokens=2)


@pytest.mark.parametrize("rung", ANYWHERE)
def test_every_rung_draws_the_same_text_from_one_seed(drawing, rung):
    ids, _ = batch()

    def text(rung, seed):
        drawing.seed = seed
        return generate(drawing, ids, rung=rung, max_new_tokens=NEW).tolist()

    first = text("kv_cache", 3)
    assert text(rung, 3) == first
    other = text(rung, 4)
    assert other != first and other == text("kv_cache", 4)
    assert text(rung, 3) == first


def test_views_may_be_nested_either_way():
    (ids, _), model, settings = batch(), tiny("llama"), {"temperature": 5.0, "top_k": 20, "seed": 3}
    views = sampled(padded(model, FILLER), **settings), padded(sampled(model, **settings), FILLER)
    for rung in ("kv_cache", "compiled"):
        one, two = (generate(x, ids, rung=rung, max_new_tokens=NEW) for x in views)
        assert torch.equal(one, two)


def test_a_new_seed_compiles_nothing():
    model = sampled(tiny("gpt2"), temperature=3.0)
    generate(model, prompt(2, 4), rung="two_streams", max_new_tokens=4)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    model.seed = 2**40 + 1
    generate(model, prompt(2, 4), rung="two_streams", max_new_tokens=4)
    assert counters["stats"]["unique_graphs"] == compiled


def test_other_settings_are_another_view_with_steps_of_its_own():
    model, ids = tiny("llama"), prompt(2, 4)
    for top_k in (1, None):
        drawn = sampled(model, temperature=9.0, top_k=top_k)
        told = generate(drawn, ids, rung="captured_graph", max_new_tokens=NEW)
        assert torch.equal(told, reference(model, ids, NEW, None)) is (top_k == 1)


def test_samples_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0])
    draws = 20_000
    wanted = logits.softmax(0) * draws
    for seed in (0, 1, 2**33):
        rows = gumbel(torch.tensor(seed), 5, draws // 2, 6)
        columns = gumbel(torch.tensor(seed), torch.arange(draws // 2)[:, None], 1, 6)
        for noise in (rows, columns):
            found = torch.bincount((logits + noise).argmax(1), minlength=6)
            chi_square = ((found - wanted / 2) ** 2 / (wanted / 2)).sum()
            assert chi_square < 20.5  # 5 degrees of freedom: once in 1,000 runs it is larger
    biased = torch.bincount((1.1 * logits + rows).argmax(1), minlength=6)
    assert ((biased - wanted / 2) ** 2 / (wanted / 2)).sum() > 20.5


def test_noise_differs_with_seed_row_column_and_token_and_is_finite():
    noise = torch.stack(
        [gumbel(torch.tensor(seed), column, 50, 400) for seed in (0, 1) for column in (0, 1)]
    )
    assert noise.isfinite().all()
    assert (noise.mean() - 0.5772).abs() < 0.02 and (noise.var() - 1.6449).abs() < 0.05
    most_common = max(Counter(noise.flatten().tolist()).values())
    assert most_common <= 3  # of 80,000 numbers with 32 bits
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(4)
    assert correlation.abs().max() < 0.03


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("top_k", [None, 1, 7, 500])
@pytest.mark.parametrize("top_p", [None, 0.1, 0.8, 1.0])
def test_what_may_be_drawn_is_what_transformers_keeps(temperature, top_k, top_p):
    logits = torch.randn(6, 100, generator=torch.Generator().manual_seed(0)) * 3
    theirs = TemperatureLogitsWarper(temperature)(None, logits)
    theirs = TopKLogitsWarper(top_k)(None, theirs) if top_k else theirs
    theirs = TopPLogitsWarper(top_p)(None, theirs) if top_p else theirs
    ours = filtered(logits, temperature, top_k, top_p)
    assert ours.isfinite().any(dim=1).all()
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "wrong, error",
    [
        ({"temperature": 0}, ValueError),
        ({"temperature": float("nan")}, ValueError),
        ({"top_k": 0}, ValueError),
        ({"top_k": 1.5}, TypeError),
        ({"top_p": 0.0}, ValueError),
        ({"top_p": 1.1}, ValueError),
        ({"seed": 0.5}, TypeError),
    ],
)
def test_settings_out_of_range_are_refused(wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        sampled(tiny("gpt2"), **wrong)


def test_a_model_whose_forward_was_replaced_is_refused():
    model = tiny("gpt2")
    model.forward = model.forward
    with pytest.raises(ValueError, match="device_map"):
        padded(model, FILLER)


def test_an_architecture_without_position_ids_is_padded_too():
    config = AutoConfig.for_model(
        "bloom", hidden_size=32, n_layer=2, n_head=2, vocab_size=VOCABULARY, initializer_range=0.5
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.pad_token_id = None
    assert "position_ids" not in inspect.signature(model.forward).parameters
    ids, mask = batch()
    told = generate(padded(model, FILLER), ids, rung="kv_cache", max_new_tokens=NEW)
    assert told.tolist() == expected(model, ids, mask).tolist()


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.gguf"):
        load_text_model(tmp_path / "none.gguf")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_on_a_gpu_every_rung_draws_what_the_cpu_does_and_waits_for_nothing():
    model = tiny("llama")
    on_gpu = copy.deepcopy(model).cuda()
    ids, mask = batch()
    wanted = expected(model, ids, mask)
    view, draw = padded(on_gpu, FILLER), sampled(padded(model, FILLER), temperature=2.0, seed=5)
    text = generate(draw, ids, rung="kv_cache", max_new_tokens=NEW)
    drawing = sampled(view, temperature=2.0, seed=5)
    for rung in ANYWHERE:
        told = generate(view, ids.cuda(), rung=rung, max_new_tokens=NEW)
        assert told.tolist() == wanted.tolist(), rung
        for _ in range(2):  # the second finds everything made
            told = generate(drawing, ids.cuda(), rung=rung, max_new_tokens=NEW)
            assert told.tolist() == text.tolist(), rung


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_on_a_gpu_a_step_with_a_static_cache_asks_for_nothing():
    from decoding.prepared import FullLengthCache
    from decoding.step import decode_step, start

    model = padded(tiny("llama").cuda(), FILLER)
    drawing = sampled(model, temperature=2.0, top_k=20, top_p=0.9)
    ids = batch()[0].cuda()
    with torch.no_grad(), torch.device("cuda"):
        cache = FullLengthCache(model.config, 64)
        finished, eos = start(ids, None)
        unread, finished, _ = decode_step(drawing, ids, cache, finished, eos)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                unread, finished, _ = decode_step(drawing, unread, cache, finished, eos)
        finally:
            torch.cuda.set_sync_debug_mode("default")
