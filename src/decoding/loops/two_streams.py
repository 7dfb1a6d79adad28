"""Launch the next step on a second stream before asking whether this one was the last."""

import torch

from decoding import ranges
from decoding.prepared import compiled_step, static_cache, stream_pair
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
    device = torch.get_device_module(model.device)
    streams, events = stream_pair(model.device), (device.Event(), device.Event())
    flags = torch.zeros(2, dtype=torch.bool, pin_memory=model.device.type == "cuda")
    last = device.current_stream()
    for step in range(max_new_tokens):
        this = step % 2
        with device.stream(streams[this]), ranges.decode_step(step):
            streams[this].wait_stream(last)
            torch.compiler.cudagraph_mark_step_begin()
            next_token, finished = (out.clone() for out in run(model, unread, cache, finished, eos))
            tokens[:, prompt + step : prompt + step + 1] = next_token
            unread = next_token
            run = compiled_step(model.device, compile_mode)
            flags[this].copy_(torch.all(finished), non_blocking=True)
            events[this].record()
        last = streams[this]
        with ranges.stop_check(step):
            if eos_token_id is not None and step > 0:
                events[1 - this].synchronize()
                if flags[1 - this].item():
                    step -= 1  # this step ran past the end: leave its token out
                    break
    device.current_stream().wait_stream(last)
    return tokens[:, : prompt + step + 1]
