"""The model of the caching allocator against sequences worked by hand."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoding.allocator import MIB, CachingAllocator, OutOfMemoryError, replay


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
