"""Snapshots of PyTorch's caching allocator: what it was asked for, and what it holds.

The layout of a snapshot: "Understanding CUDA Memory Usage",
https://docs.pytorch.org/docs/stable/torch_cuda_memory.html.
"""

from pathlib import Path

import numpy as np

from .machine import MIB


def events_from_snapshot(snapshot: dict, marks=None, times_us=None, device: int = 0):
    """Turn the history of ``torch.cuda.memory._snapshot()`` into ``(events, marks)`` for replay.

    Record with ``torch.cuda.memory._record_memory_history(context=None)``. Token boundaries are
    given as ``marks``, the number of trace entries seen at each, or as ``times_us``, the wall
    clock at each in µs (``time.time_ns() / 1000``, which is the clock of an entry's ``time_us``).

    PyTorch notes the *requested* size of an allocation (a 2.0 snapshot holds the rounded one,
    which the model rounds to itself). A block counts as free from ``free_completed`` on, when the
    allocator may hand it out again. Blocks that were alive before the recording began (known
    because they are freed in it, or still active in ``segments``) come first, in the order of
    their addresses; the requests that led to them are unknown. Entries about segments are skipped:
    when to ask CUDA for memory is for the model to decide.
    """
    if marks is not None and times_us is not None:
        raise ValueError("token boundaries given twice: pass marks or times_us, not both.")
    trace = snapshot["device_traces"][device]
    events, before, ids, seen_after = [], {}, {}, [0]
    serial = 0
    for entry in trace:
        where = entry.get("addr")
        if entry["action"] == "alloc":
            serial += 1
            ids[where] = serial
            events.append((serial, entry["size"], entry.get("stream", 0)))
        elif entry["action"] == "free_completed":
            if where not in ids:
                serial += 1
                ids[where] = serial
                before[where] = (serial, entry["size"], entry.get("stream", 0))
            events.append((ids.pop(where), 0, entry.get("stream", 0)))
        seen_after.append(len(events))
    for segment in snapshot.get("segments", []):
        address = segment["address"]
        for block in segment["blocks"]:
            known = address in ids or segment.get("device", 0) != device
            if block["state"] != "inactive" and not known:
                serial += 1
                size = block.get("requested_size") or block["size"]
                before[address] = (serial, size, segment.get("stream", 0))
            address += block["size"]
    first = [before[where] for where in sorted(before)]
    if times_us is not None:
        clock = np.array([entry["time_us"] for entry in trace])
        marks = np.searchsorted(clock, times_us, side="right")
    if marks is not None:
        marks = [len(first) + seen_after[int(mark)] for mark in marks]
    return first + events, marks


def save_events(path: str | Path, events, marks=None) -> None:
    """Write events and marks to ``path`` (.npz), small: a decoding loop repeats itself.

    An allocation is stored as its size, a free as minus the number of allocations since the one
    it ends, so that every token's frees look alike and compress well.
    """
    serial, code, streams = {}, [], []
    allocations = 0
    for key, n_bytes, *stream in events:
        if n_bytes:
            serial[key] = allocations
            allocations += 1
            code.append(n_bytes)
        else:
            code.append(serial.pop(key) - allocations)
        streams.append(stream[0] if stream else 0)
    names, stream_index = np.unique(np.array(streams, dtype=np.int64), return_inverse=True)
    np.savez_compressed(
        path,
        code=np.array(code, dtype=np.int64),
        streams=names,
        stream=stream_index.astype(np.uint8),
        marks=np.array([] if marks is None else marks, dtype=np.int64),
    )


def load_events(path: str | Path):
    """Read what ``save_events`` wrote: ``(events, marks)``, marks None when none were saved.

    Ids are renumbered in the order of allocation, from 0.
    """
    with np.load(path) as stored:
        code = stored["code"].tolist()
        streams = stored["streams"][stored["stream"]].tolist()
        marks = stored["marks"].tolist() or None
    events, allocations = [], 0
    for value, stream in zip(code, streams, strict=True):
        if value > 0:
            events.append((allocations, value, stream))
            allocations += 1
        else:
            events.append((allocations + value, 0, stream))
    return events, marks


def segments_of(snapshot: dict, device: int = 0) -> list[dict]:
    """The segments of ``torch.cuda.memory._snapshot()`` by address, small enough for a record.

    Each is ``{address, total_mib, pool, stream, blocks: [{mib, state}]}``; a block is "active"
    while a tensor uses it (or another stream still may) and "inactive" when it is free.
    """
    return [
        {
            "address": segment["address"],
            "total_mib": segment["total_size"] / MIB,
            "pool": segment.get("segment_type", "large"),
            "stream": segment.get("stream", 0),
            "blocks": [
                {
                    "mib": block["size"] / MIB,
                    "state": "inactive" if block["state"] == "inactive" else "active",
                }
                for block in segment["blocks"]
            ],
        }
        for segment in sorted(snapshot["segments"], key=lambda segment: segment["address"])
        if segment.get("device", 0) == device
    ]


def trimmed(snapshot: dict) -> dict:
    """The part of device 0 of ``torch.cuda.memory._snapshot()`` that this module reads."""
    of_entry = ("action", "addr", "size", "stream", "time_us")
    of_segment = ("address", "total_size", "segment_type", "stream")
    of_block = ("address", "size", "state")
    segments = [
        {
            **{key: segment[key] for key in of_segment},
            "is_expandable": segment.get("is_expandable", False),
            "blocks": [
                {key: block[key] for key in of_block if key in block} for block in segment["blocks"]
            ],
        }
        for segment in snapshot["segments"]
    ]
    events = [
        {key: entry[key] for key in of_entry if key in entry}
        for entry in snapshot["device_traces"][0]
    ]
    return {"segments": segments, "device_traces": [events]}
