"""The floor of a step: counted bytes over a bandwidth that was measured, or nothing at all."""

import pytest
from factories import record
from transformers import GPT2LMHeadModel

from decoding import drawing
from decoding.drawing.words import known, share_of_limit
from decoding.measuring import Workload
from decoding.measuring.bandwidth import bandwidth
from decoding.measuring.endings import LLAMA
from decoding.measuring.records import load, save
from decoding.pages import floor
from decoding.pages.results import shape_of

WORK = Workload("gpt2-tiny", 4, 8, 16, dtype="bfloat16")
GPU = "A made-up GPU"  # that of the factory's records


def kept(folder, gb_per_s=1000.0, gpu=GPU):
    """A folder with a bandwidth."""
    machine = {"gpu": gpu, "date": "2026-11-25T00:00:00Z"}
    made = {"schema": 2, "machine": machine, "found": {"gb_per_s": gb_per_s}}
    save(made, folder / floor.FILE)
    return folder


def test_all_weights_count_once_and_of_the_positions_one_row_for_each_row():
    model = GPT2LMHeadModel(shape_of(WORK))
    positions = model.transformer.wpe.weight
    numbers = sum(one.numel() for one in model.parameters())  # tied weights are one parameter
    rows = WORK.batch_size * positions.shape[1]
    assert floor.weight_bytes(WORK) == 2 * (numbers - positions.numel() + rows)
    assert floor.weight_bytes(WORK.but(dtype="float32")) == 2 * floor.weight_bytes(WORK)


def test_the_cache_counts_at_the_mean_position_of_the_steps():
    layers, width, batch = 2, 64, WORK.batch_size
    steps = range(1, WORK.new_tokens)  # the first new token comes from the prefill
    read = [2 * 2 * layers * width * batch * (WORK.prompt_tokens + step - 1) for step in steps]
    assert floor.cache_bytes(WORK) == sum(read) / len(read)
    one_token = floor.cache_bytes(WORK.but(new_tokens=1))
    assert one_token == 2 * 2 * layers * width * batch * WORK.prompt_tokens


def test_heads_that_share_keys_and_values_count_once():
    work = Workload(LLAMA, 4, 8, 1, dtype="bfloat16")
    assert floor.cache_bytes(work) == 2 * 2 * 16 * (8 * 64) * 4 * 8
    assert (
        2e9 < floor.weight_bytes(work) < 3e9
    )  # 1.2 billion weights, the output's table among them


def test_a_record_carries_its_floor_only_where_the_bandwidth_was_measured(tmp_path):
    for folder in (tmp_path / "none", kept(tmp_path / "other", gpu="Another GPU")):
        made = record("kv_cache")
        floor.put(made, folder)
        assert floor.KEY not in made
    made, folder = record("kv_cache", per_token=10.0), kept(tmp_path / "own")
    floor.put(made, folder)
    work = Workload("gpt2", 32, 128, 512, dtype="bfloat16")
    wanted = (floor.weight_bytes(work) + floor.cache_bytes(work)) / 1e12 * 1e3
    assert made[floor.KEY] == pytest.approx(wanted)
    assert share_of_limit(made) == f"{100 * wanted / 10:.0f} %"
    for other in (record(error="Out of memory."), record(gpu=False)):
        floor.put(other, folder)
        assert floor.KEY not in other


def test_every_loop_of_a_race_carries_it(tmp_path):
    machine, work = record().machine, record().workload
    times = dict.fromkeys(("median", "min", "max"), 2.0)
    loops = {name: {"per_token_ms": times, "spread_over": 3} for name in ("check", "no check")}
    race = {"schema": 2, "machine": machine, "workload": work, "together": "a-race"}
    save(race | {"results": loops}, tmp_path / "race.json")
    found = load(tmp_path / "race.json")
    floor.put(found, kept(tmp_path))
    assert all(known(one[floor.KEY]) for one in found["results"].values())


def test_the_step_card_says_the_share_of_the_limit_where_it_is_known():
    before, after = record("naive", per_token=12.0), record("kv_cache", per_token=6.0)
    assert "limit" not in drawing.step_card(before, after).alt
    after[floor.KEY] = 1.5
    card = drawing.step_card(before, after)
    words = (
        "Share of the limit: 25 %. The weights and the cache cannot be read in less than 1.50 ms."
    )
    assert words in card.alt
    once = record("kv_cache", per_token=6.0, processes=1) | {floor.KEY: 1.5}
    assert "limit" not in drawing.step_card(before, type(after)(once)).alt


def test_the_bandwidth_is_that_of_the_copies(tmp_path):
    found = bandwidth("cpu", size_bytes=2**20, tries=3)
    assert 0 < found["slowest"] <= found["gb_per_s"] <= found["fastest"]
    assert (found["size_bytes"], found["tries"]) == (2**20, 3)


def test_it_is_recorded_beside_the_other_records(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(floor, "bandwidth", lambda: {"gb_per_s": 7.0})
    floor.record(tmp_path)
    made = load(tmp_path / floor.FILE)
    assert made["found"] == {"gb_per_s": 7.0}
    assert made["machine"]["code"] and str(tmp_path) in capsys.readouterr().out
