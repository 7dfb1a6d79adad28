"""A loop of one's own, put to transformers' tokens: right loops pass, each kind of mistake is named."""

import pytest
import torch

from decoding.checker import check_tokens
from decoding.checking_tokens import NEVER, NEW, _tiny, cases
from decoding.rungs import RUNGS


def greedy(model, tokens, new, eos, *, pads=True, asks=True, late=0, first=True):
    """The plainest loop, with a mistake for each of its options."""
    finished = torch.zeros(len(tokens), dtype=torch.bool)
    for step in range(new):
        chosen = model(tokens, use_cache=False).logits[:, -1].argmax(-1)
        if eos is not None:
            chosen = torch.where(finished, eos, chosen) if pads else chosen
            if first or step:
                finished = finished | (chosen == eos)
        tokens = torch.cat([tokens, chosen[:, None]], 1)
        if asks and eos is not None and finished.all():
            break
    return tokens[:, : tokens.shape[1] - late]


@pytest.mark.parametrize("rung", ["naive", "kv_cache", "static_cache", "two_streams"])
def test_the_books_loops_are_right(rung):
    found = check_tokens(RUNGS[rung].decode, name=rung)
    assert found.right, found
    assert repr(found).startswith(f"{rung} is right") and f"{found.cases} of 6" in repr(found)
    assert (found.waits is None) == (rung == "two_streams")


def test_a_loop_of_ones_own_is_right():
    assert check_tokens(greedy).right


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ({"pads": False}, "Where one row ends and the other does not, new token"),
        ({"asks": False}, "Where all rows end, in different steps, it returns 10 new tokens"),
        ({"late": 1}, "Where no end is looked for, it returns 9 new tokens, and generate 10"),
        ({"first": False}, "Where a row ends in the first step, new token 2"),
    ],
)
def test_a_mistake_is_named(mistake, said):
    found = check_tokens(lambda *args: greedy(*args, **mistake), name="mine")
    assert not found.right
    assert repr(found).startswith("mine is wrong. ") and said in repr(found)


def test_an_error_and_something_else_than_a_tensor_are_named():
    def broken(*_):
        raise KeyError("cache")

    assert "it ends with KeyError" in repr(check_tokens(broken))
    assert "it returns a list, not a tensor" in repr(check_tokens(lambda *_: []))
    assert "of shape [5]" in repr(check_tokens(lambda model, tokens, new, eos: tokens[0]))
    assert "of shape []" in repr(check_tokens(lambda model, tokens, new, eos: tokens[0, 0]))


def test_a_prompt_that_is_gone_or_changed_is_named():
    def without(model, tokens, new, eos):
        return greedy(model, tokens, new, eos)[:, tokens.shape[1] :]

    def changed(model, tokens, new, eos):
        found = greedy(model, tokens, new, eos)
        found[1, 2] += 1
        return found

    assert "rows of 10 tokens, and generate's have 15, the prompt's 5" in repr(
        check_tokens(without)
    )
    assert "row 2 does not begin with its prompt" in repr(check_tokens(changed))


def test_waits_are_counted_and_too_many_are_a_fault():
    def nosy(model, tokens, new, eos):
        for _ in range(3 * new):
            tokens[0, 0].item()
        return greedy(model, tokens, new, eos)

    plain, more = check_tokens(greedy), check_tokens(nosy)
    assert more.waits == plain.waits + 3 * NEW and more.right
    assert check_tokens(greedy, waits=2).right
    assert "are allowed" in repr(check_tokens(nosy, waits=2))


def test_the_cases_are_what_they_say():
    found = {where: (prompt, end) for where, prompt, end in cases(_tiny())}
    assert len(found) == 6 and found["no end is looked for"][1] is None and NEVER in found
