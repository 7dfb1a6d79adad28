"""Timelines of what a race logged: of made-up loops, known exactly, and of the book's own."""

import json
import re
from xml.etree import ElementTree

import pytest

from decoding.drawing import Way, loop_timeline, loops_explorer
from decoding.drawing.logged import (
    FIRST_TOKEN,
    LAUNCH,
    WAIT,
    WAYS,
    is_logged,
    logged,
    method,
    pauses,
    typical,
    windows,
)
from decoding.drawing.loop_timelines import took
from decoding.drawing.theme import IDLE, WORK
from decoding.measuring import Record, watching
from decoding.measuring.records import load
from decoding.pages.machines import book_folder
from decoding.pages.results import pauses_of_a_step

SVG = "{http://www.w3.org/2000/svg}"
SIZES = (1, 8, 32, 128)


def loop(launch_us, wait_us, token_us, work_us=90, tokens=16, median_us=None):
    """What a race finds of a loop that is the same in every token."""
    return Record(
        {
            "G_us": work_us,
            "busy_ms_per_token": work_us / 1000,
            "tokens_ms": {"p50": (median_us or token_us) / 1000},
            "raw": {
                "launch_us": [launch_us] * tokens,
                "wait_us": [wait_us] * tokens,
                "token_ms": [token_us / 1000] * tokens,
            },
        }
    )


RACE = {  # a step takes 100 µs, 10 of them pauses; a launch 60, and a flag 5 µs to reach the host
    "check": loop(60, 105, 165),
    "two streams": loop(60, 40, 100),
    "no check": loop(50, 2, 100),
}


@pytest.fixture(scope="module")
def book():
    found = {}
    for size in SIZES:
        race = load(book_folder() / f"watch_b{size}.json")["results"]
        found[size] = {label: Record(each) for label, each in race.items()}
    return found


def script_data(explorer):
    (found,) = re.findall(r'<script type="application/json">(.*?)</script>', explorer.html)
    return json.loads(found)


def test_the_first_token_is_the_one_that_a_race_logs_first():
    assert FIRST_TOKEN == watching.FIRST_STEP


def test_a_step_begins_once_it_is_launched_and_the_step_before_is_done():
    assert pauses(RACE) == pytest.approx(10)
    found = windows(RACE)
    at_once = found["check"]
    assert at_once.idle == [pytest.approx((165 * n, 165 * n + 65)) for n in range(6)]
    assert at_once.total == pytest.approx(6 * 165) and at_once.after == pytest.approx([0] * 6)
    for label in ("two streams", "no check"):
        assert found[label].idle == [] and found[label].total == pytest.approx(600)
    for window in found.values():
        works = window.timeline.lanes["GPU"]
        assert all(work.end_us - work.start_us == pytest.approx(100) for work in works)


def test_a_wait_is_for_the_flag_of_the_step_that_the_loop_asks_about():
    for label, late in (("check", 0), ("two streams", 1)):
        timeline, _ = logged(RACE[label], WAYS[label], 10)
        ends = {work.token: work.end_us for work in timeline.lanes["GPU"]}
        for launch, wait in zip(timeline.host[::2], timeline.host[1::2]):
            assert (launch.name, wait.name) == (LAUNCH, WAIT)
            assert wait.token == launch.token - late
            assert wait.token < FIRST_TOKEN or wait.end_us >= ends[wait.token] - 1e-6


def test_a_loop_that_never_asks_runs_ahead_and_waits_for_nothing():
    timeline, after = logged(RACE["no check"], WAYS["no check"], 10)
    assert after == {} and {one.name for one in timeline.host} == {LAUNCH}
    window = typical(RACE["no check"], WAYS["no check"], 10, tokens=4)
    assert window.timeline.host[-1].token > window.tokens[-1]


def test_the_window_is_the_one_nearest_to_the_median_of_the_race():
    uneven = loop(60, 105, 165)
    uneven["raw"]["token_ms"] = [0.165] * 8 + [0.2] * 8
    uneven["raw"]["wait_us"] = [105] * 8 + [140] * 8
    assert typical(uneven, WAYS["check"], 10).tokens == [9, 10, 11, 12, 13, 14]
    uneven["tokens_ms"]["p50"] = 0.2
    assert typical(uneven, WAYS["check"], 10).total == pytest.approx(1200)
    uneven["tokens_ms"]["p50"] = 0.3
    assert took(typical(uneven, WAYS["check"], 10)) == (
        "6 tokens in 1.20 ms (the race's median: 1.80 ms)"
    )


def test_what_was_not_logged_is_left_out():
    failed, on_cpu = Record({"error": "Out of memory."}), loop(1, 1, 1) | {"G_us": None}
    assert not is_logged(failed) and not is_logged(Record(on_cpu))
    assert list(windows(RACE | {"check": failed})) == ["two streams", "no check"]
    picture = loops_explorer({1: {"check": failed}}, title="Nothing")
    assert picture.alt == "Nothing. No loop was logged token by token: that takes a GPU."
    assert str(pauses_of_a_step({"check": failed})) == "nan"
    assert pauses_of_a_step(RACE) == pytest.approx(10)


def test_other_loops_are_shown_by_their_labels():
    race = {"bound": RACE["no check"], "deferred": RACE["two streams"]}
    ways = {"deferred": Way("in the next step", 1), "bound": Way("never", None)}
    picture = loop_timeline({4: race}, title="Later", ways=ways)
    assert "asks in the next step: 6 tokens in 0.600 ms" in picture.alt
    assert "never asks" in picture.alt and "at once" not in picture.alt


@pytest.mark.parametrize("size", SIZES)
def test_in_the_book_the_waits_end_just_after_their_steps(book, size):
    """What is derived fits what is logged: ends of steps by the GPU's clock, of waits by the host's."""
    for window in windows(book[size]).values():
        starts = {one.token: one.start_us for one in window.timeline.host if one.name == LAUNCH}
        for work in window.timeline.lanes["GPU"]:
            assert work.start_us >= starts.get(work.token, 0), "no step begins before its launch"
        if window.way.late is not None:
            assert window.after and max(window.after) < 50 and sorted(window.after)[1] < 25


def test_all_loops_of_a_batch_size_are_to_one_scale(book):
    picture = loop_timeline({size: book[size] for size in (1, 128)}, title="Title")
    root = ElementTree.fromstring(picture.svg)
    for kind in ("row", "row narrow"):
        for drawing, size in zip(root.iterfind(f"{SVG}g[@class='{kind}']//{SVG}svg"), (1, 128)):
            red = [
                path for path in drawing.iter(f"{SVG}path") if IDLE.lower() in path.get("style", "")
            ]
            blue = [
                path for path in drawing.iter(f"{SVG}path") if WORK.lower() in path.get("style", "")
            ]
            ends = []
            for path in blue[:3]:  # one for each loop, then the legend's
                *_, (x, width) = re.findall(r"M([\d.]+) [\d.]+h([\d.]+)", path.get("d"))
                ends.append(float(x) + float(width) - 40)
            totals = [window.total for window in windows(book[size]).values()]
            scale = max(ends) / max(totals)
            assert ends == pytest.approx([scale * total for total in totals], abs=0.6)
            assert red


def test_the_picture_says_what_is_logged_and_what_is_derived(book):
    races = {1: book[1], 128: book[128]}
    said = method(races, {size: windows(race) for size, race in races.items()})
    assert said == loop_timeline(races, title="Title").caption
    assert "logged; derived is" in said and "µs at batch 128" in said
    found = float(re.search(r"a wait ends (\d+) µs \(median", said)[1])
    assert found < 15


def test_the_explorer_has_data_for_every_choice_and_is_small(book):
    explorer = loops_explorer(book, title="Title", start="two streams", before="check")
    assert len(explorer.html.encode()) < 60_000
    data = script_data(explorer)
    assert [batch["name"] for batch in data] == ["1", "8", "32", "128"]
    for batch, race in zip(data, book.values()):
        found = windows(race)
        assert [one["asks"] for one in batch["loops"]] == [w.way.asks for w in found.values()]
        assert batch["scale"] == max(round(window.total) for window in found.values())
        for one, window in zip(batch["loops"], found.values()):
            assert [token for *_, token in one["gpu"]] == window.tokens
    form = ElementTree.fromstring(
        re.sub(r"<script.*?</script>", "", explorer.html, flags=re.S)
    ).find("form")
    assert form.get("hidden") is not None and form.get("data-ghost") == "0"
    assert form.find("svg").get("aria-label") and form.find("input").get("aria-label") == "time"
    chosen = [one.get("value") for one in form.iter("input") if one.get("checked") is not None]
    assert chosen == ["1", "0"]


def test_without_a_script_the_smallest_and_the_largest_batch_stand_in(book):
    explorer = loops_explorer(book, title="Title")
    bundle = explorer._repr_mimebundle_()
    assert bundle["image/svg+xml"] == explorer.picture.svg and bundle["text/plain"]
    for size in (1, 128):
        assert f"Batch {size}: asks at once: 6 tokens in" in bundle["text/plain"]
    assert "Batch 8:" not in bundle["text/plain"]
    still = re.search(r'<div class="ttb-still">(.*?)<div class="ttb-key"', explorer.html, re.S)[1]
    assert "hidden" not in still.split(">")[0] and "Batch 128" in still
