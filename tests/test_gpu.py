"""What only a GPU can show: run with ``pytest -m gpu`` on a machine that has one."""

import copy

import pytest
import torch
from models import prompt, reference

from decoding import RUNGS, Workload, generate, load_model, measure
from decoding.generation import vocabulary_size
from decoding.measuring import allocations, race, trace
from decoding.measuring.experiments import LAG_CYCLES, stale_reads
from decoding.measuring.timeline import Timeline

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


@pytest.mark.parametrize("batch", [1, 8, 32])
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


@pytest.mark.parametrize("batch", [1, 8, 32])
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


def test_two_streams_200_times(float32_model):
    input_ids = prompts(8)
    eos = vocabulary_size(float32_model) - 1
    expected = reference(float32_model, input_ids, NEW, eos)
    lengths = {"max_new_tokens": NEW, "eos_token_id": eos}
    for _ in range(200):
        found = generate(float32_model, input_ids, rung="two_streams", **lengths)
        assert torch.equal(found, expected)


def test_a_record_from_a_gpu_is_complete():
    workload = Workload(batch_size=2, prompt_tokens=8, new_tokens=24, repeats=2)
    record = measure("kv_cache", workload)
    assert record["error"] is None
    assert len(record["time"]["curve_ms"]) == 23
    assert len(record["memory"]["reserved_mib"]) == record["tokens_generated"] == 24
    assert record["memory"]["peak_allocated_mib"] <= record["memory"]["peak_reserved_mib"]
    assert 0 < record["gpu"]["busy_ms_per_token"] < record["time"]["per_token_ms"]["max"] * 1.2
    assert 0 <= record["gpu"]["idle_share"] < 1


def test_out_of_memory_is_a_row():
    workload = Workload(batch_size=4096, prompt_tokens=512, new_tokens=8, repeats=1)
    record = measure("naive", workload)
    assert "Out of GPU memory" in record["error"]


def test_the_trace_shows_the_tokens_and_their_work():
    workload = Workload(batch_size=1, prompt_tokens=8, new_tokens=16)
    found = trace({"eager": {"rung": "static_cache"}}, workload, first_token=8, tokens=3)
    timeline = Timeline.from_dict(found["timelines"]["eager"])
    assert {8, 9, 10} <= set(timeline.tokens)
    assert sum(item.count for lane in timeline.lanes.values() for item in lane) > 100


def test_a_race_reports_every_entrant():
    workload = Workload(batch_size=1, prompt_tokens=8, new_tokens=16, repeats=3)
    entrants = {
        "ours": {"rung": "kv_cache"},
        "unchecked": {"rung": "kv_cache", "stop_check": False},
        "transformers": {"rung": "transformers"},
    }
    results = race(entrants, workload)["results"]
    assert list(results) == list(entrants)
    assert len({result["tokens_sha256"] for result in results.values()}) == 1


def test_allocations_are_recorded():
    found = allocations("kv_cache", Workload(batch_size=2, prompt_tokens=8, new_tokens=8))
    actions = {event["action"] for event in found["snapshot"]["device_traces"][0]}
    assert {"alloc", "free_completed"} <= actions
    assert len(found["marks_us"]) == len(found["reserved_mib"]) == 8


def test_a_missing_wait_shows_once_the_gpu_lags():
    assert stale_reads(LAG_CYCLES, wait=False) > 0
    assert stale_reads(LAG_CYCLES, wait=True) == 0
