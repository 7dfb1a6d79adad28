"""Launch the next step on a second stream before asking whether this one was the last."""

import torch

from decoding import ranges
from decoding.prepared import with_prepared
from decoding.step import decode_step, start


@with_prepared(compile_mode="reduce-overhead")
def decode(model, input_ids, max_new_tokens, eos_token_id, prepared):
    finished, eos = start(input_ids, eos_token_id)
    tokens, unread = [input_ids], input_ids
    cache, compiled_step = prepared.cache, prepared.compiled_step
    device = torch.get_device_module(model.device)
    streams, done, flags = prepared.streams, prepared.done, prepared.flags
    done[1].record()  # the first step waits for what the caller's stream has been given
    for step in range(max_new_tokens):
        this, other = step % 2, 1 - step % 2
        with device.stream(streams[this]), ranges.token(step):
            streams[this].wait_event(done[other])
            run = compiled_step if step > 0 else decode_step  # the prompt has a shape of its own
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
