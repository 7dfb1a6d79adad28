"""The scrubber over the allocator: requests continued, where it breaks, and what the page is told."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from factories import record

from decoding.allocator import MIB, CachingAllocator, replay
from decoding.drawing import scrubber
from decoding.drawing.scrubber import Run, Side, Stage
from decoding.measuring import Record
from decoding.measuring.snapshots import load_events
from decoding.pages import allocations

BOOK = Path(__file__).parents[1] / "book" / "records" / "NVIDIA-H100-80GB-HBM3"


def growing(steps, mib=100, more=3):
    """A recording of a tensor that is copied into a longer one in each step."""
    events, marks = [], []
    for step in range(steps):
        events.append((step, (mib + more * step) * MIB))
        if step:
            events.append((step - 1, 0))
        else:
            events += [(1000, MIB), (1000, 0)]
        marks.append(len(events))
    return {"events": events, "marks": marks}


def book(rung):
    kept = json.loads((BOOK / f"allocations_{rung}_default.json").read_text())
    events, marks = load_events(BOOK / f"allocations_{rung}_default.npz")
    return kept | {"events": events, "marks": marks}


def measured(rung):
    name = f"{rung}_gpt2_b32_p128_n512_bfloat16.json"
    return Record(json.loads((BOOK / name).read_text()))


class TestContinued:
    def test_each_request_grows_as_it_grew(self):
        found = allocations.continued(growing(5), 30)
        real = growing(30)
        assert found.recorded == 5
        assert found.marks == real["marks"]
        sizes = [event[1] for event in real["events"]]
        assert [event[1] for event in found.events] == sizes
        assert (
            replay(found.events, found.marks)["reserved_mib"]
            == (replay(real["events"], real["marks"])["reserved_mib"])
        )

    def test_a_longer_recording_is_cut(self):
        found = allocations.continued(growing(9), 4)
        assert (found.recorded, len(found.marks)) == (4, 4)
        assert len(found.events) == found.marks[-1]

    def test_steps_that_differ_are_refused(self):
        recording = growing(5)
        recording["events"][-2:] = reversed(recording["events"][-2:])
        with pytest.raises(ValueError, match="different things"):
            allocations.continued(recording, 8)

    @pytest.mark.parametrize("rung", ["naive", "kv_cache"])
    def test_half_of_the_book_s_recording_foretells_the_other(self, rung):
        recording = book(rung)
        half = {"events": recording["events"], "marks": recording["marks"][:64]}
        found = allocations.continued(half, 128)
        curves = [
            replay(events, recording["marks"])["reserved_mib"]
            for events in (recording["events"], found.events)
        ]
        assert curves[0] == curves[1]

    def test_the_model_fills_the_card_when_the_card_was_full(self):
        record, recording = measured("naive"), book("naive")
        found = allocations.continued(recording, 512)
        room = allocations.room_of(record, recording, found)
        assert 79_000 < room < record.reserved_mib
        again = replay(found.events, found.marks, capacity_mib=room)["retries"]
        assert again[-1] == record["memory"]["alloc_retries"]


class TestScrubbed:
    REQUESTS = allocations.continued(growing(5), 40)

    def test_without_a_limit_nothing_breaks(self):
        run = allocations.scrubbed(self.REQUESTS, "the whole card")
        assert (run.breaks, run.failed, run.recorded) == ([], False, 5)
        model = replay(self.REQUESTS.events, self.REQUESTS.marks)
        assert list(run.reserved_mib[0]) == model["reserved_mib"]
        last = run.stages[-1]
        assert last.step == 39
        assert last.default.reserved_mib == model["reserved_mib"][-1]
        assert last.expandable.reserved_mib < last.default.reserved_mib
        assert "7 new segments, the last because" in last.words

    def test_a_full_card_is_two_stages_and_a_sentence(self):
        run = allocations.scrubbed(self.REQUESTS, "a small card", 1000)
        first = run.breaks[0]
        during, after = (stage for stage in run.stages if stage.step == first)
        assert (during.broken, after.broken) == (True, False)
        assert during.default.reserved_mib > after.default.reserved_mib
        asked = 100 + 3 * first
        assert f"Default: {asked}.00 MiB are asked for." in during.words
        assert "given back" in during.words and not run.failed

    def test_where_nothing_can_be_given_back_it_fails(self):
        run = allocations.scrubbed(self.REQUESTS, "a tiny card", 300)
        assert run.failed
        fatal = [stage for stage in run.stages if stage.broken][-1]
        assert "CUDA out of memory" in fatal.words
        assert f"Default: out of memory since step {fatal.step}." in run.stages[-1].words
        assert len(run.reserved_mib[0]) == fatal.step

    def test_the_room_that_breaks_only_the_default(self):
        requests = allocations.continued(book("kv_cache"), 512)
        room = allocations.breaking_room(requests)
        assert replay(requests.events, requests.marks, capacity_mib=room)["out_of_memory"]
        goes_on = replay(requests.events, requests.marks, capacity_mib=room, expandable=True)
        assert goes_on["out_of_memory"] is None

    def test_what_was_measured_stands_beside_it_where_it_was(self):
        both = record("kv_cache"), record("expandable_segments")
        run = allocations.scrubbed(self.REQUESTS, "x", measured=both)
        assert run.measured == tuple(one["memory"]["reserved_mib"] for one in both)
        on_cpu = record("kv_cache", gpu=False)
        assert allocations.scrubbed(self.REQUESTS, "x", measured=(on_cpu, on_cpu)).measured == ()
        assert allocations.room_of(on_cpu, growing(5), self.REQUESTS) is None


def held(*sizes):
    """What an allocator holds that keeps the first block and has freed the others."""
    allocator = CachingAllocator()
    addresses = [allocator.malloc(size * MIB) for size in sizes]
    for address in addresses[1:]:
        allocator.free(address)
    return Side(allocator.layout(), allocator.reserved / MIB, allocator.allocated / MIB)


@pytest.fixture(scope="module")
def shown():
    stages = (
        Stage(0, False, held(100), held(100), ""),
        Stage(8, True, held(100, 200, 60), held(100), "Default: no room."),
        Stage(16, False, held(100, 60), held(100), ""),
    )
    run = Run("a card", 400, 9, ([100] * 16, [100] * 17), stages)
    return scrubber([run], rung="naive")


def told(explorer):
    """What the script of a page is told, for the first run."""
    return json.loads(ElementTree.fromstring(explorer.html).get("data-runs"))[0]


def played(changes):
    """The states of one side, as the script puts them together: segment -> MiB used, MiB free."""
    now, states = {}, []
    for change in changes:
        for part in filter(None, change.split(";")):
            name, digits = part.split(":")
            lengths = [int(digits[at : at + 2], 36) for at in range(0, len(digits), 2)]
            now.pop(name, None)
            if digits:
                now[name] = sum(lengths[::2]), sum(lengths[1::2])
        states.append(sorted(now.values()))
    return states


def test_the_page_is_told_what_each_stage_holds(shown):
    row = 16  # MiB in 512 units
    units = [
        [(u * row / 512, f * row / 512) for u, f in one] for one in played(told(shown)["sides"][0])
    ]
    assert units == [[(100, 0)], [(0, 60), (0, 200), (100, 0)], [(0, 60), (100, 0)]]
    assert told(shown)["heads"][0] == [[100, 1, 100], [360, 3, 100], [160, 2, 100]]
    assert (told(shown)["breaks"], told(shown)["first"]) == ([1], 1)


def test_it_begins_where_it_breaks_and_says_so(shown):
    root = ElementTree.fromstring(shown.html)
    slider = root.find(".//input")
    assert (slider.get("value"), slider.get("aria-valuetext")) == (
        "1",
        "during 8. Default: no room.",
    )
    assert root.find("div").text == (
        "Step 8: 260 MiB are free, and the default allocator cannot use them"
    )
    heads = [span.text for span in root.iter("span") if "data-head" in span.attrib]
    assert heads[0] == "360 MiB in 3 segments, 100 MiB allocated"
    assert "A card, after step 0: default 100 MiB in 1 segment" in shown.picture.alt
    assert "A card, during step 8: default 360 MiB in 3 segments" in shown.picture.alt
    assert "recorded ones up to step 8" in shown.picture.caption


def test_the_first_moment_waits_for_print(shown):
    still = ElementTree.fromstring(shown.html).find("div[@class='ttb-still']")
    assert "display:none" in still.get("style")
    assert "100 MiB in 1 segment" in " ".join(still.itertext())
    assert len(still.findall(".//svg")) == 2


def test_the_book_s_scrubber_is_light():
    requests = allocations.continued(book("kv_cache"), 512)
    html = scrubber([allocations.scrubbed(requests, "x")], rung="kv_cache").html
    assert len(html) < 60_000
    assert " id=" not in html and "<script" not in html
