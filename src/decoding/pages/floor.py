"""The floor of a decode step: what has to be read from memory, over what the memory delivers.

Every step reads all weights, and the keys and values of every position before it. No loop is faster
than that, whoever launches it. ``record`` measures this GPU's bandwidth for it, once:

    python -c "from decoding.pages import floor; floor.record()"
"""

from functools import cache
from math import nan
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from decoding.drawing.words import known
from decoding.measuring import Record, Workload
from decoding.measuring.bandwidth import bandwidth
from decoding.measuring.fingerprint import fingerprint
from decoding.measuring.machine import machine
from decoding.measuring.records import SCHEMA, load, save

from .machines import folder_of
from .results import shape_of, token_bytes

FILE = "bandwidth.json"
KEY = "floor_ms"  # under which a record carries its floor


def weight_bytes(workload):
    """Return the bytes of the weights that a decode step of ``workload`` reads, each once.

    Of a table that only looks tokens or positions up, a step reads one row for each row of the batch.
    """
    numbers, row = _weights(workload.model)
    return (numbers + workload.batch_size * row) * getattr(torch, workload.dtype).itemsize


@cache
def _weights(name):
    """How many numbers a step reads whatever the batch is, and how many for each row of it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape_of(Workload(name)))
    numbers = sum(weight.numel() for weight in model.parameters())
    output = model.get_output_embeddings().weight
    tables = [part.weight for part in model.modules() if isinstance(part, nn.Embedding)]
    looked_up = [table for table in tables if table is not output]
    return (
        numbers - sum(table.numel() for table in looked_up),
        sum(table.shape[1] for table in looked_up),
    )


def mean_positions(workload):
    """Return how many positions the cache holds in a decode step, the mean over the steps of a run.

    The steps after the prefill read the prompt, then ever one position more.
    """
    return workload.prompt_tokens + max(workload.new_tokens - 2, 0) / 2


def cache_bytes(workload):
    """Return the bytes of the keys and values that a decode step reads, at ``mean_positions``."""
    return workload.batch_size * mean_positions(workload) * token_bytes(workload)


def floor_ms(workload, gb_per_s):
    """Return how long the GPU needs at least to read what a decode step reads, in ms.

    Args:
        workload: a ``Workload`` with a dtype.
        gb_per_s: the memory's bandwidth, in 10^9 bytes a second.
    """
    return (weight_bytes(workload) + cache_bytes(workload)) / gb_per_s / 1e6


def measured(folder, machine):
    """Return the record of the bandwidth of a machine's GPU model, or None where there is none.

    Args:
        folder: of the machine's records.
        machine: as in a record. The card may be another one of the same model.
    """
    path = Path(folder) / FILE
    if not path.exists() or not machine.get("gpu"):
        return None
    found = load(path)
    return found if found["machine"].get("gpu") == machine["gpu"] else None


def workload_of(given):
    """Return the ``Workload`` that a record has as a dict, as far as the floor of its step depends on it."""
    names = ("model", "batch_size", "prompt_tokens", "new_tokens", "dtype")
    return Workload(**{name: given[name] for name in names})


def floor_of(record, folder):
    """Return the floor of a record's step in ms; nan where the bandwidth was not measured."""
    found = measured(folder, record.machine)
    if found is None or record.error:
        return nan
    return floor_ms(workload_of(record.workload), found["found"]["gb_per_s"])


def put(record, folder):
    """Let a record, or every entrant of a race, carry its floor, where there is one.

    It is for the step card, which finds it under ``KEY``, and is not kept in the record's file.
    """
    for each in record["results"].values() if "results" in record else [record]:
        if isinstance(each, Record) and known(each.ms):
            floor = floor_of(each, folder)
            each |= {KEY: floor} if known(floor) else {}


def record(folder=None):
    """Measure the bandwidth of this machine's memory and keep it with the machine's records."""
    found = {"schema": SCHEMA, "found": bandwidth()}
    found["machine"] = machine() | {"code": fingerprint(())}
    path = Path(folder or folder_of(found["machine"])) / FILE
    save(found, path)
    print(f"{found['found']['gb_per_s']:,} GB/s, kept in {path}")
    return found
