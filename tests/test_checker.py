"""The checker of order: the loops as they are pass, each without a safeguard does not."""

import re
from itertools import islice

import pytest
import torch
from models import ANYWHERE as RUNGS
from models import tiny

from decoding import ranges
from decoding.checker import check_order, without
from decoding.drawing import draw_counterexample
from decoding.loops import two_streams
from decoding.ordering.broken import (
    BETWEEN_CALLS,
    SAFEGUARDS,
    calls_in_no_order,
    without_safeguard,
)
from decoding.ordering.exploring import enumerate_all, explore, reads_the_same
from decoding.ordering.order import HOST, Memory, Operation, Order, Place, Use
from decoding.ordering.recording import record
from decoding.ordering.words import many
from decoding.prepared import with_prepared
from decoding.step import decode_step, start

LOOPS = [name for name in RUNGS if name != "expandable_segments"]
ONE_LATE = ("deferred_check", "captured_graph")  # one stream that asks a step late
NEEDED = [name for name, one in SAFEGUARDS.items() if one.protects == "tokens"]
PLACE = Place("here", 1, "x = y")


@with_prepared(compile_mode="reduce-overhead")
def asks_late(model, input_ids, max_new_tokens, eos_token_id, prepared):
    """One stream: launch the next step, then read the flag of the one before."""
    finished, eos = start(input_ids, eos_token_id)
    tokens, unread = [input_ids], input_ids
    cache, compiled_step = prepared.cache, prepared.compiled_step
    done, flags = prepared.done, prepared.flags
    for step in range(max_new_tokens):
        this, other = step % 2, 1 - step % 2
        with ranges.token(step):
            run = compiled_step if step > 0 else decode_step
            torch.compiler.cudagraph_mark_step_begin()
            unread, finished, all_finished = run(model, unread, cache, finished, eos)
            unread, finished = unread.clone(), finished.clone()
            tokens.append(unread)
            flags[this].copy_(all_finished, non_blocking=True)
            done[this].record()
        with ranges.stop_check(step):
            if eos_token_id is not None and step > 0:
                done[other].synchronize()
                if flags[other].item():
                    tokens.pop()
                    break
    return torch.cat(tokens, dim=1)


@pytest.mark.parametrize("name", [*LOOPS, "expandable_segments"])
def test_every_rung_is_right_in_every_interleaving(name):
    checked = check_order(name)
    assert checked.right, repr(checked)
    assert checked.interleavings > 1 and checked.complete
    # Those that ask at once leave the GPU with nothing to do; those that ask late never do. On one
    # stream nobody asks about the last step. Nor does the device, whose part the host takes here.
    assert checked.steps == 4
    assert checked.waits == (3 if name in ONE_LATE or name == "device_loop" else 4)
    late = name in ("two_streams", *ONE_LATE)
    assert checked.dry_waits == (0 if late else checked.waits)
    assert checked.extra_steps == late
    words = repr(checked)
    assert words.startswith(f"{name}: ") and "every one of" in words and "is right" in words


def test_a_loop_of_ones_own_is_right():
    checked = check_order(asks_late)
    assert checked.right, repr(checked)
    assert checked.name == "asks_late" and checked.lanes[0] == HOST
    assert (checked.extra_steps, checked.dry_waits, checked.waits) == (1, 0, 3)


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_other_models(architecture):
    assert check_order("two_streams", model=tiny(architecture)).right


@pytest.mark.parametrize("name", NEEDED)
def test_without_a_safeguard_there_is_a_counterexample(name):
    checked = check_order(without_safeguard(name), name=f"without {name}")
    assert not checked.right and checked.interleavings is None
    first = checked.faults[0]
    words = repr(checked)
    assert words.startswith(f"without {name} is wrong: {first.words}") and re.search(
        r"line \d+", first.words
    )
    if name != "no question before the first answer":  # wrong in every order: it needs no example
        marks = [row.mark for row in first.rows]
        assert marks.count("too early") == marks.count("too late") == 1
        assert len(first.rows) <= 13 and "too early" in checked._repr_markdown_()


@pytest.mark.parametrize(
    ("name", "said"),
    {
        "the order behind the caller's stream": "Stream A reads .* before the stream of caller 2 has written it",
        "the wait between the streams": r"Stream B reads unread \(.*, step 1\) before stream A has written it \(.*, step 0\)",
        "the other stream's event": r"Stream B reads unread \(.*, step 1\) before stream A has written it",
        "the clone of a graph's output": "reads unread, an output of the graph .* overwritten it",
        "a flag for each step in flight": r"host reads flags\[0\] .* stream B writes it .* in no order",
        "the event behind the copy": r"host reads flags\[0\] .* stream A writes it .* in no order",
        "the wait for the flag": r"host reads flags\[0\] .* stream A writes it .* in no order",
        "no question before the first answer": r"host reads flags\[1\] .* call before has left",
        "the wait at the end": "The stream of caller 2 reads unread .* before stream B has written it",
    }.items(),
)
def test_the_counterexample_names_the_cause(name, said):
    assert re.search(said, check_order(without_safeguard(name)).faults[0].words)


def test_pinned_memory_and_a_copy_that_does_not_block_protect_the_time():
    right = check_order("two_streams")
    for broken in (
        without_safeguard("pinned memory"),
        without(two_streams.decode, ", non_blocking=True"),
    ):
        slower = check_order(broken)
        assert slower.right
        assert slower.waits == right.waits + slower.steps
        assert (right.dry_waits, slower.dry_waits) == (0, slower.steps)


def test_waiting_for_the_own_step_is_right_and_brings_the_bubble_back():
    slower = check_order(without(two_streams.decode, "done[other].synch", "done[this].synch"))
    assert slower.right and slower.dry_waits == slower.steps


def test_order_between_calls():
    with calls_in_no_order():
        for name in ("static_cache", "two_streams"):
            checked = check_order(name)
            assert not checked.right and "call 2" in checked.faults[0].words
    assert BETWEEN_CALLS not in SAFEGUARDS and check_order("two_streams").right


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("                done[other].synchronize()\n", ""),
        (
            "done, flags = prepared.done, prepared.flags",
            "done, flags = prepared.done, prepared.flags[:1] * 2",
        ),
        ("            unread, finished = unread.clone(), finished.clone()\n", ""),
        ("flags[other].item()", "flags[this].item()"),
        ("tokens.pop()", "pass"),
    ],
)
def test_one_stream_without_a_safeguard(old, new):
    assert not check_order(without(asks_late, old, new)).right


def test_too_many_steps_past_the_end():
    assert not check_order("two_streams", extra_steps=0).right
    assert check_order("compiled", extra_steps=0).right


def test_an_error_is_a_fault():
    def fails(model, input_ids, max_new_tokens, eos_token_id):
        raise KeyError("nothing here")

    assert "nothing here" in check_order(fails).faults[0].words


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda tokens: None, "returns a NoneType, not a tensor"),
        (lambda tokens: tokens[0], r"a tensor of shape \[5\]"),
        (lambda tokens: tokens[0, 0], r"a tensor of shape \[\]"),
        (lambda tokens: tokens[:0], r"a tensor of shape \[0, 5\]"),
        (lambda tokens: tokens.int(), r"the new tokens \[\]"),
    ],
)
def test_what_is_no_batch_of_tokens_is_a_fault(returned, said):
    checked = check_order(lambda model, tokens, new, eos: returned(tokens), name="mine")
    assert re.search(said, checked.faults[0].words) and not checked.right


def test_a_copy_on_the_host_has_the_dtype_that_was_asked_for():
    seen = []

    def loop(model, input_ids, max_new_tokens, eos_token_id):
        seen.append(input_ids.to("cpu", torch.int32).dtype)
        seen.append(input_ids.to("cpu", dtype=torch.int16, non_blocking=True).dtype)
        return input_ids

    record(loop, tiny("gpt2"), [torch.arange(1, 6)[None]], 4, [None])
    assert seen == [torch.int32, torch.int16]


def on_a_side_stream(model, input_ids, max_new_tokens, eos_token_id):
    device = torch.get_device_module(model.device)
    side, cache = device.Stream(), None
    finished, eos = start(input_ids, eos_token_id)
    tokens = input_ids
    for _ in range(max_new_tokens):
        side.wait_stream(device.current_stream())
        with device.stream(side):
            unread, finished, all_finished = decode_step(model, tokens, cache, finished, eos)
        device.current_stream().wait_stream(side)
        tokens = torch.cat([tokens, unread], dim=1)
        if eos_token_id is not None and all_finished.cpu().item():
            break
    return tokens


def test_memory_that_is_let_go_of_while_another_stream_uses_it():
    assert check_order(on_a_side_stream).right
    assert not check_order(
        without(on_a_side_stream, "        side.wait_stream(device.current_stream())\n")
    ).right


def test_record_stream_keeps_memory():
    def lends(keep):
        def decode_it(model, input_ids, max_new_tokens, eos_token_id):
            device = torch.get_device_module(model.device)
            side = device.Stream()
            for _ in range(2):
                lent = input_ids + 1
                side.wait_stream(device.current_stream())
                with device.stream(side):
                    used = lent * 2
                if keep:
                    lent.record_stream(side)
                del lent, used
            device.current_stream().wait_stream(side)
            return input_ids

        return decode_it

    def anew(decode):
        prompts = [torch.zeros(1, 5, dtype=torch.int64)]
        order, _, _ = record(decode, tiny("gpt2"), prompts, 4, [None])
        return [race for race in order.races() if race.second_use.anew]

    assert anew(lends(keep=False)) and not anew(lends(keep=True))


# The search for races against the run through every interleaving: each knows nothing of the other.


@pytest.mark.parametrize("name", [None, *SAFEGUARDS])
@pytest.mark.parametrize("tokens", [2, 3])
def test_races_and_interleavings_agree(name, tokens):
    decode = without_safeguard(name) if name else two_streams.decode
    prompts = [torch.arange(1, 6)[None], torch.arange(2, 7)[None]]
    order, _, _ = record(decode, tiny("gpt2"), prompts, tokens, [60, None])
    explored = explore(order)
    assert explored.complete and bool(order.races()) == (explored.wrong is not None)
    if explored.wrong:
        assert not reads_the_same(order, explored.wrong)


def chain(*rows):
    """Return an ``Order`` from (lane, numbers before, read memories, written memories)."""
    operations = []
    for number, (lane, before, reads, writes) in enumerate(rows):
        one = Operation(number, lane, "work", PLACE, 1, 0)
        last = [other for other in operations if other.lane == lane][-1:]
        one.before = last + [operations[at] for at in before]
        one.reads = [Use(memory, 0, 4) for memory in reads]
        one.writes = [Use(memory, 0, 4) for memory in writes]
        operations.append(one)
    return Order(operations)


def test_interleavings_are_counted_and_each_is_run():
    x, y = Memory("x"), Memory("y")
    free = chain(("A", [], [], [x]), ("A", [], [x], [x]), ("B", [], [], [y]), ("B", [], [y], []))
    found = list(enumerate_all(free))
    assert len(found) == 6 == explore(free).interleavings
    assert all(reads_the_same(free, one) for one in found) and not free.races()

    tied = chain(("A", [], [], [x]), ("A", [], [], []), ("B", [0], [x], []), ("B", [], [], []))
    assert len(list(enumerate_all(tied))) == explore(tied).interleavings == 3

    torn = chain(("A", [], [], [x]), ("B", [], [x], []))
    assert [race.first.number for race in torn.races()] == [0]
    assert [reads_the_same(torn, one) for one in enumerate_all(torn)] == [True, False]
    assert [one.number for one in explore(torn).wrong] == [1]
    (race,) = torn.races()
    assert [one.number for one in torn.interleaving(race)] == [1, 0]


def test_all_interleavings_of_a_small_loop_one_by_one():
    prompts = [torch.arange(1, 6)[None]]
    for name in (None, "the wait between the streams"):
        decode = without_safeguard(name) if name else two_streams.decode
        order, _, _ = record(decode, tiny("gpt2"), prompts, 2, [None])
        found = [
            reads_the_same(order, one)
            for one in islice(enumerate_all(order), 20_000 if name is None else 100)
        ]
        assert all(found) == (name is None)
        if name is None:
            assert len(found) == explore(order).interleavings


def test_bytes_of_one_buffer_are_told_apart():
    def two_flags(whole):
        def loop(model, input_ids, max_new_tokens, eos_token_id):
            device = torch.get_device_module(model.device)
            flags = torch.zeros(2, dtype=torch.bool, pin_memory=True)
            side = device.Stream()
            side.wait_stream(device.current_stream())
            with device.stream(side):
                flags[1].copy_(input_ids[0, 0] > 0, non_blocking=True)
            flags[0 if not whole else 1].item()
            device.current_stream().wait_stream(side)
            return input_ids

        return loop

    prompts = [torch.arange(1, 6)[None]]
    for whole in (False, True):
        order, _, _ = record(two_flags(whole), tiny("gpt2"), prompts, 4, [None])
        assert bool(order.races()) == whole


def test_a_counterexample_is_drawn_and_told():
    broken = check_order(without_safeguard("the wait between the streams"), name="no wait")
    picture = draw_counterexample(broken, caption="A sentence.")
    assert broken.faults[0].words in picture.alt and "(too early)" in picture.alt
    for words in ("host", "stream A", "stream B", "too early", "too late", "reads unread"):
        assert words in picture.svg
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_counterexample(check_order("compiled"))


def test_changes_add_up():
    twice = without(without(two_streams.decode, " and step > 0"), ", non_blocking=True")
    assert not check_order(twice).right and check_order(twice).waits > 0


def test_what_is_taken_out_must_stand_there_once():
    with pytest.raises(ValueError, match="stands 0 times"):
        without(two_streams.decode, "nothing of the kind")
    with pytest.raises(ValueError, match="stands 2 times"):
        without(two_streams.decode, "done[this]")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (999_999, "999,999"),
        (1_000_000, "1.0 × 10⁶"),
        (9_960_000, "1.0 × 10⁷"),
        (2 * 10**400, "2.0 × 10⁴⁰⁰"),
    ],
)
def test_a_large_count_has_one_digit_before_the_point(number, words):
    assert many(number) == words


def test_nothing_stays_behind():
    before = torch.get_device_module, torch.compile, torch.cuda.Stream, torch.Tensor.record_stream
    check_order("two_streams")
    after = torch.get_device_module, torch.compile, torch.cuda.Stream, torch.Tensor.record_stream
    assert before == after


def test_arguments():
    with pytest.raises(ValueError, match="at least 3"):
        check_order("compiled", tokens=2)
    with pytest.raises(ValueError, match="There is no rung"):
        check_order("no such rung")
