"""Let the device decide whether there is a next step: the host launches all of them at once."""

import torch

from decoding import ranges
from decoding.captured import captured_step, with_prepared_capture
from decoding.step import decode_step, start
from decoding.while_graph import while_graph


@with_prepared_capture
def decode(model, input_ids, max_new_tokens, eos_token_id, prepared):
    finished, eos = start(input_ids, eos_token_id)
    captured = captured_step(prepared, model, input_ids, eos)
    loop = while_graph(prepared, captured)
    device, aside = torch.get_device_module(model.device), prepared.streams[1]
    generated = 1
    with ranges.token(0):
        captured.begin(decode_step(model, input_ids, prepared.cache, finished, eos))
    loop.launch(input_ids.shape[1], max_new_tokens, asks=eos_token_id is not None)
    while True:
        with ranges.stop_check(generated - 1):
            if not loop.goes_on(generated):
                break
        # The host sees a token of a step that the device has made: an event that an observer
        # records now must not queue up behind all the steps.
        with device.stream(aside), ranges.token(generated):
            generated += 1
    return captured.result(input_ids, generated)
