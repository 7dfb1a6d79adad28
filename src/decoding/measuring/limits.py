"""How far a decode step is from its limit: what has to be moved and computed, and what this machine can do.

The bytes and the arithmetic are counted from a model's configuration. The rates of the memory and of
the multipliers are measured, and so is each matrix product of the step: alone, and in the step.
"""

import re
import time
from collections import defaultdict
from math import ceil
from statistics import median, quantiles
from typing import NamedTuple

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from .bandwidth import GIB, bandwidth
from .controls import SINGLE
from .machine import machine
from .probes import _exported, timing_events
from .processes import run_fresh
from .records import significant
from .replays import CACHE_TOKENS, REPLAYS, Step
from .runs import load

BATCH_SIZES = (1, 32)
TRIES = 15
PROFILED = 8  # replays
COLD = GIB // 4  # of weights that a product goes through before it meets the first again
SQUARE = 8192  # rows and columns of the product whose rate is the roof

#: What a kernel of the step does, by the first pattern that its name has.
KINDS = {
    "attention": r"flash|fmha|sdpa|attention",
    "matrix product": r"gemm|gemv|nvjet|cutlass|xmma|split_?k",
    "fused": r"^triton_",
    "other": "",
}
HELPER = re.compile(r"split_?k_?reduce", re.IGNORECASE)  # ends the product before it


class Gemm(NamedTuple):
    """A matrix product of a decode step.

    Attributes:
        name: what it computes.
        inputs, outputs: how many numbers go in and come out, for each row of the batch.
        times: in a step.
        bias: whether a vector is added.
        stored: "in, out" or "out, in", how the weights lie in memory.
    """

    name: str
    inputs: int
    outputs: int
    times: int
    bias: bool = False
    stored: str = "out, in"

    @property
    def numbers(self):
        """The weights of one of them, without the bias."""
        return self.inputs * self.outputs


class Count(NamedTuple):
    """What a decode step needs.

    Attributes:
        weights: bytes read, each weight once; of a table that only looks things up, a row for each row.
        cache: bytes of the keys and values read.
        logits: bytes of the logits, which a step writes if it does not choose the token in the same kernel;
            not in ``bytes``.
        flops: multiplications and additions, of the matrix products and of attention.
    """

    weights: float
    cache: float
    logits: float
    flops: float

    @property
    def bytes(self):
        """Bytes that have to be read."""
        return self.weights + self.cache

    @property
    def intensity(self):
        """Arithmetic operations for each byte that is read."""
        return self.flops / self.bytes


def gemms(config):
    """Return the matrix products of a step, those of a layer in their order, then that of the output.

    Args:
        config: a configuration of transformers, of a GPT-2 or of a Llama without biases.

    Raises:
        ValueError: it is of another model.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    if config.model_type == "gpt2":
        inner, conv = config.n_inner or 4 * width, {"bias": True, "stored": "in, out"}
        found = [
            Gemm("query, key, value", width, 3 * width, layers, **conv),
            Gemm("projection", width, width, layers, **conv),
            Gemm("feed-forward, up", width, inner, layers, **conv),
            Gemm("feed-forward, down", inner, width, layers, **conv),
        ]
    elif config.model_type == "llama" and not (config.attention_bias or config.mlp_bias):
        queries, shared = _head_widths(config)
        inner = config.intermediate_size
        found = [
            Gemm("query", width, queries, layers),
            Gemm("key", width, shared, layers),
            Gemm("value", width, shared, layers),
            Gemm("projection", queries, width, layers),
            Gemm("feed-forward, gate", width, inner, layers),
            Gemm("feed-forward, up", width, inner, layers),
            Gemm("feed-forward, down", inner, width, layers),
        ]
    else:
        raise ValueError(
            f"A step of {config.model_type!r} is not counted here; a GPT-2 and a Llama without biases are."
        )
    return [*found, Gemm("output", width, config.vocab_size, 1)]


def count(config, batch_size, positions, itemsize):
    """Count what a decode step reads and computes, from the model's configuration alone.

    Args:
        config: as for ``gemms``.
        batch_size: rows.
        positions: that the cache holds of each row; a step attends to these and to its own token.
        itemsize: bytes of a number.

    Returns:
        A ``Count``. The bytes of the cache are those of ``positions``: its own keys and values a step has
        at hand.
    """
    products, layers = gemms(config), config.num_hidden_layers
    queries, shared = _head_widths(config)
    weights = sum(one.numbers * one.times for one in products)
    flops = 2 * batch_size * weights
    flops += batch_size * layers * 2 * 2 * queries * (positions + 1)  # scores, weighted sum
    return Count(
        weights=itemsize * (weights + _vectors(config) + batch_size * _looked_up(config)),
        cache=itemsize * batch_size * positions * layers * 2 * shared,
        logits=itemsize * batch_size * config.vocab_size,
        flops=flops,
    )


def _head_widths(config):
    """How many numbers the queries of a token have, and how many its keys; of one layer."""
    heads = config.num_attention_heads
    each = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads * each, (getattr(config, "num_key_value_heads", None) or heads) * each


def _vectors(config):
    """The weights that are no matrices: biases, and scale (and shift) of the layer norms."""
    width, layers = config.hidden_size, config.num_hidden_layers
    biases = sum(one.outputs * one.times for one in gemms(config) if one.bias)
    of_a_norm = 2 * width if config.model_type == "gpt2" else width
    return biases + (2 * layers + 1) * of_a_norm


def _looked_up(config):
    """The weights that a step looks up for a row: of the position, and of a token with a table of its own."""
    tables = (config.model_type == "gpt2") + (not config.tie_word_embeddings)
    return tables * config.hidden_size


def limits(workload=SINGLE, batch_sizes=BATCH_SIZES):
    """Measure the memory, the multipliers, and where a bare step's time goes, in one fresh process.

    Args:
        workload: a ``Workload``; its model must be one that ``gemms`` knows.
        batch_sizes: at which the products and the step are measured.

    Returns:
        A dict:

        - ``machine``;
        - ``bandwidth``: of a copy, as ``bandwidth.bandwidth`` returns it;
        - ``reading_gb_per_s``: of adding up a tensor, which writes nothing;
        - ``matmul``: ``tflop_per_s``, its ``slowest`` and ``fastest``, of a product of two square
          matrices with ``rows`` rows, of random numbers;
        - ``alone_us``: batch size -> name of a product -> time of one, where many follow each other with
          weights that no cache holds;
        - ``steps``: batch size -> what ``step_of`` returns; empty without a GPU.
    """
    what = "Measuring how far from the limit"
    return run_fresh(_measured, what, workload=workload, batch_sizes=tuple(batch_sizes))


def _measured(report, workload, batch_sizes):
    model = load(workload)
    device, dtype = model.device, model.dtype
    jobs = 1 + 2 * len(batch_sizes)
    found = {
        "bandwidth": bandwidth(device),
        "reading_gb_per_s": reading(device),
        "matmul": matmul_rate(device, dtype),
        "alone_us": {},
        "steps": {},
    }
    report(1, jobs)
    for number, size in enumerate(batch_sizes):
        found["alone_us"][str(size)] = {
            one.name: alone_us(one, size, device, dtype) for one in gemms(model.config)
        }
        report(2 + 2 * number, jobs)
        if device.type == "cuda":
            found["steps"][str(size)] = step_of(model, workload.but(batch_size=size))
        report(3 + 2 * number, jobs)
    return {"machine": machine()} | found


def reading(device, size_bytes=None):
    """Return how fast memory is read, in 10^9 bytes a second: float32 numbers, added up."""
    size_bytes = size_bytes or (GIB if device.type == "cuda" else GIB // 64)
    numbers = torch.ones(size_bytes // 4, device=device)
    return significant(size_bytes / median(_times(numbers.sum, device)) / 1e9)


def matmul_rate(device, dtype, rows=None):
    """Return how fast two square matrices of random numbers are multiplied, as in ``limits``.

    Zeros would be faster: a GPU that multiplies them needs less power.
    """
    rows = rows or (SQUARE if device.type == "cuda" else SQUARE // 32)
    left, right = (torch.randn(rows, rows, device=device, dtype=dtype) for _ in range(2))
    rates = [2 * rows**3 / took / 1e12 for took in _times(lambda: left @ right, device)]
    names = {"tflop_per_s": median, "slowest": min, "fastest": max}
    return {name: significant(of(rates)) for name, of in names.items()} | {"rows": rows}


@torch.no_grad()
def alone_us(gemm, batch_size, device, dtype):
    """Return how long one product of a step takes, in µs, where nothing but such products runs.

    Each has weights of its own, so many that no cache holds them. On a GPU they are one graph, so that the
    host does not matter; a time has the pause to the next kernel in it.

    Args:
        gemm: a ``Gemm``.
        batch_size: rows.
        device, dtype: of its numbers.
    """
    cold = COLD if device.type == "cuda" else COLD // 256
    copies = max(2, ceil(cold / (gemm.numbers * dtype.itemsize)))
    made = {"device": device, "dtype": dtype}
    swapped = gemm.stored == "in, out"
    shape = (gemm.inputs, gemm.outputs) if swapped else (gemm.outputs, gemm.inputs)
    weights = [torch.randn(shape, **made) for _ in range(copies)]
    bias = torch.zeros(gemm.outputs, **made) if gemm.bias else None
    row = torch.randn(batch_size, gemm.inputs, **made)

    def work():
        for weight in weights:
            if swapped:
                torch.addmm(bias, row, weight)
            else:
                functional.linear(row, weight, bias)

    run = work if device.type != "cuda" else _captured(work).replay
    return significant(1e6 * median(_times(run, device)) / copies)


def _captured(work):
    """Return ``work`` as a ``torch.cuda.CUDAGraph``."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def _times(work, device):
    """Return how long ``work`` takes, in seconds, ``TRIES`` times after a few that do not count."""
    for _ in range(3):
        work()
    if device.type != "cuda":
        found = []
        for _ in range(TRIES):
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
        return found
    events = timing_events(TRIES + 1)
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in zip(events, events[1:])]


def step_of(model, workload):
    """Say where the time of a bare step goes: the compiled step as a graph, replayed. CUDA only.

    Returns:
        A dict, all times in µs and of one step:

        - ``step_us``: of a replay that follows another, without a profiler;
        - what ``in_parts`` returns of a profiled run.
    """
    step = Step(model, workload)
    graph = step.captured()
    replays = min(REPLAYS, step.length - CACHE_TOKENS - 2)
    times = []
    for _ in range(5):
        step.rewind()
        begin, end = timing_events(2)
        graph.replay()  # the GPU has work when the clock starts
        begin.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1000 * begin.elapsed_time(end) / replays)
    step.rewind()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True):  # the first starts slowly
        torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        for _ in range(PROFILED):
            graph.replay()
        torch.cuda.synchronize()
    lanes = _exported(profiler).lanes.values()
    work = sorted((item for lane in lanes for item in lane), key=lambda item: item.start_us)
    return {"step_us": significant(median(times))} | in_parts(work, PROFILED, gemms(model.config))


def in_parts(work, replays, products):
    """Return what a step is made of, from what the GPU did in several replays of one graph.

    Args:
        work: a list of ``timeline.Work``, in order.
        replays: how often the same work stands in it.
        products: the step's, as ``gemms`` returns them.

    Returns:
        A dict of medians over the replays, times in µs:

        - ``busy_us``: of all that runs in a step, added up;
        - ``kernels``: how many run in a step, copies among them;
        - ``kinds``: what they do -> ``count`` and ``us``, for the names in ``KINDS`` and "copy";
        - ``gap_us``: ``p10``, ``p50`` and ``p90`` of the pauses between two that follow each other;
        - ``gemms_us``: name of a product -> time of one. Empty where the kernels are not those of
          ``products``, one after the other;
        - ``names``: of the matrix products' kernels -> how many run in a step.

    Raises:
        ValueError: the replays do not have the same amount of work.
    """
    if not work or len(work) % replays:
        raise ValueError(f"{len(work)} pieces of work are not {replays} times the same.")
    each = len(work) // replays
    took = [median(item.end_us - item.start_us for item in work[at::each]) for at in range(each)]
    first = work[:each]
    kinds, names = defaultdict(lambda: {"count": 0, "us": 0.0}), defaultdict(int)
    for item, us in zip(first, took, strict=True):
        kind = kind_of(item)
        kinds[kind]["count"] += 1
        kinds[kind]["us"] += us
        if kind == "matrix product":
            names[item.name[:80]] += 1
    gaps = [
        max(after.start_us - before.end_us, 0)
        for at, (before, after) in enumerate(zip(work, work[1:]), start=1)
        if at % each  # the host launches the next replay
    ]
    tenths = quantiles(gaps, n=10) if len(gaps) > 1 else [0.0] * 9
    return {
        "busy_us": significant(sum(took)),
        "kernels": each,
        "kinds": {
            kind: {"count": one["count"], "us": significant(one["us"])}
            for kind, one in kinds.items()
        },
        "gap_us": {
            name: significant(tenths[at]) for name, at in (("p10", 0), ("p50", 4), ("p90", 8))
        },
        "gemms_us": _of_each_product(first, took, products),
        "names": dict(names),
    }


def kind_of(item):
    """Return what a ``timeline.Work`` does: a name in ``KINDS``, or "copy" for a copy or a memset."""
    if item.kind != "kernel":
        return "copy"
    return next(kind for kind, like in KINDS.items() if re.search(like, item.name, re.IGNORECASE))


def _of_each_product(items, took, products):
    """The median time of each product by its name; {} where the kernels are not the products' in turn."""
    times = []
    for item, us in zip(items, took, strict=True):
        if kind_of(item) == "matrix product":
            if HELPER.search(item.name) and times:
                times[-1] += us
            else:
                times.append(us)
    *layer, output = products
    expected = [one.name for _ in range(layer[0].times) for one in layer] + [output.name]
    if len(times) != len(expected):
        return {}
    found = defaultdict(list)
    for name, us in zip(expected, times, strict=True):
        found[name].append(us)
    return {name: significant(median(values)) for name, values in found.items()}
