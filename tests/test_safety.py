"""What calls share is the package's business: every call is right after anything that came before.

Shown on a CPU where a CPU can show it; ``test_gpu_safety.py`` has what only a GPU shows.
"""

import gc
import itertools
import weakref
from contextlib import contextmanager, nullcontext

import pytest
import torch
from models import ANYWHERE as RUNGS
from models import VOCABULARY, prompt, reference, tiny
from together import run_together
from torch._dynamo.utils import counters

from decoding import generate, prepared, ranges, release
from decoding.prepared import BUCKET, MOST_KEPT, bucket

STATIC = [name for name, rung in RUNGS.items() if rung.needs_static_cache]
#: One of each kind. What a call is lent, and for how long it is kept, is one matter for all of a kind: what
#: takes many compilations is shown in full for these, and in part for the others.
KINDS = ["static_cache", "compiled", "captured_graph"]
#: Those that ask about a step while the next one runs.
LATE = ["two_streams", "deferred_check", "captured_graph"]
CPU = torch.device("cpu")
NEW = 5


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Begin and end with nothing kept, and leave what other tests keep alone."""
    monkeypatch.setattr(prepared, "_turns", {})
    yield
    for turn in prepared._turns.values():
        turn.kept.clear()


@pytest.fixture
def model():
    return tiny("gpt2")


def kept(model=None):
    """What is kept on the CPU, for ``model`` or for every one."""
    turn = prepared._turns.get(CPU)
    if turn is None:
        return []
    return [
        one
        for owner, shapes in turn.kept.items()
        if model is None or owner is model
        for one in shapes.values()
    ]


def call(model, rung, input_ids=None, **options):
    input_ids = prompt(2, 4) if input_ids is None else input_ids
    return generate(model, input_ids, rung=rung, **{"max_new_tokens": NEW} | options)


def expect(model, rung, input_ids=None, **options):
    """A call is right."""
    input_ids = prompt(2, 4) if input_ids is None else input_ids
    options = {"max_new_tokens": NEW, "eos_token_id": None} | options
    ends = {name: options[name] for name in ("max_new_tokens", "eos_token_id")}
    assert call(model, rung, input_ids, **options).tolist() == (
        reference(model, input_ids, **ends).tolist()
    )


@contextmanager
def failing_at(number, error):
    """Raise ``error`` at the end of the range with this number, counted from the start of a call."""
    count = itertools.count()

    def fail(name, step):
        if next(count) == number:
            raise error

    with ranges.observe(fail):
        yield


class TestFailures:
    ERRORS = (RuntimeError("on purpose"), KeyboardInterrupt(), torch.OutOfMemoryError("none left"))

    @pytest.mark.parametrize("rung", RUNGS)
    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_an_error_anywhere_and_the_next_call_is_right(self, model, rung, error):
        # The ranges of three steps and their checks; all of them for one loop of each kind.
        everywhere = range(6) if type(error) is RuntimeError else (0, 3)
        for number in everywhere if rung not in STATIC or rung in KINDS else (3,):
            with failing_at(number, error), pytest.raises(type(error)):
                call(model, rung, max_new_tokens=3, eos_token_id=VOCABULARY - 1)
            assert not kept(), "what a failed call used is gone"
            expect(model, rung)

    @pytest.mark.parametrize("rung", STATIC)
    def test_an_error_while_the_cache_is_being_made(self, model, rung):
        layer = model.transformer.h[1]
        hook = layer.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call(model, rung)
        hook.remove()
        assert not kept()
        expect(model, rung)

    def test_an_error_while_the_step_is_being_compiled(self, model, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(prepared.torch, "compile", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                call(model, "compiled")
        assert not kept()
        expect(model, "compiled")

    def test_other_shapes_stay_after_an_error_but_not_after_too_little_memory(self, model):
        call(model, "static_cache")
        call(model, "static_cache", cache_length=128)
        with failing_at(3, ValueError()), pytest.raises(ValueError):
            call(model, "static_cache")
        assert [one.cache.layers[0].max_cache_len for one in kept()] == [128]
        call(model, "static_cache")
        with failing_at(3, torch.OutOfMemoryError()), pytest.raises(torch.OutOfMemoryError):
            call(model, "static_cache")
        assert not kept()

    def test_a_traceback_does_not_hold_the_cache(self, model):
        caches = []
        with (
            ranges.observe(lambda *_: caches.append(kept()[0].cache)),
            failing_at(3, ValueError()),
            pytest.raises(ValueError) as failure,
        ):
            call(model, "static_cache")
        assert caches[0].layers == [] and failure.tb


class TestTurns:
    @pytest.mark.parametrize("rung", STATIC)
    def test_a_call_from_inside_a_call_is_refused_and_the_next_is_right(self, model, rung):
        def again(name, step):
            call(model, rung, prompt(2, 4, seed=1))

        with (
            ranges.observe(again),
            pytest.raises(RuntimeError, match="still running in this thread"),
        ):
            call(model, rung)
        with ranges.observe(lambda *_: release(model)), pytest.raises(RuntimeError, match="inside"):
            call(model, rung)
        expect(model, rung)

    def job(self, model, rung, input_ids, **options):
        expected = reference(model, input_ids, 12, None).tolist()

        def run():
            found = call(model, rung, input_ids, max_new_tokens=12, **options)
            assert found.tolist() == expected

        return run

    @pytest.mark.parametrize("rung", RUNGS)
    def test_threads_with_the_same_shape(self, model, rung):
        model.config.pad_token_id = 0
        run_together([self.job(model, rung, prompt(2, 6, seed)) for seed in range(4)])
        assert model.config.pad_token_id == 0

    @pytest.mark.parametrize("rung", RUNGS)
    def test_threads_with_different_shapes_and_models(self, model, rung):
        models = [model, model, tiny("llama"), tiny("qwen2")]
        run_together([self.job(one, rung, prompt(1 + n, 4 + n, n)) for n, one in enumerate(models)])

    def test_threads_with_all_rungs(self, model):
        run_together([self.job(model, rung, prompt(2, 6, 1)) for rung in RUNGS])

    def test_a_thread_fails_and_the_others_are_right(self, model):
        def fail():
            with pytest.raises(ValueError):
                call(model, "static_cache", prompt(2, 6), max_new_tokens=12, cache_length=10**9)

        def fail_inside():
            broken = tiny("gpt2")
            broken.transformer.h[0].register_forward_pre_hook(lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                call(broken, "static_cache", prompt(2, 6), max_new_tokens=12)

        good = [self.job(model, "static_cache", prompt(2, 6, seed)) for seed in range(2)]
        run_together([fail_inside, *good])

    def test_release_waits_for_other_threads(self, model):
        jobs = [self.job(model, "compiled", prompt(2, 6, seed)) for seed in range(2)]
        run_together([*jobs, lambda: release(model)])


class TestNothingIsWritten:
    @pytest.mark.parametrize("rung", RUNGS)
    def test_to_the_model_or_its_configuration(self, model, rung, monkeypatch):
        model.config.pad_token_id = 7
        call(model, rung)  # compiling may add its own attributes, once

        def refuse(self, name, value):
            raise AssertionError(f"{name} is written")

        with monkeypatch.context() as patch:
            patch.setattr(type(model.config), "__setattr__", refuse)
            patch.setattr(torch.nn.Module, "__setattr__", refuse)
            call(model, rung, prompt(2, 4, seed=3))


class TestModes:
    """Any mode after any other: each call is what transformers' own is in that mode."""

    def autocast():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    MODES = {
        "plain": nullcontext,
        "inference": torch.inference_mode,
        "autocast": autocast,
    }

    @pytest.mark.long  # the walk below changes modes in every way, but begins in one
    @pytest.mark.parametrize("rung", KINDS)
    def test_every_mode_after_every_other(self, rung):
        for pair in itertools.permutations(self.MODES, 2):
            self.walk(tiny("gpt2"), rung, pair)

    @pytest.mark.parametrize("rung", STATIC)
    def test_a_walk_over_every_change_of_mode(self, rung):
        walk = ("plain", "inference", "plain", "autocast", "inference", "autocast", "plain")
        assert set(itertools.pairwise(walk)) == set(itertools.permutations(self.MODES, 2))
        self.walk(tiny("llama"), rung, walk)

    def walk(self, model, rung, modes):
        for mode in modes:
            with self.MODES[mode]():
                expect(model, rung)

    @pytest.mark.parametrize("rung", STATIC)
    def test_a_model_that_wants_gradients(self, model, rung):
        model.requires_grad_(True)
        with torch.enable_grad():
            for _ in range(2):  # a loop by itself, too
                RUNGS[rung].decode(model, prompt(2, 4), NEW, None)
                assert not any(layer.keys.requires_grad for layer in kept()[0].cache.layers)
                expect(model, rung)

    @pytest.mark.parametrize("rung", STATIC)
    def test_a_model_made_in_inference_mode(self, rung):
        with torch.inference_mode():
            model = tiny("gpt2")
        expect(model, rung)
        with torch.inference_mode():
            expect(model, rung)
        expect(model, rung)

    @pytest.mark.parametrize("rung", STATIC)
    def test_another_dtype_and_back(self, rung):
        model = tiny("llama")
        for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.float32):
            model.to(dtype)
            assert call(model, rung).shape == (2, 4 + NEW)
            if dtype != torch.bfloat16:  # in which the order of sums decides some tokens
                expect(model, rung)

    @pytest.mark.parametrize("rung", STATIC)
    def test_other_weights_at_other_addresses(self, model, rung):
        expect(model, rung)
        other = tiny("gpt2")
        torch.nn.init.normal_(other.transformer.wpe.weight)
        model.load_state_dict(other.state_dict(), assign=True)
        expect(model, rung)

    @pytest.mark.parametrize("rung", RUNGS)
    def test_a_default_device_of_the_caller(self, model, rung):
        """ "meta" stands in for a GPU: a tensor made there by mistake has no values."""
        expected = reference(model, prompt(2, 4), NEW, VOCABULARY - 1)
        input_ids = prompt(2, 4)
        for length in (None, 64):
            torch.set_default_device("meta")
            try:
                found = call(model, rung, input_ids, eos_token_id=VOCABULARY - 1)
            finally:
                torch.set_default_device(None)
            assert found.device == CPU and found.tolist() == expected.tolist()
            if length is None:
                call(model, rung, input_ids)

    @pytest.mark.parametrize("rung", STATIC)
    def test_a_bad_length_does_not_spoil_the_good_one(self, model, rung):
        for wrong in (14.0, "14", True):
            with pytest.raises(TypeError, match="whole number"):
                call(model, rung, cache_length=wrong)
            expect(model, rung, cache_length=14)


@contextmanager
def deterministic():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class TestWhatIsKept:
    def graphs(self):
        return counters["stats"]["unique_graphs"]

    def test_lengths_are_rounded_up(self):
        assert [bucket(n) for n in (1, 63, 64, 65, 640)] == [64, 64, 64, 128, 640]
        assert BUCKET == 64

    def test_a_shape_is_compiled_once(self, model):
        counters.clear()
        for seed, eos in ((0, None), (1, 3), (2, 5)):
            call(model, "compiled", prompt(2, 4, seed), eos_token_id=eos)
        assert self.graphs() == 1
        call(model, "two_streams")
        assert self.graphs() == 1
        call(model, "compiled", prompt(2, 20), max_new_tokens=9)
        assert self.graphs() == 1, "another prompt length in a cache of the same length"
        call(model, "compiled", prompt(3, 4))
        assert self.graphs() == 2, "another batch size is another shape"

    def test_a_sliding_window_is_compiled_once(self):
        model = tiny("mistral")
        counters.clear()
        expect(model, "compiled", max_new_tokens=12)
        expect(model, "two_streams", prompt(2, 7), max_new_tokens=12)
        assert self.graphs() == 1

    def test_a_static_cache_is_allocated_once(self, model):
        call(model, "static_cache", prompt(2, 4))
        (first,) = kept()
        address = first.cache.layers[0].keys.data_ptr()
        call(model, "static_cache", prompt(2, 6), max_new_tokens=9)
        assert kept() == [first]
        assert first.cache.layers[0].keys.data_ptr() == address
        assert first.cache.layers[0].keys.shape[2] == 64

    @pytest.mark.parametrize("rung", STATIC)
    def test_forty_prompt_lengths_share_one_cache_and_one_graph(self, model, rung):
        counters.clear()
        for length in range(1, 41):
            (call if length % 8 else expect)(model, rung, prompt(2, length))
        assert len(kept()) == 1
        assert self.graphs() == (0 if rung == "static_cache" else 1)

    @pytest.mark.parametrize("rung", KINDS)
    def test_many_cache_lengths_keep_a_few(self, model, rung):
        made, most = [], 20 + (40 if rung == "static_cache" else MOST_KEPT + 2)
        for length in range(20, most):
            expect(model, rung, cache_length=length)
            made.append(weakref.ref(kept()[-1].cache))
            assert len(kept()) <= MOST_KEPT
        gc.collect()
        assert sum(ref() is not None for ref in made) == MOST_KEPT
        lengths = [one.cache.layers[0].max_cache_len for one in kept()]
        assert lengths == list(range(most - MOST_KEPT, most)), "the oldest go first"

    def test_the_one_used_last_stays(self, model):
        for length in (100, *range(20, 20 + MOST_KEPT - 1)):
            call(model, "static_cache", cache_length=length)
        call(model, "static_cache", cache_length=100)
        call(model, "static_cache", cache_length=50)
        lengths = {one.cache.layers[0].max_cache_len for one in kept()}
        assert 100 in lengths and 20 not in lengths

    def test_memory_is_bounded(self, model):
        call(model, "static_cache")
        (one,) = kept()
        assert one.cache.nbytes == 2 * 2 * (2 * 2 * 64 * 16) * 4  # layers, k and v, shape, float32
        prepared._turns[CPU].budget = 2 * one.cache.nbytes
        for batch in (1, 3):
            call(model, "static_cache", prompt(batch, 4))
        assert [one.cache.layers[0].batch_size for one in kept()] == [1, 3], (
            "2 and 1 and 3 are too much"
        )
        call(model, "static_cache", prompt(9, 4))
        assert [one.cache.layers[0].batch_size for one in kept()] == [9], "the newest stays"

    @pytest.mark.parametrize("rung", STATIC)
    def test_it_goes_with_its_model(self, rung):
        model, other = tiny("gpt2"), tiny("llama")
        call(model, rung)
        call(other, rung)
        refs = (
            weakref.ref(model),
            weakref.ref(kept(model)[0].cache),
            weakref.ref(model.lm_head.weight),
        )
        del model
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3
        assert len(kept()) == len(kept(other)) == 1

    def test_release_lets_go_of_one_model_or_of_all(self, model):
        other = tiny("llama")
        for one in (model, other):
            call(one, "compiled")
        ref = weakref.ref(kept(model)[0].compiled_step)
        release(model)
        assert len(kept()) == len(kept(other)) == 1
        assert ref() is None
        release()
        assert not kept()
        expect(model, "compiled")

    def test_no_setting_of_torch_is_changed(self, model):
        with torch._dynamo.config.patch(recompile_limit=2):
            for batch in range(1, 5):  # more shapes than the limit
                expect(model, "compiled", prompt(batch, 4))
            assert torch._dynamo.config.recompile_limit == 2


class TestErrorsSayTheirCause:
    @pytest.mark.parametrize("rung", ["compiled", "two_streams"])
    def test_compiling_switched_off(self, model, rung, monkeypatch):
        ran = []
        with (
            torch._dynamo.config.patch(disable=True),  # as TORCH_COMPILE_DISABLE=1 does
            ranges.observe(lambda *event: ran.append(event)),
            pytest.raises(RuntimeError, match="switched off.*unset TORCH_COMPILE_DISABLE"),
        ):
            call(model, rung)
        assert not ran
        monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
        with pytest.raises(RuntimeError, match="switched off"):
            call(model, rung)

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            (
                "Failed to find C compiler. Please specify via CC",
                "no C compiler.*apt-get install gcc",
            ),
            (
                "fatal error: Python.h: No such file or directory",
                "headers.*apt-get install python3",
            ),
            ("Cannot find a working triton installation.", "no Triton for this PyTorch on"),
        ],
    )
    def test_no_compiler_no_headers_no_triton(self, model, said, words, monkeypatch):
        def broken(*_, **__):
            def step(*_):
                try:
                    raise RuntimeError(said)
                except RuntimeError as error:
                    raise torch._dynamo.exc.BackendCompilerFailed("inductor", error) from error

            return step

        with monkeypatch.context() as patch:
            patch.setattr(prepared.torch, "compile", broken)
            with pytest.raises(RuntimeError, match=words) as failure:
                call(model, "compiled")
        assert failure.value.__cause__ is not None
        expect(model, "compiled")

    def test_too_many_recompilations(self, model):
        with torch._dynamo.config.patch(recompile_limit=1):
            call(model, "compiled")
            with deterministic(), pytest.raises(RuntimeError, match="recompile_limit.*release"):
                call(model, "compiled")
        expect(model, "compiled")

    def test_another_error_is_left_as_it_is(self, model):
        with failing_at(2, ValueError("mine")), pytest.raises(ValueError, match="^mine$"):
            call(model, "compiled")


class TestWaits:
    """How often the host waits for the device. On a CPU these are reads of a tensor's value."""

    def waits(self, run):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            run()
        return sum(event.name == "aten::_local_scalar_dense" for event in profiler.events())

    @pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral"])
    @pytest.mark.parametrize("rung", RUNGS)
    def test_a_loop_waits_in_its_check_and_nowhere_else(self, architecture, rung):
        model = tiny(architecture)
        input_ids = prompt(2, 4)
        unused = set(range(VOCABULARY)) - set(
            reference(model, input_ids, NEW, None).flatten().tolist()
        )
        loop = RUNGS[rung].decode
        if rung in STATIC:
            for eos in (None, min(unused)):  # compiling waits, once
                call(model, rung, input_ids, eos_token_id=eos)
        for _ in range(2):  # also with a cache that was used before
            with torch.no_grad():
                assert self.waits(lambda: loop(model, input_ids, NEW, None)) == 0
                checks = self.waits(lambda: loop(model, input_ids, NEW, min(unused)))
            # A pipeline asks about the step before; nobody asks about the last. Nor does the device,
            # whose part the host takes on a CPU.
            assert checks == (NEW - 1 if rung in (*LATE, "device_loop") else NEW)

    def test_a_gpt2_with_a_padding_id_waits_in_every_eager_step(self, model):
        """transformers looks for that id; ``decode_step`` says so."""
        model.config.pad_token_id = 7
        for rung, eager in (("kv_cache", NEW), ("compiled", 1)):
            loop = RUNGS[rung].decode
            loop(model, prompt(2, 4), NEW, None)
            assert self.waits(lambda loop=loop: loop(model, prompt(2, 4), NEW, None)) == eager

    def test_transformers_itself_waits_without_a_cache(self, model):
        """Why there is ``NoCache``; once transformers no longer waits, it can go."""
        assert self.waits(lambda: model(prompt(2, 4), use_cache=False)) == 1


class TestOrder:
    """Streams and events, checked without a GPU: each use of the cache comes after the one before.

    Stand-ins for streams and events carry a clock, the work that is surely over: what a stream does
    comes after what it did before, after the events that it waits for, and after what the host has
    waited for. A step whose clock lacks the step before could overtake it.
    """

    @pytest.fixture
    def device(self, monkeypatch):
        device = Clocks()
        monkeypatch.setattr(torch, "get_device_module", lambda _=None: device)
        monkeypatch.setattr(
            torch, "compile", lambda step, **_: step
        )  # hooks are seen in every step
        prepared.stream_pair.cache_clear()
        yield device
        prepared.stream_pair.cache_clear()

    def watched(self, architecture, device):
        """A model whose every forward pass is a use of what calls share."""
        model = tiny(architecture)
        model.register_forward_pre_hook(lambda *_: device.use())
        return model

    @pytest.mark.parametrize("rung", STATIC)
    def test_calls_from_fresh_streams(self, device, rung):
        eos = reference(tiny("gpt2"), prompt(2, 4), NEW, None)[0, 5].item()
        model = self.watched("gpt2", device)
        for number in range(6):
            with device.stream(device.Stream()):
                device.write_input()
                call(model, rung, eos_token_id=eos if number % 2 else None)
                device.read_result()

    def test_calls_for_two_models_from_two_streams(self, device):
        models = [self.watched(architecture, device) for architecture in ("gpt2", "llama")]
        for number in range(6):
            with device.stream(device.Stream()):
                call(models[number % 2], STATIC[number % 3])

    @pytest.mark.parametrize("rung", STATIC)
    def test_what_gets_our_memory_later_comes_after_us(self, device, rung):
        """A cache lies in the memory of the stream that it was made on, whatever stream uses it."""
        model, first = self.watched("gpt2", device), device.Stream()
        with device.stream(first):
            call(model, rung)
        with device.stream(device.Stream()):
            call(model, rung)
        for home in (first, *(prepared.stream_pair(CPU) if rung == "two_streams" else ())):
            with device.stream(home):
                device.read_result()

    def test_after_an_error_all_is_over_before_the_memory_is_free(self, device):
        model = self.watched("gpt2", device)
        with device.stream(device.Stream()), failing_at(5, ValueError()), pytest.raises(ValueError):
            call(model, "two_streams")
        asked_for = {(stream, n) for stream in device.streams for n in range(1, stream.work + 1)}
        assert asked_for and device.host >= asked_for


class Clocks:
    """A stand-in for ``torch.cuda`` whose streams and events know what comes before what."""

    def __init__(self):
        self.streams, self.host, self.last = [], set(), None
        outer = self

        class Stream:
            def __init__(self):
                self.clock, self.work = set(), 0  # what comes before its next work; how much it did
                outer.streams.append(self)

            def wait_event(self, event):
                self.clock |= event.clock

        class Event:
            def __init__(self):
                self.clock = set()

            def record(self, stream=None):
                self.clock = set((stream or outer.current).clock) | outer.host

            def synchronize(self):
                outer.host |= self.clock

        self.Stream, self.Event = Stream, Event
        self.current = Stream()

    def current_stream(self):
        return self.current

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def synchronize(self):
        for stream in self.streams:
            self.host |= stream.clock

    def work(self):
        stream = self.current
        stream.work += 1
        stream.clock |= {(stream, stream.work)} | self.host
        return stream, stream.work

    def write_input(self):
        """The caller's stream does something that the call has to come after, and no more."""
        self.input = self.work()

    def read_result(self):
        """The caller's stream reads what the last step wrote."""
        assert self.last in self.current.clock, "the caller could overtake the last step"
        self.input = None

    def use(self):
        """Use what the calls share, on the current stream."""
        after = self.last
        self.last = self.work()
        assert after is None or after in self.current.clock, "this could overtake the use before"
        written = getattr(self, "input", None)
        assert written is None or written in self.current.clock, "this could overtake the caller"
