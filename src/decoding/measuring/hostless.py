"""What the host does while the device decodes by itself: how much CPU time a token takes of it."""

import time

import torch

from decoding.captured import captured_step, with_prepared_capture
from decoding.step import decode_step, start
from decoding.while_graph import while_graph

from .controls import SINGLE
from .machine import machine
from .processes import run_fresh
from .races import rotated
from .records import spread
from .runs import Run, checksum, enter, load

NAP_S = 0.001
ROUNDS = 5


def host_time(workload=SINGLE):
    """Time loops, and the host's CPU time in them, in turn in one process.

    Returns:
        A dict: ``machine``; ``nap_ms``; and ``results``, by name: "compiled, at once", "captured
        graph", and the device's loop with the host "looking all the time", "looking now and then"
        (it sleeps in between) and "asleep" (it waits for an event, and gets the tokens at the end).
        Each has ``per_token_ms`` and ``host_ms``, spreads over the rounds of the whole call and of
        the CPU time of the host's process, for a token; ``looks``, how often the host has looked;
        and ``tokens_sha256``.
    """
    return run_fresh(_timed, "The host's time", workload=workload)


def _timed(report, workload):
    model = load(workload)
    runs = {
        "compiled, at once": enter(model, workload, {"rung": "compiled"}),
        "captured graph": enter(model, workload, {"rung": "captured_graph"}),
        "looking all the time": enter(model, workload, {"rung": "device_loop"}),
        "looking now and then": DeviceLoop(model, workload, NAP_S),
        "asleep": DeviceLoop(model, workload, None),
    }
    hashes = {name: [checksum(run()) for _ in range(3)][-1] for name, run in runs.items()}
    totals, hosts = {name: [] for name in runs}, {name: [] for name in runs}
    for number in range(ROUNDS):
        for name in rotated(runs, number):
            runs[name].synchronize()
            began, host = time.perf_counter(), time.process_time()
            made = runs[name]().shape[1] - workload.prompt_tokens
            runs[name].synchronize()
            hosts[name].append(1000 * (time.process_time() - host) / made)
            totals[name].append(1000 * (time.perf_counter() - began) / made)
        report(number + 1, ROUNDS)
    results = {
        name: {
            "per_token_ms": spread(totals[name]),
            "host_ms": spread(hosts[name]),
            "looks": getattr(run, "looks", None),
            "tokens_sha256": hashes[name],
        }
        for name, run in runs.items()
    }
    return {"machine": machine(), "nap_ms": 1000 * NAP_S, "results": results}


class DeviceLoop(Run):
    """The loop of ``device_loop`` with a host that looks now and then, or sleeps until it is over.

    Args:
        model, workload: as for ``Run``.
        nap_s: how long the host sleeps between two looks; None means that it does not look.
    """

    def __init__(self, model, workload, nap_s):
        super().__init__(model, "device_loop", workload, {})
        self.nap_s, self.looks = nap_s, 0

    @torch.no_grad()
    def __call__(self):
        decode = with_prepared_capture(self._decode)
        return decode(self.model, self.input_ids, self.new_tokens, self.eos_token_id)

    def _decode(self, model, input_ids, max_new_tokens, eos_token_id, prepared):
        finished, eos = start(input_ids, eos_token_id)
        captured, prompt = captured_step(prepared, model, input_ids, eos), input_ids.shape[1]
        loop = while_graph(prepared, captured, tells=self.nap_s is not None)
        captured.begin(decode_step(model, input_ids, prepared.cache, finished, eos))
        loop.launch(prompt, max_new_tokens, asks=eos_token_id is not None)
        if loop.step_by_step:
            loop.wait()
        else:
            over = torch.cuda.Event(blocking=True)  # the host sleeps while it waits for it
            over.record()
            self.looks = 0
            while self.nap_s and not over.query():
                loop.made.item()
                self.looks += 1
                time.sleep(self.nap_s)
            over.synchronize()
        return captured.result(input_ids, captured.read.item() + 1 - prompt)
