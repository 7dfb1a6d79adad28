"""Records: what a measurement found, as a plain dict that is written to and read from JSON.

The layout is described in the book's page on the method; ``SCHEMA`` counts its versions.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from statistics import median

SCHEMA = 1


def spread(values):
    """Return the median, the minimum and the maximum of ``values`` as a dict."""
    values = list(values)
    return {
        "median": significant(median(values)),
        "min": significant(min(values)),
        "max": significant(max(values)),
    }


def median_curve(curves):
    """Return the median at each position over several curves, as long as the shortest of them."""
    return [significant(median(at_position)) for at_position in zip(*curves)]


def significant(value, digits=4):
    """Return ``value`` rounded to ``digits`` significant digits, as many as a timing is good for."""
    return float(f"{value:.{digits}g}")


def failed(rung, label, variant, workload, machine, reason):
    """Return the record of a measurement that did not finish; ``reason`` is one sentence."""
    return {
        "schema": SCHEMA,
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
    """Return the record at ``path``.

    Raises:
        ValueError: the file is of another schema.
    """
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    if record.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} is of schema {record.get('schema')}, this code reads {SCHEMA}: measure it again."
        )
    return record


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
