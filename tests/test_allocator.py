"""The allocator model against sequences worked by hand, and snapshots against known answers."""

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoding.allocator import (
    MIB,
    CachingAllocator,
    OutOfMemoryError,
    draw_segments,
    events_from_snapshot,
    load_events,
    replay,
    save_events,
    segments_of,
)


def held(allocator):
    return allocator.allocated / MIB, allocator.reserved / MIB, allocator.segments


def test_small_requests_share_2_mib_segments():
    allocator = CachingAllocator()
    allocator.malloc(1)
    assert (allocator.allocated, allocator.reserved) == (512, 2 * MIB)
    allocator.malloc(513)
    assert (allocator.allocated, allocator.reserved) == (512 + 1024, 2 * MIB)
    allocator.malloc(MIB)  # the largest request of the small pool still fits beside them
    assert held(allocator)[1:] == (2, 1)
    allocator.malloc(MIB)  # now 1536 bytes too few are left
    assert held(allocator)[1:] == (4, 2)


@pytest.mark.parametrize(
    ("request_bytes", "reserved_mib", "allocated_bytes"),
    [
        (MIB + 1, 20, MIB + 512),  # leaves the small pool
        (10 * MIB - 512, 20, 10 * MIB - 512),  # the largest request that shares a segment
        (10 * MIB - 1, 10, 10 * MIB),  # rounds to 10 MiB: a segment of its own
        (10 * MIB + 1, 12, 10 * MIB + 512),  # 12 MiB segment, the rest is split off
        (11 * MIB + MIB // 2, 12, 12 * MIB),  # half a MiB left over is not split off
        (11 * MIB, 12, 12 * MIB),  # nor is exactly 1 MiB
        (11 * MIB - 512, 12, 11 * MIB - 512),  # but more than 1 MiB is
    ],
)
def test_large_requests(request_bytes, reserved_mib, allocated_bytes):
    allocator = CachingAllocator()
    allocator.malloc(request_bytes)
    assert (allocator.allocated, allocator.reserved) == (allocated_bytes, reserved_mib * MIB)


def test_middle_requests_fill_a_20_mib_segment():
    allocator = CachingAllocator()
    for mib in (3, 8, 9):
        allocator.malloc(mib * MIB)
    assert held(allocator) == (20, 20, 1)
    allocator.malloc(2 * MIB)
    assert held(allocator) == (22, 40, 2)


def test_best_fit_takes_the_smallest_block_that_fits():
    allocator = CachingAllocator()
    five = allocator.malloc(5 * MIB)
    allocator.malloc(2 * MIB)
    three = allocator.malloc(3 * MIB)
    allocator.malloc(2 * MIB)
    allocator.malloc(8 * MIB)  # the segment is full, so the two holes below stay apart
    allocator.free(five)
    allocator.free(three)
    assert allocator.malloc(3 * MIB) == three
    assert allocator.malloc(4 * MIB) == five


def test_neighbours_join_when_they_are_freed():
    allocator = CachingAllocator()
    a, b, c, d = (allocator.malloc(5 * MIB) for _ in range(4))
    allocator.free(a)
    allocator.free(c)
    assert [block["mib"] for block in allocator.layout()[0]["blocks"]] == [5, 5, 5, 5]
    allocator.free(b)
    assert [block["mib"] for block in allocator.layout()[0]["blocks"]] == [15, 5]
    allocator.free(d)
    (segment,) = allocator.layout()
    assert segment["blocks"] == [{"mib": 20, "state": "inactive"}]
    assert (segment["total_mib"], segment["pool"], segment["stream"]) == (20, "large", 0)


def test_a_free_block_serves_only_its_own_stream():
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(12 * MIB, stream=7))
    allocator.malloc(12 * MIB, stream=8)
    assert held(allocator) == (12, 24, 2)
    allocator.malloc(12 * MIB, stream=7)
    assert held(allocator) == (24, 24, 2)


def test_a_retry_gives_back_empty_segments():
    allocator = CachingAllocator(capacity_mib=40)
    for address in [allocator.malloc(20 * MIB) for _ in range(2)]:
        allocator.free(address)
    assert held(allocator) == (0, 40, 2) and allocator.retries == 0
    allocator.malloc(30 * MIB)
    assert held(allocator) == (30, 30, 1) and allocator.retries == 1


def test_out_of_memory_though_enough_is_free():
    allocator = CachingAllocator(capacity_mib=40)
    allocator.malloc(2 * MIB)
    allocator.free(allocator.malloc(15 * MIB))  # 18 MiB of the first segment are free
    allocator.malloc(20 * MIB)
    with pytest.raises(OutOfMemoryError, match=r"19\.0 MiB asked for; 22\.0 MiB of the 40 MiB"):
        allocator.malloc(19 * MIB)
    assert held(allocator) == (22, 40, 2) and allocator.retries == 1
    allocator.malloc(18 * MIB)
    assert held(allocator) == (40, 40, 2)


def test_wrong_use_is_refused():
    allocator = CachingAllocator()
    with pytest.raises(ValueError, match="at least 1"):
        allocator.malloc(0)
    address = allocator.malloc(100)
    allocator.free(address)
    with pytest.raises(ValueError, match="no block is allocated"):
        allocator.free(address)


def test_expandable_segment_grows_in_pages():
    allocator = CachingAllocator(expandable=True)
    allocator.malloc(5 * MIB)
    assert held(allocator) == (5, 20, 1)
    second = allocator.malloc(16 * MIB)  # 15 MiB are left: one more page, same segment
    assert held(allocator) == (21, 40, 1)
    allocator.malloc(50 * MIB)  # 19 left, 31 missing: two pages
    assert held(allocator) == (71, 80, 1)
    allocator.malloc(1000)  # the small pool has a segment and pages of its own
    assert allocator.reserved == 82 * MIB and allocator.segments == 2
    allocator.free(second)
    assert allocator.malloc(16 * MIB) == second


def test_expandable_splits_off_any_rest():
    allocator = CachingAllocator(expandable=True)
    allocator.malloc(20 * MIB - 512)
    assert allocator.allocated == 20 * MIB - 512
    assert [block["state"] for block in allocator.layout()[0]["blocks"]] == ["active", "inactive"]


def test_expandable_gives_back_pages_and_fills_the_hole():
    allocator = CachingAllocator(capacity_mib=60, expandable=True)
    first, middle, _last = (allocator.malloc(20 * MIB) for _ in range(3))
    allocator.free(middle)
    allocator.empty_cache()
    assert held(allocator) == (40, 40, 2)  # two mapped ranges, a hole between them
    assert allocator.malloc(20 * MIB) == middle
    assert held(allocator) == (60, 60, 1)
    allocator.free(first)
    allocator.malloc(10 * MIB)
    with pytest.raises(OutOfMemoryError):
        allocator.malloc(30 * MIB)
    allocator.free(middle)
    allocator.malloc(30 * MIB)  # 10 MiB of the first page and the second page are one block
    assert held(allocator) == (60, 60, 1) and allocator.retries == 1


def test_expandable_moves_memory_to_another_stream_on_a_retry():
    allocator = CachingAllocator(capacity_mib=40, expandable=True)
    allocator.free(allocator.malloc(40 * MIB, stream=1))
    allocator.malloc(30 * MIB, stream=2)
    assert held(allocator) == (30, 40, 1) and allocator.retries == 1


def growing_cache(tensors=24, first=6 * MIB, growth=48 * 1024, steps=512):
    """Each step copies each tensor into one that is 48 KiB longer: GPT-2's cache at batch 32."""
    events, marks, live, key = [], [], {}, 0
    for step in range(steps):
        for tensor in range(tensors):
            key += 1
            events.append((key, first + step * growth))
            if tensor in live:
                events.append((live[tensor], 0))
            live[tensor] = key
        marks.append(len(events))
    return events, marks


def test_growing_tensors_fragment_fixed_segments_only():
    events, marks = growing_cache()
    fixed = replay(events, marks)
    expandable = replay(events, marks, expandable=True)
    needed = 24 * (6 + 511 * 48 / 1024)
    assert expandable["allocated_mib"][-1] == pytest.approx(needed)
    assert needed <= fixed["allocated_mib"][-1] < needed + 24  # up to 1 MiB a block is not split
    assert fixed["reserved_mib"][-1] > 3 * needed
    # The old tensor lives until the new one is filled, and pages have 20 MiB.
    assert expandable["peak_reserved_mib"] < needed + 2 * 30 + 20
    assert len(fixed["reserved_mib"]) == 512 and fixed["out_of_memory"] is None


def test_replay_stops_where_memory_runs_out():
    events = [(1, 20 * MIB), (2, 20 * MIB), (1, 0), (3, 30 * MIB), (3, 0)]
    curves = replay(events, capacity_mib=40)
    assert curves["allocated_mib"] == [20, 40, 20]
    assert curves["reserved_mib"] == [20, 40, 40]
    assert curves["out_of_memory"].startswith("30.0 MiB asked for")
    assert replay(events, [2, 5], capacity_mib=60)["retries"] == [0, 1]
    assert replay(events, [2, 5], capacity_mib=60)["peak_reserved_mib"] == 50


def check_invariants(allocator):
    active = []
    for address, head in allocator._heads.items():
        block, expected, previous = head, address, None
        while block is not None:
            assert block.address == expected and block.size > 0 and block.size % 512 == 0
            assert block.prev is previous
            if previous is not None:  # neighbours that could be one block are one block
                assert not (previous.free and block.free)
                assert previous.mapped or block.mapped
            if block.free:
                assert (block.size, block.address, block) in allocator._free[block.pool]
            if block.allocated:
                active.append(block)
            expected += block.size
            previous, block = block, block.next
    layout = allocator.layout()
    assert sum(s["total_mib"] for s in layout) * MIB == allocator.reserved
    for segment in layout:
        assert sum(b["mib"] for b in segment["blocks"]) == segment["total_mib"]
    free = [item[2] for cached in allocator._free.values() for item in cached]
    assert all(cached == sorted(cached) for cached in allocator._free.values())
    assert sum(b.size for b in free) + sum(b.size for b in active) == allocator.reserved
    assert sum(b.size for b in active) == allocator.allocated <= allocator.reserved
    assert allocator.reserved <= allocator.capacity
    active.sort(key=lambda b: b.address)
    for a, b in itertools.pairwise(active):
        assert a.address + a.size <= b.address


sizes = st.one_of(
    st.integers(1, 4096),
    st.integers(1, 2 * MIB),
    st.integers(MIB, 40 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 11 * MIB, 20 * MIB]),
)
steps = st.one_of(
    st.tuples(st.just("malloc"), sizes, st.integers(0, 1)),
    st.tuples(st.just("free"), st.integers(0, 100), st.just(0)),
    st.tuples(st.just("empty_cache"), st.just(0), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=60), st.booleans(), st.sampled_from([None, 90, 200]))
def test_blocks_tile_their_segments_whatever_happens(steps, expandable, capacity_mib):
    allocator = CachingAllocator(capacity_mib, expandable)
    live = {}
    for action, number, stream in steps:
        if action == "malloc":
            try:
                address = allocator.malloc(number, stream)
            except OutOfMemoryError:
                assert allocator.retries > 0
            else:
                assert address not in live
                live[address] = number
        elif action == "free" and live:
            address = sorted(live)[number % len(live)]
            allocator.free(address)
            del live[address]
        elif action == "empty_cache":
            allocator.empty_cache()
        check_invariants(allocator)
        assert sum(live.values()) <= allocator.allocated
    for address in live:
        allocator.free(address)
    allocator.empty_cache()
    check_invariants(allocator)
    assert (allocator.allocated, allocator.reserved, allocator.segments) == (0, 0, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(steps, max_size=40))
def test_events_survive_being_saved(tmp_path_factory, steps):
    events, live, key = [], [], 100
    for action, number, stream in steps:
        if action == "malloc":
            key += 3
            live.append((key, stream))
            events.append((key, number, stream * 139872))
        elif action == "free" and live:
            freed, stream = live.pop(number % len(live))
            events.append((freed, 0, stream * 139872))
    path = tmp_path_factory.mktemp("events") / "events.npz"
    save_events(path, events, [1, 2])
    loaded, marks = load_events(path)
    assert marks == [1, 2]
    names = {new[0]: old[0] for old, new in zip(events, loaded, strict=True)}
    assert [(names[k], *rest) for k, *rest in loaded] == events


def test_saved_events_are_small_and_replay_alike(tmp_path):
    events, marks = growing_cache()
    save_events(tmp_path / "events.npz", events)
    loaded, no_marks = load_events(tmp_path / "events.npz")
    assert no_marks is None
    assert replay(loaded, marks)["reserved_mib"] == replay(events, marks)["reserved_mib"]
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


SVG = "{http://www.w3.org/2000/svg}svg"


def path_area(svg, style):
    """Area of the rectangles in the path whose attributes contain ``style``."""
    area = 0.0
    for path in svg.iter("{http://www.w3.org/2000/svg}path"):
        if all(path.get(key) == value for key, value in style.items()):
            for piece in path.get("d").split("M")[1:]:
                _, rest = piece.split("h", 1)
                width, rest = rest.split("v", 1)
                area += float(width) * float(rest.split("h")[0])
    return area


def test_drawn_segments_are_to_scale_and_described():
    segments = segments_of(SNAPSHOT)
    figure = ElementTree.fromstring(draw_segments(segments, title="Free < used & more", row_mib=5))
    svg = figure.find(f".//{SVG}")
    assert svg.get("role") == "img"
    alt = svg.get("aria-label")
    assert "Free < used & more. 2 segments, 22 MiB in all; 7 MiB of them (32 %)" in alt
    assert "15 MiB are free. The largest free block has 13 MiB." in alt
    swatch = 14 * 14
    used = path_area(svg, {"fill-opacity": "0.75"}) - swatch
    free = path_area(svg, {"fill-opacity": "0.3"}) - swatch
    per_mib = 480 / 5 * 22
    assert used == pytest.approx((7 + 1 / 1024) * per_mib, rel=1e-3)
    assert free == pytest.approx((15 - 1 / 1024) * per_mib, rel=1e-3)
    assert path_area(svg, {"fill": "none"}) == pytest.approx(22 * per_mib, rel=1e-3)


def test_segments_beyond_the_cap_are_counted_in_words():
    allocator = CachingAllocator()
    for _ in range(5):
        allocator.malloc(12 * MIB)
    allocator.malloc(100 * MIB)
    figure = draw_segments(allocator.layout(), title="Many", max_segments=2)
    assert (
        figure.lower().count("not drawn: 4 smaller segments") == 2
    )  # in the alt text and beside it
    svg = ElementTree.fromstring(figure).find(f".//{SVG}")
    per_mib = 480 / 16 * 22
    assert path_area(svg, {"fill": "none"}) == pytest.approx(112 * per_mib, rel=1e-3)


def test_marks_may_be_numpy_integers():
    events, marks = events_from_snapshot(SNAPSHOT, marks=np.array([4]))
    assert replay(events, marks)["allocated_mib"] == [pytest.approx(3 + 1 / 1024)]
