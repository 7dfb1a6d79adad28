"""A step as one bare CUDA graph, captured by hand: its replay, without a loop around it."""

import time
from statistics import median
from types import FunctionType

import torch
from transformers import StaticCache

from decoding.generation import vocabulary_size
from decoding.step import decode_step, start

from .machine import require_gpu
from .probes import timing_events
from .records import significant

REPLAYS = 48  # in a row, at most
CACHE_TOKENS = 8  # of the prompt that fills the cache


class Step:
    """A compiled decode step with its inputs at fixed addresses, ready to be captured. CUDA only.

    Args:
        model: a model on a GPU.
        workload: its batch size and its lengths, which the cache has positions for.
        mode: a mode of ``torch.compile``; the default one captures no graph itself.
    """

    def __init__(self, model, workload, mode="default"):
        require_gpu("Replaying a captured step", model.device)
        self.model = model
        self.length = workload.prompt_tokens + workload.new_tokens
        self.cache = StaticCache(config=model.config, max_cache_len=self.length)
        shape = (workload.batch_size, CACHE_TOKENS)
        prompt = torch.randint(vocabulary_size(model) - 1, shape, device=model.device)
        self.prompt, (self.finished, self.eos) = prompt, start(prompt, None)
        self.unread = prompt[:, -1:].clone()
        # A copy, since torch keeps what it compiles with a function's code, whatever the mode.
        copy = FunctionType(decode_step.__code__.replace(), decode_step.__globals__)
        self.compiled = torch.compile(copy, fullgraph=True, dynamic=False, mode=mode)

    def __call__(self):
        """Launch one step; its token is the next step's input."""
        token, finished, _ = self.compiled(
            self.model, self.unread, self.cache, self.finished, self.eos
        )
        self.unread.copy_(token)
        self.finished.copy_(finished)

    @torch.no_grad()
    def rewind(self):
        """Empty the cache and read the prompt again."""
        self.cache.reset()
        decode_step(self.model, self.prompt, self.cache, self.finished, self.eos)
        torch.cuda.synchronize()

    @torch.no_grad()
    def captured(self):
        """Return the step as a ``torch.cuda.CUDAGraph``."""
        self.rewind()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self()
        self.rewind()
        return graph


def bare_replay(model, workload, tries=5):
    """Time a replay of the compiled step's graph, without a loop and without a profiler.

    Returns:
        A dict, in µs, the medians: ``launch_us``, how long the call of ``graph.replay`` holds the
        host while the GPU is idle; ``round_trip_us``, until the GPU has done it and the host knows;
        ``gpu_us``, a replay's time on the GPU where replays follow each other; ``replays``, how many
        in a row.

    Raises:
        NeedsGpu: ``model`` is not on a GPU.
        ValueError: the workload has too few positions.
    """
    step = Step(model, workload)
    count = min(REPLAYS, step.length - CACHE_TOKENS - 1)
    if count < 2:
        raise ValueError(f"The cache has {step.length} positions; a replay needs more.")
    graph = step.captured()
    launches, trips, works = [], [], []
    for _ in range(tries):
        step.rewind()
        for _ in range(count):
            began = time.perf_counter()
            graph.replay()
            launched = time.perf_counter()
            torch.cuda.synchronize()
            launches.append(launched - began)
            trips.append(time.perf_counter() - began)
        step.rewind()
        begin, end = timing_events(2)
        graph.replay()  # the GPU has work when the clock starts
        begin.record()
        for _ in range(count - 1):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        works.append(begin.elapsed_time(end) / (count - 1) / 1000)
    names = {"launch_us": launches, "round_trip_us": trips, "gpu_us": works}
    found = {name: significant(1e6 * median(values)) for name, values in names.items()}
    return found | {"replays": count}
