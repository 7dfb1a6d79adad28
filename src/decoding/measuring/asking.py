"""When to ask whether all rows have finished: how late, and how often.

Each function returns what JSON can hold, and runs in a fresh process.
"""

from unittest.mock import patch

import torch
from transformers.generation.utils import DeferredStopCheck

from decoding import ranges
from decoding.step import decode_step, start

from .controls import SINGLE, Ahead
from .errors import MeasurementError
from .machine import machine, require_gpu
from .probes import timed
from .processes import run_fresh
from .races import rotated, spreads
from .records import spread
from .replays import Step
from .runs import Run, checksum, load

ENDS = (16, 64, 240)  # the steps in which the last row finishes
LATE, EVERY = (0, 1, 2, 4), (1, 2, 4, 8, 16)
BATCH = SINGLE.but(batch_size=8)
NO_TOKEN = -1  # an id that no row ever chooses


class Asking(Ahead):
    """A compiled loop on one stream that asks in every ``every``-th step, ``late`` steps later.

    Args:
        model, workload: as for ``Run``.
        step: the compiled ``Step`` that all of them share; None on a CPU, where the step is eager.
        late: how many steps are launched between a step and the look at its flag; 0 asks at once.
        every: in which steps it asks: 4 means the fourth, the eighth, ...
    """

    def __init__(self, model, workload, step, late, every):
        Run.__init__(self, model, "compiled", workload, {})
        self.step, self.cache = step, step and step.cache
        self.late, self.every = late, every
        self.flags = [torch.zeros((), dtype=torch.bool) for _ in range(late + 1)]
        if self.on_gpu:
            self.flags = [flag.pin_memory() for flag in self.flags]
        self.done = [self.device.Event() for _ in self.flags]
        self.steps = 0  # of the last run

    @torch.no_grad()
    def __call__(self):
        """Return the tokens up to the step in which the last row finished."""
        finished, eos = start(self.input_ids, self.eos_token_id)
        tokens, unread, cache = [], self.input_ids, self._empty_cache()
        compiled = self.step.compiled if self.step else decode_step
        for step in range(self.new_tokens):
            with ranges.token(step):
                run = compiled if step > 0 else decode_step
                torch.compiler.cudagraph_mark_step_begin()
                unread, finished, flag = run(self.model, unread, cache, finished, eos)
                unread, finished = unread.clone(), finished.clone()
                tokens.append(unread)
                slot = step % len(self.flags)
                self.flags[slot].copy_(flag, non_blocking=True)
                self.done[slot].record()
            with ranges.stop_check(step):
                asked = step - self.late
                if asked >= 0 and (asked + 1) % self.every == 0 and self._was_last(asked):
                    break
        self.steps = len(tokens)
        new = torch.cat(tokens, dim=1)
        open_steps = (~torch.isin(new, eos)).cumprod(dim=1).sum(dim=1).max().item()
        return torch.cat([self.input_ids, new[:, : open_steps + 1]], dim=1)


def ends(workload=BATCH, late=LATE, every=EVERY, at=ENDS):
    """Time loops that ask late or seldom, on a batch whose rows really end, at different steps.

    The ids that end a row are taken from a run without an end, so that the last row finishes in a
    given step and the others before it.

    Args:
        workload: a ``Workload`` with more new tokens than the latest end.
        late: how many steps late a loop asks, each with ``every`` = 1.
        every: how seldom a loop asks, each with ``late`` = 0 and with ``late`` = 1.
        at: the steps in which the last row finishes.

    Returns:
        A dict: ``machine``; ``rows``, end -> the step in which each row finishes; and ``results``,
        a list of dicts with ``late``, ``every``, ``end``, ``total_ms`` (a spread over the rounds,
        of the whole call), ``token_ms`` and ``token_p95_ms`` (of single tokens), ``steps``, how many
        it ran, and ``wasted``, how many of those came after the last row had finished.
    """
    asked = {(one, 1) for one in late} | {(one, k) for k in every for one in (0, 1)}
    return run_fresh(
        _ends, "Asking late and seldom", workload=workload, asked=sorted(asked), at=tuple(at)
    )


def _ends(report, workload, asked, at):
    torch.backends.cuda.enable_cudnn_sdp(
        False
    )  # with it a run may choose other tokens than the last
    model = load(workload)
    on_gpu = model.device.type == "cuda"
    step = Step(model, workload, mode="reduce-overhead") if on_gpu else None
    loops = {key: Asking(model, workload, step, *key) for key in asked}
    results, rows = [], {}
    for number, wanted in enumerate(at):
        times = {key: [] for key in loops}
        end, lasts = _end_all(loops, wanted)
        rows[str(end)] = lasts
        for repeat in range(max(3, workload.repeats)):
            for key in rotated(loops, repeat):
                times[key].append(timed(loops[key])[0])
        for (late, every), run in loops.items():
            found = spreads(times[late, every])
            results.append(
                {
                    "late": late,
                    "every": every,
                    "end": end,
                    "total_ms": found["total_ms"],
                    "token_ms": found["per_token_ms"],
                    "token_p95_ms": found["tokens_ms"]["p95"],
                    "steps": run.steps,
                    "wasted": run.steps - end - 1,
                }
            )
        report(number + 1, len(at))
    return {"machine": machine(), "rows": rows, "results": results}


def _end_all(loops, wanted, tries=3):
    """Give all loops ids with which they end near step ``wanted``; return that step and each row's last.

    In bfloat16 a run may differ from the one before where two candidates lie close together, so the end
    is what all loops have come to, not what was planned.

    Raises:
        MeasurementError: they came to different ends in each of ``tries``.
    """
    for _ in range(tries):
        ids, _ = _ids_that_end(_free_tokens(next(iter(loops.values()))), wanted)
        found = []
        for run in loops.values():
            run.eos_token_id = ids
            found.append(_last_steps(run()[:, run.input_ids.shape[1] :].cpu(), ids))
        end, *others = map(max, found)
        if end < run.steps and set(others) <= {end}:
            return end, found[0]
    raise MeasurementError(f"The loops ended in the steps {[max(lasts) for lasts in found]}.")


def _free_tokens(run):
    """Return the new tokens of a run without an end, int64 [batch, new tokens], on the CPU."""
    # As many ids as there will be: another number would compile another step, and in bfloat16 that
    # one may choose other tokens.
    run.eos_token_id = [NO_TOKEN] * len(run.input_ids)
    for _ in range(2):  # in bfloat16 the compiled step may choose others than its first, eager run
        tokens = run()
    return tokens[:, run.input_ids.shape[1] :].cpu()


def _ids_that_end(new, wanted):
    """Return ids with which the last row to finish does so in step ``wanted``, and each row's last step.

    One row's token of that step is an end, and for every other row one of its tokens before, spread
    over the steps; none of them is a token that the one row has earlier. Where no row has a token
    for it, the nearest step does that has. There are as many ids as rows.
    """
    rows = new.tolist()
    for end in sorted(range(1, new.shape[1] - 1), key=lambda step: abs(step - wanted)):
        for last, row in enumerate(rows):
            ids, taken = [row[end]], set(row[:end])
            others = [other for other in rows if other is not row]
            for number, other in enumerate(others):
                spread_out = end * (number + 1) // (len(others) + 1)
                nearest = sorted(range(end + 1), key=lambda step: abs(step - spread_out))
                ids += [other[step] for step in nearest if other[step] not in taken][:1]
            lasts = _last_steps(new, ids)
            if lasts[last] == end == max(lasts):
                return ids + ids[:1] * (len(rows) - len(ids)), lasts
    raise ValueError("No ids of this run make all its rows finish.")


def _last_steps(new, ids):
    """Return for each row the first step in which one of ``ids`` stands; beyond the run if none."""
    stop = torch.isin(new, torch.tensor(ids))
    return [row.index(True) if any(row) else len(row) for row in stop.tolist()]


def transformers_gate(workload=SINGLE, kinds=(None, "static")):
    """Time transformers' ``generate`` with its own stop check, and with the one it keeps for MPS.

    ``DeferredStopCheck`` reads its flag one step late. ``is_supported`` says no on CUDA; here it is
    made to say yes, for the runs called "late". CUDA only: its events are not to be had on a CPU.

    Returns:
        A dict: ``machine``; and ``results``, "dynamic, at once", "dynamic, late", "static, at once",
        "static, late" -> ``per_token_ms``, a spread over the rounds, ``tokens_sha256``, and
        ``deferred``, whether the deferred check was what ran.
    """
    require_gpu("Opening the gate of transformers' stop check", workload.device)
    return run_fresh(_gate, "transformers' stop check", workload=workload, kinds=tuple(kinds))


def _gate(report, workload, kinds):
    torch.backends.cuda.enable_cudnn_sdp(
        False
    )  # its plans for every length take longer than all else
    model = load(workload)
    runs = {}
    for cache in kinds:
        options = {"cache_implementation": cache} if cache else {}
        for late in (False, True):
            name = f"{cache or 'dynamic'}, {'late' if late else 'at once'}"
            runs[name] = (late, Run(model, "transformers", workload, options))
    results, times = {}, {name: [] for name in runs}
    for name, (late, run) in runs.items():
        made = []
        with _gate_open(late, made):
            tokens = [run() for _ in range(3)][-1]
        results[name] = {"tokens_sha256": checksum(tokens), "deferred": bool(made)}
    for number in range(max(3, workload.repeats)):
        for name in rotated(runs, number):
            late, run = runs[name]
            with _gate_open(late, []):
                took = timed(run)[0]
            times[name].append(took["total"] / took["generated"])
        report(number + 1, workload.repeats)
    for name, found in times.items():
        results[name]["per_token_ms"] = spread(found)
    return {"machine": machine(), "results": results}


def _gate_open(late, made):
    """Have ``is_supported`` say ``late``, and note in ``made`` when it was asked and said yes."""

    def answer(*args, **kwargs):
        if late:
            made.append(True)
        return late

    return patch.object(DeferredStopCheck, "is_supported", staticmethod(answer))
