"""``check_tokens``: does a loop of one's own choose the tokens of transformers' ``generate``? On a CPU, in seconds.

No GPU is needed for that: a token does not depend on who computes it, and a wait is a question for a
value, wherever the value lies.
"""

from functools import cache

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .models import load_model

ROWS, PROMPT, NEW = 2, 5, 10
ASKS = torch.ops.aten._local_scalar_dense.default  # behind .item(), bool(tensor), int(tensor)


class Tokens:
    """What ``check_tokens`` found.

    Attributes:
        name: of the loop.
        faults: a sentence for each case in which it is wrong.
        cases: how many were tried.
        waits: how often the host asked for a value in a call that looked for an end and ran through; None
            where that cannot be counted, since the loop compiles its step.
        steps: the steps of that call.
    """

    def __init__(self, name):
        self.name, self.faults, self.cases, self.waits, self.steps = name, [], 0, None, NEW

    @property
    def right(self):
        return not self.faults

    def __repr__(self):
        if self.right:
            waits = (
                "How often the host waits cannot be counted, since the step is compiled."
                if self.waits is None
                else f"The host waits {self.waits} times in {self.steps} steps."
            )
            return f"{self.name} is right: the tokens of transformers' generate in {self.cases} of {self.cases} cases. {waits}"
        return f"{self.name} is wrong. " + " ".join(self.faults)

    def _repr_markdown_(self):
        return repr(self)


def check_tokens(decode, *, waits=None, model=None, name=None):
    """Compare a loop with transformers' ``generate``, in float32, wherever an end may come.

    Args:
        decode: a loop, ``decode(model, input_ids, max_new_tokens, eos_token_id)``, as in ``Rung``: it
            gets int64 [2, 5], ten new tokens, and None or one id, and returns int64 [2, 5 + n].
        waits: how often the host may wait for the device in a step, for example 1; None counts only.
        model: default: a tiny GPT-2 on the CPU.
        name: what the loop is called; default: its own name.

    Returns:
        ``Tokens``, which say in words what is right, or where it is wrong.

    Raises:
        ValueError: with this model no case is found for some way to end.
    """
    model = model or _tiny()
    found = Tokens(name or getattr(decode, "__name__", "The loop"))
    for where, prompt, end in cases(model):
        found.cases += 1
        expected = _reference(model, prompt, end)
        try:
            with torch.no_grad():
                got = decode(model, prompt.clone(), NEW, end)
        except Exception as error:
            said = str(error).split("\n")[0]
            found.faults.append(f"Where {where}, it ends with {type(error).__name__}: {said}")
            continue
        if fault := _fault(got, expected):
            found.faults.append(f"Where {where}, {fault}.")
        elif where == NEVER:
            found.waits = _waits_of(decode, model, prompt, end)
    if None not in (waits, found.waits) and found.waits > waits * NEW:
        found.faults.append(
            f"The host waits {found.waits} times in {NEW} steps, and {waits} a step are allowed."
        )
    return found


NEVER = "an end is looked for that never comes"


@cache
def _tiny():
    return load_model("gpt2-tiny", device="cpu", dtype=torch.float32)


def cases(model):
    """Yield where an end comes, in words, the prompt, int64 [2, 5], and the end-of-sequence id or None."""
    prompt, free = _free(model, 0)
    yield "no end is looked for", prompt, None
    size = model.get_input_embeddings().num_embeddings
    yield NEVER, prompt, next(x for x in range(size) if x not in set(free.flatten().tolist()))
    wanted = {
        "one row ends and the other does not": lambda at: sorted(at)[0] < NEW - 1 and NEW in at,
        "all rows end, in different steps": lambda at: len(set(at)) > 1 and max(at) < NEW - 1,
        "a row ends in the first step": lambda at: 0 in at and NEW in at,
        "a row ends in the last step": lambda at: sorted(at)[0] == NEW - 1,
    }
    for seed in range(200):
        prompt, free = _free(model, seed)
        for end in set(free.flatten().tolist()):
            at = [row.index(end) if end in row else NEW for row in free.tolist()]
            for where in [one for one, fits in wanted.items() if fits(at)]:
                del wanted[where]
                yield where, prompt, end
        if not wanted:
            return
    raise ValueError(f"With this model no case is found in which {' or '.join(wanted)}.")


def _free(model, seed):
    """A prompt, and the new tokens that follow where nothing ends a row."""
    generator = torch.Generator().manual_seed(seed)
    size = model.get_input_embeddings().num_embeddings
    prompt = torch.randint(size, (ROWS, PROMPT), generator=generator).to(model.device)
    return prompt, _reference(model, prompt, None)[:, PROMPT:]


@torch.no_grad()
def _reference(model, prompt, end):
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=end,
        pad_token_id=end,
    )


def _waits_of(decode, model, prompt, end):
    """How often the host asks for a value in one call; None where a compiler refuses to be watched."""
    counter = _Asks()
    try:
        with torch.no_grad(), counter:
            decode(model, prompt.clone(), NEW, end)
    except RuntimeError:
        return None
    return counter.count


def _fault(got, expected):
    if not isinstance(got, torch.Tensor):
        return f"it returns a {type(got).__name__}, not a tensor"
    if got.dim() != 2 or got.shape[0] != expected.shape[0]:
        return f"it returns a tensor of shape {list(got.shape)}, not {list(expected.shape)}"
    prompts = got[:, :PROMPT].tolist(), expected[:, :PROMPT].tolist()
    if prompts[0] != prompts[1]:
        if got.shape[1] == expected.shape[1] - PROMPT:
            wide = f"rows of {got.shape[1]} tokens, and generate's have {expected.shape[1]}"
            return f"it returns {wide}, the prompt's {PROMPT} before the new ones"
        row = next(at for at, pair in enumerate(zip(*prompts), 1) if pair[0] != pair[1])
        return f"row {row} does not begin with its prompt"
    if got.shape[1] != expected.shape[1]:
        count, due = got.shape[1] - PROMPT, expected.shape[1] - PROMPT
        return f"it returns {count} new tokens, and generate {due}"
    for row, (ours, theirs) in enumerate(zip(got.tolist(), expected.tolist())):
        if ours != theirs:
            at = next(i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
            return f"new token {at - PROMPT + 1} of row {row + 1} is {ours[at]}, and generate's is {theirs[at]}"
    return ""


class _Asks(TorchDispatchMode):
    """Counts the questions for a value."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is ASKS
        return function(*args, **(kwargs or {}))
