"""What a loop allocates, from its shapes: against sizes that are known."""

from transformers import GPT2Config, LlamaConfig

from decoding.allocator import MIB, replay
from decoding.measuring.sizes import sizes_of

GPT2 = GPT2Config(n_layer=2, n_head=2, n_embd=64, vocab_size=50_000)
LLAMA = LlamaConfig(
    num_hidden_layers=2,
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=32_000,
)


def test_the_naive_loop_allocates_logits_of_all_positions():
    events, marks = sizes_of("naive", GPT2, batch_size=4, prompt_tokens=16, new_tokens=3)
    assert len(marks) == 3
    assert marks == sorted(marks)
    sizes = [n_bytes for _, n_bytes in events]
    for positions in (16, 17, 18):
        assert 4 * positions * 50_000 * 2 in sizes


def test_with_a_cache_logits_of_one_position_follow_those_of_the_prompt():
    sizes = {n for _, n in sizes_of("kv_cache", LLAMA, 4, 16, new_tokens=3)[0]}
    assert {4 * 16 * 32_000 * 2, 4 * 32_000 * 2} <= sizes
    assert 4 * 17 * 32_000 * 2 not in sizes


def test_every_tensor_is_freed_at_the_end():
    events, _ = sizes_of("kv_cache", GPT2, 2, 8, new_tokens=2)
    alive = set()
    for key, n_bytes in events:
        (alive.add if n_bytes else alive.remove)(key)
    kept = replay(events)["allocator"].allocated / MIB
    assert kept < 0.1, "the tokens that the loop returned, and no more"
    assert len(alive) <= 2
