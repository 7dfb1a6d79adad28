"""Names for what a loop is doing, for profilers and for the measurement.

A loop wraps each forward pass in ``with ranges.token(n):`` and each look at the finished rows in
``with ranges.stop_check(n):``. A range is visible in Nsight Systems and Nsight Compute (through NVTX, with the
token's number as payload) and in the PyTorch profiler (as ``decode_step n``). Step 0 reads the
prompt, so its range is called ``prefill``.
"""

from contextlib import contextmanager

import nvtx
import torch.autograd.profiler as torch_profiler

_observers = []


class _Range:
    __slots__ = ("name", "step", "record")

    def __init__(self, name, step):
        self.name, self.step, self.record = name, step, None

    def __enter__(self):
        nvtx.push_range(self.name, payload=self.step)
        # record_function costs ten times as much as the NVTX range, so only under a profiler.
        if torch_profiler._is_profiler_enabled:
            self.record = torch_profiler.record_function(f"{self.name} {self.step}")
            self.record.__enter__()

    def __exit__(self, *exception):
        if self.record is not None:
            self.record.__exit__(*exception)
        nvtx.pop_range()
        for observer in tuple(_observers):  # another thread may begin or end to observe
            observer(self.name, self.step)


def token(step):
    """Return a context manager, the range of one forward pass and the token that it gives.

    The range is called ``prefill`` for step 0, else ``decode_step``.
    """
    return _Range("decode_step" if step else "prefill", step)


def stop_check(step):
    """Return a context manager, the range in which the host asks whether every row has finished."""
    return _Range("stop_check", step)


@contextmanager
def observe(observer):
    """Call ``observer(name, step)`` at the end of every range, for as long as the context lasts.

    A context manager. It sees the loops of all threads. ``name`` is the range's name, ``step`` its number. The call comes before the
    loop leaves the range's stream, so an event that the observer records lands in that stream.
    """
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)
