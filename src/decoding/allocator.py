"""A small model of PyTorch's CUDA caching allocator, and pictures of what it holds.

``CachingAllocator`` follows ``c10/cuda/CUDACachingAllocator.cpp`` (newer versions keep its
constants in ``c10/core/AllocatorConfig.h``) closely enough that the memory it
reserves for a recorded sequence of sizes follows the real curve, and it needs no GPU. See also
"Memory management" in https://docs.pytorch.org/docs/stable/notes/cuda.html. Left out: CUDA
graph pools, ``record_stream``, ``max_split_size_mb`` and the garbage collector, all of which are
off or unused in a plain decoding loop.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decoding.timeline import bars, counted, html_figure, text

MIB = 2**20
MIN_BLOCK = 512  # kMinBlockSize: every request is rounded up to a multiple of it
SMALL_SIZE = 1 * MIB  # kSmallSize: the largest request that the small pool serves
SMALL_BUFFER = 2 * MIB  # kSmallBuffer: a segment (or page) of the small pool
LARGE_BUFFER = 20 * MIB  # kLargeBuffer: a segment for requests below MIN_LARGE; a large page
MIN_LARGE = 10 * MIB  # kMinLargeAlloc: from here on a request gets a segment of its own
ROUND_LARGE = 2 * MIB  # kRoundLarge: ... rounded up to a multiple of it
ADDRESS_SPACE = LARGE_BUFFER << 25  # what a segment may expand into; only mapped pages cost memory


class OutOfMemoryError(RuntimeError):
    """The capacity is used up, and giving back the cached segments did not help."""


@dataclass(eq=False)
class Block:
    """A piece of a segment, ``size`` bytes from ``address``, linked to its neighbours."""

    address: int
    size: int
    pool: tuple[str, int]  # ("small" | "large", stream)
    allocated: bool = False
    mapped: bool = True  # False: addresses of an expandable segment without memory behind them
    prev: Block | None = None
    next: Block | None = None

    @property
    def free(self) -> bool:
        return self.mapped and not self.allocated


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def segment_size(size: int) -> int:
    """Bytes asked from CUDA when no cached block fits ``size`` (``get_allocation_size``)."""
    if size <= SMALL_SIZE:
        return SMALL_BUFFER
    return LARGE_BUFFER if size < MIN_LARGE else round_up(size, ROUND_LARGE)


class CachingAllocator:
    """Hands out blocks of cached segments and asks CUDA for a segment only when none fits.

    ``capacity_mib``: the GPU's memory in MiB; None is unlimited.
    ``expandable``: behave as under ``expandable_segments:True``.

    All sizes are in bytes: ``allocated`` (in blocks handed out; ``torch.cuda.memory_allocated``)
    and ``reserved`` (in segments; ``torch.cuda.memory_reserved``). ``retries`` counts how often
    the cache had to be given back because memory ran out (``num_alloc_retries``).
    """

    def __init__(self, capacity_mib: float | None = None, expandable: bool = False):
        self.capacity = float("inf") if capacity_mib is None else capacity_mib * MIB
        self.expandable = expandable
        self.allocated = self.reserved = self.retries = 0
        self._heads: dict[int, Block] = {}  # segment address -> its first block
        self._live: dict[int, Block] = {}  # address handed out -> its block
        # Free blocks of each pool, smallest first and then lowest address: best fit is a search.
        self._free: dict[tuple[str, int], list[tuple[int, int, Block]]] = defaultdict(list)
        self._next_address = ADDRESS_SPACE

    def malloc(self, n_bytes: int, stream: int = 0) -> int:
        """Return the address of ``n_bytes`` (at least 1) for use on ``stream``.

        Raises OutOfMemoryError when they do not fit into the capacity.
        """
        if n_bytes < 1:
            raise ValueError(f"malloc of {n_bytes} bytes; ask for at least 1.")
        size = round_up(n_bytes, MIN_BLOCK)
        pool = ("small" if size <= SMALL_SIZE else "large", stream)
        block = self._best_fit(pool, size) or self._grow(pool, size)
        if block is None:
            self.retries += 1
            self.empty_cache()
            block = self._grow(pool, size)
        if block is None:
            raise OutOfMemoryError(
                f"{size / MIB:.1f} MiB asked for; {self.allocated / MIB:.1f} MiB of the "
                f"{self.capacity / MIB:.0f} MiB are allocated and "
                f"{(self.reserved - self.allocated) / MIB:.1f} MiB more are reserved but free."
            )
        block.allocated = True
        rest = block.size - size
        # In the large pool up to 1 MiB may stay unused at the end of a block (should_split).
        if rest >= MIN_BLOCK if pool[0] == "small" or self.expandable else rest > SMALL_SIZE:
            self._add_free(self._split(block, size))
        self.allocated += block.size
        self._live[block.address] = block
        return block.address

    def free(self, address: int) -> None:
        """Put the block at ``address`` back into the cache, merged with its free neighbours."""
        if address not in self._live:
            raise ValueError(f"no block is allocated at address {address}.")
        block = self._live.pop(address)
        block.allocated = False
        self.allocated -= block.size
        self._add_free(block)

    def empty_cache(self) -> None:
        """Give back to CUDA what holds no allocated block (``release_cached_blocks``)."""
        for pool in list(self._free):
            for _, _, block in list(self._free[pool]):
                if self.expandable:
                    self._unmap(block)
                elif block.prev is None and block.next is None:
                    self._remove_free(block)
                    self.reserved -= block.size
                    del self._heads[block.address]

    @property
    def segments(self) -> int:
        """Number of segments; an expandable one counts once per contiguous mapped range."""
        return len(self.layout())

    def layout(self) -> list[dict]:
        """The segments by address, in the form that ``segments_of`` and ``draw_segments`` use."""
        layout = []
        for address in sorted(self._heads):
            block, blocks = self._heads[address], []
            while block is not None:
                if block.mapped:
                    blocks.append(block)
                if blocks and (not block.mapped or block.next is None):
                    layout.append(_segment(blocks[0].address, blocks))
                    blocks = []
                block = block.next
        return layout

    def _best_fit(self, pool: tuple[str, int], size: int) -> Block | None:
        cached = self._free[pool]
        i = bisect_left(cached, (size,))
        if i == len(cached):
            return None
        # The free end of an expandable segment counts with all the room it can grow into, so it
        # is taken last. (get_free_block)
        while i + 1 < len(cached) and _room(cached[i + 1][2]) < _room(cached[i][2]):
            i += 1
        return cached.pop(i)[2]

    def _grow(self, pool: tuple[str, int], size: int) -> Block | None:
        """A free block of at least ``size`` in new memory, or None when the capacity is used up."""
        if self.expandable:
            return self._expand(pool, size)
        size = segment_size(size)
        if self.reserved + size > self.capacity:
            return None
        self.reserved += size
        return self._new_segment(pool, size)

    def _new_segment(self, pool: tuple[str, int], size: int, mapped: bool = True) -> Block:
        head = Block(self._next_address, size, pool, mapped=mapped)
        self._next_address += size
        self._heads[head.address] = head
        return head

    def _expand(self, pool: tuple[str, int], size: int) -> Block | None:
        """Map pages at the lowest address with room (``try_allocate_expandable_block``)."""
        block = self._lowest_with_room(pool, size)
        if block is None:
            block = self._new_segment(pool, ADDRESS_SPACE, mapped=False)
        while not block.mapped or block.size < size:
            hole = block.next if block.mapped else block
            missing = size - block.size if block.mapped else size
            pages = min(round_up(missing, _page(pool)), hole.size)
            if self.reserved + pages > self.capacity:
                return None
            if pages < hole.size:
                self._split(hole, pages)
            self.reserved += pages
            hole.mapped = True
            block = self._add_free(hole)
        self._remove_free(block)
        return block

    def _lowest_with_room(self, pool: tuple[str, int], size: int) -> Block | None:
        for address in sorted(self._heads):
            block = self._heads[address]
            while block is not None and block.pool == pool:
                if not block.mapped:
                    first = block.prev if block.prev and block.prev.free else block
                    room, end = 0, first
                    while room < size and end is not None and not end.allocated:
                        room, end = room + end.size, end.next
                    if room >= size:
                        return first
                block = block.next
        return None

    def _unmap(self, block: Block) -> None:
        """Give back the pages that lie wholly inside a free block (``unmap_block``)."""
        begin = round_up(block.address, _page(block.pool))
        end = (block.address + block.size) // _page(block.pool) * _page(block.pool)
        if begin >= end:
            return
        self._remove_free(block)
        if end < block.address + block.size:
            insort(self._free[block.pool], _key(self._split(block, end - block.address)))
        if begin > block.address:
            rest = self._split(block, begin - block.address)
            insort(self._free[block.pool], _key(block))
            block = rest
        self.reserved -= block.size
        block.mapped = False
        self._merge(block)

    def _split(self, block: Block, size: int) -> Block:
        """Cut ``block`` down to ``size``; return the rest, its new right neighbour."""
        rest = Block(
            block.address + size,
            block.size - size,
            block.pool,
            mapped=block.mapped,
            prev=block,
            next=block.next,
        )
        if block.next:
            block.next.prev = rest
        block.next, block.size = rest, size
        return rest

    def _add_free(self, block: Block) -> Block:
        block = self._merge(block)
        insort(self._free[block.pool], _key(block))
        return block

    def _remove_free(self, block: Block) -> None:
        cached = self._free[block.pool]
        del cached[bisect_left(cached, _key(block)[:2])]

    def _merge(self, block: Block) -> Block:
        """Join ``block`` with the neighbours that are as unused as it is; return the whole."""
        for left, right in ((block, block.next), (block.prev, block)):
            if left is None or right is None:
                continue
            other = right if left is block else left
            if other.allocated or other.mapped != block.mapped:
                continue
            if other.mapped:
                self._remove_free(other)
            left.size += right.size
            left.next = right.next
            if right.next:
                right.next.prev = left
            block = left
        return block


def _page(pool: tuple[str, int]) -> int:
    return SMALL_BUFFER if pool[0] == "small" else LARGE_BUFFER


def _key(block: Block) -> tuple[int, int, Block]:
    return block.size, block.address, block


def _room(block: Block) -> int:
    return block.size + (block.next.size if block.next and not block.next.mapped else 0)


def _segment(address: int, blocks: list[Block]) -> dict:
    pool, stream = blocks[0].pool
    return {
        "address": address,
        "total_mib": sum(block.size for block in blocks) / MIB,
        "pool": pool,
        "stream": stream,
        "blocks": [
            {"mib": block.size / MIB, "state": "active" if block.allocated else "inactive"}
            for block in blocks
        ],
    }


def replay(events, marks=None, **allocator_options) -> dict:
    """Run a recorded sequence of requests through a ``CachingAllocator``.

    ``events``: ``(id, n_bytes)`` or ``(id, n_bytes, stream)``; ``n_bytes > 0`` allocates block
    ``id`` and ``n_bytes == 0`` frees it. ``marks``: numbers of events, ascending; the curves have
    one value for each (the state after that many events; for example after each token). Without
    marks there is one value per event. ``allocator_options``: those of ``CachingAllocator``.

    Returns the curves ``allocated_mib``, ``reserved_mib`` and ``retries``, the peaks
    ``peak_allocated_mib`` and ``peak_reserved_mib``, the final ``allocator``, and
    ``out_of_memory``: None, or one sentence, and then the curves end there.
    """
    allocator = CachingAllocator(**allocator_options)
    marks = range(1, len(events) + 1) if marks is None else marks
    curves = {"allocated_mib": [], "reserved_mib": [], "retries": []}
    peak_allocated = peak_reserved = done = 0
    address, out_of_memory = {}, None
    try:
        for mark in marks:
            for key, n_bytes, *stream in events[done:mark]:
                if n_bytes:
                    address[key] = allocator.malloc(n_bytes, *stream)
                    peak_allocated = max(peak_allocated, allocator.allocated)
                    peak_reserved = max(peak_reserved, allocator.reserved)
                else:
                    allocator.free(address.pop(key))
            done = mark
            curves["allocated_mib"].append(allocator.allocated / MIB)
            curves["reserved_mib"].append(allocator.reserved / MIB)
            curves["retries"].append(allocator.retries)
    except OutOfMemoryError as error:
        out_of_memory = str(error)
    return curves | {
        "peak_allocated_mib": peak_allocated / MIB,
        "peak_reserved_mib": peak_reserved / MIB,
        "allocator": allocator,
        "out_of_memory": out_of_memory,
    }


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


def draw_segments(
    segments: list[dict],
    *,
    title: str,
    row_mib: float | None = None,
    max_segments: int = 200,
    color: str = "currentColor",
    alt: str | None = None,
    width: int = 480,
) -> str:
    """Draw segments and their blocks to scale, as an HTML figure with inline SVG.

    The segments follow each other like words in a line, largest first, and continue in the next
    row when a row of ``row_mib`` MiB is full, so that equal areas are equal amounts of memory;
    pass the same ``row_mib`` to compare two pictures. At most ``max_segments`` are drawn, and the
    picture says how many are not. ``color``: any CSS colour for the allocated blocks.
    """
    total = sum(segment["total_mib"] for segment in segments)
    blocks = [block for segment in segments for block in segment["blocks"]]
    active = sum(block["mib"] for block in blocks if block["state"] == "active")
    largest_free = max((b["mib"] for b in blocks if b["state"] == "inactive"), default=0.0)
    row_mib = row_mib or _nice_row(total)
    drawn = sorted(segments, key=lambda segment: (-segment["total_mib"], segment["address"]))
    drawn = drawn[:max_segments]
    left_out = len(segments) - len(drawn)

    row_height, row_step, x_per_mib = 22, 28, width / row_mib
    pieces = {"active": [], "inactive": [], "outline": []}

    def place(kind: str, start: float, mib: float) -> None:
        """Add a bar from ``start`` MiB on, cut where a row ends."""
        end = start + mib
        while end - start > row_mib * 1e-9:
            row = int(start / row_mib + 1e-9)
            stop = min(end, (row + 1) * row_mib)
            x = (start - row * row_mib) * x_per_mib
            pieces[kind].append((x, 4 + row * row_step, (stop - start) * x_per_mib, row_height))
            start = stop

    position = 0.0
    for segment in drawn:
        place("outline", position, segment["total_mib"])
        for block in segment["blocks"]:
            place(block["state"], position, block["mib"])
            position += block["mib"]
    rows = max(1, -(-position // row_mib))

    used = f'fill="{color}" fill-opacity="0.75"'
    unused = 'fill="var(--ttb-idle, #CC3311)" fill-opacity="0.3"'
    legend = [
        (used, f"allocated, {active:,.0f} MiB"),
        (unused, f"reserved but free, {total - active:,.0f} MiB"),
        ("", f"one outline = one segment; one row = {row_mib:,g} MiB"),
    ]
    if left_out:
        legend.append(("", f"not drawn: {counted(left_out, 'smaller segment')}"))
    body = [
        bars(pieces["inactive"], unused),
        bars(pieces["active"], used),
        bars(pieces["outline"], 'fill="none" stroke="currentColor" stroke-width="1"'),
    ]
    y = 4 + rows * row_step + 16
    for style, words in legend:
        if style:
            body.append(bars([(0, y - 12, 14, 14)], style))
        body.append(text(20 if style else 0, y, words, muted=not style))
        y += 22
    share = 100 * active / total if total else 0
    alt = alt or (
        f"{title}. {counted(len(segments), 'segment')}, {total:,.0f} MiB in all; "
        f"{active:,.0f} MiB of them ({share:.0f} %) are allocated and "
        f"{total - active:,.0f} MiB are free. The largest free block has {largest_free:,.0f} MiB."
        + (f" Not drawn: {counted(left_out, 'smaller segment')}." if left_out else "")
    )
    # Half as wide as a timeline: it fits a phone without scrolling, at a size that can be read.
    return html_figure(title, alt, width, y - 10, "".join(body), min_width=300)


def _nice_row(total_mib: float) -> float:
    """MiB per row, a power of two, so that ``total_mib`` fills 8 to 16 rows."""
    row = 1.0
    while total_mib / row > 16:
        row *= 2
    return row
