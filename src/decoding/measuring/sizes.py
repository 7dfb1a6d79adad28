"""What a loop asks of the allocator, from its shapes alone: no GPU and no memory are needed.

A tensor on PyTorch's ``meta`` device has a shape and no memory, so a loop runs there as a list of
sizes and nothing else.
"""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from decoding import ranges
from decoding.rungs import RUNGS


@torch.no_grad()
def sizes_of(rung, config, batch_size, prompt_tokens, new_tokens):
    """Return what a loop allocates and frees, in bfloat16; the weights are not part of it.

    Args:
        rung: a name in ``RUNGS``.
        config: a configuration of transformers, of any causal LM.
        batch_size, prompt_tokens, new_tokens: what is decoded.

    Returns:
        Events and marks, one for each new token, as ``allocator.replay`` takes them.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        prompt = torch.zeros((batch_size, prompt_tokens), dtype=torch.int64)
    with _Sizes() as sizes, ranges.observe(sizes.mark):
        RUNGS[rung].decode(model, prompt, new_tokens, None)
    return sizes.events, sizes.marks[:new_tokens]


class _Sizes(TorchDispatchMode):
    """Writes down what is allocated and freed while it is active."""

    def __init__(self):
        super().__init__()
        self.events, self.marks, self._alive = [], [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return True  # meta tensors hold no values; every question is answered yes
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage):
        key = storage._cdata
        if storage.nbytes() and key not in self._alive:
            self._alive[key] = len(self.events)
            self.events.append((self._alive[key], storage.nbytes()))
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key):
        self.events.append((self._alive.pop(key), 0))

    def mark(self, name, step):
        """Note the end of a token; an observer of ``ranges``."""
        if name != "stop_check":
            self.marks.append(len(self.events))
