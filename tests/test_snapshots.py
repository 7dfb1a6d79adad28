"""Snapshots of the allocator against known answers, and events that survive being saved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoding.allocator import MIB, replay
from decoding.measuring.snapshots import (
    events_from_snapshot,
    load_events,
    save_events,
    segments_of,
    trimmed,
)

steps = st.tuples(st.booleans(), st.integers(1, 40 * MIB), st.integers(0, 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(steps, max_size=40))
def test_events_survive_being_saved(tmp_path_factory, steps):
    events, live, key = [], [], 100
    for allocates, number, stream in steps:
        if allocates:
            key += 3
            live.append((key, stream))
            events.append((key, number, stream * 139872))
        elif live:
            freed, stream = live.pop(number % len(live))
            events.append((freed, 0, stream * 139872))
    path = tmp_path_factory.mktemp("events") / "events.npz"
    save_events(path, events, [1, 2])
    loaded, marks = load_events(path)
    assert marks == [1, 2]
    names = {new[0]: old[0] for old, new in zip(events, loaded, strict=True)}
    assert [(names[k], *rest) for k, *rest in loaded] == events


def test_saved_events_are_small_and_replay_alike(tmp_path):
    """24 tensors, each replaced in every step by one that is 48 KiB longer."""
    events = [(tensor, 6 * MIB) for tensor in range(24)]
    for key in range(24, 24 * 512):
        events += [(key, 6 * MIB + key // 24 * 48 * 1024), (key - 24, 0)]
    save_events(tmp_path / "events.npz", events)
    loaded, no_marks = load_events(tmp_path / "events.npz")
    assert no_marks is None
    assert replay(loaded)["reserved_mib"] == replay(events)["reserved_mib"]
    assert (tmp_path / "events.npz").stat().st_size < 2 * len(events)


def entry(action, addr, size, time_us, stream=0):
    return {"action": action, "addr": addr, "size": size, "stream": stream, "time_us": time_us}


SNAPSHOT = {
    "segments": [
        {
            "device": 0,
            "address": 0x90000000,
            "total_size": 2 * MIB,
            "stream": 0,
            "segment_type": "small",
            "blocks": [
                {"size": 1024, "requested_size": 1000, "state": "active_allocated"},
                {"size": 2 * MIB - 1024, "requested_size": 0, "state": "inactive"},
            ],
        },
        {
            "device": 0,
            "address": 0x10000000,
            "total_size": 20 * MIB,
            "stream": 0,
            "segment_type": "large",
            "blocks": [
                {"size": 3 * MIB, "requested_size": 3 * MIB - 7, "state": "active_allocated"},
                {"size": 4 * MIB, "requested_size": 4 * MIB, "state": "active_awaiting_free"},
                {"size": 13 * MIB, "requested_size": 0, "state": "inactive"},
            ],
        },
        {
            "device": 1,
            "address": 0x20000000,
            "total_size": 20 * MIB,
            "stream": 0,
            "segment_type": "large",
            "blocks": [{"size": 20 * MIB, "requested_size": 1, "state": "active_allocated"}],
        },
    ],
    "device_traces": [
        [
            # 0x90000000 (1000 bytes) and 0x10700000 (5 MiB) are older than the recording
            entry("segment_alloc", 0x10000000, 20 * MIB, 100),
            entry("alloc", 0x10000000, 3 * MIB - 7, 101),
            entry("free_requested", 0x10700000, 5 * MIB, 110),
            entry("free_completed", 0x10700000, 5 * MIB, 111),
            entry("alloc", 0x10700000, 2 * MIB, 120),  # the same address again
            entry("free_requested", 0x10700000, 2 * MIB, 130),
            entry("snapshot", 0, 0, 131),
            entry("free_completed", 0x10700000, 2 * MIB, 132),
            entry("alloc", 0x10300000, 4 * MIB, 140, stream=9),
            entry("free_requested", 0x10300000, 4 * MIB, 141, stream=9),  # and never completed
            {"action": "oom", "size": 99 * MIB, "device_free": 5, "stream": 0, "time_us": 150},
        ],
        [],
    ],
}


def test_events_from_snapshot():
    events, marks = events_from_snapshot(SNAPSHOT, marks=[0, 4, 11])
    ids = {}
    named = [(ids.setdefault(key, len(ids)), *rest) for key, *rest in events]
    assert named == [
        (0, 5 * MIB, 0),  # alive before the recording, by address
        (1, 1000, 0),
        (2, 3 * MIB - 7, 0),
        (0, 0, 0),
        (3, 2 * MIB, 0),
        (3, 0, 0),
        (4, 4 * MIB, 9),
    ]
    assert marks == [2, 4, 7]
    assert events_from_snapshot(SNAPSHOT, times_us=[99, 111.5, 200])[1] == [2, 4, 7]
    assert events_from_snapshot(SNAPSHOT)[1] is None
    assert replay(events, marks)["reserved_mib"] == [22, 22, 42]
    with pytest.raises(ValueError, match="not both"):
        events_from_snapshot(SNAPSHOT, marks=[1], times_us=[1.0])


def test_segments_of_snapshot():
    large, small = segments_of(SNAPSHOT)
    assert (large["address"], large["total_mib"], large["pool"]) == (0x10000000, 20, "large")
    assert large["blocks"] == [
        {"mib": 3, "state": "active"},
        {"mib": 4, "state": "active"},
        {"mib": 13, "state": "inactive"},
    ]
    assert small["total_mib"] == 2 and small["blocks"][0]["mib"] == 1 / 1024
    assert [s["address"] for s in segments_of(SNAPSHOT, device=1)] == [0x20000000]


def test_marks_may_be_numpy_integers():
    events, marks = events_from_snapshot(SNAPSHOT, marks=np.array([4]))
    assert replay(events, marks)["allocated_mib"] == [pytest.approx(3 + 1 / 1024)]


def test_a_trimmed_snapshot_says_the_same():
    device_0 = [segment for segment in SNAPSHOT["segments"] if segment["device"] == 0]
    busy = [{**segment, "blocks": [*segment["blocks"]]} for segment in device_0]
    small = trimmed(SNAPSHOT | {"segments": busy})
    assert segments_of(small) == segments_of(SNAPSHOT)
    assert events_from_snapshot(small)[0][2:] == events_from_snapshot(SNAPSHOT)[0][2:]
    assert "requested_size" not in str(small) and not small["segments"][0]["is_expandable"]
