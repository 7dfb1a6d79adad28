"""Every call is right after anything that came before, on a GPU that lags behind the host.

Run with ``pytest -m gpu``; the ten thousand rows at the end with ``pytest -m long``.
"""

import gc
import itertools
import random
import warnings
from contextlib import contextmanager, nullcontext

import pytest
import torch
from models import ANYWHERE as RUNGS
from models import prompt, reference
from together import run_together
from transformers import GPT2Config, LlamaConfig

from decoding import generate, load_model, prepared, ranges, release
from decoding.prepared import MOST_KEPT

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
gpu = [pytest.mark.gpu, needs_gpu]

STATIC = [name for name, rung in RUNGS.items() if rung.needs_static_cache]
WAIT_OTHERWISE = ["two_streams", "deferred_check", "captured_graph", "device_loop"]
LOOPS = ["naive", "kv_cache", *STATIC]
NEW, VOCABULARY = 8, 503
LAG = 20_000_000  # clock cycles, some 10 ms: many steps of these models
SIZES = {"vocab_size": VOCABULARY, "initializer_range": 0.5, "bos_token_id": 0, "eos_token_id": 0}


def small(architecture="gpt2", device="cuda", seed=0):
    """A small model that compiles in seconds and whose tokens depend on the whole sequence."""
    if architecture == "gpt2":
        config = GPT2Config(n_layer=2, n_embd=128, n_head=2, pad_token_id=None, **SIZES)
    else:
        config = LlamaConfig(
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=None,
            **SIZES,
        )
    return load_model(config, device=device, dtype=torch.float32, seed=seed)


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(autouse=True, scope="module")
def leave_nothing():
    yield
    release()


def ids(batch=3, length=9, seed=0, device="cuda"):
    return prompt(batch, length, seed, VOCABULARY).to(device)


def call(model, rung, input_ids=None, **options):
    input_ids = ids(device=model.device) if input_ids is None else input_ids
    return generate(model, input_ids, rung=rung, **{"max_new_tokens": NEW} | options)


def expected(model, input_ids=None, new=NEW, eos=None):
    return reference(model, ids(device=model.device) if input_ids is None else input_ids, new, eos)


def unused(model):
    """An id that ``model`` does not choose for the prompt that is decoded if none is named."""
    return min(set(range(1, VOCABULARY)) - set(expected(model).flatten().tolist()))


def expect(model, rung, input_ids=None, **options):
    found = call(model, rung, input_ids, **options)
    assert found.tolist() == expected(model, input_ids).tolist(), rung


def lag(name="decode_step", step=1):
    """Keep the current stream busy for a while; an observer of ranges, too."""
    if name != "stop_check":
        torch.cuda._sleep(LAG)


def kept(device="cuda:0"):
    turn = prepared._turns.get(torch.device(device))
    return [one for shapes in turn.kept.values() for one in shapes.values()] if turn else []


@contextmanager
def failing_at(number, error):
    """A lag in every step, and ``error`` at the end of the range with this number."""
    count = itertools.count()

    def fail(name, step):
        lag(name, step)
        if next(count) == number:
            raise error

    with ranges.observe(fail):
        yield


class TestFailures:
    pytestmark = gpu

    @pytest.mark.parametrize("rung", LOOPS)
    def test_an_error_at_every_step_with_a_lag_then_a_good_call(self, model, rung):
        right = expected(model).tolist()
        compiles = rung in STATIC[1:]  # anew after each failure
        for number in (0, 1, 2, 3, 4, 6, 9) if compiles else range(2 * NEW):
            with (
                failing_at(number, RuntimeError("mine")),
                pytest.raises(RuntimeError, match="^mine$"),
            ):
                call(model, rung, eos_token_id=unused(model))
            # What the failed call used may be given to others at once.
            litter = [torch.full((1 << 20,), -1, device="cuda") for _ in range(8)]
            assert call(model, rung).tolist() == right, number
            del litter

    def test_an_error_while_compiling_warming_up_and_capturing(self):
        """Nothing is kept at first: step 1 compiles and warms up, step 2 captures, step 3 replays."""
        model = small(seed=1)
        right = expected(model).tolist()
        for number in range(6):
            release(model)
            error = torch.OutOfMemoryError() if number % 2 else KeyboardInterrupt()
            with failing_at(number, error), pytest.raises(type(error)):
                call(model, "two_streams", eos_token_id=unused(model))
            assert call(model, "two_streams").tolist() == right

    @pytest.mark.parametrize(
        "rung", ["static_cache", "two_streams", "captured_graph", "device_loop"]
    )
    def test_too_little_memory_at_any_point(self, rung):
        """The share of the card that this process may use ends a little above what it uses now."""
        model, input_ids = small(seed=2), ids(64, 100)
        right = expected(model, input_ids).tolist()
        total = torch.cuda.get_device_properties(0).total_memory
        outcomes = []
        for spare in (0, 4, 16, 40, 64, 160, 2000):
            release()  # of other tests' models, too
            torch.cuda.empty_cache()
            used = torch.cuda.memory_reserved()
            torch.cuda.set_per_process_memory_fraction(min(1.0, (used + (spare << 20)) / total))
            try:
                assert call(model, rung, input_ids, cache_length=256).tolist() == right
                outcomes.append("right")
            except Exception as error:
                assert prepared.is_out_of_memory(error), error
                assert not kept()
                outcomes.append(type(error).__name__)
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)
            expect(model, rung)
        print(rung, outcomes)
        assert outcomes[0] != "right" and outcomes[-1] == "right"


class TestStreams:
    pytestmark = gpu

    @pytest.mark.parametrize("rung", LOOPS)
    def test_calls_from_fresh_streams_back_to_back(self, model, rung):
        inputs = [ids(seed=seed) for seed in range(12)]
        right = [expected(model, one).tolist() for one in inputs]
        call(model, rung)
        torch.cuda.synchronize()
        found = []
        with ranges.observe(lag):
            for one in inputs:
                with torch.cuda.stream(torch.cuda.Stream()):
                    found.append(call(model, rung, one))
        torch.cuda.synchronize()
        assert [one.tolist() for one in found] == right

    def test_calls_of_all_rungs_for_two_models_from_fresh_streams(self, model):
        models = [model, small("llama")]
        jobs = [(models[n % 2], LOOPS[n % len(LOOPS)], ids(seed=n)) for n in range(32)]
        right = [expected(one, input_ids).tolist() for one, _, input_ids in jobs]
        for one, rung, input_ids in jobs:
            call(one, rung, input_ids)
        torch.cuda.synchronize()
        found = []
        with ranges.observe(lambda name, step: lag() if step in (0, 5) else None):
            for one, rung, input_ids in jobs:
                with torch.cuda.stream(torch.cuda.Stream()):
                    found.append(call(one, rung, input_ids))
        torch.cuda.synchronize()
        assert [one.tolist() for one in found] == right

    @pytest.mark.parametrize("rung", STATIC)
    def test_the_prompt_is_made_on_a_stream_that_lags(self, model, rung):
        call(model, rung)
        for seed in range(4):
            right, source = expected(model, ids(seed=seed)).tolist(), ids(seed=seed)
            torch.cuda.synchronize()
            with torch.cuda.stream(torch.cuda.Stream()):
                late = torch.zeros_like(source)
                # generate() looks at the ids, and so waits for them; the loop itself does not.
                torch.cuda._sleep(LAG)
                late.copy_(source)
                with torch.no_grad():
                    found = RUNGS[rung].decode(model, late, NEW, None)
                assert found.tolist() == right

    @pytest.mark.parametrize("rung", STATIC)
    def test_release_and_the_models_end_right_behind_a_call(self, rung):
        for end in ("release", "del"):
            model = small(seed=3)
            right = expected(model).tolist()
            call(model, rung)
            with torch.cuda.stream(torch.cuda.Stream()), ranges.observe(lag):
                found = call(model, rung)
                if end == "release":
                    release(model)
                del model
                gc.collect()
                litter = [torch.full((1 << 20,), -1, device="cuda") for _ in range(32)]
            with torch.cuda.stream(torch.cuda.Stream()):
                litter += [torch.full((1 << 20,), -1, device="cuda") for _ in range(32)]
            assert found.tolist() == right
            del litter


class TestDevices:
    pytestmark = gpu

    def test_a_default_device_of_the_caller(self, model):
        right, input_ids = expected(model).tolist(), ids(device=model.device)
        for rung in LOOPS:
            torch.set_default_device("cuda")
            try:
                # Of a length of its own, so that it is made under the default device.
                found = call(
                    model, rung, input_ids, **({"cache_length": 80} if rung in STATIC else {})
                )
            finally:
                torch.set_default_device(None)
            assert found.tolist() == right

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
    def test_a_device_that_is_not_current(self):
        one = small(device="cuda:1")
        assert torch.cuda.current_device() == 0
        input_ids = ids(1, 9, device="cuda:1")
        tokens = expected(one, input_ids, new=24)[0, 9:].tolist()
        for number in range(10):
            eos = tokens[3 + number % 12]
            right = expected(one, input_ids, new=24, eos=eos).tolist()
            for rung in LOOPS:
                with ranges.observe(lag) if number % 3 == 0 else nullcontext():
                    found = call(one, rung, input_ids, max_new_tokens=24, eos_token_id=eos)
                assert found.device == torch.device("cuda:1")
                assert found.tolist() == right, (rung, number)
        assert torch.cuda.current_device() == 0

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
    def test_two_devices_at_once_and_a_model_that_moves(self, model):
        other = small(device="cuda:1")
        right = expected(model).tolist()
        for rung in LOOPS:
            for one in (model, other, model):
                assert call(one, rung).tolist() == right
        for device in ("cuda:0", "cuda:1", "cpu", "cuda:1"):
            other.to(device)
            for rung in LOOPS:
                assert call(other, rung).tolist() == right


class TestThreads:
    pytestmark = gpu

    def together(self, jobs):
        run_together(jobs, within=lambda: torch.cuda.stream(torch.cuda.Stream()))

    def job(self, model, rung, input_ids, **options):
        right = expected(model, input_ids).tolist()

        def run():
            try:
                assert call(model, rung, input_ids, **options).tolist() == right
            except RuntimeError as refusal:  # torch 2.11 cannot make graphs in a second thread
                assert "CUDA graphs are made in one thread" in str(refusal)
                assert rung in ("compiled", "two_streams", "deferred_check") and not options

        return run

    @pytest.mark.parametrize("rung", LOOPS)
    def test_the_same_shape(self, model, rung):
        torch.cuda.synchronize()
        self.together([self.job(model, rung, ids(seed=seed)) for seed in range(3)])
        expect(model, rung)

    @pytest.mark.parametrize("rung", ["kv_cache", *STATIC])
    def test_different_shapes_and_models(self, model, rung):
        models = [model, model, small("llama")]
        jobs = [self.job(one, rung, ids(2 + n, 5 + n, n)) for n, one in enumerate(models)]
        self.together(jobs)
        expect(model, rung)

    def test_different_models_without_graphs(self, model):
        options = {"compile_mode": "default"}
        models = [model, small("llama")]
        self.together([self.job(one, "two_streams", ids(seed=5), **options) for one in models])


class TestModes:
    pytestmark = gpu

    @pytest.mark.parametrize("rung", STATIC)
    def test_modes_in_every_order(self, rung):
        def autocast():
            return torch.autocast("cuda", dtype=torch.bfloat16)

        model = small("llama", seed=4)
        modes = {"plain": nullcontext, "inference": torch.inference_mode, "autocast": autocast}
        for pair in itertools.permutations(modes, 2):
            for name in pair:
                with modes[name]():
                    found = call(model, rung)
                    if name == "autocast":  # bfloat16 decides some tokens by rounding
                        assert found.shape == (3, 9 + NEW)
                    else:
                        assert found.tolist() == expected(model).tolist(), pair

    @pytest.mark.parametrize("rung", STATIC)
    def test_the_model_changes_its_dtype_and_its_place_between_calls(self, rung):
        model = small("llama", seed=5)
        expect(model, rung)
        changes = (
            lambda: model.to(torch.bfloat16).to(torch.float32),  # other weights, other addresses
            lambda: model.to("cpu"),
            lambda: model.to("cuda"),
            lambda: model.to(torch.bfloat16),
            lambda: model.to(torch.float32),
            lambda: model.requires_grad_(True),
            lambda: model.load_state_dict(small("llama", seed=6).state_dict(), assign=True),
        )
        for change in changes:
            change()
            if model.dtype == torch.float32:
                expect(model, rung)
            else:
                assert call(model, rung).shape == (3, 9 + NEW)


class TestWhatIsKept:
    pytestmark = gpu

    def test_forty_prompt_lengths_in_a_row(self, model):
        for rung in STATIC:
            release(model)
            for length in (1, 40):  # a long prompt needs what cuBLAS keeps for each stream
                expect(model, rung, ids(2, length))
            torch.cuda.synchronize()
            gc.collect()
            before = torch.cuda.memory_allocated()
            for length in range(1, 41):
                (expect if length % 10 == 0 else call)(model, rung, ids(2, length))
            gc.collect()
            assert len(kept()) == 1
            assert torch.cuda.memory_allocated() - before < 1 << 20

    def test_forty_cache_lengths_in_a_row(self, model):
        release()
        for length in range(100, 140):
            call(model, "static_cache", ids(32, 9), cache_length=length)
            assert len(kept()) <= MOST_KEPT
        one = max(cache.cache.nbytes for cache in kept())
        release(model)
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        for length in range(100, 140):
            call(model, "static_cache", ids(32, 9), cache_length=length)
        gc.collect()
        assert torch.cuda.memory_allocated() - before <= (MOST_KEPT + 1) * one

    def test_graphs_come_and_go(self, model):
        """Of each evicted graph stays what torch keeps until all are gone: it is printed, and bounded."""
        release()
        torch.cuda.empty_cache()
        used = []
        for length in range(200, 204 + MOST_KEPT):
            call(model, "compiled", ids(4, 9), cache_length=length)
            gc.collect()
            torch.cuda.synchronize()
            free, total = torch.cuda.mem_get_info()
            used.append((total - free) >> 20)
        print("MiB of the card in use after each new graph:", used)
        assert len(kept()) == MOST_KEPT
        assert used[-1] - used[MOST_KEPT - 1] < 16 * MOST_KEPT
        held = torch.cuda.memory_allocated()
        release()
        assert torch.cuda.memory_allocated() < held
        expect(model, "compiled")

    def test_it_goes_with_its_model(self):
        release()
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        one = small(seed=7)
        for rung in STATIC:
            call(one, rung)
        del one
        gc.collect()
        assert not kept()
        assert torch.cuda.memory_allocated() - before < 1 << 20


class TestWaits:
    pytestmark = gpu

    def waits(self, run):
        """How many calls of CUDA that wait for the GPU ``run`` makes, apart from events."""
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                run()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)

    @pytest.mark.parametrize("architecture", ["gpt2", "llama"])
    @pytest.mark.parametrize("rung", LOOPS)
    def test_a_loop_waits_in_its_check_and_nowhere_else(self, architecture, rung):
        model = small(architecture)
        call(model, rung)
        loop, input_ids, eos = RUNGS[rung].decode, ids(), unused(model)
        with torch.no_grad():
            assert self.waits(lambda: loop(model, input_ids, NEW, None)) == 0
            checks = self.waits(lambda: loop(model, input_ids, NEW, eos))
        # A pipeline waits for an event, of the step before; that is no waiting for all of the GPU.
        assert checks == (0 if rung in WAIT_OTHERWISE else NEW)


class TestTwoStreams:
    pytestmark = gpu

    def test_200_runs_with_a_real_end_at_varying_steps_and_a_lag_now_and_then(self, model):
        draw, new, ended_at = random.Random(0), 16, set()
        cases = []
        for seed in range(25):
            input_ids = ids(2, 9, 100 + seed)
            tokens = expected(model, input_ids, new=new)[:, 9:]
            for _ in range(8):
                eos = tokens[draw.randrange(2), draw.randrange(new)].item()
                cases.append((input_ids, eos, expected(model, input_ids, new=new, eos=eos)))
        assert len(cases) == 200
        for number, (input_ids, eos, right) in enumerate(cases):
            lagging = {draw.randrange(new) for _ in range(number % 4)}
            with ranges.observe(lambda name, step, at=lagging: lag(name) if step in at else None):
                found = call(model, "two_streams", input_ids, max_new_tokens=new, eos_token_id=eos)
            assert found.tolist() == right.tolist(), (number, eos, lagging)
            ended_at.add(found.shape[1] - 9)
        print("the last row finished in step", sorted(ended_at))
        assert len(ended_at) > 5


@needs_gpu
@pytest.mark.long
def test_ten_thousand_rows(model):
    """All rungs against transformers: prompts and ends drawn, a handful of shapes, a lag now and then."""
    draw, new = random.Random(1), 24
    shapes = [(1, 5), (4, 9), (32, 16), (64, 33), (128, 48)]
    exact = small().double()
    rows = early = ties = 0
    differing = []
    for batch, length in itertools.cycle(shapes):
        if rows >= 10_000:
            break
        input_ids = ids(batch, length, draw.randrange(1 << 30))
        tokens = expected(model, input_ids, new=new)[:, length:]
        many = [tokens[draw.randrange(batch), draw.randrange(new)].item() for _ in range(3)]
        eos = draw.choice([None, many[0], many])
        right = expected(model, input_ids, new=new, eos=eos)
        for rung in RUNGS:
            lagging = draw.randrange(new) if draw.random() < 0.1 else -1
            with ranges.observe(lambda name, step, at=lagging: lag(name) if step == at else None):
                found = call(model, rung, input_ids, max_new_tokens=new, eos_token_id=eos)
            if found.shape == right.shape and torch.equal(found, right):
                continue
            for row in range(batch):
                if tie(exact, found[row], right[row]):
                    ties += 1
                elif found[row].tolist() != right[row].tolist():
                    differing.append((rung, rows + row, eos))
        rows += batch
        early += batch * (right.shape[1] < length + new)
    print(
        f"{rows} rows, {early} in batches that ended early; {ties} near ties, {len(differing)} differ"
    )
    assert not differing


def tie(exact, one, other):
    """Whether two rows depart where float64 sees two tokens alike, to the precision of float32."""
    size = min(len(one), len(other))
    apart = torch.where(one[:size] != other[:size])[0].tolist()
    if not apart:
        return False
    logits = exact(one[None, : apart[0]]).logits[0, -1]
    gap = (logits[one[apart[0]]] - logits[other[apart[0]]]).abs()
    return bool(gap < 1e-4 * logits.std())
