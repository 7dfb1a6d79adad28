"""What is made once and used again: static caches, compiled steps, and what a pipeline needs.

A compiled step and a captured CUDA graph hold the addresses of the cache they were made with.
Making the cache again would make them again too, so what belongs together is kept together, in one
``Prepared`` for each model, shape, dtype, device and mode. A loop gets it lent:

- One call at a time uses what is kept on a device. A second thread waits for its turn, and the
  device's work of one call comes after that of the call before, whatever stream each is on. (CUDA
  graphs of ``torch.compile`` share their memory, so this holds for two models, too.)
- What a call leaves half done is thrown away: after an exception, Ctrl-C or too little memory the
  next call begins anew.
- Of each device at most ``MOST_KEPT`` are kept, and their caches together take at most a quarter of
  its memory: those longest unused go first. All of a model's go with the model.
"""

import functools
import gc
import inspect
import itertools
import threading
from contextlib import contextmanager, suppress
from functools import cached_property
from types import FunctionType
from weakref import WeakKeyDictionary

import torch
from transformers import StaticCache
from transformers.cache_utils import StaticLayer

from .checks import check_compiler, is_out_of_memory, makes_graphs, why_not_compiled
from .step import decode_step

#: How many ``Prepared`` are kept for each device.
MOST_KEPT = 8
#: A cache's length is rounded up to a multiple of this, so that prompts of many lengths share a few.
BUCKET = 64


def bucket(positions):
    """Return ``positions`` rounded up to a multiple of ``BUCKET``."""
    return -(-positions // BUCKET) * BUCKET


class FullLengthCache(StaticCache):
    """A static cache whose layers all have the same length, and which knows when it is empty.

    A layer with a sliding window would keep the window only, with its position as a Python number,
    and be compiled anew for every token. Kept whole, its mask leaves out what lies outside.

    An emptied ``StaticCache`` knows its length by a tensor only, and the prefill would wait for it.
    """

    def __init__(self, config, length):
        super().__init__(config=config, max_cache_len=length)
        self.layers = [
            StaticLayer(max_cache_len=length) if layer.is_sliding else layer
            for layer in self.layers
        ]
        self.empty = True

    def get_seq_length(self, layer_idx=0):
        return 0 if self.empty else super().get_seq_length(layer_idx)

    def update(self, keys, values, layer_idx, *args, **kwargs):
        # Under autocast the two may differ, and a StaticLayer has one dtype for both.
        states = super().update(keys, values.to(keys.dtype), layer_idx, *args, **kwargs)
        if self.empty and layer_idx == len(self.layers) - 1:
            self.empty = False
        return states

    def reset(self):
        super().reset()
        self.empty = True

    @property
    def nbytes(self):
        """How many bytes the keys and values take."""
        return sum(x.keys.nbytes + x.values.nbytes for x in self.layers if x.is_initialized)


@functools.cache
def stream_pair(device):
    """Return the two streams on which every pipelined loop on ``device`` alternates.

    One pair for a device, because the caching allocator keeps a pool for each stream that it has
    seen.
    """
    module = torch.get_device_module(device)
    return module.Stream(), module.Stream()


class Prepared:
    """What the calls of one model, shape, dtype, device and mode share. Each part is made when it is first used.

    Attributes:
        cache: the ``FullLengthCache``; empty when a loop gets it.
        compiled_step: ``decode_step``, compiled as one graph for fixed shapes.
        streams: two streams, the same for every pipelined loop on the device.
        done: two events, one for each stream.
        flags: two bool scalars in pinned memory, one for each stream.
    """

    def __init__(self, model, length, mode, stream):
        self.device, self.mode = model.device, mode
        with self.device:  # not the default device that the caller may have set
            self.cache = FullLengthCache(model.config, length)
        self.homes = {stream}  # in whose memory lies what a call allocates and may leave behind
        self.last_use = 0

    @cached_property
    def compiled_step(self):
        # torch keeps the compiled versions of a function with its code object. A copy has its own:
        # they go when it goes, and no other shape's count towards its recompile limit.
        copy = FunctionType(decode_step.__code__.replace(), decode_step.__globals__)
        # On a CPU the step is captured as on a GPU, with the same demands on its shapes, but runs
        # without generated kernels: compiling those would take longer than everything that this
        # book runs on a CPU.
        on_gpu = self.device.type == "cuda"
        backend = {"mode": self.mode} if on_gpu else {"backend": "eager"}
        return torch.compile(copy, fullgraph=True, dynamic=False, **backend)

    @cached_property
    def streams(self):
        self.homes.update(pair := stream_pair(self.device))
        return pair

    @cached_property
    def done(self):
        module = torch.get_device_module(self.device)
        events = module.Event(), module.Event()
        for event in events:
            event.record()  # CUDA makes an event when it is first recorded: here, not in the loop
        return events

    @cached_property
    def flags(self):
        pinned = self.device.type == "cuda"
        no = torch.zeros((), dtype=torch.bool, device="cpu")
        return tuple(no.pin_memory() if pinned else no.clone() for _ in range(2))


class Turn:
    """Who may use what is kept on one device, and what that is."""

    def __init__(self, device):
        self.device, self.module = device, torch.get_device_module(device)
        self.index = device.index if device.type == "cuda" else None
        self.budget = _memory(device) // 4
        self.lock, self.holder = threading.Lock(), None
        self.end = self.module.Event()  # the device has done all that the call before asked for
        self.kept = WeakKeyDictionary()  # model -> key -> Prepared

    @contextmanager
    def taken(self):
        """Wait until no other thread uses what is kept here, and make the device the current one."""
        if self.lock.locked() and self.holder == threading.get_ident():
            raise RuntimeError(
                f"A generation on {self.device} is still running in this thread, and what it uses is kept for "
                "one call at a time: call generate and release after it has returned, not from inside it."
            )
        with self.lock, torch.accelerator.device_index(self.index):
            self.holder = threading.get_ident()
            try:
                yield
            finally:
                self.holder = None

    def find(self, model, key, make):
        """Return what is kept for ``model`` and ``key``, or make it."""
        shapes = self.kept.setdefault(model, {})
        if key not in shapes:
            self.make_room(MOST_KEPT - 1)
            shapes[key] = make()
        shapes[key].last_use = next(_uses)
        return shapes[key]

    def make_room(self, most):
        """Let go of those longest unused, until ``most`` are left and their caches fit the budget."""
        oldest_first = sorted(
            ((kept, key, shapes) for shapes in self.kept.values() for key, kept in shapes.items()),
            key=lambda entry: entry[0].last_use,
        )
        taken = sum(kept.cache.nbytes for kept, _, _ in oldest_first)
        for number, (kept, key, shapes) in enumerate(oldest_first):
            left = len(oldest_first) - number
            if left <= most and (taken <= self.budget or left == 1):
                break
            taken -= kept.cache.nbytes
            del shapes[key]

    def end_call(self, kept, stream):
        """Have all that comes later on the device come after this call, which ends on ``stream``."""
        self.end.record(stream)
        for other in kept.homes:  # whoever gets memory there after us shall not overtake us
            other.wait_event(self.end)
        self.make_room(MOST_KEPT)

    def abandon(self, model, key, error):
        """Throw away what a failed call used; after too little memory, all that is kept here."""
        failed = self.kept.get(model, {}).pop(key, None)
        with suppress(Exception):  # after some errors of the device every call of CUDA fails
            self.module.synchronize()  # the device may still be using that memory
        if is_out_of_memory(error):
            self.kept.clear()
        if failed is not None:
            failed.cache.layers.clear()  # a traceback may hold the cache for long
            if makes_graphs(self.device, failed.mode):
                # A half-recorded CUDA graph would make every compiled function fail from now on.
                torch.compiler.reset()


_uses = itertools.count()
_turns = {}  # device -> Turn


def _turn(device):
    return _turns.get(device) or _turns.setdefault(device, Turn(device))


def _memory(device):
    """Return how many bytes of memory ``device`` has; of a CPU's, the 8 GiB of a small machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return 8 << 30


def _modes(device):
    """Return the modes of torch under which what is made fits no call under another."""
    autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    return autocast, torch.is_inference_mode_enabled()


@contextmanager
def lend(model, batch_size, length, mode=None):
    """Lend the ``Prepared`` for a model and shape: a context manager for one call.

    Args:
        model: a transformers causal LM that supports ``StaticCache``.
        batch_size: rows.
        length: positions of the cache.
        mode: the mode of ``torch.compile`` for ``compiled_step``; None for loops that don't compile.

    Raises:
        RuntimeError: the step cannot be compiled here; the message says why and what to do. Or the
            loop that something is lent to asks for more from inside itself.
    """
    device = model.device
    if mode is not None:
        check_compiler(device, mode)
    turn = _turn(device)
    key = batch_size, length, mode, model.dtype, *_modes(device)
    with turn.taken(), torch.no_grad():
        stream = turn.module.current_stream()
        try:
            stream.wait_event(turn.end)
            make = functools.partial(Prepared, model, length, mode, stream)
            kept = turn.find(model, key, make)
            kept.cache.reset()
            yield kept
            turn.end_call(kept, stream)
        except BaseException as error:
            turn.abandon(model, key, error)
            if explanation := why_not_compiled(error):
                raise RuntimeError(explanation) from error
            raise


def with_prepared(**options):
    """Lend a loop what it needs: a decorator for ``decode(…, prepared)``.

    Args:
        **options: options of the loop besides ``cache_length``, with their defaults:
            ``compile_mode``, a mode of ``torch.compile``, if it compiles.

    The decorated loop takes these options in the place of ``prepared``. ``cache_length`` is how many
    positions the static cache has, by default as many as the prompt and the new tokens need,
    rounded up to a multiple of ``BUCKET``.
    """
    options = {"cache_length": None, **options}

    def decorate(decode):
        signature = inspect.signature(decode)
        shown = signature.replace(
            parameters=[
                *(p for name, p in signature.parameters.items() if name != "prepared"),
                *(
                    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
                    for name, default in options.items()
                ),
            ]
        )

        @functools.wraps(decode)
        def lent(model, input_ids, max_new_tokens, eos_token_id, **chosen):
            chosen = shown.bind(model, input_ids, max_new_tokens, eos_token_id, **chosen)
            chosen.apply_defaults()
            batch, prompt = input_ids.shape
            length = chosen.kwargs["cache_length"] or bucket(prompt + max_new_tokens)
            with lend(model, batch, length, chosen.kwargs.get("compile_mode")) as prepared:
                return decode(model, input_ids, max_new_tokens, eos_token_id, prepared)

        lent.__signature__ = shown
        return lent

    return decorate


def release(model=None):
    """Let go of what is kept for ``model``, or for every model if None.

    It waits for the calls of other threads, and for the device to be done with them.
    """
    for turn in list(_turns.values()):
        with turn.taken():
            turn.end.synchronize()  # the device may still be using that memory
            if model is None:
                turn.kept.clear()
            else:
                turn.kept.pop(model, None)
    gc.collect()  # compiled steps refer to themselves
