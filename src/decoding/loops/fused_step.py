"""Write the step's kernels ourselves, five a layer, and capture them as one graph."""

from decoding import ranges
from decoding.fused_step import fused_step, with_prepared_fused_step
from decoding.step import decode_step, start


@with_prepared_fused_step
def decode(model, input_ids, max_new_tokens, eos_token_id, prepared, dependent_launch):
    finished, eos = start(input_ids, eos_token_id)
    captured = fused_step(prepared, model, input_ids, eos, dependent_launch)
    done, flag = prepared.done[0], prepared.flags[0]
    generated = max_new_tokens
    for step in range(max_new_tokens):
        with ranges.token(step):
            if step > 0:
                captured.replay()
            else:  # the prompt has a shape of its own
                captured.begin(decode_step(model, input_ids, prepared.cache, finished, eos))
        with ranges.stop_check(step):
            if eos_token_id is not None and step > 0:
                done.synchronize()  # the step before is over; this one keeps the device busy
                if flag.item():
                    generated = step  # the step before was the last: this one ran past the end
                    break
        flag.copy_(captured.all_finished, non_blocking=True)
        done.record()
    return captured.result(input_ids, generated)
