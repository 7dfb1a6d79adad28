"""Allocate the cache and the tokens once, at their final size, and fill them in."""

import torch

from decoding import ranges
from decoding.prepared import static_cache
from decoding.step import decode_step, start


def decode(model, input_ids, max_new_tokens, eos_token_id, cache_length=None):
    finished, eos = start(input_ids, eos_token_id)
    (batch, prompt), unread = input_ids.shape, input_ids
    cache = static_cache(model, batch, cache_length or prompt + max_new_tokens)
    tokens = torch.cat([input_ids, input_ids.new_empty(batch, max_new_tokens)], dim=1)
    for step in range(max_new_tokens):
        with ranges.decode_step(step):
            next_token, finished = decode_step(model, unread, cache, finished, eos)
            tokens[:, prompt + step : prompt + step + 1] = next_token
            unread = next_token
        with ranges.stop_check(step):
            if eos_token_id is not None and torch.all(finished).item():
                break
    return tokens[:, : prompt + step + 1]
