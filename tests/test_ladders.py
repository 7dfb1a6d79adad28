"""The explorer of whole ladders."""

from factories import record

from decoding import drawing

NAIVE = record("naive", per_token=12.0, reserved=4000.0)
CACHED = record("kv_cache", per_token=6.0, reserved=2000.0)


def test_every_batch_size_is_compared_in_every_way():
    html = drawing.ladders_explorer({32: [NAIVE, CACHED], 1: [NAIVE]}).html
    assert html.count("data-state=") == 2 * 4
    assert "Time per token at batch 32, rung by rung" in html
    assert "All rungs at batch 1" in html


def test_the_memory_of_naive_decoding_does_not_hide_the_others():
    html = drawing.ladders_explorer({32: [NAIVE, CACHED]}).html
    memory = html.split('aria-label="batch size 32, compare memory along the tokens"')[1]
    memory = memory.split("data-state=")[0]
    assert "KV cache" in memory
    assert "naive:" not in memory


def test_a_cpu_and_a_failure_are_told_in_words():
    on_cpu, failed = record("kv_cache", gpu=False), record("naive", error="Out of memory.")
    html = drawing.ladders_explorer({2: [failed, on_cpu]}).html
    assert "Out of memory" in html
    assert "memory was not measured" in html
