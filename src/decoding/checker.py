"""``check_order``: does a decoding loop give the right tokens in every order that its waits allow?

A GPU runs what the host has launched later, and each of its streams at its own pace. A loop is right if
it is right for *every* interleaving of host and streams, not for those that one machine happens to
show. So nothing is timed here: the loop's own code runs on a CPU, with stand-ins for streams,
events and graphs; what it asks for is written down as a partial order; and the order is checked.
"""

from functools import cache

import torch

from .checking_tokens import Tokens, check_tokens
from .loops import kv_cache
from .models import load_model
from .ordering.broken import name_of, without
from .ordering.exploring import explore
from .ordering.order import HOST
from .ordering.recording import record
from .ordering.words import Fault, counted, fault_of, many, overwritten_fault
from .rungs import find_rung

#: Two calls, and where each ends: at a token in the middle, at none, and without looking.
SITUATIONS = {"an end is looked for": ("early", "never"), "none is looked for": (None, None)}


class Checked:
    """What ``check_order`` found.

    Attributes:
        name: of the loop.
        right: whether no fault was found.
        faults: a list of ``Fault``: each with ``words``, and with ``rows``, an interleaving in which it
            happens. The first is the one to look at.
        tokens: how many tokens a call makes at most.
        operations: how many operations were ordered, of the host and of all streams.
        lanes: the names of the host and the streams.
        interleavings: how many orders of these are possible; None if there is a fault.
        states: how many different states they pass.
        complete: whether all of them were run through; False where there were too many states.
        steps: steps of a call that looks for an end and finds none.
        waits: how often the host waits in such a call.
        dry_waits: how often with nothing queued behind, so that the GPU runs dry.
        extra_steps: how many steps ran past the end.
    """

    def __init__(self, name, tokens):
        self.name, self.tokens = name, tokens
        self.faults, self.lanes = [], []
        self.operations = self.interleavings = self.states = 0
        self.complete = True
        self.steps = self.waits = self.dry_waits = self.extra_steps = 0

    @property
    def right(self):
        return not self.faults

    def __repr__(self):
        if self.right:
            return self._summary()
        first = self.faults[0]
        lines = [f"{self.name} is wrong: {first.words}"]
        for row in first.rows:
            mark = f"  <- {row.mark}" if row.mark else ""
            cells = f"{row.lane:22} {_step(row):16} {_line(row):9}"
            lines.append(f"  {cells} {row.does}{mark}")
        return "\n".join([*lines, *self._more()])

    def _repr_markdown_(self):
        if self.right:
            rows = [f"| **{self.name}** | right |", "| :- | :- |"]
            return "\n".join([*rows, *(f"| {what} | {found} |" for what, found in self._facts())])
        first = self.faults[0]
        parts = [f"**{self.name} is wrong:** {first.words}"]
        if first.rows:
            rows = ["| where | step | line | what happens | |", "| :- | :- | :- | :- | :- |"]
            for row in first.rows:
                does = row.does.replace("|", "\\|")
                mark = f"**{row.mark}**" if row.mark else ""
                rows.append(f"| {row.lane} | {_step(row)} | {_line(row)} | {does} | {mark} |")
            parts.append("\n".join(rows))
        return "\n\n".join([*parts, *self._more()])

    def _summary(self):
        streams = counted(len(self.lanes) - 1, "stream")
        every = (
            f"every one of {many(self.interleavings)} interleavings is right. "
            if self.interleavings
            else "no two uses of one memory are out of order. "
        )
        return (
            f"{self.name}: {self.operations} operations on the host and {streams}, calls of up to "
            f"{counted(self.tokens, 'token')}: {every}{self._cost()}"
        )

    def _facts(self):
        """What a table says of a loop that is right, row by row."""
        every = (
            f"{many(self.interleavings)}, all of them right"
            if self.interleavings
            else "not counted"
        )
        return [
            (
                "operations",
                f"{self.operations}, on the host and {counted(len(self.lanes) - 1, 'stream')}",
            ),
            ("tokens of a call", f"up to {self.tokens}"),
            ("interleavings", every),
            ("the host waits", f"{counted(self.waits, 'time')} in {counted(self.steps, 'step')}"),
            ("of these with nothing else queued", self.dry_waits or "none"),
            ("steps past the end", self.extra_steps),
        ]

    def _cost(self):
        dry = f"{self.dry_waits} of them" if self.dry_waits else "never"
        return (
            f"In {counted(self.steps, 'step')} the host waits {counted(self.waits, 'time')}, {dry} with nothing else "
            f"queued; {counted(self.extra_steps, 'step')} ran past the end."
        )

    def _more(self):
        rest = len(self.faults) - 1
        return [f"And {counted(rest, 'fault')} more, of the same cause or others."] if rest else []


def check_order(decode, *, tokens=4, extra_steps=1, model=None, name=None):
    """Check a decoding loop in every interleaving of the host and its streams, on a CPU, in seconds.

    The loop is called twice, from two streams, with nobody waiting between the calls; once with an end
    of sequence that is found in the first call and not in the second, once with none. It must

    - give the right tokens, and run at most ``extra_steps`` steps past the end;
    - read nothing before it is written, and overwrite nothing before it is read: neither tensors nor
      flags in the host's memory, nor the outputs of a graph, which the next replay overwrites;
    - read no flag that this call has not written;
    - let go of no memory that another stream than its own may still use;
    - have the caller's stream wait for all that made the result, and wait for the caller's itself.

    Args:
        decode: a loop, ``decode(model, input_ids, max_new_tokens, eos_token_id)`` or
            ``decode(model, input_ids, max_new_tokens, eos_token_id, prepared)``; or a rung's name.
        tokens: how many tokens a call makes at most, 3 or more.
        extra_steps: how many steps past the end the loop promises at most.
        model: a causal LM on the CPU; default: a tiny GPT-2.
        name: what to call the loop.

    Returns:
        A ``Checked``, which says what it found when a notebook shows it.

    Raises:
        ValueError: there are too few tokens, the rung is unknown, the model is not on the CPU, or it chooses
            one token over and over.

    The stand-ins know streams, events, ``record_stream``, pinned memory, copies, ``item`` and steps
    compiled into CUDA graphs. They don't know kernels that a loop launches around PyTorch.
    """
    if tokens < 3:
        raise ValueError(
            f"tokens is {tokens}; ask for at least 3, so that an end can be found late."
        )
    if isinstance(decode, str):
        name, decode = name or decode, find_rung(decode).decode
    if name is None:
        name = name_of(decode)
    model = model or _tiny()
    if model.device.type != "cpu":
        raise ValueError(
            f"The model is on {model.device}; the order is checked on a CPU: move it there, model.to('cpu')."
        )
    checked = Checked(name, tokens)
    lanes, interleavings = [], 0
    for looks, kinds in SITUATIONS.items():
        prompts, expected, ends, needed = _situation(model, tokens, kinds)
        try:
            order, results, steps = record(decode, model, prompts, tokens, ends)
        except Exception as error:
            checked.faults.append(Fault(f"Where {looks}, it fails: {error}", [], []))
            continue
        races = order.races()
        checked.faults += [fault_of(order, race) for race in races]
        checked.faults += [overwritten_fault(order, *each) for each in order.overwritten]
        checked.faults += _unwritten_flags(order)
        checked.faults += _wrong_results(looks, results, expected, steps, needed, extra_steps)
        checked.operations += len(order.operations)
        lanes += [lane for lane in order.lanes if lane not in lanes]
        if kinds[1] is not None:
            waits, dry = order.waits(call=2)
            checked.steps, checked.waits, checked.dry_waits = steps[1], len(waits), len(dry)
            checked.extra_steps = steps[0] - needed[0]
        if not races:
            explored = explore(order)
            if explored.wrong is not None:  # a race that was overlooked
                raise AssertionError(
                    f"{name}: an interleaving is wrong in which no race was found."
                )
            interleavings += explored.interleavings
            checked.complete &= explored.complete
            checked.states += explored.states
    checked.lanes = lanes
    checked.interleavings = interleavings if checked.right and checked.complete else None
    return checked


def _step(row):
    if row.step is None:
        return ""
    return f"step {row.step}" + (f", call {row.call}" if row.call > 1 else "")


def _line(row):
    return f"line {row.line}" if row.line else ""


@cache
def _tiny():
    return load_model("gpt2-tiny", device="cpu", dtype=torch.float32)


def _situation(model, tokens, kinds):
    """Return the prompts of some calls, the tokens they shall give, their ends, and the steps needed."""
    found = [_call(model, tokens, kind, seed) for seed, kind in enumerate(kinds)]
    return [list(each) for each in zip(*found)]


@torch.no_grad()
def _call(model, tokens, kind, seed):
    size = model.get_input_embeddings().num_embeddings
    at = tokens - 3  # where it ends; a loop that learns it late still has a step to run
    for number in range(100):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        prompt = torch.randint(size, (1, 5), generator=generator)
        expected = kv_cache.decode(model, prompt, tokens, None)
        new = expected[0, 5:].tolist()
        if kind != "early":
            end = None if kind is None else next(i for i in range(size) if i not in new)
            return prompt, expected, end, tokens
        if new.index(new[at]) == at:
            return prompt, expected[:, : 5 + at + 1], new[at], at + 1
    raise ValueError("The model repeats one token; take a model whose tokens differ.")


def _wrong_results(looks, results, expected, steps, needed, extra_steps):
    """The faults that show even where everything happens in the order of the host."""
    faults = []
    for call, (found, right) in enumerate(zip(results, expected), 1):
        if found.dim() != 2 or len(found) != len(right):
            words = (
                f"In call {call}, where {looks}, it returns a tensor of shape {list(found.shape)}; right is "
                f"{list(right.shape)}."
            )
            faults.append(Fault(words, [], []))
        elif found.tolist() != right.tolist():
            words = (
                f"In call {call}, where {looks}, it returns the new tokens {found[0, 5:].tolist()}, even if everything "
                f"happens at once; right are {right[0, 5:].tolist()}."
            )
            faults.append(Fault(words, [], []))
    for call, (ran, due) in enumerate(zip(steps, needed), 1):
        if ran - due > extra_steps:
            words = (
                f"In call {call}, where {looks}, it runs {counted(ran - due, 'step')} past the end; promised are at most "
                f"{extra_steps}."
            )
            faults.append(Fault(words, [], []))
    return faults


def _unwritten_flags(order):
    """The faults of flags that the host reads before the call has written them at all."""
    copied = {use.memory for one in order.operations if one.kind == "copy" for use in one.writes}
    faults, last = [], {}
    for one in order.operations:
        for use in one.reads:
            if one.lane == HOST and use.memory in copied and last.get(use.memory) != one.call:
                words = (
                    f"The host reads {use.memory.name} (line {one.place.line}, step {one.step} of call {one.call}), which "
                    "nothing in that call has written yet: it holds what the call before has left there."
                )
                faults.append(Fault(words, [], []))
        last |= {use.memory: one.call for use in one.writes}
    return faults


__all__ = ["Checked", "Tokens", "check_order", "check_tokens", "without"]
