"""Keep the keys and values of the tokens that were read; read only the new one."""

import torch
from transformers import DynamicCache

from decoding import ranges
from decoding.step import decode_step, start


def decode(model, input_ids, max_new_tokens, eos_token_id):
    finished, eos = start(input_ids, eos_token_id)
    tokens, unread = [input_ids], input_ids
    cache = DynamicCache(config=model.config)
    for step in range(max_new_tokens):
        with ranges.token(step):
            unread, finished, all_finished = decode_step(model, unread, cache, finished, eos)
            tokens.append(unread)
        with ranges.stop_check(step):
            if eos_token_id is not None and all_finished.item():
                break
    return torch.cat(tokens, dim=1)
