"""The tokens of every rung on a GPU: run with ``pytest -m gpu`` on a machine that has one."""

import copy

import pytest
import torch
from models import ANYWHERE as RUNGS
from models import prompt, reference

from decoding import Workload, generate, load_model, measure
from decoding.measuring import (
    allocations,
    change_of,
    controls,
    ladder,
    race,
    ratio_of,
    trace,
    watch,
)
from decoding.measuring.bandwidth import bandwidth
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


def test_a_record_from_a_gpu_is_complete():
    workload = Workload(batch_size=2, prompt_tokens=8, new_tokens=24, repeats=2)
    record = measure("kv_cache", workload)
    assert record["error"] is None
    assert len(record["time"]["curve_ms"]) == 23
    assert len(record["memory"]["reserved_mib"]) == record["tokens_generated"] == 24
    assert record["memory"]["peak_allocated_mib"] <= record["memory"]["peak_reserved_mib"]
    assert 0 < record["gpu"]["busy_ms_per_token"] < record["time"]["per_token_ms"]["max"] * 1.2
    assert 0 <= record["gpu"]["idle_share"] < 1


TINY = Workload("gpt2-tiny", 1, 8, 32, dtype="bfloat16", repeats=2)


def test_a_ladder_knows_its_card_clocks_allocator_and_peaks():
    rungs = ["kv_cache", "expandable_segments", "compiled"]
    plain, expandable, compiled = ladder(rungs, TINY, processes=2, progress=False)
    assert not any(record.error for record in (plain, expandable, compiled))
    assert plain.allocator == "default" and expandable.allocator == "expandable_segments"
    assert plain.machine["gpu_id"] == compiled.machine["gpu_id"] is not None
    clocks = plain["processes"][0]["clocks"]
    assert clocks["before"] is None or clocks["after"]["sm_mhz"] > 0
    assert compiled.reserved_cold_mib >= compiled["memory"]["peak_allocated_mib"]
    assert compiled.once_s["first_run_warm_caches"] < compiled.once_s["first_run"]
    assert plain.spread_over == 2 and expandable.spread_over == 1
    change_of(plain, expandable, setting="allocator")


def test_the_canonical_race_is_complete():
    found = watch(TINY, rounds=3)
    for record in found["results"].values():
        assert record["G_us"] > 0 and record["predicted_us"] > 0 and record["check_us"] is not None
    assert ratio_of(found["results"]["check"], found["results"]["no check"]) > 0
    bare = found["bare_replay"]
    assert 0 < bare["launch_us"] <= bare["round_trip_us"] and bare["gpu_us"] > 0


def test_every_control_finds_something():
    assert controls.cold_without_cudnn(TINY)["without_cudnn"]["cold_s"] > 0
    assert len(controls.compiled_dynamic_cache(TINY)["results"]) == 4
    streams = controls.segments_by_stream(TINY)["two_streams"]["streams"]
    assert len({found["stream"] for found in streams}) > 1
    found = controls.expandable_under_graphs(TINY)
    assert found["default"]["tokens_sha256"] == found["expandable_segments"]["tokens_sha256"]
    assert controls.bare_replays(TINY)["gpu_us"] > 0
    ahead = controls.steps_ahead(TINY, (0, 1, 2))["results"]
    assert len({one["tokens_sha256"] for one in ahead.values()}) == 1


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


def test_the_memory_delivers_what_a_card_of_today_promises():
    found = bandwidth()
    assert found["size_bytes"] >= 2**30
    assert 200 < found["gb_per_s"] < 20_000
    assert found["slowest"] > 0.5 * found["fastest"]
