"""The ladder: every rung by name, in order."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType

from .loops import (
    captured_graph,
    compiled,
    deferred_check,
    device_loop,
    fused_step,
    kv_cache,
    naive,
    one_kernel,
    static_cache,
    two_streams,
)

EVERY_LOOP_TAKES = frozenset({"model", "input_ids", "max_new_tokens", "eos_token_id"})


@dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Args:
        name: its key in ``RUNGS``.
        label: its name in figures and tables.
        decode: the loop, ``decode(model, input_ids, max_new_tokens, eos_token_id, **options)``. Its
            arguments have been checked. It returns int64 [batch, prompt + n], the prompt and the
            tokens up to the step in which the last row finished, and wraps every step in
            ``ranges.token`` and every look at the finished rows in ``ranges.stop_check``: the
            measurement tells tokens apart by them.
        environment: variables that must be set before CUDA starts; ``measure`` sets them.
        needs_cache: whether the model must take a cache of keys and values.
        needs_static_cache: whether the model must support ``StaticCache``.
    """

    name: str
    label: str
    decode: Callable
    environment: dict = field(default_factory=dict)
    needs_cache: bool = True
    needs_static_cache: bool = False

    @property
    def options(self):
        """The names of the keyword arguments that ``decode`` takes besides, a frozenset."""
        return frozenset(inspect.signature(self.decode).parameters) - EVERY_LOOP_TAKES


EXPANDABLE = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}

#: The ladder, name -> ``Rung``, in order. It cannot be changed from outside, since every measurement
#: runs in a process of its own, which reads it from this file.
RUNGS = MappingProxyType(
    {
        rung.name: rung
        for rung in (
            Rung("naive", "naive", naive.decode, needs_cache=False),
            Rung("kv_cache", "KV cache", kv_cache.decode),
            Rung("expandable_segments", "expandable segments", kv_cache.decode, EXPANDABLE),
            Rung("static_cache", "static cache", static_cache.decode, needs_static_cache=True),
            Rung("compiled", "compiled", compiled.decode, needs_static_cache=True),
            Rung("two_streams", "two streams", two_streams.decode, needs_static_cache=True),
            Rung(
                "deferred_check", "deferred check", deferred_check.decode, needs_static_cache=True
            ),
            Rung(
                "captured_graph", "captured graph", captured_graph.decode, needs_static_cache=True
            ),
            Rung("device_loop", "device loop", device_loop.decode, needs_static_cache=True),
            Rung("fused_step", "fused step", fused_step.decode, needs_static_cache=True),
            Rung("one_kernel", "one kernel", one_kernel.decode),
        )
    }
)


def find_rung(name):
    """Return the rung called ``name``.

    Raises:
        ValueError: there is none; the message names the nearest ones.
    """
    if name in RUNGS:
        return RUNGS[name]
    nearest = get_close_matches(str(name), RUNGS, n=2, cutoff=0.3)
    hint = f"did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
    raise ValueError(f"There is no rung {name!r}: {hint}The rungs are {', '.join(RUNGS)}.")
