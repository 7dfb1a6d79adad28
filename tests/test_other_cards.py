"""Other cards: little memory, no bfloat16. None of them is needed here: shapes and made-up answers do."""

import json
from math import isnan
from types import SimpleNamespace

import pytest
import torch
from test_recording import MACHINE

from decoding.__main__ import main
from decoding.allocator import MIB, replay
from decoding.measuring import MeasurementError, Workload
from decoding.measuring.fits import RESERVE_MIB, needed_mib, shortage
from decoding.measuring.sizes import sizes_of
from decoding.models import _configuration, default_dtype
from decoding.pages import Chapter, endings, machines, shelf
from decoding.pages.endings import LOOPS
from decoding.pages.shelf import Sitting

BATCHED = Workload("gpt2", 32, 128, 512, dtype="bfloat16")


@pytest.fixture
def card(monkeypatch):
    """Make PyTorch answer as for a card: its compute capability and its memory in MiB."""

    def of(capability=(9, 0), memory=80_000):
        properties = SimpleNamespace(total_memory=memory * MIB, name="A Card")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
        return MACHINE | {"gpu_memory_mib": memory, "gpu": "A Card"}

    return of


class TestMemory:
    def test_what_is_needed_is_what_the_book_measured(self):
        record = machines.book_folder() / (
            "naive_expandable_segments_gpt2_b32_p128_n512_bfloat16.json"
        )
        measured = json.loads(record.read_text())["memory"]["peak_allocated_mib"]
        assert needed_mib(BATCHED) - RESERVE_MIB == pytest.approx(measured, rel=0.05)

    @pytest.mark.parametrize("memory", [6_000, 8_188])
    def test_the_chapters_batch_fits_a_card_of_8_gb_and_of_6(self, memory, card):
        machine = card(memory=memory)
        batched = machines.workload(machine, batch_size=32, new_tokens=512)
        assert batched.batch_size == 8
        assert shortage(batched, memory) == ""
        events, marks = sizes_of("naive", _configuration("gpt2"), 8, 639, 1)
        left = memory - RESERVE_MIB - 250  # without CUDA's own, and without the weights
        assert replay(events, marks, capacity_mib=left)["out_of_memory"] is None

    def test_the_model_is_drawn_in_float32(self):
        model = Workload("gpt2-medium", 1, 8, 8, dtype="bfloat16")
        assert needed_mib(model) - RESERVE_MIB == pytest.approx(4 * 354_823_168 / MIB, rel=0.01)

    def test_float32_needs_twice_as_much_as_bfloat16(self):
        half, whole = (needed_mib(BATCHED.but(dtype=name)) for name in ("float16", "float32"))
        assert whole - RESERVE_MIB == pytest.approx(2 * (half - RESERVE_MIB))

    def test_what_does_not_fit_is_one_sentence_before_anything_is_measured(
        self, card, monkeypatch, capsys
    ):
        card(memory=2_000)
        monkeypatch.setattr("decoding.measuring.compare", lambda *_, **__: [])
        main(["measure", "naive", "--dtype", "bfloat16", "--device", "cuda"])
        said = capsys.readouterr().err
        assert said.startswith("gpt2 at batch 32 with 128 + 512 tokens needs about 3,3")
        assert said.count("\n") == 1 and "this GPU has 2,000" in said
        card(memory=8_188)
        main(["measure", "naive", "--dtype", "bfloat16", "--device", "cuda"])
        assert capsys.readouterr().err == ""

    def test_a_chapter_says_so_at_its_head(self, card, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(shelf, "machine", lambda: card(memory=1_000))
        Chapter("01", Sitting(folder=str(tmp_path)))
        shown = capsys.readouterr().out
        assert "Markdown" in shown  # outside of Jupyter, only its kind is shown

    def test_a_race_that_does_not_fit_leaves_the_others_on_the_page(
        self, card, monkeypatch, tmp_path, capsys
    ):
        monkeypatch.setattr(shelf, "machine", card)
        chapter = Chapter("09", Sitting(folder=str(tmp_path)))

        def race(_, size, **__):
            if size == 128:
                raise MeasurementError("Racing: out of GPU memory.")
            return {"a loop": size}

        monkeypatch.setattr(endings, "race", race)
        raced = endings.races(chapter, sizes=(1, 128))
        assert raced[1] == {"a loop": 1}
        assert list(raced[128]) == list(LOOPS)
        assert all("out of GPU memory" in one.error for one in raced[128].values())
        assert isnan(endings.cost_at_once(raced[128], "captured"))
        assert isnan(endings.launch_and_work_us(raced[128], "captured graph")[0])


class TestWithoutBfloat16:
    @pytest.mark.parametrize(
        ("capability", "of_load_model", "of_chapters"),
        [
            ((7, 0), torch.float32, "float16"),
            ((7, 5), torch.float32, "float16"),
            ((8, 0), torch.bfloat16, "bfloat16"),
            ((12, 0), torch.bfloat16, "bfloat16"),
        ],
    )
    def test_the_dtype_falls(self, capability, of_load_model, of_chapters, card):
        machine = card(capability)
        assert default_dtype(torch.device("cuda")) == of_load_model
        assert machines.workload(machine, batch_size=1, new_tokens=256).dtype == of_chapters

    def test_a_t4_gets_a_smaller_batch_in_float16(self, card):
        work = machines.workload(card((7, 5), 15_095), batch_size=32, new_tokens=512)
        assert (work.batch_size, work.dtype) == (8, "float16")
