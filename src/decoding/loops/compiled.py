"""Compile the decode step; by default, replay it as one CUDA graph."""

import torch

from decoding import ranges
from decoding.prepared import compiled_step, static_cache
from decoding.step import decode_step, start


def decode(
    model,
    input_ids,
    max_new_tokens,
    eos_token_id,
    cache_length=None,
    compile_mode="reduce-overhead",
):
    finished, eos = start(input_ids, eos_token_id)
    (batch, prompt), unread = input_ids.shape, input_ids
    cache = static_cache(model, batch, cache_length or prompt + max_new_tokens)
    tokens = torch.cat([input_ids, input_ids.new_empty(batch, max_new_tokens)], dim=1)
    run = decode_step  # the prompt has a shape of its own: read it without the compiled step
    for step in range(max_new_tokens):
        with ranges.decode_step(step):
            torch.compiler.cudagraph_mark_step_begin()
            next_token, finished = (out.clone() for out in run(model, unread, cache, finished, eos))
            tokens[:, prompt + step : prompt + step + 1] = next_token
            unread = next_token
            run = compiled_step(model.device, compile_mode)
        with ranges.stop_check(step):
            if eos_token_id is not None and torch.all(finished).item():
                break
    return tokens[:, : prompt + step + 1]
