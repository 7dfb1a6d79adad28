"""Stand-ins for streams, events and graphs: they run nothing late, and write down what waits for what."""

from contextlib import contextmanager

import torch

from .order import GRAPH, HOST, Memory, Use
from .recorder import tensors_in


def stand_ins_for(recorder):
    """Return what stands in for the module ``torch.cuda`` while a ``Recorder`` writes down."""

    class Stream:
        def __init__(self, device=None, priority=0, *, name=None, **_):
            if name is None:
                name = f"stream {chr(ord('A') + recorder.streams)}"
                recorder.streams += 1
            self.name = name

        def wait_event(self, event):
            if event.recorded is not None:
                recorder.ran(self.name, "wait", before=[event.recorded])

        def wait_stream(self, other):
            self.wait_event(other.record_event())

        def record_event(self, event=None):
            event = event or Event()
            event.record(self)
            return event

        def synchronize(self):
            recorder.host_waits_for(recorder.last.get(self.name))

        def query(self):
            self.synchronize()  # a host that asks until the answer is yes
            return True

        def __enter__(self):
            self._earlier, recorder.current = recorder.current, self
            return self

        def __exit__(self, *_):
            recorder.current = self._earlier

    class Event:
        def __init__(self, *_, **__):
            self.recorded = None

        def record(self, stream=None):
            stream = stream or recorder.current
            self.recorded = recorder.ran(stream.name, "record")

        def wait(self, stream=None):
            (stream or recorder.current).wait_event(self)

        def synchronize(self):
            recorder.host_waits_for(self.recorded)

        def query(self):
            self.synchronize()
            return True

    @contextmanager
    def use(stream):
        if stream is None:
            yield
            return
        with stream:
            yield

    class Device:
        """What a loop gets of ``torch.get_device_module``."""

        def __getattr__(self, name):
            return getattr(torch.cpu, name)

    def synchronize(device=None):
        for lane, last in list(recorder.last.items()):
            if lane != HOST:
                recorder.host_waits_for(last)

    def set_stream(stream):
        recorder.current = stream

    device = Device()
    device.Stream, device.Event, device.stream = Stream, Event, use
    device.current_stream = device.default_stream = lambda device=None: recorder.current
    device.synchronize, device.set_stream = synchronize, set_stream
    device._sleep = lambda cycles: None
    return device


class Replayed:
    """Stands in for a step compiled into a CUDA graph: its inputs and outputs lie in the same place at each call.

    A call copies its arguments into the graph's inputs, which belongs to the current stream, and replays
    it. Replays of one graph are in order on whatever streams they are (CUDA promises it).
    """

    def __init__(self, function, recorder):
        self.function, self.recorder = function, recorder
        self.graphs = {}  # shapes -> inputs, outputs, the last replay

    def __call__(self, *args):
        given = [one for one in args if isinstance(one, torch.Tensor)]
        key = tuple((tuple(one.shape), one.dtype) for one in given)
        recorder = self.recorder
        with recorder.captured() as used:
            results = self.function(*args)
            if key not in self.graphs:
                self.graphs[key] = self._made(given, tensors_in(results))
            graph = self.graphs[key]
            for kept, new in zip(graph["outputs"], tensors_in(results)):
                kept.copy_(new)
        lane = recorder.current.name
        fresh = [recorder.use_of(one) for one in given]
        foreign = {use.memory for use in (*fresh, *map(recorder.use_of, graph["outputs"]))}
        reads, writes = ([use for use in uses if use.memory not in foreign] for uses in used)
        recorder.ran(lane, "inputs", fresh, graph["inputs"])
        outputs = [recorder.use_of(one) for one in graph["outputs"]]
        last = [graph["last"]] if graph["last"] else []
        reads, writes = [*graph["inputs"], *reads], [*writes, *outputs]
        graph["last"] = recorder.ran(lane, "replay", reads, writes, before=last)
        returned = [one.detach() for one in graph["outputs"]]
        recorder.returned(returned, graph["last"], outputs)
        return _like(results, iter(returned))

    def _made(self, given, results):
        inputs = [
            Use(Memory(f"input {at} of the graph", GRAPH), 0, max(one.nbytes, 1))
            for at, one in enumerate(given)
        ]
        outputs = [one.clone() for one in results]
        for one in outputs:
            self.recorder.memory_of(one).home = GRAPH
        return {"inputs": inputs, "outputs": outputs, "last": None}


def _like(tree, tensors):
    if isinstance(tree, torch.Tensor):
        return next(tensors)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_like(each, tensors) for each in tree)
    return tree
