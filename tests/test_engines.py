"""transformers' own ways to generate, raced: they choose our tokens, and what fails is told, not hidden."""

import sys

import pytest
import torch

from decoding import generate, load_model
from decoding.measuring import MeasurementError, Workload, engines
from decoding.rungs import RUNGS

WORK = Workload("gpt2-tiny", 3, 6, 12, dtype="float32", device="cpu")

STAND_IN = """
__version__ = "stand-in"
asked = {}


class SamplingParams:
    def __init__(self, **given):
        self.__dict__.update(given)


class Out:
    def __init__(self, n):
        self.token_ids = list(range(n))


class Answer:
    def __init__(self, n):
        self.outputs = [Out(n)]


class LLM:
    def __init__(self, model, **given):
        import json, pathlib
        shape = json.loads((pathlib.Path(model) / "config.json").read_text())
        assert shape["architectures"] == ["GPT2LMHeadModel"], shape
        assert given["load_format"] == "dummy" and given["max_model_len"] == 18
        self.rows = given["max_num_seqs"]

    def generate(self, prompts, params):
        assert len(prompts) == self.rows
        assert all(len(one["prompt_token_ids"]) == 6 for one in prompts)
        return [Answer(params.max_tokens - SHORT) for _ in prompts]
"""


@pytest.fixture(scope="module")
def serving():
    return engines.Continuous(WORK, {})


def test_continuous_batching_returns_what_generate_does_also_where_rows_end_apart(serving):
    model = load_model("gpt2-tiny", device="cpu", dtype=torch.float32)
    free = generate(model, serving.input_ids, rung="kv_cache", max_new_tokens=12)
    end = free[1, 6 + 7].item()
    serving.eos_token_id = end
    expected = generate(
        model, serving.input_ids, rung="kv_cache", max_new_tokens=12, eos_token_id=end
    )
    assert (free == end).any() and not torch.equal(free[:, 1:], expected[:, 1:])
    assert torch.equal(serving(), expected)
    assert torch.equal(serving(), expected)  # and once more, with its manager kept
    assert serving.answered_ms > 0 and 0 < len(serving.step_ms) <= 3


def test_who_races_at_a_batch_size():
    names = list(engines.entrants(8))
    assert names[:4] == list(engines.THEIRS)
    assert names[4:] == [RUNGS[rung].label for rung in engines.OURS]
    extra = set(engines.entrants(1)) - set(names)
    assert extra == ({RUNGS["one_kernel"].label} if "one_kernel" in RUNGS else set())


def test_the_cache_is_told_its_size_and_the_attention_stays(serving):
    config = serving.config
    assert config.num_blocks == 2 * 4 and config.max_batch_tokens == 18
    assert "flash" not in serving.model.config._attn_implementation


class TestTheRace:
    """Its parts, without a process of its own."""

    def raced(self, names, monkeypatch):
        monkeypatch.setattr(engines, "WARM_UP", 1)
        return engines._raced(lambda *_: None, names, WORK, 2)

    def test_a_way_that_fails_is_named_and_the_others_are_timed(self, monkeypatch):
        names = (engines.DYNAMIC, engines.CONTINUOUS, engines.GRAPHS, "KV cache")
        found = self.raced(names, monkeypatch)
        assert list(found["failed"]) == [engines.GRAPHS]  # a CPU has no graphs
        assert "cuda" in found["failed"][engines.GRAPHS].lower()
        results = found["results"]
        assert list(results) == [name for name in names if name != engines.GRAPHS]
        assert len({one["tokens_sha256"] for one in results.values()}) == 1
        assert all(one["per_token_ms"]["min"] > 0 for one in results.values())
        assert [name for name, one in results.items() if "step_ms" in one] == [engines.CONTINUOUS]

    def test_a_loop_of_the_book_that_fails_ends_the_race(self, monkeypatch):
        monkeypatch.setattr(engines, "enter", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            self.raced(("KV cache",), monkeypatch)

    def test_if_its_process_dies_it_runs_once_more_without_the_graphs(self, monkeypatch):
        asked = []

        def run_fresh(task, what, names, **more):
            asked.append(names)
            if engines.GRAPHS in names:
                raise MeasurementError("CUDA error: an illegal memory access")
            return {"failed": {}}

        monkeypatch.setattr(engines, "run_fresh", run_fresh)
        monkeypatch.setattr(engines, "taken_together", lambda found: found)
        found = engines.engines(WORK)
        assert found["failed"] == {engines.GRAPHS: "CUDA error: an illegal memory access"}
        assert set(asked[0]) - set(asked[1]) == {engines.GRAPHS} and len(asked) == 2


def test_the_tokens_of_all_ways_agree_in_float32():
    found = engines._agreement(lambda *_: None, WORK)["found"]
    assert [found[name] for name in list(engines.THEIRS)[:3]] == [1, 1, 1]
    assert isinstance(found[engines.GRAPHS], str)


class TestVllm:
    @pytest.fixture
    def stand_in(self, tmp_path, monkeypatch):
        def install(short=0):
            (tmp_path / "vllm.py").write_text(f"SHORT = {short}\n{STAND_IN}")
            monkeypatch.syspath_prepend(tmp_path)

        yield install
        sys.modules.pop("vllm", None)

    def test_without_it_there_is_one_sentence(self, monkeypatch):
        monkeypatch.setattr(engines, "has_vllm", lambda: False)
        with pytest.raises(MeasurementError, match="not installed"):
            engines.vllm(WORK)

    def test_it_is_given_the_same_prompts_and_a_model_of_the_same_shape(self, stand_in):
        stand_in()
        assert engines.has_vllm()
        found = engines._vllm(lambda *_: None, WORK, 2)
        assert found["version"] == "stand-in" and found["spread_over"] == 2
        assert found["per_token_ms"]["median"] >= 0

    def test_an_answer_that_is_too_short_is_no_measurement(self, stand_in):
        stand_in(short=1)
        with pytest.raises(MeasurementError, match="11"):
            engines._vllm(lambda *_: None, WORK, 1)
