"""Let one kernel run the whole loop: its blocks stay, and no step is launched at all."""

import torch
from transformers import DynamicCache

from decoding import ranges
from decoding.one_kernel import cache_length, one_kernel, why_not
from decoding.prepared import lend
from decoding.step import decode_step, start


def decode(model, input_ids, max_new_tokens, eos_token_id):
    if reason := why_not(model, len(input_ids)):
        raise ValueError(reason)
    with lend(model, 1, cache_length(model)) as prepared:
        finished, eos = start(input_ids, eos_token_id)
        loop = one_kernel(prepared, model)
        device, aside = torch.get_device_module(model.device), prepared.streams[1]
        generated = 1
        with ranges.token(0), torch.autocast(model.device.type, enabled=False):
            cache = DynamicCache(config=model.config)
            token, *_ = decode_step(loop.exact, input_ids, cache, finished, eos)
            loop.begin(input_ids, token, cache)
        loop.launch(max_new_tokens, eos)
        while True:
            with ranges.stop_check(generated - 1):
                if not loop.goes_on(generated):
                    break
            # The host sees a token that the device has made: an event that an observer records now
            # must not queue up behind the kernel.
            with device.stream(aside), ranges.token(generated):
                generated += 1
        return loop.result(generated)
