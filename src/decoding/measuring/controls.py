"""Controls: what stands beside a chapter's explanation of a number, so that it is more than a guess.

Each is a function without arguments that must be given, and returns what JSON can hold. Each runs in
fresh processes of its own.
"""

from collections import defaultdict

import torch
from transformers import DynamicCache

from decoding import ranges
from decoding.rungs import EXPANDABLE
from decoding.step import decode_step, start

from .machine import MIB, allocator_found, machine, require_gpu
from .probes import timed
from .processes import run_fresh
from .races import rotated, spreads
from .records import significant
from .replays import Step, bare_replay
from .runs import Run, checksum, enter, load
from .workload import Workload

SINGLE = Workload("gpt2", 1, 128, 256, dtype="bfloat16", repeats=3)


def cold_without_cudnn(workload=SINGLE, rung="kv_cache"):
    """Time the first, cold run of a loop with cuDNN's attention and without: is it the cause?

    Returns:
        A dict, ``with_cudnn`` and ``without_cudnn``: each has ``cold_s``, ``warm_s`` and
        ``cold_per_token_ms``. ``cudnn`` is the version of cuDNN, None where there is none.
    """
    found = {
        name: run_fresh(
            _first_run, f"A cold run {name}", rung=rung, workload=workload, cudnn=allowed
        )
        for name, allowed in (("with_cudnn", True), ("without_cudnn", False))
    }
    return found | {"cudnn": torch.backends.cudnn.version()}


def _first_run(report, rung, workload, cudnn):
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    run = Run(load(workload), rung, workload, {})
    cold, warm = timed(run)[0], timed(run)[0]
    return {
        "cold_s": significant(cold["total"] / 1000),
        "warm_s": significant(warm["total"] / 1000),
        "cold_per_token_ms": significant(sum(cold["curve"]) / len(cold["curve"])),
    }


def compiled_dynamic_cache(workload=SINGLE):
    """Time a compiled step with a cache that grows, beside loops of the ladder, in turn.

    Returns:
        A dict, label -> what a race says of it, for "dynamic cache, eager", "static cache,
        compiled", and "dynamic cache, compiled" with ``dynamic=True`` and with ``dynamic=None``
        (compile anew for every shape, then once for all). ``compilations`` counts the graphs that
        were compiled; ``error`` says why there are no times.
    """
    return run_fresh(_with_dynamic_cache, "Compiling with a dynamic cache", workload=workload)


def _with_dynamic_cache(report, workload):
    model = load(workload)
    runs = {
        "dynamic cache, eager": enter(model, workload, {"rung": "kv_cache"}),
        "static cache, compiled": enter(model, workload, {"rung": "compiled"}),
        "dynamic cache, compiled (dynamic=True)": _GrowingRun(model, workload, True),
        "dynamic cache, compiled (dynamic=None)": _GrowingRun(model, workload, None),
    }
    results, times = {}, defaultdict(list)
    for label, run in list(runs.items()):
        try:
            cold, tokens = timed(run)
            timed(run)
        except Exception as error:  # a finding: it does not compile
            results[label] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            del runs[label]
            continue
        results[label] = {"cold_s": significant(cold["total"] / 1000)}
        results[label] |= {"tokens_sha256": checksum(tokens), "error": None}
        results[label]["compilations"] = getattr(run, "compilations", None)
    for number in range(workload.repeats):
        for label in rotated(runs, number):
            times[label].append(timed(runs[label])[0])
    for label, found in times.items():
        results[label] |= spreads(found)
    return {"machine": machine(), "results": results}


class _GrowingRun(Run):
    """The loop of ``kv_cache`` with its step compiled."""

    def __init__(self, model, workload, dynamic):
        super().__init__(model, "kv_cache", workload, {})
        self.compilations = 0
        self.compiled = torch.compile(self._step, dynamic=dynamic, backend=self._counting)

    @staticmethod
    def _step(model, unread, cache, finished, eos):
        return decode_step(model, unread, cache, finished, eos)

    def _counting(self, graph, inputs):
        self.compilations += 1
        if not self.on_gpu:
            return graph.forward
        return torch._dynamo.lookup_backend("inductor")(graph, inputs)

    @torch.no_grad()
    def __call__(self):
        finished, eos = start(self.input_ids, self.eos_token_id)
        tokens, unread = [self.input_ids], self.input_ids
        cache = DynamicCache(config=self.model.config)
        for step in range(self.new_tokens):
            with ranges.token(step):
                run = self.compiled if step > 0 else decode_step
                unread, finished, all_finished = run(self.model, unread, cache, finished, eos)
                tokens.append(unread)
            with ranges.stop_check(step):
                if all_finished.item():
                    break
        return torch.cat(tokens, dim=1)


def segments_by_stream(workload=SINGLE, rungs=("compiled", "two_streams")):
    """Say which stream each segment of memory belongs to, after a loop has run.

    CUDA only.

    Returns:
        A dict, rung -> a list of dicts, one for each stream and pool: ``stream`` (0 is the default
        one), ``pool`` ("shared", or "private" of CUDA graphs), ``segments``, ``reserved_mib``,
        ``allocated_mib``; and ``workspaces_mib``, by how much the memory in use falls when cuBLAS
        gives back its workspaces, of which it keeps one a stream.
    """
    require_gpu("Attributing memory to streams", workload.device)
    return {
        rung: run_fresh(_segments, f"Memory of {rung}", rung=rung, workload=workload)
        for rung in rungs
    }


def _segments(report, rung, workload):
    run = Run(load(workload), rung, workload, {})
    for _ in range(2):
        run()
    run.synchronize()
    before = torch.cuda.memory_allocated()
    found = by_stream(torch.cuda.memory_snapshot())
    torch._C._cuda_clearCublasWorkspaces()
    workspaces = (before - torch.cuda.memory_allocated()) / MIB
    return {"streams": found, "workspaces_mib": round(workspaces, 2)}


def by_stream(segments):
    """Return the ``segments`` of a snapshot summed up by stream and pool, as a list of dicts."""
    sums = {}
    for segment in segments:
        shared = tuple(segment.get("segment_pool_id", (0, 0))) == (0, 0)
        key = segment.get("stream", 0), "shared" if shared else "private"
        count, reserved, allocated = sums.get(key, (0, 0, 0))
        used = segment.get("allocated_size", 0)
        sums[key] = count + 1, reserved + segment["total_size"], allocated + used
    names = {stream: at for at, stream in enumerate(sorted({stream for stream, _ in sums} | {0}))}
    return [
        {
            "stream": names[stream],
            "pool": pool,
            "segments": count,
            "reserved_mib": round(reserved / MIB, 2),
            "allocated_mib": round(allocated / MIB, 2),
        }
        for (stream, pool), (count, reserved, allocated) in sorted(sums.items())
    ]


def expandable_under_graphs(workload=SINGLE, rung="compiled"):
    """Run a loop with CUDA graphs under both allocators. CUDA only.

    Returns:
        A dict, "default" and "expandable_segments" -> a dict: ``allocator``, as it was found;
        ``warm_s``; ``peak_reserved_mib`` and ``peak_allocated_mib``, compiling and all;
        ``segments``; ``tokens_sha256``.
    """
    require_gpu("Comparing allocators", workload.device)
    settings = {"default": {}, "expandable_segments": EXPANDABLE}
    return {
        name: run_fresh(_under_graphs, f"{rung}, {name}", environment, rung=rung, workload=workload)
        for name, environment in settings.items()
    }


def _under_graphs(report, rung, workload):
    run = Run(load(workload), rung, workload, {})
    run()
    times, tokens = timed(run)
    stats = torch.cuda.memory_stats()
    return {
        "allocator": allocator_found(),
        "warm_s": significant(times["total"] / 1000),
        "peak_reserved_mib": round(stats["reserved_bytes.all.peak"] / MIB, 1),
        "peak_allocated_mib": round(stats["allocated_bytes.all.peak"] / MIB, 1),
        "segments": stats["segment.all.current"],
        "tokens_sha256": checksum(tokens),
    }


def bare_replays(workload=SINGLE):
    """Time a bare replay of the step's graph, as ``replays.bare_replay`` does. CUDA only."""
    require_gpu("Replaying a captured step", workload.device)
    return run_fresh(_bare_replay, "A bare replay", workload=workload)


def _bare_replay(report, workload):
    return bare_replay(load(workload), workload)


def steps_ahead(workload=SINGLE, depths=(0, 1, 2, 3)):
    """Time a loop on one stream that reads its flag so many steps late, in turn. CUDA only.

    With ``compile_mode="reduce-overhead"`` as on the ladder. 0 checks at once; 1 is what two streams
    do; 2 looks two steps ahead, which would absorb launches that scatter.

    Returns:
        A dict: ``machine``, and ``results``, depth -> what a race says of it.
    """
    require_gpu("Looking ahead of the GPU", workload.device)
    return run_fresh(_raced_ahead, "Steps ahead", workload=workload, depths=tuple(depths))


def two_steps_ahead(workload=SINGLE):
    """Time pipelines that look one step and two steps ahead, as ``steps_ahead`` does."""
    return steps_ahead(workload, (1, 2))


def _raced_ahead(report, workload, depths):
    model = load(workload)
    runs = {depth: Ahead(model, workload, depth) for depth in depths}
    times = {depth: [] for depth in depths}
    hashes = {depth: [checksum(run()) for _ in range(3)][-1] for depth, run in runs.items()}
    for number in range(max(3, workload.repeats)):
        for depth in rotated(runs, number):
            times[depth].append(timed(runs[depth])[0])
    results = {
        str(depth): spreads(times[depth]) | {"tokens_sha256": hashes[depth]} for depth in depths
    }
    return {"machine": machine(), "results": results}


class Ahead(Run):
    """A compiled loop that launches ``depth`` steps before it reads a step's flag.

    On a CPU it runs eagerly, with the same tokens.
    """

    def __init__(self, model, workload, depth):
        super().__init__(model, "compiled", workload, {})
        self.depth = depth
        self.step = Step(model, workload, mode="reduce-overhead") if self.on_gpu else None
        self.cache = self.step.cache if self.step else None
        self.flags = [torch.zeros((), dtype=torch.bool) for _ in range(depth + 1)]
        if self.on_gpu:
            self.flags = [flag.pin_memory() for flag in self.flags]
        self.done = [self.device.Event() for _ in self.flags]

    @torch.no_grad()
    def __call__(self):
        """Return the tokens; steps beyond the end are cut off."""
        finished, eos = start(self.input_ids, self.eos_token_id)
        tokens, unread, cache = [self.input_ids], self.input_ids, self._empty_cache()
        compiled = self.step.compiled if self.step else decode_step
        for step in range(self.new_tokens):
            with ranges.token(step):
                run = compiled if step > 0 else decode_step
                torch.compiler.cudagraph_mark_step_begin()
                unread, finished, flag = run(self.model, unread, cache, finished, eos)
                unread, finished = unread.clone(), finished.clone()
                tokens.append(unread)
                slot = step % len(self.flags)
                self.flags[slot].copy_(flag, non_blocking=True)
                self.done[slot].record()
            with ranges.stop_check(step):
                if step >= self.depth and self._was_last(step - self.depth):
                    return torch.cat(tokens[: len(tokens) - self.depth], dim=1)
        last = next((n for n in self._unread_flags() if self._was_last(n)), self.new_tokens - 1)
        return torch.cat(tokens[: last + 2], dim=1)

    def _was_last(self, step):
        slot = step % len(self.flags)
        self.done[slot].synchronize()
        return bool(self.flags[slot].item())

    def _unread_flags(self):
        return range(max(0, self.new_tokens - self.depth), self.new_tokens)

    def _empty_cache(self):
        if self.cache is None:
            return DynamicCache(config=self.model.config)
        self.cache.reset()
        return self.cache
