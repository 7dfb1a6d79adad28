"""The scoreboard's rules, run from the notebook's own cells on made-up records with known answers."""

from pathlib import Path

import nbformat
import pytest
from factories import record

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "scoreboard.ipynb"
HAZARDS = {"where the GPU lags": [20, 0], "where it keeps up": [0, 0]}
GRAPHS = {"static": 1, "growing": 3}


@pytest.fixture(scope="module")
def page():
    """The names that the cells with the rules define."""
    names = {"__name__": "scoreboard"}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if {"imports", "verdicts"} & set(cell.metadata.get("tags", [])):
            exec(cell.source, names)
    return names


def entrant(per_token, busy):
    spread = {"median": per_token, "min": per_token, "max": per_token}
    return {"per_token_ms": spread, "busy_ms_per_token": busy}


def raced(check, without, two, busy):
    times = {"check": check, "no check": without, "two streams": two}
    return {label: entrant(time, busy) for label, time in times.items()}


def scattered(check, without, two, busy, by=0.2):
    """A race whose runs scatter around these medians."""
    found = raced(check, without, two, busy)
    for one in found.values():
        middle = one["per_token_ms"]["median"]
        one["per_token_ms"] |= {"min": middle * (1 - by), "max": middle * (1 + by)}
    return found


def story():
    """Evidence of a machine on which every claim holds wherever it can be tested."""

    def ladder(batch, **naive):
        made = {"idle": 0.05, "growth": 8.0, "reserved": 4000.0, "allocated": 1000.0} | naive
        quick = {"idle": 0.1, "allocated": 1000.0}
        return {
            "naive": record("naive", per_token=10.0, batch=batch, **made),
            "kv_cache": record(
                "kv_cache", per_token=6.0, batch=batch, allocated=1000.0, reserved=2000.0
            ),
            "expandable_segments": record(
                "expandable_segments", per_token=6.0, batch=batch, allocated=1000.0, reserved=1400.0
            ),
            "static_cache": record(
                "static_cache", per_token=6.0, batch=batch, allocated=1000.0, reserved=1100.0
            ),
            "compiled": record("compiled", per_token=3.0, batch=batch, reserved=1200.0, **quick),
            "two_streams": record(
                "two_streams", per_token=2.0, batch=batch, reserved=1250.0, **quick
            ),
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
        "graphs": dict(GRAPHS),
        "hazards": {key: list(value) for key, value in HAZARDS.items()},
    }


def verdicts(page, evidence):
    return {claim.says: claim.verdict for claim in page["judge"](**evidence)}


NAMES = {
    "quadratic": "Naive decoding is O(N²)",
    "fragments": "Naive decoding fragments memory",
    "linear": "A KV cache makes it O(N)",
    "expandable": "Expandable segments cut fragmentation",
    "static": "A static cache cuts fragmentation",
    "pays": "A static cache pays for attention over its full length",
    "compiling": "Compilation helps most with a static cache",
    "check": "The stop check idles the GPU",
    "gain": "Interleaving two streams gains up to 11.6 % at small batches",
    "less": "Interleaving gains less at large batches",
    "hazard": "A missing wait corrupts data silently",
    "reserve": "Interleaving reserves more memory",
    "five": "All together: nearly 5 times",
}


def test_every_claim_of_the_article_is_there_once_and_holds_where_the_story_says_so(page):
    found = verdicts(page, story())
    assert list(found) == list(NAMES.values())
    assert found.pop(NAMES["hazard"]) == "holds only where the GPU lags"
    assert set(found.values()) == {"holds"}


def change(evidence, path, value):
    for key in path[:-1]:
        evidence = evidence[key]
    evidence[path[-1]] = value


NAIVE = ("ladders", "at batch 1", "naive")
LARGE = ("ladders", "at batch 32")


@pytest.mark.parametrize(
    ("claim", "path", "value", "verdict"),
    [
        ("quadratic", (*NAIVE, "time", "curve_ms"), [5.0] * 100, "holds only at batch 32"),
        ("linear", (*NAIVE, "time", "curve_ms"), [5.0] * 100, "holds only at batch 32"),
        ("linear", (*NAIVE, "time", "per_token_ms", "median"), 5.0, "holds only at batch 32"),
        ("fragments", (*NAIVE, "memory", "peak_reserved_mib"), 1400.0, "holds only at batch 32"),
        (
            "expandable",
            ("naive_expandable", "memory", "peak_reserved_mib"),
            3900.0,
            "holds only for the KV cache",
        ),
        (
            "static",
            (*LARGE, "expandable_segments", "memory", "peak_reserved_mib"),
            1050.0,
            "holds only beside a growing cache with the default allocator",
        ),
        (
            "static",
            (*LARGE, "static_cache", "memory", "peak_reserved_mib"),
            3e3,
            "does not hold here",
        ),
        ("pays", ("lengths", "1024"), entrant(5.0, 1.6), "holds only in the GPU's work"),
        ("pays", ("lengths", "1024"), entrant(5.0, 1.0), "does not hold here"),
        ("pays", ("lengths",), {}, "not measured here"),
        (
            "compiling",
            ("graphs", "growing"),
            1,
            "holds only at batch 32 and at batch 1",
        ),
        (
            "check",
            ("checks", 128),
            raced(2.0, 1.98, 1.98, 1.9),
            "holds only at batch 1 and at batch 8 and at batch 32",
        ),
        ("gain", ("checks", 8), raced(1.0, 0.9, 0.9, 0.5), "holds only at batch 1"),
        ("gain", ("checks",), {1: raced(1.0, 1.0, 1.1, 0.9)}, "does not hold here"),
        ("less", ("checks", 128), raced(2.0, 1.0, 1.0, 0.9), "holds only at batch 32"),
        ("less", ("checks", 1), scattered(1.0, 0.5, 0.52, 0.45, by=0.5), "not decided here"),
        ("less", ("checks", 1), raced(1.0, 0.9, 0.95, 0.45), "does not hold here"),
        ("hazard", ("hazards", "where the GPU lags"), [0, 0], "does not hold here"),
        ("hazard", ("hazards", "where the GPU lags"), [20, 3], "does not hold here"),
        ("hazard", ("hazards",), {}, "not measured here"),
        (
            "reserve",
            (*LARGE, "two_streams", "memory", "peak_reserved_mib"),
            1200.0,
            "holds only at batch 1",
        ),
        ("five", (*NAIVE, "time", "per_token_ms", "median"), 8.0, "holds only at batch 32"),
    ],
)
def test_other_data_give_another_verdict(page, claim, path, value, verdict):
    evidence = story()
    change(evidence, path, value)
    assert verdicts(page, evidence)[NAMES[claim]] == verdict


def test_a_failed_rung_and_a_machine_without_a_gpu_give_no_verdict_and_no_error(page):
    evidence = story()
    evidence["ladders"]["at batch 32"]["naive"] = record("naive", error="Out of GPU memory.")
    found = verdicts(page, evidence)
    assert found[NAMES["fragments"]] == "holds"  # at batch 1, the only place left
    cpu = {where: {r: record(r, gpu=False) for r in f} for where, f in story()["ladders"].items()}
    nothing = {"lengths": {}, "checks": {}, "hazards": {}, "graphs": GRAPHS}
    found = verdicts(page, {"ladders": cpu, "naive_expandable": record(gpu=False), **nothing})
    assert set(found.values()) == {"not measured here"}


def test_every_figure_and_reason_is_made_from_the_evidence(page):
    one, other = story(), story()
    other["ladders"]["at batch 32"]["naive"]["time"]["per_token_ms"]["median"] = 90.0
    changed = {
        claim.says
        for claim, again in zip(page["judge"](**one), page["judge"](**other), strict=True)
        if claim.found != again.found
    }
    assert changed == {NAMES["linear"], NAMES["five"]}
    for claim in page["judge"](**one):
        assert claim.reason
        assert claim.rule
