"""Launch the next step before asking whether this one was the last, on one stream."""

import torch

from decoding import ranges
from decoding.prepared import with_prepared
from decoding.step import decode_step, start


@with_prepared(compile_mode="reduce-overhead")
def decode(model, input_ids, max_new_tokens, eos_token_id, prepared):
    finished, eos = start(input_ids, eos_token_id)
    tokens, unread = [input_ids], input_ids
    cache, compiled_step = prepared.cache, prepared.compiled_step
    done, flag = prepared.done[0], prepared.flags[0]
    for step in range(max_new_tokens):
        with ranges.token(step):
            run = compiled_step if step > 0 else decode_step  # the prompt has a shape of its own
            torch.compiler.cudagraph_mark_step_begin()
            unread, finished, all_finished = run(model, unread, cache, finished, eos)
            # The next replay overwrites its outputs: keep copies of what it reads or we return.
            unread, finished = unread.clone(), finished.clone()
            tokens.append(unread)
        with ranges.stop_check(step):
            if eos_token_id is not None and step > 0:
                done.synchronize()  # the step before is over; this one keeps the device busy
                if flag.item():
                    tokens.pop()  # the step before was the last: this one ran past the end
                    break
        flag.copy_(all_finished, non_blocking=True)
        done.record()
    return torch.cat(tokens, dim=1)
