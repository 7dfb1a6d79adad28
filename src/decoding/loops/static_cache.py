"""Allocate the cache once, at its final size, and fill it in."""

import torch

from decoding import ranges
from decoding.prepared import with_prepared
from decoding.step import decode_step, start


@with_prepared()
def decode(model, input_ids, max_new_tokens, eos_token_id, prepared):
    finished, eos = start(input_ids, eos_token_id)
    tokens, unread = [input_ids], input_ids
    cache = prepared.cache
    for step in range(max_new_tokens):
        with ranges.token(step):
            unread, finished, all_finished = decode_step(model, unread, cache, finished, eos)
            tokens.append(unread)
        with ranges.stop_check(step):
            if eos_token_id is not None and all_finished.item():
                break
    return torch.cat(tokens, dim=1)
