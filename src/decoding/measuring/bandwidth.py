"""How many bytes a second the GPU's memory moves, measured with the plainest kernel: a copy."""

import time
from statistics import median

import torch

from .probes import timing_events
from .records import significant

GIB = 2**30


def bandwidth(device=None, size_bytes=None, tries=20):
    """Copy one tensor to another, several times, and return how fast it goes.

    Args:
        device: None means the GPU if there is one, else the CPU.
        size_bytes: of the tensor; by default 1 GiB, far more than a cache holds; 16 MiB on a CPU.
        tries: how many copies are timed, after a few that are not.

    Returns:
        A dict: ``gb_per_s``, the median over the copies, in 10^9 bytes a second, read and written
        together; ``slowest`` and ``fastest``, likewise; ``size_bytes``; ``tries``.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size_bytes = size_bytes or (GIB if device.type == "cuda" else GIB // 64)
    source = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timed = _on_gpu if device.type == "cuda" else _on_cpu
    for _ in range(3):
        target.copy_(source)
    rates = [2 * size_bytes / timed(lambda: target.copy_(source)) / 1e9 for _ in range(tries)]
    names = {"gb_per_s": median, "slowest": min, "fastest": max}
    found = {name: significant(of(rates)) for name, of in names.items()}
    return found | {"size_bytes": size_bytes, "tries": tries}


def _on_gpu(work):
    """Return how long ``work`` takes on the GPU, in seconds."""
    begin, end = timing_events(2)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def _on_cpu(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
