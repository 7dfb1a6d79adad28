"""What is made once and used again: static caches and compiled steps.

A compiled step and a captured CUDA graph hold the addresses of the cache they were made with.
Making the cache again would make them again too, so both are kept, per model and shape.
"""

from functools import cache as remember
from weakref import WeakKeyDictionary

import torch
from transformers import StaticCache

from .step import decode_step

_static_caches = WeakKeyDictionary()


def static_cache(model, batch_size, length):
    """Return an empty static cache for ``batch_size`` rows of ``length`` positions.

    The first call for a model and shape makes it; later calls return the same one, reset. So two
    generations of one shape on one model must not run at the same time. Every shape keeps its
    memory until ``release`` is called or the model is gone.
    """
    caches = _static_caches.setdefault(model, {})
    if (batch_size, length) not in caches:
        caches[batch_size, length] = StaticCache(config=model.config, max_cache_len=length)
    caches[batch_size, length].reset()
    return caches[batch_size, length]


@remember
def compiled_step(device, mode):
    """Return ``decode_step`` compiled as one graph for fixed shapes.

    Args:
        device: a ``torch.device``. On a CPU the step is captured as on a GPU, with the same
            demands on its shapes, but runs without generated kernels: compiling those would take
            longer than everything that this book runs on a CPU.
        mode: a mode of ``torch.compile``; "reduce-overhead" adds CUDA graphs, "default" does not.

    One compiled function serves every model and shape: torch keeps a version for each, up to its
    recompile limit, which is set to at least 256 here.
    """
    # The default limit of 8 versions guards against accidental recompilation. Here every version
    # is a shape that somebody asked for, and running into the limit would be an error.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    backend = {"mode": mode} if device.type == "cuda" else {"backend": "eager"}
    return torch.compile(decode_step, fullgraph=True, dynamic=False, **backend)


@remember
def stream_pair(device):
    """Return the two streams on which every pipelined loop on ``device`` alternates.

    Made once because the caching allocator keeps a pool for each stream that it has seen.
    """
    module = torch.get_device_module(device)
    return module.Stream(), module.Stream()


def release(model=None):
    """Free the static caches of ``model``, or of every model if None, and all compiled steps.

    It calls ``torch.compiler.reset``, which drops everything else that ``torch.compile`` has made
    in this process, too.
    """
    if model is None:
        _static_caches.clear()
    else:
        _static_caches.pop(model, None)
    compiled_step.cache_clear()
    torch.compiler.reset()
