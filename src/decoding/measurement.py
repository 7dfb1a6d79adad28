"""Measure rungs: each in a fresh process, one run per purpose.

This module is the side that asks; ``worker`` is the side that runs.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from .records import failed
from .rungs import find_rung


@dataclass(frozen=True)
class Workload:
    """What is generated, and how often.

    Attributes:
        model: a name that ``load_model`` knows (random weights).
        batch_size: rows.
        prompt_tokens: tokens in each row's prompt, drawn at random from ``seed``.
        new_tokens: tokens to generate in each row.
        dtype: the name of a torch dtype; None means ``load_model``'s choice.
        device: None means the GPU if there is one, else the CPU.
        stop_check: whether the loop asks in every step if all rows have finished. If so, the
            end-of-sequence id is the last one of the vocabulary.
        repeats: timed runs after the first, cold one.
        seed: of the prompts.
    """

    model: str = "gpt2"
    batch_size: int = 32
    prompt_tokens: int = 128
    new_tokens: int = 512
    dtype: str | None = None
    device: str | None = None
    stop_check: bool = True
    repeats: int = 5
    seed: int = 0

    def but(self, **changes):
        """Return this workload with ``changes``."""
        return replace(self, **changes)


class MeasurementError(RuntimeError):
    """A worker process ended without a result; the message is the last thing that it said."""


def measure(rung, workload, *, environment=None, **options):
    """Run ``rung`` on ``workload`` in a fresh process and return one record.

    Args:
        rung: a name in ``RUNGS``.
        workload: a ``Workload``.
        environment: variables for the process instead of the rung's own, for example ``{}`` for
            the allocator's default.
        **options: as for ``generate``: ``cache_length``, ``compile_mode``.

    Returns:
        A record (a dict); its ``error`` says why if the measurement ran out of memory.

    Raises:
        ValueError: there is no such rung.
        MeasurementError: the process failed for another reason.
    """
    environment = find_rung(rung).environment if environment is None else environment
    return run_task("measure", environment, rung=rung, workload=asdict(workload), options=options)


def compare(rungs, workload, *, progress=True, **options):
    """Measure several rungs in turn and return their records, in order.

    Args:
        rungs: names in ``RUNGS``, or ``(name, workload, options)`` triples for variants.
        workload: the ``Workload`` of the rungs that are given by name alone.
        progress: whether to show a progress bar.
        **options: the options of the rungs given by name alone; each gets those that it takes.

    A rung that fails does not end the comparison: its record's ``error`` says why.
    """
    records = []
    bar = tqdm(rungs, disable=not progress, unit="rung")
    for item in bar:
        if isinstance(item, str):
            taken = {key: options[key] for key in options if key in find_rung(item).options}
            item = (item, workload, taken)
        name, its_workload, its_options = item
        bar.set_description(name)
        try:
            records.append(measure(name, its_workload, **its_options))
        except MeasurementError as error:
            label, variant = find_rung(name).label, describe_variant(name, its_workload, **its_options)
            records.append(failed(name, label, variant, asdict(its_workload), {}, str(error)))
    return records


def trace(rung, workload, *, first_token, tokens, environment=None, **options):
    """Profile ``tokens`` decode steps from ``first_token`` on, in a fresh process.

    Returns:
        A ``timeline.Timeline`` with the host's ranges and launches and the work of each stream.
    """
    from .timeline import Timeline

    environment = find_rung(rung).environment if environment is None else environment
    return Timeline.from_dict(
        run_task(
            "trace",
            environment,
            rung=rung,
            workload=asdict(workload),
            options=options,
            first_token=first_token,
            tokens=tokens,
        )
    )


def race(entrants, workload, *, busy=False, environment=None):
    """Time several loops in turn in one fresh process, where ratios are steadier than across two.

    Args:
        entrants: a mapping, label -> ``{"rung": ..., "stop_check": ..., **options}``; the rung
            "transformers" is transformers' own ``generate``.
        workload: a ``Workload``; its ``repeats`` rounds run every entrant once each.
        busy: whether to profile each entrant, too.

    Returns:
        A dict, label -> ``{"per_token_ms": spread, "prefill_ms": ..., "total_ms": ...,
        "reserved_mib": ..., "busy_ms_per_token": ..., "kernels_per_token": ...,
        "tokens_sha256": ...}``.
    """
    return run_task(
        "race", environment or {}, entrants=entrants, workload=asdict(workload), busy=busy
    )


def allocations(rung, workload, *, environment=None, **options):
    """Record every allocation of one cold run in a fresh process (CUDA only).

    Returns:
        A dict: ``snapshot`` (as ``torch.cuda.memory._snapshot`` gives it, the traces only of the
        run), ``marks`` (trace entries at the end of each token), ``reserved_mib`` and
        ``allocated_mib`` after every token.
    """
    environment = find_rung(rung).environment if environment is None else environment
    return run_task(
        "allocations", environment, rung=rung, workload=asdict(workload), options=options
    )


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


def _allocator(environment):
    setting = environment.get("PYTORCH_ALLOC_CONF", "")
    return "expandable_segments" if "expandable_segments:True" in setting else "default"


def run_task(task, environment, **arguments):
    """Run a task of ``worker`` in a fresh process with ``environment`` and return its result.

    Raises:
        MeasurementError: the process ended without a result.
    """
    package_parent = str(Path(__file__).resolve().parent.parent)
    inherited = {key: value for key, value in os.environ.items() if key != "PYTORCH_ALLOC_CONF"}
    search_path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        result_file = Path(folder) / "result.json"
        own = {
            "PYTHONPATH": search_path,
            # A cold run is cold: no kernels compiled by an earlier process.
            "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor"),
            "TRITON_CACHE_DIR": str(Path(folder) / "triton"),
        }
        process = subprocess.run(
            [sys.executable, "-m", "decoding.worker", str(result_file)],
            input=json.dumps({"task": task, "environment": environment, **arguments}),
            env={**inherited, **own, **environment},
            capture_output=True,
            text=True,
        )
        if process.returncode or not result_file.exists():
            said = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
            raise MeasurementError(f"The {task} of {_what(arguments)} failed: {said[-1]}")
        return json.loads(result_file.read_text(encoding="utf-8"))


def _what(arguments):
    return arguments.get("rung") or ", ".join(arguments.get("entrants", ()))
