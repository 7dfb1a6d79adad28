"""Every rung returns what transformers' own greedy ``generate`` returns, token for token."""

import sys
import time
from functools import cache

import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from models import ANYWHERE, CONFIGURATIONS, VOCABULARY, prompt, reference, tiny
from transformers import BatchEncoding

from decoding import RUNGS, generate, load_model, ranges
from decoding.hub import HTTPError
from decoding.step import decode_step, start

CACHE_LENGTH = 24
model_of = cache(tiny)  # shared: what is compiled for one case serves the others


@pytest.fixture(params=CONFIGURATIONS)
def architecture(request):
    return request.param


@pytest.fixture
def model(architecture):
    return model_of(architecture)


@pytest.fixture(scope="module")
def gpt2():
    return model_of("gpt2")


def decode(model, input_ids, rung, **lengths):
    """``generate`` with one cache length for all cases, so that few shapes are compiled."""
    options = {"cache_length": CACHE_LENGTH} if "cache_length" in RUNGS[rung].options else {}
    return generate(model, input_ids, rung=rung, **lengths, **options)


def new_tokens(model, input_ids, count):
    return reference(model, input_ids, count, None)[:, input_ids.shape[1] :]


def check(model, input_ids, rung, lengths, expected):
    found = decode(model, input_ids, rung, **lengths)
    assert found.dtype == torch.int64
    assert found.tolist() == expected.tolist()


def test_the_ladder_is_in_order():
    assert list(RUNGS) == [
        "naive",
        "kv_cache",
        "expandable_segments",
        "static_cache",
        "compiled",
        "two_streams",
        "deferred_check",
        "captured_graph",
        "device_loop",
        "fused_step",
        "one_kernel",
    ]


def test_tokens_of_the_test_models_depend_on_more_than_the_last_token(model):
    input_ids = prompt(5, 6)
    other = input_ids.clone()
    other[:, 0] = (other[:, 0] + 1) % VOCABULARY
    assert (new_tokens(model, input_ids, 8) != new_tokens(model, other, 8)).any()


def an_unused_id(model):
    input_ids = prompt(2, 5)
    unused = set(range(VOCABULARY)) - set(new_tokens(model, input_ids, 9).flatten().tolist())
    return input_ids, min(unused)


def the_first_new_token(model):
    input_ids = prompt(1, 5)
    return input_ids, new_tokens(model, input_ids, 1).item()


def rows_finishing_at(model, batch, wanted, count=10):
    """Search for prompts and an id with which the rows finish where ``wanted(steps)`` holds."""
    for seed in range(300):
        input_ids = prompt(batch, 4, seed=1000 + seed)
        tokens = new_tokens(model, input_ids, count)
        for eos in tokens.unique().tolist():
            hits = tokens == eos
            steps = torch.where(hits.any(1), hits.int().argmax(1), count).tolist()
            if wanted(steps):
                return input_ids, eos
    raise AssertionError("no such case among the prompts tried")


def at_different_steps(model):
    return rows_finishing_at(model, 3, lambda steps: max(steps) < 9 and len(set(steps)) == 3)


def at_the_same_step(model):
    one, eos = rows_finishing_at(model, 1, lambda steps: 1 < steps[0] < 8)
    return one.repeat(4, 1), eos


def on_the_very_last_step(model):
    return rows_finishing_at(model, 2, lambda steps: max(steps) == 9 and min(steps) < 9)


def on_the_step_before_the_last(model):
    return rows_finishing_at(model, 2, lambda steps: max(steps) == 8)


# What is decoded -> model -> (prompt, end-of-sequence id); at most how many tokens; which counts of
# them are right.
CASES = {
    "one row, no eos": (lambda model: (prompt(1, 5), None), 9, {9}),
    "two rows, no eos": (lambda model: (prompt(2, 5), None), 9, {9}),
    "five rows, no eos": (lambda model: (prompt(5, 5), None), 9, {9}),
    "an eos that never occurs": (an_unused_id, 9, {9}),
    "eos as the first new token": (the_first_new_token, 9, {1}),
    "rows finish at different steps": (at_different_steps, 10, set(range(10))),
    "rows finish at the same step": (at_the_same_step, 10, set(range(10))),
    "the last row finishes on the very last step": (on_the_very_last_step, 10, {10}),
    "the last row finishes on the step before": (on_the_step_before_the_last, 10, {9}),
    "one new token": (lambda model: (prompt(3, 5), 0), 1, {1}),
    "a prompt of one token": (lambda model: (prompt(3, 1), None), 7, {7}),
}


@cache
def case(architecture, name):
    """Return a case's prompt, its other arguments and what transformers makes of them."""
    model, (make, max_new_tokens, counts) = model_of(architecture), CASES[name]
    input_ids, eos = make(model)
    lengths = {"max_new_tokens": max_new_tokens, "eos_token_id": eos}
    expected = reference(model, input_ids, **lengths)
    assert expected.shape[1] - input_ids.shape[1] in counts
    return input_ids, lengths, expected


@pytest.mark.parametrize("rung", ANYWHERE)
class TestAgainstTransformers:
    @pytest.mark.parametrize("name", CASES)
    def test_the_tokens_are_the_same(self, architecture, rung, name):
        input_ids, lengths, expected = case(architecture, name)
        check(model_of(architecture), input_ids, rung, lengths, expected)

    def test_int32_prompt(self, model, rung):
        input_ids = prompt(2, 3)
        lengths = {"max_new_tokens": 4, "eos_token_id": None}
        check(model, input_ids.int(), rung, lengths, reference(model, input_ids, **lengths))

    def test_the_prompt_and_an_earlier_result_stay_as_they_were(self, model, rung):
        input_ids = prompt(2, 5)
        before = input_ids.clone()
        first = decode(model, input_ids, rung, max_new_tokens=6)
        kept = first.clone()
        decode(model, prompt(2, 5, seed=7), rung, max_new_tokens=6)
        assert torch.equal(input_ids, before)
        assert torch.equal(first, kept)


@settings(max_examples=240, deadline=None)
@given(
    architecture=st.sampled_from(sorted(CONFIGURATIONS)),
    rung=st.sampled_from(list(ANYWHERE)),
    batch=st.integers(1, 5),
    prompt_tokens=st.integers(1, 8),
    max_new_tokens=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    eos_from=st.none() | st.tuples(st.integers(0, 4), st.integers(0, 11)),
)
def test_drawn_cases(architecture, rung, batch, prompt_tokens, max_new_tokens, seed, eos_from):
    model, input_ids = model_of(architecture), prompt(batch, prompt_tokens, seed)
    eos = None
    if eos_from is not None:  # an id that the reference produces, so that rows do finish
        row, step = eos_from
        tokens = new_tokens(model, input_ids, max_new_tokens)
        eos = tokens[row % batch, step % max_new_tokens].item()
    lengths = {"max_new_tokens": max_new_tokens, "eos_token_id": eos}
    check(model, input_ids, rung, lengths, reference(model, input_ids, **lengths))


class TestRanges:
    def seen(self, rung, eos_token_id, max_new_tokens=4):
        names, lengths = [], {"max_new_tokens": max_new_tokens, "eos_token_id": eos_token_id}
        with ranges.observe(lambda name, step: names.append((name, step))):
            decode(model_of("gpt2"), prompt(1, 3), rung, **lengths)
        return names

    @pytest.mark.parametrize("rung", ANYWHERE)
    def test_every_step_and_check_is_seen(self, rung):
        chosen = new_tokens(model_of("gpt2"), prompt(1, 3), 4).flatten().tolist()
        assert self.seen(rung, min(set(range(VOCABULARY)) - set(chosen))) == [
            ("prefill", 0),
            ("stop_check", 0),
            ("decode_step", 1),
            ("stop_check", 1),
            ("decode_step", 2),
            ("stop_check", 2),
            ("decode_step", 3),
            ("stop_check", 3),
        ]

    def test_the_pipeline_launches_one_step_too_many(self):
        eos = new_tokens(model_of("gpt2"), prompt(1, 3), 1).item()
        for rung, last in (
            ("compiled", 0),
            ("two_streams", 1),
            ("deferred_check", 1),
            ("captured_graph", 1),
            ("device_loop", 0),
        ):
            steps = [step for name, step in self.seen(rung, eos) if name != "stop_check"]
            assert steps == list(range(last + 1)), rung

    def test_the_profiler_sees_the_token_numbers(self, gpt2):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            generate(gpt2, prompt(1, 3), rung="kv_cache", max_new_tokens=3)
        names = {event.name for event in profiler.events()}
        assert {"prefill 0", "decode_step 1", "decode_step 2", "stop_check 2"} <= names


class TestSeveralEnds:
    @pytest.mark.parametrize("rung", ANYWHERE)
    def test_each_of_several_ids_ends_a_row_and_the_first_pads(self, model, rung):
        input_ids, one = rows_finishing_at(model, 3, lambda steps: 2 < min(steps) < 9)
        tokens = new_tokens(model, input_ids, 10)
        ends = [one, tokens[1, 1].item(), VOCABULARY - 1]
        for eos in (ends, ends[::-1]):
            lengths = {"max_new_tokens": 10, "eos_token_id": eos}
            check(model, input_ids, rung, lengths, reference(model, input_ids, **lengths))

    def test_a_tuple_and_a_tensor_are_lists_too(self, gpt2):
        input_ids = prompt(2, 4)
        expected = reference(gpt2, input_ids, 6, [3, 9])
        for eos in ((3, 9), torch.tensor([3, 9]), [np.int64(3), 9]):
            found = generate(gpt2, input_ids, rung="naive", max_new_tokens=6, eos_token_id=eos)
            assert torch.equal(found, expected)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"input_ids": torch.zeros(0, 3, dtype=torch.long)}, ValueError, "holds no token"),
            ({"input_ids": torch.zeros(2, 0, dtype=torch.long)}, ValueError, "holds no token"),
            ({"input_ids": torch.zeros(3, dtype=torch.long)}, ValueError, "batch dimension"),
            ({"input_ids": torch.zeros(1, 3)}, TypeError, "float32.*int64"),
            ({"input_ids": [[1, 2]]}, TypeError, "list.*int64"),
            (
                {"input_ids": BatchEncoding({"input_ids": [[1]]})},
                TypeError,
                r"BatchEncoding.*\.input_ids",
            ),
            ({"input_ids": torch.tensor([[1, VOCABULARY]])}, ValueError, f"0 to {VOCABULARY - 1}"),
            ({"input_ids": torch.tensor([[-1, 2]])}, ValueError, "from -1 to 2"),
            ({"input_ids": torch.ones(1, 3, dtype=torch.long, device="meta")}, ValueError, "meta"),
            ({"max_new_tokens": 0}, ValueError, "at least 1"),
            ({"max_new_tokens": 2.5}, TypeError, "max_new_tokens is 2.5.*whole number"),
            ({"max_new_tokens": True}, TypeError, "max_new_tokens is True"),
            ({"max_new_tokens": 62}, ValueError, "65 positions.*has 64.*at most 61"),
            ({"rung": "kv_cach"}, ValueError, "did you mean 'kv_cache'"),
            ({"eos_token_id": VOCABULARY}, ValueError, f"from 0 to {VOCABULARY - 1}"),
            ({"eos_token_id": -1}, ValueError, "eos_token_id is -1"),
            ({"eos_token_id": [1, VOCABULARY]}, ValueError, r"eos_token_id is \[1, 61\]"),
            ({"eos_token_id": []}, ValueError, r"eos_token_id is \[\]"),
            ({"eos_token_id": 1.0}, TypeError, "eos_token_id is 1.0"),
            ({"eos_token_id": "end"}, TypeError, "eos_token_id is 'end'"),
            ({"rung": "naive", "cache_length": 64}, TypeError, "no option cache_length"),
            ({"rung": "static_cache", "cache_length": 5}, ValueError, "at least 7"),
            ({"rung": "static_cache", "cache_length": 14.0}, TypeError, "cache_length is 14.0"),
            ({"rung": "static_cache", "compile_mode": "default"}, TypeError, "no option compile_m"),
            ({"rung": "compiled", "compile_mode": "fast"}, ValueError, "reduce-overhead"),
        ],
    )
    def test_one_sentence_before_any_work(self, gpt2, change, error, words):
        arguments = {"input_ids": prompt(1, 3), "max_new_tokens": 4, "rung": "kv_cache"} | change
        ran = []
        observed = ranges.observe(lambda name, step: ran.append(name))
        with observed, pytest.raises(error, match=words):
            generate(gpt2, arguments.pop("input_ids"), **arguments)
        assert not ran

    def test_numbers_of_numpy_and_torch_are_whole_numbers_too(self, gpt2):
        input_ids = prompt(2, 3)
        expected = reference(gpt2, input_ids, 4, 9)
        for kind in (np.int64, np.int32, torch.tensor):
            found = generate(
                gpt2,
                input_ids,
                rung="static_cache",
                max_new_tokens=kind(4),
                eos_token_id=kind(9),
                cache_length=kind(24),
            )
            assert torch.equal(found, expected)

    def test_a_model_in_training_mode(self):
        model = tiny("gpt2").train()
        with pytest.raises(ValueError, match=r"model\.eval"):
            generate(model, prompt(1, 3), max_new_tokens=2)

    def test_a_model_on_a_device_that_no_loop_was_tried_on(self):
        model = tiny("gpt2").to("meta")
        with pytest.raises(ValueError, match="on meta; the loops run on CUDA GPUs and on CPUs"):
            generate(model, prompt(1, 3).to("meta"), max_new_tokens=2)

    def test_a_wrapper_instead_of_the_model(self, gpt2):
        with pytest.raises(TypeError, match="OptimizedModule.*pass the model inside"):
            generate(torch.compile(gpt2), prompt(1, 3), max_new_tokens=2)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
    def test_cuda_where_there_is_none(self):
        with pytest.raises(RuntimeError, match="sees no CUDA GPU"):
            load_model("gpt2-tiny", device="cuda")


class TestPadding:
    """The loops take every id for text: rows filled up to one length are refused."""

    def model(self, **ids):
        model = tiny("gpt2")
        for name, value in (
            {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0} | ids
        ).items():
            setattr(model.config, name, value)
        return model

    @pytest.mark.parametrize(
        ("ids", "rows"),
        [
            ({"pad_token_id": 7}, [[7, 7, 1, 2], [3, 4, 5, 6]]),
            ({"pad_token_id": 7}, [[1, 2, 7, 7], [3, 4, 5, 6]]),
            ({"pad_token_id": 7}, [[7, 1, 2, 3], [7, 4, 5, 6]]),
            ({"pad_token_id": 7}, [[7, 1, 2]]),
            ({"pad_token_id": 0}, [[0, 0, 1, 2], [3, 4, 5, 6]]),
            ({}, [[0, 0, 1, 2], [3, 4, 5, 6]]),
            ({}, [[1, 2, 0, 0], [3, 4, 5, 6]]),
            ({}, [[0, 0, 0, 1], [0, 4, 5, 6]]),
            ({"eos_token_id": [9, 0]}, [[9, 1, 2], [3, 4, 5]]),
        ],
    )
    def test_padded_rows_are_refused(self, ids, rows):
        with pytest.raises(ValueError, match="fills rows up.*batches of one length each"):
            generate(self.model(**ids), torch.tensor(rows), rung="kv_cache", max_new_tokens=2)

    @pytest.mark.parametrize(
        ("ids", "rows"),
        [
            ({"pad_token_id": 7}, [[1, 7, 2], [3, 4, 5]]),
            ({"pad_token_id": 7}, [[0, 1, 2], [0, 4, 5]]),
            ({}, [[0, 1, 2], [0, 4, 5]]),
            ({}, [[1, 2, 0], [3, 4, 0]]),
            ({}, [[0, 1, 2]]),
            ({"pad_token_id": 0}, [[0, 1, 2], [0, 4, 5]]),
            ({"bos_token_id": None, "eos_token_id": None}, [[0, 1, 2], [3, 4, 5]]),
        ],
    )
    def test_what_is_text_is_not(self, ids, rows):
        model, input_ids = self.model(**ids), torch.tensor(rows)
        found = generate(model, input_ids, rung="kv_cache", max_new_tokens=3)
        assert torch.equal(found, reference(model, input_ids, 3, None))


class TestLoadModel:
    def test_same_seed_same_weights(self):
        one, two, other = (load_model("gpt2-tiny", device="cpu", seed=seed) for seed in (3, 3, 4))
        assert torch.equal(one.lm_head.weight, two.lm_head.weight)
        assert not torch.equal(one.lm_head.weight, other.lm_head.weight)

    def test_the_global_random_state_stays(self):
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        load_model("gpt2-tiny", device="cpu")
        assert torch.equal(torch.rand(1), expected)

    def test_gpt2_has_its_real_shape(self):
        model = load_model("gpt2", device="meta", dtype=torch.bfloat16)
        assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808
        assert (model.dtype, model.training) == (torch.bfloat16, False)

    def test_a_hub_that_cannot_be_reached_is_one_sentence_at_once(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        before = time.perf_counter()
        for weights in ("pretrained", "random"):
            with pytest.raises(OSError, match="cannot be reached from here. Without a network"):
                load_model("nobody/no-such-model", weights=weights)
        assert time.perf_counter() - before < 2

    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            (GatedRepoError, "is gated.*accept its terms.*hf auth login"),
            (RepositoryNotFoundError, "has no model 'nobody/it'.*check the name"),
        ],
    )
    def test_the_hub_says_no_once(self, monkeypatch, kind, words):
        asked = []

        def answer(self, name, **_):
            asked.append(name)
            httpx = sys.modules[HTTPError.__module__.partition(".")[0]]  # or httpx2
            request = httpx.Request("GET", "https://huggingface.co")
            raise kind("no", response=httpx.Response(403, request=request))

        monkeypatch.setattr("huggingface_hub.HfApi.model_info", answer)
        with pytest.raises(OSError, match=words):
            load_model("nobody/it")
        assert asked == ["nobody/it"]

    def test_a_path_that_leads_nowhere(self):
        with pytest.raises(OSError, match="is no folder.*check the path"):
            load_model("./no/such/folder")

    def test_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(OSError, match="holds no model that transformers can load"):
            load_model(str(tmp_path))

    def test_pretrained_weights_come_from_a_folder(self, tmp_path):
        saved = tiny("gpt2")
        saved.save_pretrained(tmp_path)
        loaded = load_model(str(tmp_path), weights="pretrained", device="cpu")
        assert torch.equal(loaded.lm_head.weight, saved.lm_head.weight)

    def test_words_that_mean_nothing(self):
        with pytest.raises(ValueError, match="not 'trained'"):
            load_model("gpt2-tiny", weights="trained")
        with pytest.raises(ValueError, match="no pretrained weights"):
            load_model(CONFIGURATIONS["gpt2"], weights="pretrained")


class TestStep:
    def test_finished_rows_repeat_the_eos(self, gpt2):
        input_ids = prompt(2, 3)
        _, eos = start(input_ids, 9)
        finished = torch.tensor([True, False])
        token, finished, all_finished = decode_step(gpt2, input_ids, None, finished, eos)
        assert all_finished.item() == all(finished)
        assert token[0].item() == 9
        assert token[1].item() == new_tokens(gpt2, input_ids, 1)[1].item()
        assert finished.tolist() == [True, token[1].item() == 9]
