"""``watch``: loops with and without a stop check race, and the host is watched at every token.

All that the book says of a token's launch, of its wait and of the GPU's work comes from one such
race, so that the numbers fit each other.
"""

import gc
import os
import time
from contextlib import ExitStack, contextmanager, nullcontext
from statistics import correlation

import torch

from decoding import ranges

from .machine import machine
from .probes import busy_time, timed
from .processes import run_fresh
from .races import check_entrants, rotated, spreads, taken_together
from .records import percentiles, significant
from .replays import bare_replay
from .runs import checksum, describe, enter, load

LOOPS = {
    "check": {"rung": "compiled"},
    "two streams": {"rung": "two_streams"},
    "no check": {"rung": "compiled", "stop_check": False},
}
WITHOUT_GUARDS = {
    f"{label}, no guards": entrant | {"guards": False} for label, entrant in LOOPS.items()
}
SETTINGS = {"guards": True, "gc_freeze": False, "pin_core": False}
WARM_UP = 2  # runs after the cold one: a compiled step is captured in its second call
FIRST_STEP = 8  # the steps before it are still filling the pipeline
KEPT = 64  # tokens of one round whose times are kept one by one
PROBE_STEPS = 80  # of plain Python beside a token: some microseconds
PROBED_ROUNDS = 2


def watch(workload, entrants=None, *, rounds=8, bare=True, environment=None):
    """Race loops in one fresh process and watch the host at every token.

    A token has two parts on the host: launching its step, and standing in the stop check. In every
    round the entrants start in another order. Rounds with a probe beside each token (some
    microseconds of plain Python that touch no GPU) come afterwards and are not timed.

    Args:
        workload: a ``Workload``, of any batch size.
        entrants: label -> ``{"rung": ..., "stop_check": ..., **options}`` as for ``race``, with
            three settings besides: ``guards``, whether the guards of ``torch.compile`` are checked
            (default: True); ``gc_freeze``, whether Python's garbage collector is kept off; and
            ``pin_core``, whether the host thread is kept on one core. Default: check at once, two
            streams and no check, each with guards and without.
        rounds: how often each entrant is timed.
        bare: whether to time a bare replay of the step's graph, too (on a GPU).
        environment: variables for the process.

    Returns:
        A dict with ``machine``, ``together``, ``workload``, ``results``, which maps each label to a
        ``Record``, and ``bare_replay``, what ``replays.bare_replay`` gives, or None. A record has the
        keys of a race's, and these. Times are in µs; None is what this machine cannot tell.

        - ``settings``: guards, gc_freeze, pin_core; ``rung`` and ``stop_check``.
        - ``rounds_ms``: the mean time of a token in each round, in ms.
        - ``launch_us``, ``wait_us``: over the tokens of all rounds, ``p50``, ``p95``, ``p99``.
        - ``raw``: ``launch_us``, ``wait_us`` and ``token_ms`` of successive tokens of the last round.
        - ``L_us``, the median launch; ``G_us``, the GPU's busy time, from a profiled run apart.
        - ``measured_us``, the measured token, and ``predicted_us``: L + G where the loop checks at
          once, the larger of the two where it doesn't.
        - ``bubble_us``, measured − G: for how long the GPU waits. ``check_us``, by how much the
          token is longer than that of "no check" under the same settings: what the check costs.
        - ``probe_correlation``, of the probe's time with the launch beside it, and ``probe_us``.

    Raises:
        ValueError: a setting cannot be.
        MeasurementError: the process failed.
    """
    entrants = LOOPS | WITHOUT_GUARDS if entrants is None else entrants
    if rounds < 1 or not entrants:
        raise ValueError(f"rounds={rounds} of {len(entrants)} loops: both must be at least 1.")
    check_entrants(
        {
            label: {key: value for key, value in entrant.items() if key not in SETTINGS}
            for label, entrant in entrants.items()
        }
    )
    found = run_fresh(
        watched,
        f"Watching {', '.join(entrants)}",
        environment,
        entrants=entrants,
        workload=workload,
        rounds=rounds,
        bare=bare,
    )
    return taken_together(found)


def watched(report, entrants, workload, rounds, bare):
    """Return what ``watch`` does; this runs in the fresh process."""
    model = load(workload)
    loops = {label: _Loop(model, workload, entrant) for label, entrant in entrants.items()}
    jobs = len(loops) * (rounds + 2)
    for at, loop in enumerate(loops.values()):
        loop.warm_up()
        report(at + 1, jobs)
    for number in range(rounds):
        for label in rotated(loops, number):
            loops[label].time()
        report(len(loops) * (number + 2), jobs)
    for loop in loops.values():
        loop.probe()
    results = {label: loop.result() for label, loop in loops.items()}
    for result in results.values():
        result["check_us"] = _cost_of_check(result, results.values())
    on_gpu = model.device.type == "cuda"
    return {
        "workload": describe(workload, model),
        "results": results,
        "bare_replay": bare_replay(model, workload) if bare and on_gpu else None,
        "machine": machine(),
    }


class _Loop:
    """One entrant: its run under its settings, and what was seen of it."""

    def __init__(self, model, workload, entrant):
        chosen = {key: entrant.get(key, value) for key, value in SETTINGS.items()}
        entrant = {key: value for key, value in entrant.items() if key not in SETTINGS}
        self.settings = chosen
        self.rung, self.stop_check = entrant["rung"], entrant.get("stop_check", workload.stop_check)
        self.run = enter(model, workload, entrant)
        self.times, self.launch_us, self.wait_us, self.probes = [], [], [], []

    def warm_up(self):
        """Make the cold run, with guards, and those that follow it, as they will be timed."""
        cold, tokens = timed(self.run)
        self.cold_ms, self.tokens_sha256 = significant(cold["total"]), checksum(tokens)
        with under(**self.settings):
            for _ in range(WARM_UP):
                self.run()

    def time(self):
        """Make a run of a round."""
        with under(**self.settings):
            times, launch_us, wait_us = host_times(self.run)
        self.times.append(times)
        self.launch_us.append(launch_us)
        self.wait_us.append(wait_us)

    def probe(self):
        """Make the runs with a probe beside every token; their times are not kept."""
        with under(**self.settings):
            for _ in range(PROBED_ROUNDS):
                probes = []
                _, launch_us, _ = host_times(self.run, probes)
                # The probe stands behind its step's launch.
                self.probes += zip(launch_us, probes[FIRST_STEP:])

    def result(self):
        """Return what was found, as JSON can hold it."""
        with under(**self.settings):
            gpu = busy_time(self.run) if self.run.on_gpu else {}
        found = spreads(self.times) | gpu
        found |= {
            "rung": self.rung,
            "stop_check": self.stop_check,
            "settings": self.settings,
            "tokens_sha256": self.tokens_sha256,
            "cold_total_ms": self.cold_ms,
            "rounds_ms": [significant(_mean(times["curve"])) for times in self.times],
            "launch_us": percentiles(value for part in self.launch_us for value in part),
            "wait_us": percentiles(value for part in self.wait_us for value in part),
            "raw": self._raw(),
            "probe_us": None,
            "probe_correlation": None,
        }
        launches, probes = zip(*self.probes) if self.probes else ((), ())
        if len(set(launches)) > 1 and len(set(probes)) > 1:
            found["probe_us"] = percentiles(probes)
            found["probe_correlation"] = round(correlation(launches, probes), 3)
        return found | self._balance(found)

    def _raw(self):
        token_ms = self.times[-1]["curve"][FIRST_STEP - 1 : -1]  # of the same steps
        return {
            "launch_us": [significant(value) for value in self.launch_us[-1][:KEPT]],
            "wait_us": [significant(value) for value in self.wait_us[-1][:KEPT]],
            "token_ms": [significant(value) for value in token_ms[:KEPT]],
        }

    def _balance(self, found):
        """Return L and G, and what they predict, beside the token that was measured."""
        launch, measured = found["launch_us"]["p50"], 1000 * found["per_token_ms"]["median"]
        known = "busy_ms_per_token" in found
        work = 1000 * found["busy_ms_per_token"] if known else None
        at_once = self.stop_check and self.rung != "two_streams"
        predicted = (launch + work if at_once else max(launch, work)) if known else None
        return {
            "L_us": launch,
            "G_us": significant(work) if known else None,
            "measured_us": significant(measured),
            "predicted_us": significant(predicted) if known else None,
            "bubble_us": significant(measured - work) if known else None,
        }


def host_times(run, probes=None):
    """Call ``run`` once; return its times, and how long the host launched and waited, in µs.

    Args:
        run: a ``Run``.
        probes: a list for the times of a probe behind each launch, in µs; None means no probe.

    Returns:
        What ``timed`` returns of times; and two lists, launch and wait, an entry for each token from
        step ``FIRST_STEP`` on.
    """
    ends = {}

    def note(name, step):
        ends[name, step] = time.perf_counter()
        if probes is not None and name != "stop_check":
            probes.append(_probe_us())

    # Outside of the observer that takes the GPU's time, so that its event counts as waiting.
    with ranges.observe(note):
        times, _ = timed(run)
    steps = range(FIRST_STEP, times["generated"] - 1)
    launch = [ends["decode_step", n] - ends["stop_check", n - 1] for n in steps]
    wait = [ends["stop_check", n] - ends["decode_step", n] for n in steps]
    return times, [1e6 * value for value in launch], [1e6 * value for value in wait]


@contextmanager
def under(guards=True, gc_freeze=False, pin_core=False):
    """Run under an entrant's settings: a context manager."""
    with ExitStack() as stack:
        # The stance holds from the moment it is made, not from when it is entered: make it here.
        unguarded = torch.compiler.set_stance(skip_guard_eval_unsafe=True) if not guards else None
        stack.enter_context(unguarded or nullcontext())
        stack.enter_context(_no_garbage_collection() if gc_freeze else nullcontext())
        stack.enter_context(_on_one_core() if pin_core else nullcontext())
        yield


@contextmanager
def _no_garbage_collection():
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def _on_one_core():
    """Keep this thread on one core, where the system can (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _cost_of_check(result, results):
    """Return by how much a token is longer than without a check, in µs; None where none raced."""
    for bound in results:
        if bound["settings"] == result["settings"] and not bound["stop_check"]:
            return significant(result["measured_us"] - bound["measured_us"])
    return None


def _probe_us():
    began, total = time.perf_counter(), 0
    for number in range(PROBE_STEPS):
        total += number
    return 1e6 * (time.perf_counter() - began)


def _mean(values):
    return sum(values) / max(len(values), 1)
