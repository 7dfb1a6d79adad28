"""The stop check beside a graph of one's own: what it costs once the launch is short.

The rung ``captured_graph`` asks late. Here the same graph is asked at once, too, and the device's loop
runs without telling the host, so that what streaming costs is seen.
"""

import torch

from decoding import ranges
from decoding.captured import captured_step, with_prepared_capture
from decoding.step import decode_step, start
from decoding.while_graph import while_graph

from .controls import SINGLE
from .machine import machine
from .probes import timed
from .processes import run_fresh
from .races import rotated, spreads
from .records import significant
from .runs import Run, checksum, enter, load

ENTRANTS = {
    "compiled, at once": {"rung": "compiled"},
    "compiled, two streams": {"rung": "two_streams"},
    "compiled, late": {"rung": "deferred_check"},
    "compiled, never": {"rung": "compiled", "stop_check": False},
    "captured, late": {"rung": "captured_graph"},
    "captured, never": {"rung": "captured_graph", "stop_check": False},
    "device loop": {"rung": "device_loop"},
}


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


@with_prepared_capture
def untold(model, input_ids, max_new_tokens, eos_token_id, prepared):
    """The loop of ``device_loop``, whose host learns nothing until all steps are over.

    Only where no row ends early is its result as long as it should be.
    """
    finished, eos = start(input_ids, eos_token_id)
    captured = captured_step(prepared, model, input_ids, eos)
    loop = while_graph(prepared, captured, tells=False)
    captured.begin(decode_step(model, input_ids, prepared.cache, finished, eos))
    loop.launch(input_ids.shape[1], max_new_tokens, asks=eos_token_id is not None)
    loop.wait()
    return captured.result(input_ids, max_new_tokens)


class Variant(Run):
    """A loop that is no rung, on a workload."""

    def __init__(self, model, workload, decode):
        super().__init__(model, "captured_graph", workload, {})
        self.decode = decode

    def __call__(self):
        ends = None if self.eos_token_id is None else [self.eos_token_id]
        return self.decode(self.model, self.input_ids, self.new_tokens, ends)


def runs_of(model, workload):
    """Return label -> ``Run`` of all that race here."""
    return {label: enter(model, workload, entrant) for label, entrant in ENTRANTS.items()} | {
        "captured, at once": Variant(model, workload, at_once),
        "device loop, untold": Variant(model, workload, untold),
    }


def graph_checks(workload=SINGLE):
    """Time the check at once, late and never, beside compiled and captured steps, in turn.

    Returns:
        A dict: ``machine``, and ``results``, label -> what a race says of it, with ``cold_total_ms``
        and ``tokens_sha256``. Of the device's loop that tells nothing only the totals are known.
    """
    return run_fresh(_graph_checks, "The check beside a captured graph", workload=workload)


def _graph_checks(report, workload):
    model = load(workload)
    runs, found, times = runs_of(model, workload), {}, {}
    for number, (label, run) in enumerate(runs.items()):
        cold, tokens = timed(run)
        found[label] = {
            "cold_total_ms": significant(cold["total"]),
            "tokens_sha256": checksum(tokens),
        }
        times[label] = []
        run()
        report(number + 1, len(runs) + workload.repeats)
    for number in range(workload.repeats):
        for label in rotated(runs, number):
            times[label].append(timed(runs[label])[0])
        report(len(runs) + number + 1, len(runs) + workload.repeats)
    torch.get_device_module(model.device).synchronize()
    results = {label: spreads(times[label]) | found[label] for label in runs}
    return {"machine": machine(), "results": results}
