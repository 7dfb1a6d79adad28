"""Every way to end the waiting in one race: asking at once, late, never; compiled, captured, on the device.

The same as ``watch``, with one loop more that is no rung, and with the host's CPU time.
"""

import time

import torch
from transformers import LlamaConfig

from decoding import ranges
from decoding.captured import captured_step, with_prepared_capture
from decoding.models import load_model
from decoding.step import decode_step, start

from .machine import machine
from .processes import run_fresh
from .races import rotated, taken_together
from .records import spread
from .runs import Run, describe, load
from .watching import _Loop

#: A model of another family and of about a billion weights, in the shape of Llama 3.2 1B.
LLAMA = "llama-1b"
LLAMA_SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "tie_word_embeddings": True,
}
AT_ONCE = "captured, at once"
LOOPS = {
    "compiled, at once": {"rung": "compiled"},
    "two streams": {"rung": "two_streams"},
    "deferred check": {"rung": "deferred_check"},
    "compiled, never": {"rung": "compiled", "stop_check": False},
    AT_ONCE: {"rung": "captured_graph"},
    "captured graph": {"rung": "captured_graph"},
    "captured, never": {"rung": "captured_graph", "stop_check": False},
    "device loop": {"rung": "device_loop"},
}
#: The rungs whose step ``torch.compile`` launches, and the loop of the same kernels that never asks.
COMPILED = ("compiled", "two_streams", "deferred_check")
NEVER = {True: "compiled, never", False: "captured, never"}


def endings(workload, *, rounds=5, loops=tuple(LOOPS)):
    """Race the loops that end the waiting, in one fresh process, and watch the host at every token.

    Args:
        workload: a ``Workload``; its model may also be ``LLAMA``.
        rounds: how often each loop is timed; another one begins in each.
        loops: names in ``LOOPS``.

    Returns:
        What ``watch`` returns, without ``bare_replay``. ``G_us`` is that of the loops that never ask:
        the kernels are the same. Each record has ``host_ms`` besides: the CPU time of the host's
        thread for a token, a spread over the rounds.

    Raises:
        ValueError: there is no such loop.
        MeasurementError: the process failed.
    """
    if unknown := set(loops) - set(LOOPS):
        raise ValueError(f"loops has {sorted(unknown)}; choose from {', '.join(LOOPS)}.")
    what = f"Racing {', '.join(loops)}"
    found = run_fresh(_raced, what, workload=workload, rounds=rounds, loops=tuple(loops))
    return taken_together(found)


def _raced(report, workload, rounds, loops):
    model = _load(workload)
    entered = {name: _Ending(model, workload, name) for name in loops}
    jobs = rounds + 1
    for loop in entered.values():
        loop.warm_up()
    report(1, jobs)
    for number in range(rounds):
        for name in rotated(entered, number):
            entered[name].time()
        report(number + 2, jobs)
    results = {name: loop.result() for name, loop in entered.items()}
    for name, result in results.items():
        never = results.get(NEVER[LOOPS[name]["rung"] in COMPILED])
        result["check_us"] = never and result["measured_us"] - never["measured_us"]
    return {
        "workload": describe(workload, model),
        "results": results,
        "machine": machine(),
    }


def _load(workload):
    if workload.model != LLAMA:
        return load(workload)
    dtype = getattr(torch, workload.dtype) if workload.dtype else None
    return load_model(LlamaConfig(**LLAMA_SHAPE), device=workload.device, dtype=dtype)


class _Ending(_Loop):
    def __init__(self, model, workload, name):
        super().__init__(model, workload, LOOPS[name])
        self.host_ms = []
        if name == AT_ONCE:
            self.run = CapturedAtOnce(model, workload)

    def time(self):
        began = time.thread_time()
        super().time()
        generated = len(self.times[-1]["curve"]) + 1
        self.host_ms.append(1000 * (time.thread_time() - began) / generated)

    def result(self):
        on_gpu = self.run.on_gpu
        # The kernels are the same with a check and without: profiled once, without.
        self.run.on_gpu = on_gpu and not self.stop_check
        found = super().result()
        self.run.on_gpu = on_gpu
        return found | {"host_ms": spread(self.host_ms)}


class CapturedAtOnce(Run):
    """The loop of ``captured_graph`` with its check at once: it waits for every step."""

    def __init__(self, model, workload):
        super().__init__(model, "captured_graph", workload, {})

    @torch.no_grad()
    def __call__(self):
        return at_once(self.model, self.input_ids, self.new_tokens, self.eos_token_id)


@with_prepared_capture
def at_once(model, input_ids, max_new_tokens, eos_token_id, prepared):
    """The loop of ``captured_graph``, with the blocking check."""
    finished, eos = start(input_ids, eos_token_id)
    captured = captured_step(prepared, model, input_ids, eos)
    for step in range(max_new_tokens):
        with ranges.token(step):
            if step > 0:
                captured.replay()
            else:
                captured.begin(decode_step(model, input_ids, prepared.cache, finished, eos))
        with ranges.stop_check(step):
            if eos_token_id is not None and captured.all_finished.item():
                break
    return captured.result(input_ids, step + 1)
