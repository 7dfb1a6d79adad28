"""The loop as one kernel, as far as it goes without a GPU: it compiles, its weights are packed, it refuses in words."""

import copy
import re
import weakref
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from models import prompt, reference, tiny
from transformers import DynamicCache, GPT2Config

from decoding import RUNGS, Workload, generate, load_model, one_kernel, ranges, release
from decoding.loops import one_kernel as loop
from decoding.measuring import NeedsGpu
from decoding.measuring import one_kernel as measured
from decoding.measuring.fingerprint import fingerprint
from decoding.sampling import sampled
from decoding.text import padded

VOCABULARY = 503
SMALL = GPT2Config(
    n_layer=2,
    n_embd=256,
    n_head=4,
    n_positions=60,
    vocab_size=VOCABULARY,
    initializer_range=0.3,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=None,
)
needs_nvrtc = pytest.mark.skipif(
    find_spec("cuda") is None or find_spec("cuda.bindings") is None,
    reason="cuda-bindings come with a CUDA build of torch",
)


@pytest.fixture(scope="module")
def model():
    """A small GPT-2 whose layout the kernel takes, with biases that are not 0."""
    model = load_model(copy.deepcopy(SMALL), device="cpu", dtype=torch.float32)
    for weight in model.parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, mean=weight.mean().item(), std=0.1)
    return model.to(torch.bfloat16)


@needs_nvrtc
class TestCompiling:
    @pytest.mark.parametrize(
        "macros",
        [*one_kernel.VARIANTS.values(), {"PROFILE": 1}, {"FAULT": 1, "PATIENCE": 1_000_000}],
        ids=[*one_kernel.VARIANTS, "profiled", "with a fault"],
    )
    def test_every_variant_compiles_without_a_warning(self, macros):
        binary, said = one_kernel._compile("sm_90", one_kernel._sizes(GPT2Config()) | macros)
        assert binary[:4] == b"\x7fELF"
        assert "warning" not in said and "error" not in said
        registers = int(re.search(r"Used (\d+) registers", said)[1])
        assert registers * 768 <= 65_536
        assert int(re.search(r"(\d+) bytes spill stores", said)[1]) <= 32

    @pytest.mark.parametrize(
        ("width", "positions"), [(256, 60), (256, 100), (512, 1024), (1024, 13)]
    )
    def test_another_size_compiles(self, width, positions):
        config = GPT2Config(n_embd=width, n_head=width // 64, n_positions=positions)
        assert one_kernel.compiled("sm_90", **one_kernel._sizes(config))

    def test_a_layout_that_does_not_fit_is_refused_in_its_words(self):
        sizes = one_kernel._sizes(GPT2Config()) | {"VOCABULARY": 1 << 21}
        with pytest.raises(RuntimeError, match="a logit, its token and position fill a word"):
            one_kernel.compiled("sm_90", **sizes)


def test_the_source_is_short():
    lines = one_kernel.SOURCE.read_text("utf-8").splitlines()
    assert len(lines) <= 350 and max(map(len, lines)) <= 120


def test_the_phases_are_the_kernel_s():
    source = one_kernel.SOURCE.read_text("utf-8")
    names = re.search(r"enum Phase \{(.*?)\}", source, re.S)[1].replace("\n", " ").split(",")
    assert len(names) - 1 == len(one_kernel.PHASES)
    assert names[-1].strip() == "PHASES"


class TestPacking:
    """A block computes from what it is given what the model computes for it."""

    def blocks(self, model, name):
        layers, blocks, _ = one_kernel.packed(model)[name].shape
        assert (layers, blocks) == (2, 32)
        return one_kernel.packed(model)[name]

    def test_rows_of_q_k_and_v(self, model):
        packed, width = self.blocks(model, "attention"), 256
        x = torch.randn(width)
        wanted = model.transformer.h[1].attn.c_attn.float()(x)
        wanted = wanted.detach().view(3, 4, 8, 8)
        model.bfloat16()
        for head, rank in ((0, 0), (1, 5), (3, 7)):
            block = packed[1, head * 8 + rank]
            rows = block[: 24 * width * 2].view(torch.bfloat16).float().view(24, width)
            at = 24 * width * 2 + 32 * 64 * 2
            bias = block[at : at + 24 * 4].view(torch.float32)
            found = (rows @ x + bias).view(3, 8)
            assert torch.allclose(found, wanted[:, head, rank], atol=1e-4)

    def test_the_projections_add_up_over_the_heads(self, model):
        packed, width = self.blocks(model, "attention"), 256
        attended = torch.randn(4, 64)
        project = model.transformer.h[0].attn.c_proj
        wanted = attended.flatten() @ project.weight.float() + project.bias.float()
        found = torch.zeros(8, 32)
        for head in range(4):
            for rank in range(8):
                block = packed[0, head * 8 + rank]
                at = 24 * width * 2
                weights = block[at : at + 32 * 64 * 2].view(torch.bfloat16).float().view(32, 64)
                bias = block[-32 * 4 :].view(torch.float32)
                found[rank] += weights @ attended[head] + bias
        assert torch.allclose(found.flatten(), wanted, atol=1e-4)

    def test_the_feed_forward_parts_add_up_over_the_blocks(self, model):
        packed, width = self.blocks(model, "feed_forward"), 256
        mlp = copy.deepcopy(model.transformer.h[1].mlp).float()
        x, found = torch.randn(width), torch.zeros(4, 8, width)
        size = 32 * width * 2
        biases = torch.zeros(width)
        for number in range(32):
            block = packed[1, number]
            into, out = (
                block[at : at + size].view(torch.bfloat16).float().view(32, width)
                for at in (0, size)
            )
            floats = block[2 * size :].view(torch.float32)
            hidden = torch.nn.functional.gelu(into @ x + floats[:32], approximate="tanh")
            found[number // 8, number % 8] = hidden @ out
            biases[number % 8 * 32 : number % 8 * 32 + 32] += floats[32:]
        wanted = mlp(x).detach()
        assert torch.allclose(found.sum((0, 1)) + biases, wanted, atol=1e-3)

    def test_positions_are_dealt_out(self):
        cache = DynamicCache(config=SMALL)
        states = [torch.randn(2, 1, 4, 19, 64) for _ in range(2)]
        for layer in range(2):
            cache.update(states[0][layer], states[1][layer], layer)
        packed = torch.zeros(2, 4, 8, 2, 8, 64)
        one_kernel.pack_cache(packed, cache, 19)
        for which in range(2):
            for position in range(19):
                found = packed[:, :, position % 8, which, position // 8]
                assert torch.equal(found, states[which][:, 0, :, position])
        assert not packed[:, :, 3:, :, 2].any()

    def test_the_output_s_rows_begin_on_16_bytes(self, model):
        shifted = copy.deepcopy(model)
        weight = shifted.lm_head.weight
        flat = torch.empty(weight.numel() + 1, dtype=weight.dtype)[1:].view(weight.shape)
        shifted.lm_head.weight = torch.nn.Parameter(flat.copy_(weight))
        assert shifted.lm_head.weight.data_ptr() % 16
        found = one_kernel.packed(shifted)["lm_head"]
        assert found.data_ptr() % 16 == 0 and torch.equal(found, weight)

    def test_what_a_block_has_fits_its_shared_memory(self):
        assert one_kernel._shared_bytes(one_kernel._sizes(GPT2Config())) <= 227 * 1024


class TestKeeping:
    class StandIn:
        def __init__(self, model, **macros):
            pass

    @pytest.fixture(autouse=True)
    def stand_in(self, monkeypatch):
        monkeypatch.setattr(one_kernel, "OneKernel", self.StandIn)

    def test_it_is_made_anew_where_the_weights_are_others(self, model):
        model, prepared = copy.deepcopy(model), SimpleNamespace()
        first = one_kernel.one_kernel(prepared, model)
        assert one_kernel.one_kernel(prepared, model) is first
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
        second = one_kernel.one_kernel(prepared, model)
        assert second is not first
        assert one_kernel.one_kernel(prepared, model, SUMS=1) is not second

    def test_the_old_one_goes_before_there_is_a_new_one(self, model, monkeypatch):
        model, prepared = copy.deepcopy(model), SimpleNamespace()
        gone = weakref.ref(one_kernel.one_kernel(prepared, model))
        seen = []
        monkeypatch.setattr(
            self.StandIn, "__init__", lambda self, model: seen.append(gone() is None)
        )
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
        one_kernel.one_kernel(prepared, model)
        assert seen == [True]

    def test_other_weights_cannot_have_the_old_ones_addresses(self, model):
        model = copy.deepcopy(model)
        addresses = [weight.data_ptr() for weight in model.parameters()]
        kept = one_kernel.one_kernel(SimpleNamespace(), model)
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(1))
        assert [weight.data_ptr() for weight in kept.packed_from] == addresses


class TestRefusals:
    def why(self, model, batch_size=1, **settings):
        model = copy.deepcopy(model)
        for name, value in settings.items():
            setattr(model.config, name, value)
        return one_kernel.why_not_of(model, batch_size)

    def test_what_fits_is_not_refused(self, model):
        assert self.why(model) is None

    def test_a_cpu_is_refused(self, model):
        with pytest.raises(
            ValueError, match="'one_kernel' needs a CUDA GPU.*use the rung 'device_loop'"
        ):
            generate(model, prompt(1, 3), rung="one_kernel", max_new_tokens=2)
        assert one_kernel.why_not(model, 1).endswith(f"{one_kernel.INSTEAD}.")

    def test_several_rows_are_refused(self, model):
        assert "decodes one row, and input_ids has 3" in self.why(model, 3)

    def test_other_weights_are_refused(self, model):
        assert "needs weights in bfloat16, and these are in torch.float32" in self.why(
            copy.deepcopy(model).float()
        )

    def test_a_forward_of_its_own_is_not_passed_over(self, model):
        for view in (sampled(model), padded(model, 0)):
            assert "calls no forward" in self.why(view)
        replaced = copy.deepcopy(model)
        replaced.forward = lambda *inputs: None
        assert "calls no forward" in self.why(replaced)

    def test_another_model_is_refused(self):
        assert "knows GPT-2 only, and this is LlamaForCausalLM" in self.why(
            tiny("llama").bfloat16()
        )

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"n_head": 8}, "needs heads of 64, .* this model has 8 of 32"),
            ({"n_embd": 1024, "n_head": 16, "n_positions": 1024}, "shared memory, .* bytes at"),
            ({"activation_function": "relu"}, "activation_function is 'relu'"),
            ({"n_inner": 100}, "n_inner is 100"),
            ({"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx is True"),
            ({"vocab_size": 1 << 21}, "room for 1048576 tokens"),
        ],
    )
    def test_another_gpt2_is_refused(self, model, settings, words):
        assert re.search(words, self.why(model, **settings))

    def test_it_has_no_options(self):
        assert not RUNGS["one_kernel"].options


class StandIn:
    """What the loop and its measurement ask of a ``OneKernel``, computed by transformers at the launch."""

    def __init__(self, model, **macros):
        self.exact = copy.deepcopy(model).float()
        self.cycles = torch.zeros(32, len(one_kernel.PHASES), dtype=torch.int64)

    def begin(self, input_ids, token, cache):
        assert cache.layers[0].keys.dtype == torch.float32
        assert cache.get_seq_length() == input_ids.shape[1]
        self.input_ids, self.token = input_ids, token

    def launch(self, most, eos):
        self.tokens = reference(self.exact, self.input_ids, most, eos.tolist())
        assert self.tokens[0, self.input_ids.shape[1]] == self.token
        self.cycles += torch.arange(1, len(one_kernel.PHASES) + 1)

    def goes_on(self, generated):
        return self.input_ids.shape[1] + generated < self.tokens.shape[1]

    def result(self, generated):
        return self.tokens[:, : self.input_ids.shape[1] + generated].clone()


class TestOnAStandIn:
    """The loop and its measurement, with transformers in the place of the kernel."""

    @pytest.fixture(autouse=True)
    def stand_in(self, model, monkeypatch):
        for module in (loop, measured):
            monkeypatch.setattr(module, "why_not", lambda model, batch_size: None)
        monkeypatch.setattr(loop, "one_kernel", lambda prepared, model: StandIn(model))
        monkeypatch.setattr(measured, "OneKernel", StandIn)
        monkeypatch.setattr(measured, "load", lambda workload: model)
        yield
        release()

    def test_the_loop_tells_every_token(self, model):
        input_ids = prompt(1, 7, vocabulary=VOCABULARY)
        told = []
        with ranges.observe(lambda name, step: told.append((name == "stop_check", step))):
            found = generate(model, input_ids, rung="one_kernel", max_new_tokens=5)
        with torch.no_grad():
            exact = copy.deepcopy(model).float()
            assert torch.equal(found, reference(exact, input_ids, 5, [-1]))
        assert told == [(check, step) for step in range(5) for check in (False, True)]

    def test_the_steps(self):
        workload = Workload("gpt2", 1, 7, 6, repeats=2)
        beside = {"device loop": {"rung": "kv_cache"}}
        found = measured._timed(lambda *_: None, workload, beside)["results"]
        assert list(found) == ["device loop", *one_kernel.VARIANTS]
        assert all(found[name]["exact"] == 6 for name in one_kernel.VARIANTS)
        assert all(one["per_token_ms"]["median"] > 0 for one in found.values())

    def test_the_phases_add_up(self, monkeypatch):
        monkeypatch.setattr(measured, "_kernel_us", lambda run: run() is not None and 100.0)
        found = measured._profiled(lambda *_: None, Workload("gpt2", 1, 7, 6))
        assert list(found["phases"]) == list(one_kernel.PHASES)
        assert sum(found["phases"].values()) == pytest.approx(100, rel=0.01)
        assert found["spread"]["embed"][0] == found["phases"]["embed"]

    def test_all_tokens_are_equal(self):
        found = measured._compared(lambda *_: None, 6, 4, 20, "gpt2", 60)
        assert (found["prompts"], found["equal"], found["departures"]) == (6, 6, [])
        assert (found["early_stops"], found["right_stops"]) == (3, 3)
        assert found["smallest_gap"] > 0

    def test_a_departure_is_found(self, monkeypatch):
        right = measured.generate

        def wrong(model, input_ids, **options):
            tokens = right(model, input_ids, **options)
            tokens[0, -1] = (tokens[0, -1] + 1) % VOCABULARY
            return tokens

        monkeypatch.setattr(measured, "generate", wrong)
        found = measured._compared(lambda *_: None, 1, 4, 20, "gpt2", 60)
        (one,) = found["departures"]
        assert found["equal"] == 0 and one["new_token"] == 3 and one["gap"] > 2 * one["noise"]


class TestMeasuring:
    def test_two_ways_to_the_same_tokens(self, model):
        """The reference a token at a time, and its logits at once."""
        exact, input_ids = copy.deepcopy(model).float(), prompt(1, 7, vocabulary=VOCABULARY)
        with torch.no_grad():
            tokens = reference(exact, input_ids, 9, [-1])
            assert tokens.shape == (1, 16)
            logits = measured.exact_logits(exact, tokens, 7)
            assert logits.argmax(-1).tolist() == tokens[0, 7:].tolist()
            for at in (0, 8):
                again = measured._logits_step_by_step(exact, tokens[:, : 7 + at])
                assert torch.allclose(again, logits[at], atol=1e-4)
            (one,) = measured._logits_step_by_step(exact, tokens[:, :1]).topk(1).indices
            assert one == reference(exact, tokens[:, :1], 1, [-1])[0, 1]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("find", ["steps", "profile", "identity", "sanitized"])
    def test_without_a_gpu_it_says_so(self, find):
        with pytest.raises(NeedsGpu):
            getattr(measured, find)()

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_from_a_shell_it_says_what_it_could_not(self, tmp_path, capsys):
        measured.main(["--out", str(tmp_path), "--only", "profile", "identity"])
        assert capsys.readouterr().out.count("needs a CUDA GPU") == 2
        assert not list(tmp_path.iterdir())

    def test_the_kernel_s_source_counts_for_it_alone(self, tmp_path):
        for name in ("a.cu", "one_kernel.cu"):
            (tmp_path / name).write_text("int a;")
        (tmp_path / "rungs.py").write_text(
            'class Rung:\n    name: str\n\nRUNGS = {r.name: r for r in (Rung("one_kernel"),)}\n'
        )
        hashes = []
        for text in ("int a; // why", "int  a;", "int b;"):
            (tmp_path / "one_kernel.cu").write_text(text)
            hashes.append([fingerprint(rungs, (), tmp_path) for rungs in ((), ("one_kernel",))])
        assert hashes[0] == hashes[1]
        assert hashes[1][0] == hashes[2][0] and hashes[1][1] != hashes[2][1]
