"""The toys: what they show is what was simulated or recorded, with a picture where nothing runs."""

import re
from math import nan
from xml.etree import ElementTree

import pytest
from factories import entrant

from decoding import drawing
from decoding.drawing import toys
from decoding.drawing.calculator import LOOPS, STEPS, token_of
from decoding.drawing.pipelines import EXPECTED, SAFEGUARDS
from decoding.drawing.svg import for_page
from decoding.pages import results

PRESETS = {
    "measured, batch": {
        "1": {"check at once": (400, 500, 910), "one step late": (410, 500, 560)},
        "8": {"check at once": (600, 200, 790), "one step late": (610, 200, 640)},
    },
    "without guards, batch": {"1": {"check at once": (250, 500, 760)}},
}


def parsed(toy):
    return ElementTree.fromstring(toy.html)


def live_of(root):
    return next(part for part in root.iter("div") if part.get("class") == "live")


def size_of_live(toy):
    """Return the bytes of a toy without its still form."""
    return len(toy.html[: toy.html.index('class="still"')].encode())


@pytest.mark.parametrize("make", [drawing.streams_toy, lambda: drawing.calculator(PRESETS)])
def test_a_toy_is_self_contained_and_has_a_still_form(make):
    toy = make()
    root = parsed(toy)
    assert "<script" not in toy.html and " id=" not in toy.html and "http" not in toy.html
    assert toy.html == make().html
    (still,) = (part for part in root.iter("div") if part.get("class") == "still")
    assert still.get("hidden") is not None and still.find(".//figure//svg") is not None
    assert "(scripting:none)" in toy.html and "print" in toys.CONTROLS
    bundle = toy._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    ElementTree.fromstring(bundle["image/svg+xml"])
    assert any(part.get("aria-live") == "polite" for part in root.iter())


class TestStreams:
    def scenarios(self):
        live = live_of(parsed(drawing.streams_toy()))
        words = live.get("data-words").split("|")
        for frames in live.get("data-frames").split("#"):
            split = [frame.split(",") for frame in frames.split("/")]
            yield [(letters, words[int(number)]) for letters, number in split]

    def test_it_is_small(self):
        assert size_of_live(drawing.streams_toy()) <= 15_000

    def test_every_frame_has_a_letter_for_every_box(self):
        live = live_of(parsed(drawing.streams_toy()))
        boxes = [part for part in live.iter() if part.tag in "bi"]
        for frames in self.scenarios():
            assert {len(letters) for letters, _ in frames} == {len(boxes)}

    def test_the_first_scenario_is_right_and_each_of_the_others_wrong(self):
        right, *wrong = self.scenarios()
        assert len(wrong) == len(SAFEGUARDS)
        assert right[-1][1].startswith("The text is right")
        assert not re.search("[wW!]", "".join(letters[:28] for letters, _ in right))
        for (name, line), frames in zip(SAFEGUARDS.items(), wrong):
            letters, words = frames[-1]
            assert words.startswith("Wrong: ") and words.endswith(f"The line: {line}")
            assert ("luck" in words) == (name != "clone")
            assert re.search("[0-3!]", letters[-4:]), f"no wrong token is seen without {name}"

    def test_the_text_in_the_end_is_what_the_machine_gives(self):
        live = live_of(parsed(drawing.streams_toy()))
        letters = {"g": "GPU", "w": "works", "e": "■"}
        right = live.get("data-frames").split("#")[0].split("/")[-1].split(",")[0]
        assert tuple(letters[letter] for letter in right[-4:-1]) == EXPECTED

    def test_the_picture_tells_a_right_round_and_a_wrong_one(self):
        picture = drawing.streams_toy().picture
        assert "The text is GPU works ■" in picture.alt and "reads an old one" in picture.alt
        page = for_page(picture.svg)
        assert page.count("<svg") == 2 and "min-width:0" in page


class TestModel:
    @pytest.mark.parametrize(
        ("launch", "work", "loop", "expected"),
        [
            (400, 600, "check at once", (1000, 400, 400, 0.4)),
            (600, 400, "check at once", (1000, 600, 400, 0.6)),
            (400, 600, "one step late", (600, 0, 0, 0)),
            (600, 300, "never", (600, 300, 0, 0.5)),
        ],
    )
    def test_token_bubble_cost_and_idle_share(self, launch, work, loop, expected):
        assert tuple(token_of(launch, work, loop)) == pytest.approx(expected)

    def test_what_cannot_be_is_named(self):
        with pytest.raises(ValueError, match="'sometimes' is no loop"):
            token_of(1, 1, "sometimes")
        with pytest.raises(ValueError, match="above 0"):
            drawing.launch_and_work(0, 5)

    def test_bubble_and_cost_are_named_with_their_numbers(self):
        picture = drawing.launch_and_work(500, 300)
        assert picture.title == (
            "The bubble is L, 500 µs. The check costs the smaller of L and G, 300 µs"
        )
        for said in ("a token takes 800 µs", "waits 500 µs", "500 µs, and the GPU waits 200 µs"):
            assert said in picture.alt
        assert "the check costs 300 µs: G" in picture.svg


class TestCalculator:
    def test_it_is_small(self):
        assert size_of_live(drawing.calculator(PRESETS)) <= 10_000

    def test_it_begins_with_the_first_preset(self):
        live = live_of(parsed(drawing.calculator(PRESETS)))
        shown = [cell.text for cell in live.iter("dd")]
        assert shown == ["900 µs", "400 µs", "44 %", "400 µs", "1,111", "910 µs"]
        values = [field.get("value") for field in live.iter("input") if field.get("data-of")]
        assert values == ["400", "400", "500", "500"]
        chosen = [
            (field.get("name"), field.get("value"))
            for field in live.iter("input")
            if field.get("checked") is not None
        ]
        assert chosen == [("loop", "0"), ("measured", "0")]

    def test_every_preset_is_in_it_with_all_its_loops(self):
        live = live_of(parsed(drawing.calculator(PRESETS)))
        assert live.get("data-presets") == (
            "400,500,910/410,500,560/;600,200,790/610,200,640/;250,500,760//"
        )

    def test_another_loop_can_be_first_and_presets_without_it_are_left_out(self):
        live = live_of(parsed(drawing.calculator(PRESETS, loop="one step late")))
        assert [cell.text for cell in live.iter("dd")][0] == "500 µs"
        groups = [legend.text for legend in live.iter("legend")]
        assert groups == ["loop", "measured, batch"]

    def test_the_chart_shows_as_much_time_whatever_the_loop(self):
        live = live_of(parsed(drawing.calculator(PRESETS)))
        bars = [(r.get("class"), float(r.get("width")[:-1])) for r in live.iter("rect")]
        for kind, length in (("host", 400), ("work", 500), ("idle", 400)):
            widths = [width for name, width in bars if name == kind]
            assert widths[:STEPS] == pytest.approx([100 * length / 2700] * STEPS, abs=0.1)

    def test_its_picture_lists_the_presets(self):
        picture = drawing.calculator(PRESETS).picture
        assert "batch 8, check at once: L 600, G 200 µs: 800 µs; timed 790 µs." in picture.alt

    def test_without_a_measurement_it_begins_with_round_numbers(self):
        toy = drawing.calculator({"measured, batch": {"1": {"check at once": (400, None, nan)}}})
        assert "round numbers, not measured" in toy.html and "timed –" in toy.picture.alt
        assert live_of(parsed(toy)).get("data-presets") == "//"  # no token that was timed

    def test_a_loop_that_is_none_is_refused(self):
        with pytest.raises(ValueError, match="'maybe' is no loop"):
            drawing.calculator(PRESETS, loop="maybe")

    def test_races_become_presets(self):
        def ran(launch, work, measured):
            found = entrant(measured / 1000)
            found |= {"L_us": launch, "G_us": work, "measured_us": measured}
            return found

        race = {"check": ran(4, 5, 9), "two streams": ran(4, 5, 6), "no check": ran(3, 5, 5)}
        race |= {f"{name}, no guards": ran(2, 5, 7) for name in list(race)}
        found = results.launch_and_work({8: race})
        assert list(found) == ["measured, batch", "without guards, batch"]
        assert found["measured, batch"]["8"] == dict(zip(LOOPS, ((4, 5, 9), (4, 5, 6), (3, 5, 5))))
        assert set(found["without guards, batch"]["8"].values()) == {(2, 5, 7)}


class TestGap:
    PARTS = {"the flag travels": 17.0, "out of the check": 23.0, "Python": 352.0, "launch": 275.0}

    def test_the_bar_is_to_scale_and_says_every_number(self):
        picture = drawing.gap_parts(self.PARTS, steps=(64, 65), unprofiled_us=435)
        for said in ("667 µs", "the flag travels, 17 µs, 3 %", "Python, 352 µs, 53 %", "435 µs"):
            assert said in picture.alt
        for said in ("17 µs: the flag travels", ">352 µs<", ">Python<", ">step 64<", ">435 µs<"):
            assert said in picture.svg
        widths = [
            float(width)
            for width in re.findall(
                r'd="M[\d.-]+ [\d.-]+h([\d.]+)v30h-[\d.]+z?[^"]*" style="fill:#cc3311', picture.svg
            )
        ]
        assert len(widths) == 5
        for width, took in zip(widths, [*self.PARTS.values(), 435]):
            assert width / widths[2] == pytest.approx(took / 352, abs=0.01)

    def test_without_an_unprofiled_gap_there_is_one_bar(self):
        for unknown in (None, nan):
            picture = drawing.gap_parts(self.PARTS, steps=(64, 65), unprofiled_us=unknown)
            assert "profiler the GPU waits" not in picture.alt
            assert picture.title == "The flag takes 17 µs of the gap of 667 µs"

    def test_parts_that_cannot_be_are_named(self):
        for parts in ({}, {"a": 0.0}):
            with pytest.raises(ValueError, match="more than 0 µs"):
                drawing.gap_parts(parts, steps=(1, 2))
