"""Each safeguard of ``two_streams`` taken out, on a GPU: what happens then, as it is and provoked.

Every broken loop runs in a process of its own, since some of them end it.
"""

import signal
import time
from contextlib import nullcontext, suppress

import torch

from decoding import ranges
from decoding.generation import generate, vocabulary_size
from decoding.loops import two_streams
from decoding.models import load_model
from decoding.ordering.broken import (
    BETWEEN_CALLS,
    SAFEGUARDS,
    calls_in_no_order,
    without,
)

from .errors import MeasurementError
from .machine import machine, require_gpu
from .processes import run_fresh
from .records import significant

NOTHING_OUT = "nothing"
CASES = (NOTHING_OUT, *SAFEGUARDS, BETWEEN_CALLS)
AS_IS, PROVOKED = "as it is", "provoked"
LAG_CYCLES = 2_000_000  # about a millisecond of an H100's clock
LONGEST_S = 150  # then a case that hangs is ended
EAGER = "run = compiled_step if step > 0 else decode_step", "run = decode_step"


def safeguards(model_name="gpt2", device="cuda", calls=5, new_tokens=200, cases=CASES):
    """Run ``two_streams`` without each of its safeguards, and with all of them.

    Each call comes from a stream of its own right behind the call before, and ends at an id that occurs.
    Provoked, the GPU is kept busy for about a millisecond before each prompt is there and behind every step.

    Args:
        model_name, device: for ``load_model``; in bfloat16 on a GPU.
        calls, new_tokens: how many calls, of how many tokens each at most.
        cases: what to take out: names of ``CASES``.

    Returns:
        A dict, case -> "as it is" and "provoked" -> a dict: ``wrong`` of ``tokens``, ``ms`` per token (the
        median of the calls) and ``error``, why it ended; None where there is none.

    Raises:
        NeedsGpu: ``device`` is a CUDA GPU and there is none.
    """
    if torch.device(device).type == "cuda":
        require_gpu("Taking safeguards out on a GPU")
    asked = {"model_name": model_name, "device": device, "calls": calls, "new_tokens": new_tokens}
    found = {}
    for case in cases:
        what = f"two_streams without {case}"
        try:
            both = {"case": case, "ways": (AS_IS, PROVOKED)}
            found[case] = run_fresh(_run_case, what, caches="safeguards", **asked, **both)
        except MeasurementError:  # which of the two ended the process?
            found[case] = {}
            for way in (AS_IS, PROVOKED):
                try:
                    one = {"case": case, "ways": (way,)}
                    found[case] |= run_fresh(_run_case, what, caches="safeguards", **asked, **one)
                except MeasurementError as error:
                    found[case][way] = _dead(str(error))
    return found


def sanitized(model_name="gpt2", device="cuda", new_tokens=12, cases=CASES):
    """Run the same broken loops, their steps not compiled, under ``TORCH_CUDA_SANITIZER``.

    Returns:
        A dict, name -> ``error``: what the sanitizer (or the loop) said, in one line; None for nothing.

    Raises:
        NeedsGpu: ``device`` is a CUDA GPU and there is none.
    """
    if torch.device(device).type == "cuda":
        require_gpu("PyTorch's sanitizer")
    found = {}
    for case in cases:
        try:
            found[case] = run_fresh(
                _run_sanitized,
                f"The sanitizer on two_streams without {case}",
                model_name=model_name,
                device=device,
                new_tokens=new_tokens,
                case=case,
            )
        except MeasurementError as error:
            found[case] = {"error": str(error)}
    return found


def verdict(case, nothing_out):
    """Return in a word what a case came to: "dead", "refused", "wrong", "slower" or "nothing".

    Args:
        case: a dict of ``safeguards``: one case, one way.
        nothing_out: the same of the loop with all its safeguards.
    """
    if case["error"]:
        return "dead" if _is_dead(case["error"]) else "refused"
    if case["wrong"]:
        return "wrong"
    return "slower" if case["ms"] > 1.15 * nothing_out["ms"] else "nothing"


def _is_dead(error):
    return any(words in error for words in ("CUDA error", "device-side assert", "exit code"))


def _dead(error):
    return {"wrong": None, "tokens": None, "ms": None, "error": " ".join(error.split())[:300]}


def _loop(case, *edits):
    """Return the loop of a case, changed by more ``edits``."""
    decode = two_streams.decode
    for old, new in edits:
        decode = without(decode, old, new)
    if case in SAFEGUARDS:
        decode = without(decode, SAFEGUARDS[case].old, SAFEGUARDS[case].new)
    return decode


def _context(case):
    return calls_in_no_order() if case == BETWEEN_CALLS else nullcontext()


def _run_case(report, model_name, device, calls, new_tokens, case, ways):
    if hasattr(signal, "alarm"):
        signal.alarm(LONGEST_S)
    on_gpu = torch.device(device).type == "cuda"
    model = load_model(model_name, device=device, dtype=None if on_gpu else torch.float32)
    work = _work(model, calls, new_tokens)
    for prompt, _, end in work[:2]:  # compiled and captured before anything is broken
        generate(model, prompt, rung="two_streams", max_new_tokens=new_tokens, eos_token_id=end)
    decode = _loop(case)
    found = {}
    for number, way in enumerate(ways):
        report(number, len(ways))
        try:
            with _context(case), torch.no_grad():
                found[way] = _run_way(model, decode, work, new_tokens, way == PROVOKED and on_gpu)
        except Exception as error:
            if _is_dead(str(error)) and len(ways) > 1:
                raise  # the process's CUDA is lost: each way in a process of its own
            found[way] = _dead(f"{type(error).__name__}: {error}")
    return found


def _run_way(model, decode, work, new_tokens, provoked):
    device = torch.get_device_module(model.device)
    results, times = [], []

    def lag(name="", step=0):
        if provoked and name != "stop_check":
            torch.cuda._sleep(LAG_CYCLES)

    for _ in range(2):  # the first run warms up what is new
        device.synchronize()
        results.clear(), times.clear()
        for prompt, _, end in work:
            with device.stream(device.Stream()), ranges.observe(lag):
                began = time.perf_counter()
                lag()
                mine = prompt.clone()
                tokens = decode(model, mine, new_tokens, end)
                results.append((tokens.clone(), tokens))
                times.append((time.perf_counter() - began) * 1000)
        device.synchronize()
    wrong = total = 0
    for (tokens, _), (prompt, expected, _) in zip(results, work, strict=True):
        new, right = (each[0, prompt.shape[1] :].tolist() for each in (tokens, expected))
        same = sum(one == other for one, other in zip(new, right))
        wrong += max(len(new), len(right)) - same
        total += len(right)
    lengths = [expected.shape[1] - prompt.shape[1] for prompt, expected, _ in work]
    per_token = sorted(ms / length for ms, length in zip(times, lengths, strict=True))
    ms = significant(per_token[len(per_token) // 2])
    return {"wrong": wrong, "tokens": total, "ms": ms, "error": None}


def _work(model, calls, new_tokens):
    """Return prompts, each with the tokens that are right and an id that ends them, late."""
    work = []
    for seed in range(calls):
        generator = torch.Generator().manual_seed(seed)
        prompt = torch.randint(vocabulary_size(model), (1, 16), generator=generator)
        prompt = prompt.to(model.device)
        free = generate(model, prompt, rung="compiled", max_new_tokens=new_tokens)
        new = free[0, 16:].tolist()
        end = max(set(new), key=new.index)  # the id that occurs first as late as can be
        work.append((prompt, free[:, : 16 + new.index(end) + 1], end))
    return work


def _run_sanitized(report, model_name, device, new_tokens, case):
    if hasattr(signal, "alarm"):
        signal.alarm(LONGEST_S)
    if torch.device(device).type == "cuda":
        from torch.cuda import _sanitizer

        _sanitizer.enable_cuda_sanitizer()  # as TORCH_CUDA_SANITIZER=1 does when torch is imported
    model = load_model(model_name, device=device, dtype=torch.float32)
    decode = _loop(case, EAGER)
    module = torch.get_device_module(model.device)
    size = vocabulary_size(model)
    try:
        with torch.no_grad(), _context(case):
            for seed in range(2):
                generator = torch.Generator().manual_seed(seed)
                prompt = torch.randint(size, (1, 16), generator=generator).to(model.device)
                module.synchronize()
                with module.stream(module.Stream()):
                    decode(model, prompt.clone(), new_tokens, size - 1)
    except Exception as error:
        with suppress(Exception):
            module.synchronize()
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:600]}
    return {"error": None}


if __name__ == "__main__":
    import json

    found = {"machine": machine(), "safeguards": safeguards(), "sanitized": sanitized()}
    print(json.dumps(found, indent=1))
