"""Records: what a measurement found, as a dict that is written to and read from JSON.

The layout is described in the book's page on the method; ``SCHEMA`` counts its versions.
"""

import json
import os
import re
import tempfile
from math import isnan, nan
from pathlib import Path
from statistics import median

SCHEMA = 2
ALLOCATORS = {"default": "default allocator", "expandable_segments": "expandable segments"}


class Record(dict):
    """What a measurement of one loop found: the dict of its JSON, and its numbers by name.

    A number that was not measured is nan, also in the record of a measurement that failed: sums and
    ratios with it are nan, and comparisons are False.

    Args:
        found: a record, or one of the results of a race, which has fewer numbers.
        label: of a race's entrant, whose own dict does not say it.
        race: of an entrant: what the whole race says, ``workload``, ``machine`` and ``together``.
    """

    def __init__(self, found, *, label=None, race=None):
        super().__init__(found)
        self._label, self._race = label, race or {}

    @classmethod
    def failed(cls, rung, label, variant, workload, machine, reason, together=None):
        """Return the record of a measurement that did not finish; ``reason`` is one sentence."""
        return cls(
            {
                "schema": SCHEMA,
                "together": together,
                "rung": rung,
                "label": label,
                "variant": variant,
                "workload": workload,
                "machine": machine,
                "time": None,
                "memory": None,
                "gpu": None,
                "tokens_sha256": None,
                "tokens_generated": 0,
                "notes": [],
                "error": reason,
            }
        )

    @property
    def spread(self):
        """Time per token in ms: a dict with ``median``, ``min`` and ``max``.

        A run's time per token is the mean over its tokens after the first; a process's is the median
        over its warm runs; this is over the processes. With one process only, and in a race, it is
        over the runs.
        """
        return self._part("time").get("per_token_ms") or dict.fromkeys(
            ("median", "min", "max"), nan
        )

    @property
    def ms(self):
        """Median time per token, in ms; without the prefill, after the cold run."""
        return self.spread["median"]

    @property
    def low(self):
        """Shortest time per token of a run, in ms."""
        return self.spread["min"]

    @property
    def high(self):
        """Longest time per token of a run, in ms."""
        return self.spread["max"]

    @property
    def prefill_ms(self):
        """Median time of the prefill, in ms."""
        return (self._part("time").get("prefill_ms") or {"median": nan})["median"]

    @property
    def cold_ms(self):
        """Time per token of the first, cold run, in ms."""
        return self._number("time", "cold_per_token_ms")

    @property
    def cold_s(self):
        """Time of the whole first, cold run, in seconds."""
        return self._number("time", "cold_total_ms") / 1000

    @property
    def curve(self):
        """Median time of each token after the first, in ms: a list, empty where there is none."""
        return self._part("time").get("curve_ms") or []

    @property
    def busy_ms(self):
        """GPU busy time per token, in ms."""
        return self._number("gpu", "busy_ms_per_token")

    @property
    def idle(self):
        """Share of the time per token in which the GPU has nothing to do, 0 to 1."""
        if "idle_share" in self._part("gpu"):
            return self._part("gpu")["idle_share"]
        share = 1 - self.busy_ms / self.ms
        return share if isnan(share) else max(0.0, share)

    @property
    def kernels(self):
        """Kernels per token."""
        return self._number("gpu", "kernels_per_token")

    @property
    def allocated_mib(self):
        """Peak of the allocated memory, in MiB."""
        return self._number("memory", "peak_allocated_mib")

    @property
    def reserved_mib(self):
        """Peak of the reserved memory, in MiB."""
        return self._number("memory", "peak_reserved_mib")

    @property
    def error(self):
        """Why there are no numbers: a sentence, or None."""
        return self.get("error")

    @property
    def batch(self):
        """Rows of the batch."""
        return self.workload.get("batch_size", nan)

    @property
    def workload(self):
        """What was decoded: a dict, the fields of a ``Workload``."""
        return self.get("workload") or self._race.get("workload") or {}

    @property
    def machine(self):
        """What it was measured on: a dict."""
        return self.get("machine") or self._race.get("machine") or {}

    @property
    def together(self):
        """The name of the ladder or race whose loops ran in turn; None where it is not known."""
        return self.get("together") or self._race.get("together")

    @property
    def spread_over(self):
        """Over how many processes, or rounds of a race, the range of ``spread`` goes; 0 if none."""
        return self._part("time").get("spread_over", 0)

    @property
    def tokens_ms(self):
        """Time of single tokens in ms: a dict with ``p50``, ``p95`` and ``p99``."""
        return self._part("time").get("tokens_ms") or dict.fromkeys(("p50", "p95", "p99"), nan)

    @property
    def once_s(self):
        """What happens once, in seconds: a dict.

        ``initialize``, from the start of the process to the model on its device (Python's imports
        are not part of it); ``first_run``, the cold run; ``first_run_warm_caches``, the first run of
        a process that finds the compiler's caches; ``warm_run``.
        """
        keys = ("initialize", "first_run", "first_run_warm_caches", "warm_run")
        found = self._part("time").get("once_s") or {}
        return {key: nan if found.get(key) is None else found[key] for key in keys}

    @property
    def reserved_cold_mib(self):
        """Peak of the reserved memory up to the end of the cold run, compiling and all, in MiB."""
        return self._number("memory", "peak_reserved_cold_mib")

    @property
    def allocator(self):
        """The allocator's segments as they were found: "default", "expandable_segments" or None."""
        return self.machine.get("allocator")

    @property
    def name(self):
        """What a figure calls it: its rung's label, and what sets the variant apart."""
        variant = self.get("variant") or {}
        words = [self._label or self.get("label") or self.get("rung", "")]
        allocator = variant.get("allocator")
        if allocator != variant.get("rung_allocator", allocator):
            words.append(ALLOCATORS.get(allocator, f"{allocator} allocator"))
        if variant.get("compile_mode"):
            words.append(f"{variant['compile_mode']} mode")
        if variant.get("cache_length"):
            words.append(f"cache of {variant['cache_length']}")
        if not variant.get("stop_check", True):
            words.append("no check")
        return ", ".join(words)

    def _part(self, name):
        """Return a part of the record; the result of a race has no parts, all is in one."""
        return (self[name] or {}) if name in self else {} if "schema" in self else self

    def _number(self, part, key):
        value = self._part(part).get(key)
        return nan if value is None else value


def with_results_as_records(race):
    """Return what a race found with each entrant's result as a ``Record``."""
    whole = {key: race.get(key) for key in ("workload", "machine", "together")}
    results = {
        label: Record(result, label=label, race=whole) for label, result in race["results"].items()
    }
    return race | {"results": results}


def spread(values):
    """Return the median, the minimum and the maximum of ``values`` as a dict."""
    values = list(values)
    return {
        "median": significant(median(values)),
        "min": significant(min(values)),
        "max": significant(max(values)),
    }


def percentiles(values):
    """Return the 50th, 95th and 99th percentile of ``values`` as a dict; None of no values."""
    values = sorted(values)
    if not values:
        return None
    last = len(values) - 1
    return {f"p{part}": significant(values[round(part / 100 * last)]) for part in (50, 95, 99)}


def median_curve(curves):
    """Return the median at each position over several curves, as long as the shortest of them."""
    return [significant(median(at_position)) for at_position in zip(*curves)]


def significant(value, digits=4):
    """Return ``value`` rounded to ``digits`` significant digits: a timing is good for four."""
    return float(f"{value:.{digits}g}")


def save(record, path):
    """Write ``record`` to ``path`` as JSON, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(record, indent=None, separators=(",", ":")) + "\n")


def write_whole(path, text):
    """Write ``text`` beside ``path`` and move it there, so that nobody finds half a file."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(beside, 0o644)
    os.replace(beside, path)


def load(path):
    """Return the ``Record`` at ``path``; of a race, the ``results`` are Records, too.

    A record of schema 1 does not say what it was measured with, so it may be shown and not compared.

    Raises:
        ValueError: the file is of another schema.
    """
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if found.get("schema") not in range(1, SCHEMA + 1):
        raise ValueError(
            f"{path} is of schema {found.get('schema')}, this code reads {SCHEMA}: "
            "measure it again."
        )
    return Record(with_results_as_records(found) if "results" in found else found)


def file_name(record):
    """Return the name under which a record is kept: rung, variant and workload."""
    workload, variant = record["workload"], record["variant"]
    parts = [record["rung"]]
    if variant["allocator"] != variant["rung_allocator"]:
        parts.append(variant["allocator"])
    if variant["compile_mode"]:
        parts.append(variant["compile_mode"])
    if variant["cache_length"]:
        parts.append(f"cache{variant['cache_length']}")
    if not variant["stop_check"]:
        parts.append("no-check")
    parts += [workload["model"], f"b{workload['batch_size']}", f"p{workload['prompt_tokens']}"]
    parts += [f"n{workload['new_tokens']}", workload["dtype"]]
    return slug("_".join(parts)) + ".json"


def slug(text):
    """Return ``text`` as a file name: letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
