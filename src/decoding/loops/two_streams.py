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
    tokens, unread = [input_ids], input_ids
    batch, prompt = input_ids.shape
    cache = static_cache(model, batch, cache_length or prompt + max_new_tokens)
    compiled = compiled_step(model.device, compile_mode)
    device = torch.get_device_module(model.device)
    streams, done = stream_pair(model.device), (device.Event(), device.Event())
    pinned = model.device.type == "cuda"
    flags = [torch.zeros((), dtype=torch.bool, pin_memory=pinned) for _ in streams]
    done[1].record()  # the first step waits for what the caller's stream has been given
    for step in range(max_new_tokens):
        this, other = step % 2, 1 - step % 2
        with device.stream(streams[this]), ranges.token(step):
            streams[this].wait_event(done[other])
            run = compiled if step > 0 else decode_step  # the prompt has a shape of its own
            torch.compiler.cudagraph_mark_step_begin()
            unread, finished, all_finished = run(model, unread, cache, finished, eos)
            # The next replay overwrites its outputs: keep copies of what it reads or we return.
            unread, finished = unread.clone(), finished.clone()
            tokens.append(unread)
            flags[this].copy_(all_finished, non_blocking=True)
            done[this].record()
        with ranges.stop_check(step):
            done[other].synchronize()
            if eos_token_id is not None and step > 0 and flags[other].item():
                tokens.pop()  # the step before was the last: this one ran past the end
                break
    device.current_stream().wait_event(done[this])
    return torch.cat(tokens, dim=1)
