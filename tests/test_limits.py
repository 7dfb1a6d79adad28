"""How far from the limit: counts against real models, the measurement on a CPU, and what chapter 13 says of it."""

from math import isnan, nan
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
from factories import record
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
)

from decoding import drawing
from decoding.drawing.roofline import Reached, roofline
from decoding.drawing.svg import for_page
from decoding.measuring import Workload, odd_vocabulary
from decoding.measuring import limits as measuring
from decoding.measuring.bandwidth import bandwidth
from decoding.measuring.endings import LLAMA
from decoding.measuring.limits import Gemm, alone_us, count, gemms, in_parts, kind_of
from decoding.measuring.records import save
from decoding.measuring.timeline import Work
from decoding.models import GPT2_SHAPES
from decoding.pages import endings, floor, limits
from decoding.pages.results import shape_of

SMALL = Workload("gpt2-tiny", 1, 8, 16, dtype="float32", device="cpu")
GPT2 = GPT2Config(n_layer=2, n_head=2, n_embd=64, vocab_size=500)
GROUPED = LlamaConfig(
    num_hidden_layers=2,
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=500,
    tie_word_embeddings=False,
)


def parameters(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


class TestCount:
    @pytest.mark.parametrize("name", [*GPT2_SHAPES, LLAMA])
    def test_the_weights_are_those_of_the_model(self, name):
        config = shape_of(Workload(name))
        model = parameters(config)
        numbers = sum(one.numel() for one in model.parameters())  # tied ones are one
        if name != LLAMA:
            numbers -= model.transformer.wpe.weight.numel()
            numbers += 4 * config.n_embd  # a position for each row
        assert count(config, 4, 10, 2).weights == 2 * numbers

    def test_a_table_of_tokens_of_its_own_is_looked_up(self):
        model = parameters(GROUPED)
        numbers = sum(one.numel() for one in model.parameters())
        numbers -= model.get_input_embeddings().weight.numel()
        assert count(GROUPED, 3, 10, 4).weights == 4 * (numbers + 3 * 64)

    @pytest.mark.parametrize("work", [Workload("gpt2", 32), Workload(LLAMA, 4, 8, 64)])
    def test_it_is_the_floor_of_the_step_cards(self, work):
        work = work.but(dtype="bfloat16")
        found = limits.counted(work)
        assert found.weights == floor.weight_bytes(work)
        assert found.cache == floor.cache_bytes(work)

    def test_by_hand(self):
        found = count(GPT2, 3, 10, 2)
        assert found.cache == 3 * 10 * 2 * (2 * 64) * 2  # rows, positions, layers, K and V, bytes
        assert found.logits == 3 * 500 * 2
        matrices = 2 * (3 + 1 + 4 + 4) * 64 * 64 + 64 * 500
        attention = 2 * 2 * 64 * 11  # scores and sum, 10 positions and its own
        assert found.flops == 3 * (2 * matrices + 2 * attention)
        assert found.bytes == found.weights + found.cache
        assert found.intensity == found.flops / found.bytes
        # Two heads of keys for four of queries: half of the cache, all of the arithmetic.
        assert count(GROUPED, 3, 10, 2).cache == found.cache / 2

    def test_what_a_step_multiplies_is_what_torch_multiplies(self):
        eager = {"attn_implementation": "eager"}  # whose products the counter knows
        model = AutoModelForCausalLM.from_config(GPT2, **eager).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros((3, 1), dtype=torch.int64))
        # A step without a cache attends to one position: its own.
        assert counter.get_total_flops() == count(GPT2, 3, 0, 2).flops

    def test_an_unknown_model_is_refused_in_words(self):
        with pytest.raises(ValueError, match="'gpt_neox' is not counted here"):
            gemms(GPTNeoXConfig())


class TestMeasured:
    def test_on_a_cpu_it_runs_small_and_has_no_steps(self):
        found = measuring.limits(SMALL, batch_sizes=(2,))
        names = [one.name for one in gemms(shape_of(SMALL))]
        assert list(found["alone_us"]) == ["2"] and found["steps"] == {}
        assert list(found["alone_us"]["2"]) == names
        assert all(us > 0 for us in found["alone_us"]["2"].values())
        matmul = found["matmul"]
        assert 0 < matmul["slowest"] <= matmul["tflop_per_s"] <= matmul["fastest"]
        assert found["reading_gb_per_s"] > 0 and found["machine"]["device"] == "cpu"
        assert found["bandwidth"].keys() == bandwidth("cpu", 2**20, 1).keys()
        page = limits.products(found, SMALL, 2)
        assert [one.name for one in page] == names
        assert all(isnan(one.in_step_us) and one.share > 0 for one in page)

    @pytest.mark.parametrize("stored", ["in, out", "out, in"])
    def test_a_product_is_timed_as_the_model_stores_it(self, monkeypatch, stored):
        shapes = []

        def times(work, device):
            with FlopCounterMode(display=False) as counter:
                work()
            shapes.append(counter.get_total_flops())
            return [1.0]

        monkeypatch.setattr(measuring, "_times", times)
        gemm = Gemm("a product", 512, 2048, 1, bias=True, stored=stored)
        cpu = torch.device("cpu")
        # A mebibyte of weights goes by before the first comes again: two of two mebibytes each.
        assert alone_us(gemm, 3, cpu, torch.float32) == pytest.approx(1e6 / 2)
        assert shapes == [2 * 2 * 3 * 512 * 2048]


def work_of(*names_and_times):
    """A step of kernels, 1 µs apart."""
    found, at = [], 0.0
    for name, us in names_and_times:
        kind = "copy" if name.startswith("Memcpy") else "kernel"
        found.append(Work(name, kind, None, at, at + us))
        at += us + 1
    return found


STEP = [("triton_norm", 2.0)]
for _ in range(2):
    STEP += [("nvjet_qkv", 4.0), ("fmha_cutlassF", 6.0), ("gemv_projection", 3.0)]
    STEP += [("cublasLt::splitKreduce_kernel", 1.0), ("nvjet_up", 5.0), ("nvjet_down", 5.5)]
STEP += [("nvjet_output", 30.0), ("argmax", 2.5), ("Memcpy DtoD", 1.5)]


class TestInParts:
    def found(self, replays=3):
        return in_parts(work_of(*STEP) * replays, replays, gemms(GPT2))

    def test_every_kernel_has_a_kind_and_they_add_up(self):
        found = self.found()
        assert found["kernels"] == len(STEP) == 16
        assert found["busy_us"] == sum(us for _, us in STEP)
        kinds = found["kinds"]
        assert kinds["attention"] == {"count": 2, "us": 12.0}
        assert kinds["matrix product"] == {"count": 11, "us": 67.0}
        assert kinds["fused"] == {"count": 1, "us": 2.0}
        assert kinds["other"] == {"count": 1, "us": 2.5} and kinds["copy"]["us"] == 1.5
        assert sum(found["names"].values()) == 11

    def test_each_product_has_its_time_with_what_ends_it(self):
        assert self.found()["gemms_us"] == {
            "query, key, value": 4.0,
            "projection": 4.0,
            "feed-forward, up": 5.0,
            "feed-forward, down": 5.5,
            "output": 30.0,
        }

    def test_kernels_that_are_not_the_products_in_turn_are_not_named(self):
        fewer = [one for one in STEP if one[0] != "nvjet_output"]
        assert in_parts(work_of(*fewer), 1, gemms(GPT2))["gemms_us"] == {}

    def test_the_pauses_are_those_within_a_step(self):
        assert set(self.found()["gap_us"].values()) == {1.0}  # not that between two replays

    def test_it_wants_the_same_work_in_every_replay(self):
        with pytest.raises(ValueError, match="not 3 times the same"):
            in_parts(work_of(*STEP), 3, gemms(GPT2))
        with pytest.raises(ValueError, match="0 pieces"):
            in_parts([], 3, gemms(GPT2))

    @pytest.mark.parametrize(
        "name, kind",
        [
            ("void flash::flash_fwd_splitkv_kernel<…>", "attention"),
            ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "attention"),
            ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80", "attention"),
            ("nvjet_tst_64x8_64x16_4x1_v_bz_TNT", "matrix product"),
            ("void gemvNSP_kernel<__nv_bfloat16>", "matrix product"),
            ("void cublasLt::splitKreduce_kernel<32, 16>", "matrix product"),
            ("triton_red_fused_addmm_native_layer_norm_3", "fused"),
            ("void at::native::reduce_kernel<512, 1>", "other"),
        ],
    )
    def test_a_kernel_is_known_by_its_name(self, name, kind):
        assert kind_of(Work(name, "kernel", None, 0, 1)) == kind


class TestPage:
    STEP = {
        "step_us": 120.0,
        "busy_us": 100.0,
        "kernels": 40,
        "kinds": {
            "matrix product": {"count": 9, "us": 60.0},
            "fused": {"count": 20, "us": 25.0},
            "attention": {"count": 2, "us": 15.0},
        },
    }

    def test_a_step_is_divided_into_its_parts(self):
        parts = limits.parts_us(self.STEP)
        assert list(parts) == list(limits.PARTS)
        assert set(limits.PARTS) == {*measuring.KINDS, "copy", "pauses"}
        assert parts["pauses"] == 20 and parts["copy"] == 0
        assert sum(parts.values()) == self.STEP["step_us"]
        assert limits.pause_us(self.STEP) == 0.5

    def test_the_floor_of_a_bare_step_is_its_weights(self):
        found = {"bandwidth": {"gb_per_s": 1000.0}}
        work = Workload("gpt2", dtype="bfloat16")
        wanted = floor.weight_bytes(work.but(batch_size=1)) / 1e6
        assert limits.step_floor_us(found, work, 1) == pytest.approx(wanted)

    def test_a_product_has_its_shares(self):
        names = [one.name for one in gemms(GPT2)]
        found = {
            "bandwidth": {"gb_per_s": 1.0},
            "alone_us": {"1": dict.fromkeys(names, 100.0)},
            "steps": {"1": {"gemms_us": dict.fromkeys(names, 50.0)}},
        }
        work = Workload("gpt2-tiny", dtype="bfloat16")
        by_name = {one.name: one for one in limits.products(found, work, 1)}
        one = by_name["projection"]
        assert one.floor_us == 64 * 64 * 2 / 1e3
        assert one.share == one.floor_us / 100 and one.share_in_step == one.floor_us / 50

    def test_a_record_is_a_point_and_what_failed_is_not(self):
        made = record("kv_cache", per_token=2.0, batch=4)
        made[floor.KEY] = 0.5
        failed = record("naive", error="Out of memory.")
        race = {"captured graph": made, "compiled, never": made}
        points = limits.points([made, failed], {("gpt2", 4): race})
        assert [one.rung for one in points] == ["kv_cache", "captured_graph"]
        one = points[0]
        work = Workload("gpt2", 4, 128, 512, dtype="bfloat16")
        assert one.share == 0.25 and one.ms == 2.0
        assert one.intensity == limits.counted(work).intensity
        assert one.tflop_per_s == pytest.approx(limits.counted(work).flops / 2e-3 / 1e12)
        better, unknown = one._replace(share=0.3), one._replace(share=nan)
        assert limits.best([better, *points, unknown]) == {("gpt2", 4): better}
        assert limits.best([unknown]) == {("gpt2", 4): unknown}

    def test_each_loop_that_asks_stands_below_the_roof(self):
        asking = {loop for loop in endings.LOOPS if not loop.endswith("never")}
        assert asking - set(limits.RACED) == {endings.AT_ONCE}

    def test_the_bandwidth_is_that_of_the_step_cards(self, tmp_path):
        machine = {"gpu": "A made-up GPU", "date": "2026-11-25T00:00:00Z"}
        chapter = SimpleNamespace(machine=machine, shelf=SimpleNamespace(folder=tmp_path))
        assert isnan(limits.gb_per_s(chapter))
        kept = {"schema": 2, "machine": machine, "found": {"gb_per_s": 7.0}}
        save(kept, tmp_path / floor.FILE)
        assert limits.gb_per_s(chapter) == 7.0


class TestRoofline:
    POINTS = [
        Reached("naive", "gpt2", 1, 1.0, 0.03, 0.01),
        Reached("device_loop", "gpt2", 32, 15.0, 9.0, 0.2),
        Reached("device_loop", "gpt2", 1, 1.0, 0.5, 0.16),
        Reached("device_loop", "gpt2-xl", 1, 1.0, 1.5, 0.5),
        Reached("naive", "gpt2", 32, nan, nan),
    ]
    ROOFS = {"gb_per_s": 3000.0, "tflop_per_s": 600.0}

    def test_its_words_give_every_share(self):
        said = roofline(self.POINTS, "All below", **self.ROOFS).alt
        assert "3,000 GB/s" in said and "600 TFLOP/s" in said
        assert "gpt2, device loop: batch 1 16 %, batch 32 20 %." in said
        assert "gpt2, naive: batch 1 1 %." in said
        assert "gpt2-xl, device loop: batch 1 50 %." in said

    @pytest.mark.parametrize("tflop_per_s", [600.0, nan])
    def test_it_is_drawn_for_a_page_and_for_a_phone(self, tflop_per_s):
        drawn = roofline(self.POINTS, "T", gb_per_s=3000.0, tflop_per_s=tflop_per_s)
        page = ElementTree.fromstring(for_page(drawn.svg))
        widths = {
            float(svg.get("viewBox").split()[2]) for svg in page.iter("svg") if svg.get("viewBox")
        }
        assert widths == {400, 326}
        assert ("600 TFLOP/s" in drawn.svg) == (tflop_per_s == 600)
        assert "batch 1" in drawn.svg and "gpt2-xl" in drawn.svg

    def test_a_mark_at_the_roof_lies_on_it(self):
        from decoding.drawing.roofline import _Scale

        scale = _Scale(0.1, 1000, 400)
        assert scale.at(0.1) == 0 and scale.at(1000) == pytest.approx(400)
        assert scale.at(10) == pytest.approx(200)
        assert scale.ticks == pytest.approx([0.1, 1, 10, 100, 1000])

    def test_the_ridge_is_where_both_roofs_meet(self):
        assert drawing.ridge(3000.0, 600.0) == 200
        assert isnan(drawing.ridge(3000.0, nan))

    def test_nothing_measured_is_words(self):
        for points, rate in (([], 3000.0), (self.POINTS, nan)):
            drawn = roofline(points, "T", gb_per_s=rate)
            assert "Nothing was measured." in drawn.alt and "nothing was measured" in drawn.svg


class TestStacked:
    TIMES = {"batch 1": {"work": 60.0, "more": 20.0, "pauses": 20.0}}

    def test_its_words_give_every_part(self):
        said = drawing.stacked(self.TIMES, "Parts", least={"batch 1": 15.0}).alt
        assert "batch 1, 100 µs: work 60 µs (60 %), more 20 µs (20 %), pauses 20 µs (20 %)." in said
        assert "The line: 15 µs." in said
        assert "The line" not in drawing.stacked(self.TIMES, "Parts").alt

    def test_there_is_a_colour_for_each_part(self):
        many = {"a step": {f"part {number}": 1.0 for number in range(7)}}
        with pytest.raises(ValueError, match="5 colours, for 7 parts"):
            drawing.stacked(many, "Too many")
        every = dict.fromkeys(limits.PARTS, 1.0)
        assert all(part in drawing.stacked({"a step": every}, "Enough").alt for part in every)


def test_the_output_is_timed_as_it_is_and_padded():
    work = Workload("gpt2-tiny", 1, 6, 8, dtype="float32", device="cpu")
    found = odd_vocabulary.odd_vocabulary(work, batch_sizes=(1, 2), multiple=100)
    assert found["sizes"] == {"as it is": 512, "padded": 600}
    assert set(found["alone_us"]) == {"1", "2"}
    assert all(set(one) == set(found["sizes"]) for one in found["alone_us"].values())
    assert all(took > 0 for one in found["alone_us"].values() for took in one.values())
