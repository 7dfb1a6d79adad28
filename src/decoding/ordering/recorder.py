"""What writes down operations: memories, lanes, and what each operation must wait for."""

import inspect
import linecache
import sys
from contextlib import contextmanager

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import Cache

from .order import GRAPH, HOST, Memory, Operation, Order, Place, Use

CALLER = Place("the caller", 0, "the caller")
MERGED = ("work", "host")  # operations of one line and kind are one


class Recorder:
    """Writes down what a loop asks for, in the order in which it asks.

    Args:
        file: where the loop's source is; its lines are the places of operations.
    """

    def __init__(self, file):
        self.file = file
        self.operations, self.last = [], {}
        self.streams = 0
        self.current = None  # a stand-in stream
        self.call, self.forwards = 0, 0
        self.place = CALLER  # where the host is, when it is not in the loop
        self.inside = None  # what a graph uses, and what is its own, while it is captured
        self.next_is_on_host = False
        self.overwritten = []  # (who reads it, the replay that made it, the one that overwrote it, memory)
        self._made_by, self._newest = WeakIdKeyDictionary(), {}
        self._memories, self._weak, self._freed = {}, {}, []
        self._closing = {}  # memory -> lanes that have used it, or had it recorded for them
        self.spared = {}

    @property
    def order(self):
        """What was written down."""
        return Order(self.operations, self.overwritten)

    def ran(self, lane, kind, reads=(), writes=(), *, before=(), allocates=False):
        """Write down an operation and return it; several of one line become one.

        Args:
            lane: ``HOST``, or a stream's name.
            kind: as in ``Operation``.
            reads, writes: the ``Use`` s of memory.
            before: the operations that it waits for beside the last of its lane and of the host.
            allocates: whether it asks the allocator for memory.
        """
        self._let_go()
        reads, writes = list(reads), list(writes)
        place, step = self._where()
        if lane != HOST and allocates:
            writes = [*writes, *self._given_anew(lane)]
        last = self.operations[-1] if self.operations else None
        same = (
            last and kind in MERGED and (last.lane, last.kind, last.call) == (lane, kind, self.call)
        )
        if same and not before and (last.place, last.step) == (place, step):
            one = last
        else:
            one = Operation(len(self.operations), lane, kind, place, self.call, step)
            known = {self.last.get(lane), self.last.get(HOST), *before} - {None}
            one.before = sorted(known, key=lambda other: other.number)
            self.operations.append(one)
            self.last[lane] = one
        one.reads += [use for use in reads if use not in one.reads]
        one.writes += [use for use in writes if use not in one.writes]
        if lane != HOST:
            for use in (*reads, *writes):
                self._closing.setdefault(use.memory, set()).add(lane)
        return one

    def memory_of(self, tensor, *, on_host=False):
        """Return the ``Memory`` behind a tensor; a new one is the host's, or belongs to the current stream."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._memories:
            home = HOST if on_host or self.next_is_on_host else self.current.name
            self._memories[key] = Memory(home=home)
            self._weak[key] = StorageWeakRef(storage)
        return self._memories[key]

    def use_of(self, tensor):
        """Return the ``Use`` of the bytes between a tensor's first and last element."""
        size = tensor.element_size()
        begin = tensor.storage_offset() * size
        reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride()))
        end = begin + (reach + 1) * size if tensor.numel() else begin
        return Use(self.memory_of(tensor), begin, end)

    def knows(self, tensor):
        """Whether something that was written down used the memory behind a tensor."""
        return tensor.untyped_storage()._cdata in self._memories

    def put_on_host(self, tensor, *, pinned):
        """Have the memory of ``tensor`` be the host's."""
        memory = self.memory_of(tensor, on_host=True)
        memory.home, memory.pinned = HOST, pinned
        return tensor

    def record_stream(self, tensor, stream):
        """As ``Tensor.record_stream``: the allocator waits for that stream before it gives memory anew."""
        self.spared.setdefault(self.memory_of(tensor), set()).add(stream.name)

    def returned(self, tensors, replay, uses):
        """Remember which replay has made ``tensors``, the outputs of a graph."""
        for tensor, use in zip(tensors, uses):
            self._made_by[tensor] = replay
            self._newest[use.memory] = replay

    def check_age(self, tensors, reader):
        """Note which of ``tensors`` are outputs of a replay that a later one has overwritten."""
        for tensor in tensors:
            made_by = self._made_by.get(tensor)
            if made_by is not None:
                memory = self.memory_of(tensor)
                if self._newest[memory] is not made_by:
                    self.overwritten.append((reader, made_by, self._newest[memory], memory))

    @contextmanager
    def captured(self):
        """What runs in here is part of a graph: yield the lists of what it reads and writes of others."""
        reads, writes, self.inside = [], [], set()

        def note(mine, uses):
            mine += [use for use in uses if use.memory not in self.inside and use not in mine]

        self.note = lambda read, written: (note(reads, read), note(writes, written))
        try:
            yield reads, writes
        finally:
            self.inside = None

    def host_waits_for(self, operation):
        """The host goes on when ``operation`` is over; for None it goes on at once."""
        if operation is not None:
            self.ran(HOST, "host waits", before=[operation])

    @contextmanager
    def at(self, place):
        """What happens in here outside the loop's source happens at ``place``."""
        earlier, self.place = self.place, place
        try:
            yield
        finally:
            self.place = earlier

    def _where(self):
        """Return the line of the loop that the host is in, and the step; name what the loop holds."""
        frame, ours = sys._getframe(2), None
        while frame is not None:
            code = frame.f_code
            if code.co_filename == self.file:
                line = frame.f_lineno
                text = linecache.getline(self.file, line).strip()
                self._name(_variables(frame))
                return Place(self.file, line, text), self._step_in(frame)
            if ours is None and code.co_filename.endswith("prepared.py"):
                text = linecache.getline(code.co_filename, frame.f_lineno).strip()
                ours = Place("prepared.py", frame.f_lineno, text)
            frame = frame.f_back
        return ours or self.place, None

    def _step_in(self, frame):
        while frame is not None and frame.f_code.co_filename == self.file:
            step = _variables(frame).get("step")
            if isinstance(step, int):
                return step
            frame = frame.f_back
        return max(self.forwards - 1, 0) if self.forwards else None

    def _name(self, names):
        """Give names to the memories that a loop's variables hold."""
        for name, value in list(names.items()):
            if isinstance(value, torch.Tensor):
                self._name_one(value, name)
            elif isinstance(value, Cache):
                for each in (each for layer in value.layers for each in vars(layer).values()):
                    if isinstance(each, torch.Tensor):
                        self._name_one(each, "the cache")
        for name, value in list(names.items()):  # what has a name of its own is called by that
            if isinstance(value, (list, tuple)) and len(value) < 9:
                for at, each in enumerate(value):
                    if isinstance(each, torch.Tensor):
                        self._name_one(each, f"{name}[{at}]")

    def _name_one(self, tensor, name):
        memory = self.memory_of(tensor) if self.knows(tensor) else None
        if memory is not None and not memory.name:
            memory.name = f"{name}, an output of the graph" if memory.home == GRAPH else name

    def _let_go(self):
        """See which memories the host has let go of since the last operation."""
        for key in [key for key, weak in self._weak.items() if weak.expired()]:
            memory = self._memories.pop(key)
            del self._weak[key]
            users = (
                self._closing.pop(memory, set()) - {memory.home} - self.spared.get(memory, set())
            )
            if users and not memory.on_host:
                self._freed.append(memory)

    def _given_anew(self, lane):
        """The memories that the allocator may give to what allocates now on ``lane``."""
        anew = [memory for memory in self._freed if memory.home == lane]
        self._freed = [memory for memory in self._freed if memory.home != lane]
        return [Use(memory, 0, sys.maxsize, anew=True) for memory in anew]


def _variables(frame):
    """Return a frame's variables. Up to Python 3.12 it would hold on to them, and keep their memory."""
    kept = frame.f_locals
    variables = dict(kept)
    if isinstance(kept, dict) and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        kept.clear()
    return variables


def tensors_in(tree):
    """Return the tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
