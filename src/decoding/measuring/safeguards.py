"""Each safeguard of ``two_streams`` taken out, on a GPU: what happens then, as it is and provoked.

The broken loops run one after another in one process, for as long as it lives. Some of them end it, or
take its CUDA with them; then another process goes on with the next.
"""

import argparse
import importlib
import inspect
import json
import signal
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path

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
from .fingerprint import fingerprint
from .machine import machine, require_gpu
from .processes import run_fresh
from .records import SCHEMA, save, significant

NOTHING_OUT = "nothing"
CASES = (NOTHING_OUT, *SAFEGUARDS, BETWEEN_CALLS)
#: The order in which they run: where time runs out, what comes last is lost.
TELLING_FIRST = (
    NOTHING_OUT,
    "the clone of a graph's output",
    "the wait between the streams",
    "the wait for the flag",
    "the order behind the caller's stream",
    "the wait at the end",
    "a flag for each step in flight",
    BETWEEN_CALLS,
    "no question before the first answer",
    "the event behind the copy",
    "pinned memory",
    "the other stream's event",
)
#: What the sanitizer is asked about: streams, graphs, the host, and what is in order.
ASKED = (
    NOTHING_OUT,
    "the wait between the streams",
    "the order behind the caller's stream",
    "the wait at the end",
    "the wait for the flag",
    "the clone of a graph's output",
)
AS_IS, PROVOKED = "as it is", "provoked"
SANITIZED = "sanitized"
LAG_CYCLES = 2_000_000  # about a millisecond of an H100's clock
LONGEST_S = 60  # then a loop that hangs is ended
EAGER = "run = compiled_step if step > 0 else decode_step", "run = decode_step"


def safeguards(
    model_name="gpt2", device="cuda", calls=5, new_tokens=200, cases=TELLING_FIRST, file=None
):
    """Run ``two_streams`` without each of its safeguards, and with all of them.

    Each call comes from a stream of its own right behind the call before, and ends at an id that occurs.
    Provoked, the GPU is kept busy for about a millisecond before each prompt is there and behind every step.
    Between two broken loops the whole one must give the right tokens, else a new process begins.

    Args:
        model_name, device: for ``load_model``; in bfloat16 on a GPU.
        calls, new_tokens: how many calls, of how many tokens each at most.
        cases: what to take out: names of ``CASES``, in the order in which they run.
        file: where to keep a record of what is found, written anew after each case.

    Returns:
        A dict, case -> "as it is" and "provoked" -> a dict: ``wrong`` of ``tokens``, ``ms`` per token (the
        median of the calls) and ``error``, why it ended; None where there is none.

    Raises:
        NeedsGpu: ``device`` is a CUDA GPU and there is none.
        MeasurementError: not even the whole loop runs.
    """
    if torch.device(device).type == "cuda":
        require_gpu("Taking safeguards out on a GPU")
    asked = {"model_name": model_name, "device": device, "calls": calls, "new_tokens": new_tokens}
    parts = [[case, way] for case in cases for way in (AS_IS, PROVOKED)]
    return _one_after_another(_run_cases, "two_streams without a safeguard", parts, file, asked)


def sanitized(model_name="gpt2", device="cuda", new_tokens=6, cases=ASKED, file=None):
    """Run the same broken loops, their steps not compiled, under ``TORCH_CUDA_SANITIZER``.

    Args:
        model_name, device, cases, file: as for ``safeguards``; in float32.
        new_tokens: of each of the two calls; every operation takes a while.

    Returns:
        A dict, case -> "sanitized" -> a dict with ``error``: what the sanitizer (or the loop) said, in one
        line; None for nothing.

    Raises:
        NeedsGpu: ``device`` is a CUDA GPU and there is none.
        MeasurementError: the model cannot be loaded.
    """
    if torch.device(device).type == "cuda":
        require_gpu("PyTorch's sanitizer")
    asked = {"model_name": model_name, "device": device, "new_tokens": new_tokens}
    parts = [[case, SANITIZED] for case in cases]
    return _one_after_another(_run_sanitized, "PyTorch's sanitizer", parts, file, asked)


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


def _one_after_another(task, what, parts, file, asked):
    """Run ``task`` on all ``parts``, each a case and a way, and return case -> way -> what it found.

    What ends a process is noted as dead, and the next process goes on behind it.
    """
    with tempfile.TemporaryDirectory() as folder:
        notes = Notes(Path(folder) / "notes.json", parts, file)
        while left := notes.left():
            failed = "not even the loop with all its safeguards gives the right tokens here."
            try:
                run_fresh(task, what, caches="safeguards", notes=notes, **asked)
            except MeasurementError as error:
                failed = str(error)
            if notes.left() != left:
                continue
            if notes.begun() != left[0]:
                raise MeasurementError(failed)
            notes.put(left[0], _dead(failed))
        return notes.found()


class Notes:
    """What is found so far, in a file, which outlives the process that writes it.

    Args:
        path: the file.
        parts: what is to be found, each a case and a way.
        record: None, or where to keep a record of the cases that are complete.
    """

    def __init__(self, path, parts, record=None):
        self.path, self.parts, self.record = Path(path), parts, record and Path(record)
        self._write([], None)

    def left(self):
        """Return the parts that are still to be found."""
        done = [part for part, _ in self._read()["done"]]
        return [part for part in self.parts if part not in done]

    def begun(self):
        """Return the part that was begun last, or None."""
        return self._read()["begun"]

    def found(self):
        """Return case -> way -> what was found, of complete cases, in the order of ``CASES``."""
        found, left = {}, [case for case, _ in self.left()]
        for (case, way), each in self._read()["done"]:
            if case not in left:
                found.setdefault(case, {})[way] = each
        known = [case for case in CASES if case in found]
        return {
            case: found[case] for case in [*known, *(case for case in found if case not in known)]
        }

    def begin(self, part):
        self._write(self._read()["done"], part)

    def put(self, part, found):
        self._write([*self._read()["done"], [part, found]], part)
        if self.record and part[0] not in [case for case, _ in self.left()]:
            save(_record(self.found()), self.record)

    def _read(self):
        return json.loads(self.path.read_text(encoding="utf-8"))

    def _write(self, done, begun):
        save({"done": done, "begun": begun}, self.path)


def _record(found):
    """Return the record that a chapter keeps of ``found`` as ``evidence``."""
    made_on, asked = _made_on()
    return {"schema": SCHEMA, "machine": made_on, "found": found, "asked": asked}


@cache  # the driver is asked once in a process, not once a case
def _made_on():
    source = inspect.getsource(sys.modules[__name__])
    return machine() | {"code": fingerprint(())}, fingerprint((), [source])


def _run_cases(report, notes, model_name, device, calls, new_tokens):
    _end_in(2 * LONGEST_S)
    on_gpu = torch.device(device).type == "cuda"
    model = load_model(model_name, device=device, dtype=None if on_gpu else torch.float32)
    work = _work(model, calls, new_tokens)
    for part in notes.left():
        if not _is_whole(model, work, new_tokens):
            return
        case, way = part
        _end_in(LONGEST_S)
        notes.begin(part)
        try:
            with _context(case), torch.no_grad():
                found = _run_way(model, _loop(case), work, new_tokens, way == PROVOKED and on_gpu)
        except Exception as error:
            found = _dead(f"{type(error).__name__}: {error}")
        notes.put(part, found)
        report(len(notes.parts) - len(notes.left()), len(notes.parts))
        if found["error"] and _is_dead(found["error"]):
            return


def _is_whole(model, work, new_tokens):
    """Whether the loop with all its safeguards gives the right tokens in this process."""
    prompt, expected, end = work[0]
    with suppress(Exception):
        torch.get_device_module(model.device).synchronize()
        ends = {"max_new_tokens": new_tokens, "eos_token_id": end}
        tokens = generate(model, prompt, rung="two_streams", **ends)
        return torch.equal(tokens, expected)
    return False


def _end_in(seconds):
    """End this process in ``seconds``, where the system can, unless it is asked again."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _run_way(model, decode, work, new_tokens, provoked):
    device = torch.get_device_module(model.device)
    results, times = [], []

    def lag(name="", step=0):
        if provoked and name != "stop_check":
            torch.cuda._sleep(LAG_CYCLES)

    device.synchronize()
    for prompt, _, end in work:
        with device.stream(device.Stream()), ranges.observe(lag):
            began = time.perf_counter()
            lag()
            mine = prompt.clone()
            tokens = decode(model, mine, new_tokens, end)
            results.append(tokens.clone())
            times.append((time.perf_counter() - began) * 1000)
    device.synchronize()
    wrong = total = 0
    for tokens, (prompt, expected, _) in zip(results, work, strict=True):
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


def _run_sanitized(report, notes, model_name, device, new_tokens):
    _end_in(LONGEST_S)
    if torch.device(device).type == "cuda":
        from torch.cuda import _sanitizer

        _sanitizer.enable_cuda_sanitizer()  # as TORCH_CUDA_SANITIZER=1 does when torch is imported
    model = load_model(model_name, device=device, dtype=torch.float32)
    module = torch.get_device_module(model.device)
    size = vocabulary_size(model)
    for part in notes.left():
        _end_in(LONGEST_S)
        notes.begin(part)
        decode, found = _loop(part[0], EAGER), {"error": None}
        try:
            module.synchronize()
            with torch.no_grad(), _context(part[0]):
                for seed in range(2):
                    generator = torch.Generator().manual_seed(seed)
                    prompt = torch.randint(size, (1, 16), generator=generator).to(model.device)
                    module.synchronize()
                    with module.stream(module.Stream()):
                        decode(model, prompt.clone(), new_tokens, size - 1)
            module.synchronize()
        except Exception as error:
            found["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:600]
        notes.put(part, found)
        report(len(notes.parts) - len(notes.left()), len(notes.parts))
        if found["error"] and _is_dead(found["error"]):
            return


def main(arguments=None):
    """Make both records of chapter 12: ``safeguards.json`` and ``sanitized.json``, anew after each case."""
    parser = argparse.ArgumentParser(prog="python -m decoding.measuring.safeguards")
    parser.add_argument("--out", default=".", help="the folder to write them to")
    folder = Path(parser.parse_args(arguments).out)
    for find in (safeguards, sanitized):
        began = time.perf_counter()
        found = find(file=folder / f"{find.__name__}.json")
        took = time.perf_counter() - began
        print(f"{find.__name__}: {len(found)} cases in {took:.0f} s")


if __name__ == "__main__":
    # Not this module: a fresh process looks for the tasks under their own module's name.
    importlib.import_module("decoding.measuring.safeguards").main()
