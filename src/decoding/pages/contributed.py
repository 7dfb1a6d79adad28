"""Whether a folder of records, of a reader's card say, can join the book's: each fault in one line."""

import json
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from math import isfinite
from pathlib import Path

from decoding import RUNGS
from decoding.measuring.fingerprint import fingerprint
from decoding.measuring.records import ALLOCATORS, SCHEMA, file_name, slug

from .machines import book_folder

SPREAD = ("median", "min", "max")
PERCENTILES = ("p50", "p95", "p99")
WORDS = ("gpu", "driver", "cuda", "torch", "transformers", "python", "cpu")
NUMBERS = ("gpu_memory_mib", "cpu_cores")
FOUND = (*ALLOCATORS, "mixed")  # segments, in memory
HASHES = {"gpu_id": 12, "code": 16, "common_code": 16}  # hexadecimal digits
PARTS = ("together", "variant", "workload", "time", "memory", "gpu", "tokens_sha256", "notes")
#: How far a run's time may lie from its prefill and its tokens together: each is a median of its own.
SUM_WITHIN = 0.25
EVENTS = "allocations_"  # such a record has its requests beside it, in a file of numpy's


def check_records(folder):
    """Say on stdout what is wrong with the records in ``folder``, and what should be known of them.

    Args:
        folder: ``book/records/<gpu>``, as ``make record`` and ``make run`` write it.

    Returns:
        0 if they can join the book, 1 if there is a fault.
    """
    faults, notes = examine(folder)
    for words in (*faults, *notes):
        print(words)
    count = len(list(Path(folder).glob("*.json")))
    said = f"{len(faults)} to mend" if faults else "they can join the book"
    print(f"{folder}: {count} records, {said}.")
    return 1 if faults else 0


def examine(folder):
    """Return the faults of the records in ``folder`` and notes on them, two lists of sentences."""
    folder = Path(folder)
    if not folder.is_dir():
        return [f"{folder} is no folder: give that of one card, book/records/<gpu>."], []
    paths, faults, notes, found, sound = sorted(folder.iterdir()), [], [], {}, {}
    if not any(path.suffix == ".json" for path in paths):
        faults.append(f"{folder} holds no records: run `make run` first.")
    for path in paths:
        if path.suffix == ".json":
            record, wrong = _read(path)
            faults += [f"{path.name}: {words}." for words in wrong]
            if not wrong:
                found[path.name] = record
        elif path.suffix != ".npz" or not path.with_suffix(".json").exists():
            faults.append(f"{path.name}: this is no record, and belongs to none.")
    for name, record in found.items():
        wrong = list(_faults_as_far_as_told(name, record, folder))
        faults += [f"{name}: {words}." for words in wrong]
        if not wrong:
            sound[name] = record
            if said := _age_of(name, record):
                notes.append(f"{name}: {said}.")
    return faults + [f"{words}." for words in _faults_between(sound)], notes


def _read(path):
    """A record as JSON has it, and what keeps it from being read."""

    def refuse(constant):
        raise ValueError(f"it holds {constant}, which is no number of JSON")

    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except ValueError as error:
        return None, [f"it cannot be read ({error})"]
    if not isinstance(record, dict) or not isinstance(record.get("machine"), dict):
        return None, ["it is no record: there is no machine in it"]
    if record.get("schema") != SCHEMA:
        return None, [
            f"its schema is {record.get('schema')}, this code writes {SCHEMA}: measure again"
        ]
    return record, []


def _faults_as_far_as_told(name, record, folder):
    """The faults of a record, up to a part that is missing or of another kind."""
    try:
        yield from _faults_of(name, record, folder)
    except KeyError as error:
        yield f"it has no {error.args[0]}"
    except (AttributeError, TypeError) as error:
        yield f"a part of it is not what a record has there ({error})"


def _faults_of(name, record, folder):
    yield from _faults_of_machine(record["machine"], folder)
    yield from _faults_of_numbers(record)
    if {"rung", "results"} & record.keys() and record["machine"].get("allocator") not in FOUND:
        yield f"machine.allocator is {record['machine'].get('allocator')!r}, not one of {', '.join(FOUND)}"
    if "rung" in record:
        yield from _faults_of_rung(name, record)
    for label, entrant in record.get("results", {}).items():
        if entrant.get("error") is None and not _is_hash(entrant.get("tokens_sha256"), 64):
            yield f"{label!r} has no checksum of its tokens"
    if name.startswith(EVENTS) and not (folder / name).with_suffix(".npz").exists():
        yield f"its requests, {Path(name).with_suffix('.npz')}, are missing"


def _faults_of_machine(machine, folder):
    if machine.get("device") != "cuda":
        yield f"it was measured on device {machine.get('device')!r}; the book shows CUDA GPUs"
        return
    for key in WORDS:
        if not isinstance(machine.get(key), str) or not machine[key]:
            yield f"machine.{key} is missing"
    for key in NUMBERS:
        if not isinstance(machine.get(key), int) or machine[key] < 1:
            yield f"machine.{key} is {machine.get(key)!r}, which is no whole number from 1 up"
    for key, digits in HASHES.items():
        if not _is_hash(machine.get(key), digits) and (key == "gpu_id" or key in machine):
            yield f"machine.{key} is {machine.get(key)!r}, which is no hash of {digits} digits"
    if not {"code", "common_code"} & machine.keys():
        yield "machine.code is missing: nobody knows by which code it was made"
    if isinstance(machine.get("gpu"), str) and not folder.resolve().name.startswith(
        slug(machine["gpu"])
    ):
        yield f"it is of {machine['gpu']}, whose records go to a folder {slug(machine['gpu'])}"
    try:
        date = datetime.fromisoformat(str(machine.get("date")).replace("Z", "+00:00"))
        ahead = date - datetime.now(UTC) > timedelta(days=1)
    except (ValueError, TypeError):
        yield f"machine.date is {machine.get('date')!r}, which is no time in UTC"
    else:
        if ahead:
            yield f"machine.date, {machine['date']}, lies ahead"


def _faults_of_numbers(record):
    """What is wrong with spreads and percentiles, wherever they stand."""
    for where, part in _dicts_in(record):
        for keys in (SPREAD, PERCENTILES):
            if set(keys) <= part.keys():
                values = [part[key] for key in keys]
                if None in values:
                    continue
                middle, low, high = values if keys is SPREAD else (values[1], values[0], values[2])
                if not all(isfinite(one) and one >= 0 for one in values):
                    yield f"{where} has a value that is no time: {values}"
                elif not low <= middle <= high:
                    yield f"{where} is out of order: {dict(zip(keys, values))}"


def _dicts_in(value, where="it"):
    if isinstance(value, dict):
        yield where, value
        for key, inner in value.items():
            yield from _dicts_in(inner, str(key) if where == "it" else f"{where}.{key}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _dicts_in(inner, f"{where}[{at}]")


def _faults_of_rung(name, record):
    missing = [key for key in PARTS if key not in record]
    if missing:
        yield f"it has no {', '.join(missing)}"
        return
    if record["rung"] not in RUNGS:
        yield f"there is no rung {record['rung']!r}; the rungs are {', '.join(RUNGS)}"
    elif name != file_name(record):
        yield f"by what it says it should be called {file_name(record)}"
    if record.get("error"):
        return
    if not _is_hash(record["tokens_sha256"], 64):
        yield "there is no checksum of its tokens"
    if not (record["time"] and record["memory"] and record["gpu"]):
        yield "its time, its memory or its busy time was not measured"
        return
    asked, made = record["workload"]["new_tokens"], record.get("tokens_generated")
    if made != asked:
        yield f"it generated {made} tokens where {asked} were asked for"
    yield from _faults_of_time(record["time"], record.get("processes") or [], asked)
    yield from _faults_of_gpu(record["memory"], record["gpu"], record["machine"])


def _faults_of_time(time, processes, tokens):
    if time["spread_over"] != len(processes):
        yield f"its spread is over {time['spread_over']} processes, and it holds {len(processes)}"
    if len(time["curve_ms"]) != tokens - 1:
        yield f"its curve has {len(time['curve_ms'])} values for {tokens} tokens"
    whole = time["total_ms"]["median"]
    parts = time["prefill_ms"]["median"] + (tokens - 1) * time["per_token_ms"]["median"]
    if abs(parts - whole) > SUM_WITHIN * whole:
        yield f"prefill and tokens take {parts:.0f} ms together, the run {whole:.0f} ms"


def _faults_of_gpu(memory, gpu, machine):
    allocated, reserved = memory["peak_allocated_mib"], memory["peak_reserved_mib"]
    if not 0 < allocated <= reserved <= machine.get("gpu_memory_mib", reserved):
        yield (
            f"of {machine.get('gpu_memory_mib')} MiB it reserved {reserved} and allocated {allocated}, "
            "which cannot be"
        )
    if not 0 <= gpu["idle_share"] <= 1:
        yield f"its idle share is {gpu['idle_share']}, not from 0 to 1"


def _faults_between(found):
    """What was taken together is of one card, and by one code."""
    groups = {}
    for name, record in found.items():
        if record.get("together"):
            groups.setdefault(record["together"], {})[name] = record["machine"]
    for machines in groups.values():
        for key, what in (("gpu_id", "cards"), ("common_code", "states of the code")):
            if len({machine.get(key) for machine in machines.values()}) > 1:
                yield f"{', '.join(machines)}: they say that they were measured in turn, on several {what}"


def _age_of(name, record):
    """What should be known of the code behind a record: nothing, where it is this one's."""
    machine = record["machine"]
    code = machine.get("code", machine.get("common_code"))
    if record.get("rung") in RUNGS and code == _code_of(record["rung"]):
        return ""
    if machine.get("common_code", code) == _code_of():
        return ""
    same = book_folder() / name
    if same.exists() and code in json.loads(same.read_text(encoding="utf-8"))["machine"].values():
        return ""
    return f"it is of other code ({code}): shown, with its date"


@cache
def _code_of(*rungs):
    """The hash of this code, behind records of ``rungs``."""
    return fingerprint(rungs)


def _is_hash(value, digits):
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value) is not None
