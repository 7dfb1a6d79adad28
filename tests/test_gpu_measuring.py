"""What only a GPU can show of the measurement: run with ``pytest -m gpu``."""

import pytest
import torch

from decoding import Workload, measure
from decoding.hazards import LAG_CYCLES, stale_reads
from decoding.measurement import allocations, race, trace
from decoding.timeline import Timeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


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
