"""Read the whole sequence again for every token."""

import torch

from decoding import ranges
from decoding.step import decode_step, start


def decode(model, input_ids, max_new_tokens, eos_token_id):
    finished, eos = start(input_ids, eos_token_id)
    tokens = input_ids
    for step in range(max_new_tokens):
        with ranges.token(step):
            next_token, finished, all_finished = decode_step(model, tokens, None, finished, eos)
            tokens = torch.cat([tokens, next_token], dim=1)
        with ranges.stop_check(step):
            if eos_token_id is not None and all_finished.item():
                break
    return tokens
