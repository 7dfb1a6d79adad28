"""Run a loop on a CPU and write down its operations."""

import functools
import inspect
import threading
from contextlib import ExitStack, contextmanager
from functools import cached_property

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from decoding import prepared as shared
from decoding.prepared import Prepared, with_prepared
from decoding.step import decode_step

from .order import HOST, Place
from .recorder import Recorder, tensors_in
from .stand_ins import Replayed, stand_ins_for

#: Operations whose result's size or value the host needs at once.
ASKS_THE_HOST = (
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "masked_select",
    "_unique2",
    "is_nonzero",
)
GRAPH_MODES = ("reduce-overhead", "max-autotune")
_one_at_a_time = threading.Lock()


def lent(decode):
    """Return ``decode`` as ``generate`` would call it: a loop that takes ``prepared`` gets it lent."""
    if "prepared" in inspect.signature(decode).parameters:
        return with_prepared(compile_mode="reduce-overhead")(decode)
    return decode


def record(decode, model, prompts, max_new_tokens, ends):
    """Call a loop once for each prompt, each call from a stream of its own, and write down what it does.

    Nobody waits between the calls. Behind each call the caller reads the tokens and writes over the
    prompt, as a caller may who knows nothing of other streams.

    Args:
        decode: ``decode(model, input_ids, max_new_tokens, eos_token_id[, prepared])``.
        model: a causal LM on the CPU.
        prompts: int64 [1, prompt], one for each call.
        max_new_tokens: of each call.
        ends: the end-of-sequence id of each call, or None.

    Returns:
        An ``Order``; the tokens of each call; how many steps each call ran.

    Raises:
        TypeError: the loop returns no tensor. What the loop itself raises comes through.
    """
    source = inspect.unwrap(decode).__code__
    recorder, call = Recorder(source.co_filename), lent(decode)
    results, steps = [], []
    with _one_at_a_time, ExitStack() as stack:
        _put_stand_ins(stack, recorder)
        device = torch.get_device_module()
        stack.enter_context(torch.no_grad())
        hook = model.register_forward_pre_hook(lambda *_: _count(recorder))
        stack.callback(hook.remove)
        stack.enter_context(_Watch(recorder))
        stack.enter_context(_HostSide(recorder))
        for number, (prompt, end) in enumerate(zip(prompts, ends), 1):
            name = "the caller's stream" if number == 1 else f"the stream of caller {number}"
            recorder.call, recorder.forwards = number, 0
            with device.Stream(name=name):
                with recorder.at(Place("the caller", 0, "the caller writes the prompt")):
                    mine = prompt.clone()
                    recorder.memory_of(mine).name = "the prompt"
                tokens = call(model, mine, max_new_tokens, end)
                if not isinstance(tokens, torch.Tensor):
                    raise TypeError(f"it returns a {type(tokens).__name__}, not a tensor")
                with recorder.at(Place("the caller", 0, "the caller reads the tokens")):
                    results.append(tokens.clone())
                steps.append(recorder.forwards)
                with recorder.at(Place("the caller", 0, "the caller writes over the prompt")):
                    mine.zero_()
                del tokens, mine
    return recorder.order, results, steps


def _count(recorder):
    recorder.forwards += 1


def _put_stand_ins(stack, recorder):
    """Put stand-ins in the place of all by which a loop reaches streams, events and graphs."""
    device = stand_ins_for(recorder)
    device.set_stream(device.Stream(name="the default stream"))

    class StandIn(Prepared):
        @cached_property
        def compiled_step(self):
            return Replayed(decode_step, recorder)

        @cached_property
        def flags(self):
            return tuple(torch.zeros((), dtype=torch.bool, pin_memory=True) for _ in range(2))

    def compile(function=None, *, mode=None, **_):
        if function is None:
            return lambda function: compile(function, mode=mode)
        return Replayed(function, recorder) if mode in GRAPH_MODES else function

    def record_stream(self, stream):
        recorder.record_stream(self, stream)

    pair = functools.cache(lambda device_: (device.Stream(), device.Stream()))
    for owner, name, value in (
        (torch, "get_device_module", lambda device_=None: device),
        (torch, "compile", compile),
        (torch.compiler, "cudagraph_mark_step_begin", lambda: None),
        (torch.Tensor, "record_stream", record_stream),
        (shared, "_turns", {}),
        (shared, "stream_pair", pair),
        (shared, "Prepared", StandIn),
        (shared, "check_compiler", lambda device_, mode: None),
        *(
            (torch.cuda, name, getattr(device, name))
            for name in ("Stream", "Event", "stream", "current_stream", "default_stream")
        ),
        *(
            (torch.cuda, name, getattr(device, name))
            for name in ("synchronize", "set_stream", "_sleep")
        ),
    ):
        stack.enter_context(_swapped(owner, name, value))


@contextmanager
def _swapped(owner, name, value):
    own = name in vars(owner)
    earlier = getattr(owner, name, None)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, earlier)
        else:
            delattr(owner, name)


class _Watch(TorchDispatchMode):
    """Sees every operation on tensors, with the memory that it reads and writes."""

    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, recorder = kwargs or {}, self.recorder
        result = func(*args, **kwargs)
        reads, writes = _uses(func, args, kwargs, recorder)
        made = [] if func.is_view else tensors_in(result)
        known = [recorder.knows(one) for one in made]
        given = [*reads, *writes]
        on_host = bool(given) and all(recorder.memory_of(one).on_host for one in given)
        new = [one for one, old in zip(made, known) if not old]
        for one in new:
            recorder.memory_of(one, on_host=on_host)
        if recorder.inside is not None:
            recorder.inside |= {recorder.memory_of(one) for one in new}
            recorder.note(map(recorder.use_of, reads), map(recorder.use_of, [*writes, *new]))
            return result
        written = [*writes, *new]
        if not given and not new:
            return result
        if recorder.next_is_on_host:
            recorder.ran(HOST, "host", [], map(recorder.use_of, new))
            return result
        name = func.overloadpacket.__name__
        if name == "copy_":
            self._copy(written[0], reads[0], kwargs, args)
        elif name in ASKS_THE_HOST:
            self._ask(reads, written)
        else:
            self._run(reads, written, bool(new))
        recorder.check_age(reads, recorder.operations[-1])
        return result

    def _run(self, reads, writes, allocates):
        recorder = self.recorder
        on_host = [one for one in (*reads, *writes) if recorder.memory_of(one).on_host]
        if len(on_host) == len(reads) + len(writes):
            recorder.ran(HOST, "host", *_as_uses(recorder, reads, writes))
            return
        for one in on_host:  # a number of the host's is read when the kernel is launched
            recorder.ran(HOST, "host reads", [recorder.use_of(one)])
        mine = [
            [one for one in each if all(one is not other for other in on_host)]
            for each in (reads, writes)
        ]
        lane = recorder.current.name
        recorder.ran(lane, "work", *_as_uses(recorder, *mine), allocates=allocates)

    def _copy(self, target, source, kwargs, args):
        recorder = self.recorder
        memories = recorder.memory_of(source), recorder.memory_of(target)
        if memories[0].on_host == memories[1].on_host:
            self._run([source], [target], False)
            return
        lane = recorder.current.name
        copy = recorder.ran(lane, "copy", *_as_uses(recorder, [source], [target]))
        late = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        pinned = all(memory.pinned for memory in memories if memory.on_host)
        if not (late and pinned):
            recorder.host_waits_for(copy)

    def _ask(self, reads, writes):
        recorder = self.recorder
        if all(recorder.memory_of(one).on_host for one in reads):
            recorder.ran(HOST, "host reads", [recorder.use_of(one) for one in reads])
            return
        lane = recorder.current.name
        recorder.host_waits_for(recorder.ran(lane, "copy", *_as_uses(recorder, reads, writes)))


def _as_uses(recorder, reads, writes):
    return [recorder.use_of(one) for one in reads], [recorder.use_of(one) for one in writes]


def _uses(func, args, kwargs, recorder):
    """Return the tensors that an operation reads and those that it writes into."""
    if func.is_view:
        return [], []
    reads, writes = [], []
    schema = func._schema.arguments
    named = {argument.name: argument for argument in schema}
    pairs = [
        *zip(schema, args),
        *((named[key], value) for key, value in kwargs.items() if key in named),
    ]
    for argument, value in pairs:
        written = argument.alias_info is not None and argument.alias_info.is_write
        (writes if written else reads).extend(tensors_in(value))
    return reads, writes


class _HostSide(TorchFunctionMode):
    """Stands in for what makes memory of the host, or brings tensors there: on a CPU nothing happens then."""

    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, recorder = dict(kwargs or {}), self.recorder
        name = getattr(func, "__name__", "")
        if name == "pin_memory":
            return self._on_host(args[0].clone, pinned=True)
        if name == "is_pinned":
            return recorder.memory_of(args[0]).pinned
        if name == "cpu" or (name == "to" and "cpu" in (*args[1:], kwargs.get("device"))):
            source, late = args[0], kwargs.get("non_blocking", False)
            if recorder.memory_of(source).on_host:
                return source
            kinds = [
                one for one in (*args[1:], kwargs.get("dtype")) if isinstance(one, torch.dtype)
            ]
            dtype = kinds[0] if kinds else source.dtype
            target = self._on_host(lambda: torch.empty_like(source, dtype=dtype), pinned=late)
            return target.copy_(source, non_blocking=late)
        if name in ("tolist", "numpy", "__array__") and isinstance(args[0], torch.Tensor):
            if not recorder.memory_of(args[0]).on_host:
                args = (self.__torch_function__(torch.Tensor.cpu, types, args[:1]), *args[1:])
            recorder.ran(HOST, "host reads", [recorder.use_of(args[0])])
            return func(*args, **kwargs)
        if kwargs.get("pin_memory"):
            del kwargs["pin_memory"]
            return self._on_host(lambda: func(*args, **kwargs), pinned=True)
        if kwargs.get("device") == "cpu" and not name.startswith("__") and name != "to":
            return self._on_host(lambda: func(*args, **kwargs), pinned=False)
        return func(*args, **kwargs)

    def _on_host(self, make, *, pinned):
        recorder = self.recorder
        earlier, recorder.next_is_on_host = recorder.next_is_on_host, True
        try:
            with torch._C.DisableTorchFunction():
                made = make()
        finally:
            recorder.next_is_on_host = earlier
        return recorder.put_on_host(made, pinned=pinned)
