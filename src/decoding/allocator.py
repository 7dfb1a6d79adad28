"""A small model of PyTorch's CUDA caching allocator.

``CachingAllocator`` follows ``c10/cuda/CUDACachingAllocator.cpp`` (newer versions keep its
constants in ``c10/core/AllocatorConfig.h``) closely enough that the memory it reserves for a
recorded sequence of sizes follows the real curve, and it needs no GPU. See also "Memory management"
in https://docs.pytorch.org/docs/stable/notes/cuda.html. Left out:
CUDA graph pools, ``record_stream``, ``max_split_size_mb`` and the garbage collector, all of which
are off or unused in a plain decoding loop.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass

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
