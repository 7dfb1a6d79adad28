"""The ladder: rungs measured in turn, each in fresh processes; ``measure`` and ``compare`` are small ones.

What is measured together may be compared, and nothing else (see ``comparing``).
"""

import sys
import time
import uuid
from dataclasses import asdict, dataclass, field
from statistics import median

from tqdm import tqdm

from decoding.rungs import find_rung

from . import session
from .errors import MeasurementError
from .fingerprint import fingerprint
from .processes import run_fresh
from .records import SCHEMA, Record, median_curve, percentiles, significant, spread
from .workload import Workload

#: Rungs that run in the first round only: their memory is compared with their neighbours', not their time.
ONCE = ("expandable_segments",)


def measure(rung, workload, *, processes=1, environment=None, **options):
    """Run ``rung`` on ``workload`` in fresh processes and return one record.

    Args:
        rung: a name in ``RUNGS``.
        workload: a ``Workload``.
        processes: how many; the first is cold, later ones find what its compilers made.
        environment: variables for the processes instead of the rung's own, for example ``{}`` for
            the allocator's default.
        **options: as for ``generate``: ``cache_length``, ``compile_mode``.

    Returns:
        A ``Record``; its ``error`` says why if the measurement ran out of memory.

    Raises:
        ValueError, TypeError: there is no such rung, or no such option.
        MeasurementError: a process failed for another reason.
    """
    entry = {"rung": rung} | options
    (measured,) = _in_turn([_measured(entry, workload, environment=environment)], processes, False)
    if measured.crashed:
        raise MeasurementError(measured.error)
    return measured.record()


def compare(rungs, workload, *, processes=1, progress=True, **options):
    """Measure several rungs as ``ladder`` does, by default for a quick look in one process each."""
    return ladder(rungs, workload, processes=processes, once=(), progress=progress, **options)


def ladder(rungs, workload, *, processes=3, once=ONCE, environment=None, progress=True, **options):
    """Measure several rungs in turn and return their records, in order; they may be compared.

    There are as many rounds as ``processes``, and each runs every rung once, in turn, in a fresh
    process. In the first round a rung is cold: its compilers find nothing. In later rounds they find
    what they made in the first.

    Args:
        rungs: names in ``RUNGS``, or for variants dicts ``{"rung": name, **options}``, which may also
            have a ``stop_check``, an ``environment`` and ``once`` of their own.
        workload: the ``Workload`` of all. Its ``repeats`` are the timed runs of a process; where a run is
            long (``session.SLOW_S``) and there are several processes, each makes one.
        processes: how many for each rung.
        once: rungs that run in the first round only.
        environment: variables for the processes instead of the rungs' own.
        progress: whether to show a progress bar, and after the first round how long the rest takes.
        **options: the options of the rungs given by name alone; each gets those that it takes.

    A rung that fails does not end the ladder: its record's ``error`` says why, and it is not run
    again.

    Raises:
        ValueError, TypeError: there is no such rung, no such option, or no process.
    """
    measured = [
        _measured(entry, workload, environment=environment, once=once, **options) for entry in rungs
    ]
    return [one.record() for one in _in_turn(measured, processes, progress)]


def describe_variant(rung, workload, *, environment=None, compile_mode=None, cache_length=None):
    """Return what sets this measurement of ``rung`` apart from the plain one."""
    own = find_rung(rung).environment
    return {
        "compile_mode": compile_mode,
        "cache_length": cache_length,
        "stop_check": workload.stop_check,
        "allocator": _allocator(own if environment is None else environment),
        "rung_allocator": _allocator(own),
    }


def check_options(rung, options):
    """Raise ``ValueError`` or ``TypeError`` where there is no such rung, or it takes not all ``options``."""
    unknown = sorted(set(options) - find_rung(rung).options)
    if unknown:
        allowed = ", ".join(sorted(find_rung(rung).options)) or "none"
        raise TypeError(
            f"The rung {rung!r} has no option {', '.join(unknown)}; its options: {allowed}."
        )


def new_together():
    """Return a new name for what is measured together."""
    return uuid.uuid4().hex[:12]


def _allocator(environment):
    setting = environment.get("PYTORCH_ALLOC_CONF", "")
    return "expandable_segments" if "expandable_segments:True" in setting else "default"


@dataclass
class _Measured:
    """A rung of the ladder, and what its processes have found so far."""

    rung: str
    workload: Workload
    options: dict
    environment: dict
    variant: dict
    once: bool = False
    together: str = ""
    sessions: list = field(default_factory=list)
    codes: set = field(default_factory=set)
    error: str | None = None
    crashed: bool = False  # it gave no result; else it ran out of memory
    machine: dict = field(default_factory=dict)

    def run(self, number, several):
        """Run it in a fresh process, its first if ``number`` is 0."""
        code = fingerprint([self.rung]), fingerprint(())
        self.codes.add(code)
        try:
            found = run_fresh(
                session.measured,
                f"Measuring {self.rung}",
                self.environment,
                caches=f"{self.together}-{id(self)}",
                rung=self.rung,
                workload=self.workload,
                options=self.options,
                started=time.time(),
                first=number == 0,
                all_runs=not several,
            )
        except MeasurementError as error:
            self.error, self.crashed = str(error), True
            return
        self.machine = self.machine or found["machine"]
        self.machine["code"], self.machine["common_code"] = code
        self.sessions.append(found)
        self.error = found["error"]
        if len(self.codes) > 1:
            self.error = "The code was edited while it was measured: measure it again."

    def record(self):
        """Return the ``Record`` of all its processes."""
        label = find_rung(self.rung).label
        if self.error:
            what = (self.rung, label, self.variant, asdict(self.workload), self.machine, self.error)
            return Record.failed(*what, together=self.together)
        first = self.sessions[0]
        return Record(
            {
                "schema": SCHEMA,
                "together": self.together,
                "rung": self.rung,
                "label": label,
                "variant": self.variant,
                "workload": first["workload"],
                "machine": self.machine,
                "time": (times := times_of(self.sessions)),
                "processes": [_process(each, at) for at, each in enumerate(self.sessions)],
                "memory": first["memory"],
                "gpu": _with_idle_share(first["gpu"], times["per_token_ms"]["median"]),
                "tokens_sha256": first["tokens_sha256"],
                "tokens_generated": first["tokens_generated"],
                "notes": list(dict.fromkeys(n for each in self.sessions for n in each["notes"])),
                "error": None,
            }
        )


def _measured(entry, workload, *, environment=None, once=(), **options):
    """Return what is to be measured for an entry of a ladder: a name, or a dict for a variant."""
    if isinstance(entry, str):
        taken = find_rung(entry).options
        entry = {"rung": entry} | {key: options[key] for key in options if key in taken}
    entry = {"environment": environment, "once": entry["rung"] in once} | entry
    rung, environment, once = (entry.pop(key) for key in ("rung", "environment", "once"))
    workload = workload.but(stop_check=entry.pop("stop_check", workload.stop_check))
    check_options(rung, entry)
    variant = describe_variant(rung, workload, environment=environment, **entry)
    environment = find_rung(rung).environment if environment is None else environment
    return _Measured(rung, workload, entry, environment, variant, once)


def _in_turn(items, processes, progress):
    """Run the items' rounds; return the items."""
    if processes < 1:
        raise ValueError(f"processes={processes}; each rung needs at least 1.")
    together = new_together()
    for item in items:
        item.together = together
    several, began = processes > 1, time.time()
    with tqdm(total=processes * len(items), disable=not progress, unit="process") as bar:
        for number in range(processes):
            for item in items:
                bar.set_description(f"round {number + 1} of {processes}, {item.rung}")
                if not item.error and not (number and item.once):
                    item.run(number, several)
                bar.update()
            if progress and several and number == 0:
                bar.write(_estimate(items, processes, time.time() - began), file=sys.stderr)
    return items


def _estimate(items, processes, seconds):
    """Return a sentence: what the first round took, and what the others may take."""
    ahead = sum(
        found["process"]["initialize_s"] + found["process"]["first_run_s"] + _warm_s(found)
        for item in items
        if not item.error and not item.once
        for found in item.sessions
    )
    return (
        f"Round 1 of {processes} took {seconds:.0f} s; the others take at most about "
        f"{ahead * (processes - 1):.0f} s."
    )


def _warm_s(found):
    return sum(times["total"] for times in found["warm"]) / 1000


def _with_idle_share(gpu, per_token_ms):
    if gpu is None:
        return None
    return gpu | {"idle_share": significant(max(0.0, 1 - gpu["busy_ms_per_token"] / per_token_ms))}


def _mean(curve):
    return sum(curve) / max(len(curve), 1)


def _of_run(times):
    """Return a run's time per token, its prefill and its whole time, in ms."""
    return {
        "per_token_ms": _mean(times["curve"]),
        "prefill_ms": times["prefill"],
        "total_ms": times["total"],
    }


def _over_runs(found):
    """Return the spreads over the timed runs of one process."""
    runs = [_of_run(times) for times in found["warm"]]
    return {key: spread(run[key] for run in runs) for key in runs[0]}


def _process(found, number):
    """Return what a record says of one process."""
    return found["process"] | _over_runs(found) | {"cold": number == 0, "runs": len(found["warm"])}


def times_of(sessions):
    """Return the ``time`` of a record, from what its processes found, the cold one first.

    One definition for all: a run's time per token is the mean over its tokens after the first; a
    process's is the median over its timed runs; the record's is the median over the processes, with
    their range. Of a single process the range is that over its runs. ``tokens_ms`` is of the single
    tokens of all timed runs.
    """
    first, *later = sessions
    each = [_over_runs(found) for found in sessions]
    if later:
        spreads = {key: spread(one[key]["median"] for one in each) for key in each[0]}
    else:
        (spreads,) = each
    curves = [times["curve"] for found in sessions for times in found["warm"]]
    cold = first["cold"]
    return spreads | {
        "spread_over": len(sessions),
        "tokens_ms": percentiles(value for curve in curves for value in curve),
        "cold_total_ms": significant(cold["total"]),
        "cold_prefill_ms": significant(cold["prefill"]),
        "cold_per_token_ms": significant(_mean(cold["curve"])),
        "curve_ms": median_curve(curves),
        "cold_curve_ms": [significant(value) for value in cold["curve"]],
        "once_s": {
            "initialize": first["process"]["initialize_s"],
            "first_run": first["process"]["first_run_s"],
            "first_run_warm_caches": significant(median(f["process"]["first_run_s"] for f in later))
            if later
            else None,
            "warm_run": significant(spreads["total_ms"]["median"] / 1000),
        },
    }
