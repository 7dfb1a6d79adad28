"""The controls, on a CPU, where their shape and their arithmetic can be checked."""

import pytest
import torch

from decoding import generate, load_model
from decoding.measuring import NeedsGpu, Workload, controls

SMALL = Workload("gpt2-tiny", 2, 4, 8, dtype="float32", device="cpu", repeats=2)


def test_a_cold_run_with_cudnn_and_without():
    found = controls.cold_without_cudnn(SMALL)
    for name in ("with_cudnn", "without_cudnn"):
        assert found[name]["cold_s"] > 0 and found[name]["cold_per_token_ms"] > 0


def test_cudnn_is_ruled_out_where_it_should_be(monkeypatch):
    allowed = []

    def timed(run):
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return {"total": 1.0, "curve": [1.0]}, None

    monkeypatch.setattr(controls, "timed", timed)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    for cudnn in (True, False):
        controls._first_run(None, "kv_cache", SMALL, cudnn)
    torch.backends.cuda.enable_cudnn_sdp(before)
    assert allowed == [True, True, False, False]


def test_a_step_compiled_with_a_cache_that_grows():
    results = controls.compiled_dynamic_cache(SMALL)["results"]
    assert len(results) == 4 and not any(found["error"] for found in results.values())
    assert len({found["tokens_sha256"] for found in results.values()}) == 1
    *_, growing, anew = results.values()
    assert growing["per_token_ms"]["median"] > 0
    assert growing["compilations"] >= 1 and anew["compilations"] >= 1


def test_segments_are_summed_by_stream_and_pool():
    def segment(stream, size, pool=(0, 0)):
        mib = 2**20
        sizes = {"total_size": size * mib, "allocated_size": size * mib // 2}
        return {"stream": stream, "segment_pool_id": pool, **sizes}

    found = controls.by_stream(
        [segment(0, 2), segment(77, 20), segment(0, 4), segment(77, 8, (0, 1))]
    )
    assert [(one["stream"], one["pool"], one["segments"]) for one in found] == [
        (0, "shared", 2),
        (1, "private", 1),
        (1, "shared", 1),
    ]
    assert [one["reserved_mib"] for one in found] == [6, 8, 20]
    assert found[0]["allocated_mib"] == 3


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_loop_that_looks_ahead_ends_where_the_others_do(depth):
    model = load_model("gpt2-tiny", device="cpu")
    run = controls.Ahead(model, SMALL, depth)
    whole = generate(model, run.input_ids, rung="kv_cache", max_new_tokens=SMALL.new_tokens)
    assert torch.equal(run(), whole)
    for token in range(SMALL.new_tokens):
        run.eos_token_id = whole[0, SMALL.prompt_tokens + token].item()
        lengths = {"max_new_tokens": SMALL.new_tokens, "eos_token_id": run.eos_token_id}
        expected = generate(model, run.input_ids[:1], rung="kv_cache", **lengths)
        run_of_one = controls.Ahead(model, SMALL.but(batch_size=1), depth)
        run_of_one.input_ids, run_of_one.eos_token_id = run.input_ids[:1], run.eos_token_id
        assert torch.equal(run_of_one(), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
@pytest.mark.parametrize(
    "find",
    [
        controls.segments_by_stream,
        controls.expandable_under_graphs,
        controls.bare_replays,
        controls.two_steps_ahead,
    ],
)
def test_what_needs_a_gpu_says_so(find):
    with pytest.raises(NeedsGpu):
        find()
