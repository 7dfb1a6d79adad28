"""The scoreboard's rules on made-up records with known answers."""

import pytest
from factories import record

from decoding.measuring import Record
from decoding.pages import verdicts

HAZARDS = {"where the GPU lags": [20, 0], "where it keeps up": [0, 0]}
GROWN = {
    "eager": 6.0,
    "static": 1.0,
    "compiled": 3.0,
    "compiled anew": 3.5,
}


def entrant(per_token, busy, by=0.0):
    """What a race found of a loop whose runs scatter around ``per_token`` by this share of it."""
    low, high = per_token * (1 - by), per_token * (1 + by)
    spread = {"median": per_token, "min": low, "max": high}
    race = {"together": "a-race", "workload": {}, "machine": {"gpu_id": "a-card"}}
    found = {"per_token_ms": spread, "busy_ms_per_token": busy, "spread_over": 5}
    found["rounds_ms"] = [low, per_token, high]
    return Record(found, race=race)


def grown(**times):
    """What the control found of a compiled loop with a growing cache, beside others."""
    return {name: {"per_token_ms": {"median": ms}} for name, ms in (GROWN | times).items()}


def raced(check, without, two, busy, by=0.0):
    times = {"check": check, "no check": without, "two streams": two}
    found = {label: entrant(time, busy, by) for label, time in times.items()}
    found["two streams"]["rounds_ms"].reverse()  # a round that is slow for one is not for the other
    return found


def story():
    """Evidence of a machine on which every claim holds wherever it can be tested."""

    def ladder(batch, **naive):
        made = {"idle": 0.05, "work_grows": 4.0, "reserved": 4000.0, "allocated": 1000.0} | naive
        plain = {"per_token": 6.0, "batch": batch, "allocated": 1000.0}
        quick = {"idle": 0.1, "allocated": 1000.0, "batch": batch}
        return {
            "naive": record("naive", per_token=10.0, batch=batch, **made),
            "kv_cache": record("kv_cache", reserved=2000.0, **plain),
            "expandable_segments": record("expandable_segments", reserved=1400.0, **plain),
            "static_cache": record("static_cache", reserved=1100.0, **plain),
            "compiled": record("compiled", per_token=3.0, reserved=1200.0, **quick),
            "two_streams": record("two_streams", per_token=2.0, reserved=1250.0, **quick),
        }

    single = ladder(1)
    del single["expandable_segments"]
    return {
        "ladders": {"at batch 32": ladder(32), "at batch 1": single},
        "naive_expandable": record(
            "naive", allocated=1000.0, reserved=1100.0, variant={"allocator": "expandable_segments"}
        ),
        "lengths": {
            "dynamic": entrant(6.0, 2.0),
            "256": entrant(5.0, 1.0),
            "1024": entrant(6.0, 1.6),
        },
        "checks": {
            1: raced(1.0, 0.5, 0.52, 0.45),
            8: raced(1.0, 0.55, 0.57, 0.5),
            32: raced(1.2, 0.8, 0.82, 0.75),
            128: raced(2.0, 1.7, 1.72, 1.65),
        },
        "grown": grown(),
        "hazards": {key: list(value) for key, value in HAZARDS.items()},
    }


def judged(ladders, naive_expandable, lengths, checks, grown, hazards):
    """The verdicts of all rules, by short names, in the order of the page."""
    names = ("quadratic", "fragments", "linear", "expandable", "static", "pays", "compiling")
    names += ("check", "gain", "less", "hazard", "reserve", "five")
    evidence = {"ladders": ladders, "large": ladders["at batch 32"], "checks": checks}
    evidence |= {"naive_expandable": naive_expandable, "lengths": lengths}
    found = verdicts.judged(evidence | {"grown": grown, "hazards": hazards})
    return dict(zip(names, found.values(), strict=True))


def in_words(evidence):
    return {claim: str(verdict) for claim, verdict in judged(**evidence).items()}


def test_every_claim_holds_where_the_story_says_so():
    found = in_words(story())
    assert found.pop("hazard") == "holds in part: where the GPU lags"
    assert found.pop("gain") == "more than claimed"
    assert set(found.values()) == {"holds"}


def change(evidence, path, value):
    for key in path[:-1]:
        evidence = evidence[key]
    evidence[path[-1]] = value


NAIVE = ("ladders", "at batch 1", "naive")
LARGE = ("ladders", "at batch 32")
BATCHES = "at batch 32 and at batch 1"
NOT_128 = "at batch 1 and at batch 8 and at batch 32"
DEFAULT = "beside a growing cache with the default allocator"
FLAT = [5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("claim", "path", "value", "verdict"),
    [
        ("quadratic", (*NAIVE, "gpu", "curve_busy_ms"), FLAT, "holds in part: at batch 32"),
        ("linear", (*NAIVE, "gpu", "curve_busy_ms"), FLAT, "holds in part: at batch 32"),
        ("linear", (*NAIVE, "time", "per_token_ms", "median"), 5.0, "holds in part: at batch 32"),
        (
            "fragments",
            (*NAIVE, "memory", "peak_reserved_mib"),
            1400.0,
            "holds in part: at batch 32",
        ),
        (
            "expandable",
            ("naive_expandable", "memory", "peak_reserved_mib"),
            3900.0,
            "holds in part: for the KV cache",
        ),
        (
            "static",
            (*LARGE, "expandable_segments", "memory", "peak_reserved_mib"),
            1050.0,
            f"holds in part: {DEFAULT}",
        ),
        (
            "static",
            (*LARGE, "static_cache", "memory", "peak_reserved_mib"),
            3e3,
            "does not hold",
        ),
        ("pays", ("lengths", "1024"), entrant(5.0, 1.6), "holds in part: in the GPU's work"),
        ("pays", ("lengths", "1024"), entrant(5.0, 1.0), "does not hold"),
        ("pays", ("lengths", "1024"), Record({}), "not shown here"),
        ("compiling", ("grown",), grown(compiled=1.1), f"holds in part: {BATCHES}"),
        ("check", ("checks", 128), raced(2.0, 1.98, 1.98, 1.9), f"holds in part: {NOT_128}"),
        ("gain", ("checks", 8), raced(1.0, 0.9, 0.9, 0.5), "holds in part: at batch 1"),
        ("gain", ("checks",), {1: raced(1.0, 1.0, 1.1, 0.9)}, "does not hold"),
        ("less", ("checks", 128), raced(2.0, 1.0, 1.0, 0.9), "holds in part: at batch 32"),
        ("less", ("checks", 1), raced(1.0, 0.5, 0.52, 0.45, by=0.5), "not shown here"),
        ("less", ("checks", 1), raced(1.0, 0.9, 0.95, 0.45), "does not hold"),
        ("less", ("checks",), {32: raced(1.0, 0.9, 0.95, 0.45)}, "not shown here"),
        ("hazard", ("hazards", "where the GPU lags"), [0, 0], "does not hold"),
        ("hazard", ("hazards", "where the GPU lags"), [20, 3], "does not hold"),
        (
            "reserve",
            (*LARGE, "two_streams", "memory", "peak_reserved_mib"),
            1200.0,
            "holds in part: at batch 1",
        ),
        (
            "linear",
            (*LARGE, "kv_cache", "time", "per_token_ms", "max"),
            11.0,
            "holds in part: at batch 1",
        ),
        ("gain", ("checks", 8), raced(1.0, 0.8, 0.87, 0.5), "more than claimed: at batch 1"),
        (
            "five",
            (*LARGE, "two_streams", "time", "per_token_ms", "median"),
            1.0,
            "more than claimed: at batch 32",
        ),
        ("five", (*NAIVE, "time", "per_token_ms", "median"), 8.0, "holds in part: at batch 32"),
    ],
)
def test_other_data_give_another_verdict(claim, path, value, verdict):
    evidence = story()
    change(evidence, path, value)
    assert in_words(evidence)[claim] == verdict


def test_a_failed_rung_is_left_out():
    evidence = story()
    evidence["ladders"]["at batch 32"]["naive"] = record("naive", error="Out of GPU memory.")
    found = judged(**evidence)
    assert found["fragments"].met == {"at batch 1": True}
    assert found["expandable"].met == {"for the KV cache": True}


def test_a_machine_without_a_gpu_gives_no_verdict():
    on_cpu = {
        where: {rung: record(rung, gpu=False) for rung in ladder}
        for where, ladder in story()["ladders"].items()
    }
    slow = Record({"per_token_ms": dict.fromkeys(("median", "min", "max"), 9.0)})
    nothing = {
        "ladders": on_cpu,
        "naive_expandable": record(gpu=False),
        "lengths": {"dynamic": slow, "16": slow, "64": slow},
        "checks": {1: dict.fromkeys(("check", "no check", "two streams"), slow)},
        "grown": grown(),
        "hazards": {},
    }
    assert set(in_words(nothing).values()) == {"not shown here"}


def test_a_verdict_has_a_kind_and_a_sign():
    everywhere, in_part = verdicts.Verdict({"a": True}), verdicts.Verdict({"a": True, "b": None})
    undecided, nowhere = verdicts.Verdict({"a": False, "b": None}), verdicts.Verdict({"a": False})
    assert (str(in_part), in_part.kind) == ("holds in part: a", "holds in part")
    assert [str(one.sign) for one in (everywhere, in_part, undecided, nowhere)] == list("✔◐–✘")
    counted = verdicts.tally(everywhere, in_part, in_part, verdicts.Verdict({}))
    assert counted == {"holds": 1, "holds in part": 2, "not shown here": 1}


def test_a_growing_time_is_told_by_its_first_and_last_eighth():
    growing = record(per_token=10.0)
    growing["time"]["curve_ms"] = [1.0] * 64 + [3.0] * 384 + [4.0] * 64
    assert verdicts.slower_later(growing) == 4
    assert verdicts.works_more_later(growing) == pytest.approx(1.4)


def test_memory_that_is_reserved_but_unused():
    naive = record(reserved=79_000.0, allocated=2000.0)
    assert verdicts.unused_mib(naive) == 77_000
    assert verdicts.held(naive) == 39.5
    assert verdicts.fills_the_card(naive)
    assert not verdicts.fills_the_card(record(reserved=40_000.0))
    assert not verdicts.fills_the_card(record(gpu=False))


def board_of(evidence):
    names = verdicts.CLAIMS
    return verdicts.verdicts_board(dict(zip(names, judged(**evidence).values(), strict=True)))


def test_the_board_has_a_row_a_claim_and_counts_the_verdicts():
    made = board_of(story())
    assert made.picture.title == "11 hold, 1 exceeded, 1 in part"
    assert made.html.count("<details") == len(verdicts.CLAIMS) == 13
    assert "at batch 8: met (" in made.html
    assert "The rule: a token at the end takes much more work" in made.html
    assert f'href="#{verdicts.section("Naive decoding is O(N²)")}"' in made.html


def test_one_verdict_is_told_in_the_singular():
    found = (verdicts.Verdict({"a": True}), verdicts.Verdict({"a": False}))
    assert verdicts.in_short(verdicts.tally(*found)) == "1 holds, 1 does not hold"


def test_the_address_of_a_section_is_that_of_its_title():
    assert verdicts.section("Naive decoding is O(N²)") == "naive-decoding-is-o-n2"
    assert verdicts.section("All together: nearly 5 times") == "all-together-nearly-5-times"
