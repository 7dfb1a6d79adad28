"""Words, numbers and shapes of the figures, on made-up records with known answers."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from factories import record
from matplotlib.figure import Figure

from decoding import drawing
from decoding.drawing import axes, theme, words
from decoding.drawing.board import MET, MORE, NOT_MET, NOT_SHOWN, Row, Tested
from decoding.drawing.svg import Panel, Picture, for_page
from decoding.measuring import NotComparable

SLOW = record("naive", per_token=12.0, reserved=2000.0, allocated=900.0, growth=4.0)
FAST = record("kv_cache", per_token=6.0, reserved=1390.0, allocated=700.0, idle=0.5)
FAILED = record("naive", error="CUDA ran out of memory at batch 32.")
ON_CPU = record("naive", gpu=False), record("kv_cache", per_token=5.0, gpu=False)
CLAIMS = [
    Row("It is <fast>", "holds", [Tested("at batch 1", "1", MET, "×2.0")], "A rule.", "#fast"),
    Row("It is small", "in part", [Tested("a", "a", mark) for mark in (MORE, NOT_MET, NOT_SHOWN)]),
]
CSS = Path(__file__).parents[1] / "book" / "_static" / "theme.css"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def everything():
    return draw_everything()


def draw_everything():
    """Every kind of figure, from records that work, fail and lack a GPU."""
    return {
        "time": drawing.curves([SLOW, FAST], title="Time", cold=True, busy=True),
        "memory": drawing.curves([SLOW, FAST, FAILED], title="Memory", what="memory"),
        "card": drawing.step_card(SLOW, FAST, before2=SLOW, after2=FAST),
        "card on a CPU": drawing.step_card(*ON_CPU),
        "card of a failure": drawing.step_card(FAILED, FAST),
        "ladder": drawing.ladder([SLOW, FAST, FAILED], "The ladder", caption="Below"),
        "sweep": drawing.sweep(
            [1, 2, 4], {"compiled": [3, 2, 1], "no check": [2, None, 1]}, title="A sweep"
        ),
        "attention": drawing.attention("naive", "kv_cache").picture,
        "attention to a static cache": drawing.attention("static_cache").picture,
        "nesting": drawing.memory_nesting(),
        "growing tensor": drawing.growing_tensor(),
        "dead positions": drawing.dead_positions(),
        "ways to launch": drawing.three_ways_to_launch(),
        "two bars": drawing.two_bars(),
        "board": drawing.finished_board(),
        "work and idle": drawing.work_and_idle(
            {
                "One": [drawing.Bar("naive", 8.0, 0.9), drawing.Bar("new", 1.0, 0.0, "×8.0")],
                "Many": drawing.rungs_as_bars({"mine": SLOW, "yours": FAILED}),
            },
            "The GPU works less than it waits",
            one_scale=False,
        ),
        "dots": drawing.dots(
            {
                "batch 1": [drawing.Case("at once", 0.9, 0.7, 1.2, slow=1.1, model=0.8)],
                "batch 8": drawing.cases({"never": SLOW, "late": FAST}, beside="never"),
            },
            "Late is faster",
        ),
        "claims": drawing.board(CLAIMS, "1 holds, 1 in part").picture,
    }


def drawings(picture):
    """The drawings in a picture, without its texts."""
    return ElementTree.fromstring(picture.svg).findall(f".//{SVG}svg")


def texts(picture):
    """What is written in a picture, a string for each text."""
    root = ElementTree.fromstring(picture.svg)
    return [" ".join(text.itertext()) for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            {"per_token": 10.8},
            {"per_token": 6.0, "reserved": 390.0},
            "×1.8 faster, −610 MiB reserved",
        ),
        (
            {"per_token": 10.0},
            {"per_token": 11.0, "reserved": 1030.0},
            "×1.1 slower, +30 MiB reserved",
        ),
        (
            {"per_token": 10.0, "around": 0.3},
            {"per_token": 9.5, "around": 0.3},
            "same time within the spread, same memory reserved",
        ),
        (
            {"per_token": 12.0},
            {"per_token": 1.0, "around": 0.01},
            "×12 faster, same memory reserved",
        ),
        (
            {"per_token": 10.4, "around": 0.01},
            {"per_token": 10.0, "around": 0.01},
            "×1.04 faster, same memory reserved",
        ),
        (
            {"per_token": 10.01, "around": 0.001},
            {"per_token": 10.0, "around": 0.001},
            "same time within 0.5 %, same memory reserved",
        ),
        (
            {"reserved": 80192.0, "per_token": 11.0},
            {"reserved": 2338.0, "per_token": 10.0},
            "×1.1 faster, −77,854 MiB reserved",
        ),
        (
            {"gpu": False, "per_token": 8.0},
            {"gpu": False, "per_token": 4.0},
            "×2.0 faster, memory not measured",
        ),
    ],
)
def test_the_headline_says_what_changed(before, after, expected):
    assert drawing.headline(record("naive", **before), record("kv_cache", **after)) == expected


def test_ranges_that_touch_are_the_same_time():
    one = record(per_token=10.0, around=0.5)
    other = record(per_token=9.0, around=0.5)
    assert drawing.headline(one, other).startswith("same time within the spread")
    other["time"]["per_token_ms"]["max"] = 9.49
    assert drawing.headline(one, other).startswith("×1.1 faster")


def test_the_headline_of_a_failure_names_it():
    assert drawing.headline(FAILED, FAST) == "naive gave no measurement"
    assert drawing.headline(FAST, FAILED) == "naive gave no measurement"
    assert words.speed(FAILED, FAST) == "–"


def test_records_of_two_workloads_are_not_compared():
    with pytest.raises(NotComparable, match=r"their batch_size differs, 32 and 1"):
        drawing.headline(record(batch=32), record("kv_cache", batch=1))


def test_another_allocator_has_its_own_colour():
    plain = record("naive")
    expandable = record("naive", variant={"allocator": "expandable_segments"})
    assert drawing.colour_of(plain) == drawing.COLOURS["naive"]
    assert drawing.colour_of(expandable) == drawing.COLOURS["expandable_segments"]
    assert drawing.colour_of(record("static_cache")) == drawing.COLOURS["static_cache"]


def test_every_rung_has_a_colour_and_the_same_label():
    from decoding.rungs import RUNGS

    assert list(drawing.COLOURS) == list(RUNGS)
    assert dict(drawing.LABELS) == {name: rung.label for name, rung in RUNGS.items()}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5772, "0.577"), (6.41, "6.41"), (11.24, "11.2"), (99.96, "100"), (1234.5, "1,234")],
)
def test_times_have_three_digits(value, text):
    assert words.number(value) == text
    assert words.ms(value) == f"{text} ms"


def test_words_carry_their_unit_and_show_without_quotes():
    shown = [words.ratio(1.83), words.percent(0.554), words.mib(1390.4), words.us(429.2)]
    shown += [words.change(-610), words.seconds(1.23), words.seconds(12.3), words.seconds(150)]
    expected = "×1.8, 55 %, 1,390 MiB, 429 µs, −610 MiB, 1.2 s, 12 s, 2.5 min"
    assert ", ".join(map(repr, shown)) == expected
    assert repr("about " + words.ms(2) + " a token") == "about 2.00 ms a token"


def test_several_values_are_listed():
    assert words.listed([8, 32, 1280]) == "8, 32, 1,280"
    assert words.listed((share for share in (0.4, math.nan)), words.percent) == "40 %, –"
    assert words.listed([]) == "–"


def test_what_was_not_measured_is_a_dash():
    for write in (words.ms, words.ratio, words.percent, words.mib, words.change, words.count):
        assert write(math.nan) == write(None) == "–"
    assert words.spread_words(FAILED.spread) == "–"


def test_alternative_text_has_the_numbers(everything):
    alts = {name: repr(picture) for name, picture in everything.items()}
    assert "naive: 12.0 (11.9–12.1) ms per token, 10.1" in alts["time"]
    assert "KV cache: 6.00 (5.90–6.10) ms per token" in alts["time"]
    assert "allocated from 450 to 900 MiB, reserved from 1,000 to 2,000 MiB" in alts["memory"]
    assert "CUDA ran out of memory at batch 32" in alts["memory"]
    assert "×2.0 faster, −610 MiB reserved" in alts["card"]
    assert "memory not measured" in alts["card on a CPU"]
    assert "KV cache: 6.00 ms per token, ×2.0, GPU idle 50 %." in alts["ladder"]
    assert "compiled (ms per token at batch size): 3.00 at 1, 2.00 at 2" in alts["sweep"]
    assert "no check (ms per token at batch size): 2.00 at 1, 1.00 at 4." in alts["sweep"]


def test_a_picture_is_one_svg_that_stands_alone(everything):
    for name, picture in everything.items():
        bundle = picture._repr_mimebundle_()
        assert set(bundle) == {"image/svg+xml", "text/plain"}
        root = ElementTree.fromstring(bundle["image/svg+xml"])
        assert root.get("role") == "img"
        assert root.get("aria-label") == bundle["text/plain"] == picture.alt
        assert len(picture.alt) > 40
        assert float(root.get("width")) <= 720
        assert root[0].tag == f"{SVG}rect" and root[0].get("fill") == theme.BACKGROUND
        assert drawings(picture), name
        for alien in (" id=", "url(#", "var(", "currentColor"):
            assert alien not in bundle["image/svg+xml"], (name, alien)


def test_everything_is_written_inside_the_picture(everything):
    for name, picture in everything.items():
        root = ElementTree.fromstring(picture.svg)
        width, height = (float(root.get(side)) for side in ("width", "height"))
        for text in root.iter(f"{SVG}tspan"):
            assert 0 <= float(text.get("x")) <= width, (name, text.text)
            assert 0 <= float(text.get("y")) <= height, (name, text.text)
        for inner in drawings(picture):
            right = float(inner.get("x")) + float(inner.get("width"))
            assert right <= width
            wide, tall = map(float, inner.get("viewBox").split()[2:])
            for text in inner.iter(f"{SVG}text"):
                assert 0 <= float(text.get("x")) <= wide, (name, text.text)
                assert 0 <= float(text.get("y")) <= tall, (name, text.text)


def test_long_texts_wrap():
    picture = Picture("A message of several words " * 8, [("", Figure())], alt="x")
    title = ElementTree.fromstring(picture.svg).find(f"{SVG}text")
    assert len(title) > 3
    assert all(len(line.text) < 60 for line in title)


def test_in_a_page_texts_are_html_and_colours_follow_the_theme(everything):
    for name, picture in everything.items():
        html = for_page(picture.svg)
        root = ElementTree.fromstring(html)
        assert root.tag == "figure" and "ttb-figure" in root.get("class")
        if picture.title:
            assert root.find("div[@class='ttb-title']/strong").text == picture.title
        if picture.caption:
            assert root.find("figcaption").text == picture.caption
        inner = root.findall(".//svg")
        assert len(inner) == len(drawings(picture))
        assert inner[0].get("role") == "img" and len(inner[0].get("aria-label")) > 40
        assert not re.search(r"(?:fill|stroke|color)[:=]\"?#", html), name
        assert "var(--ttb-" in html and "currentColor" in html
        assert not root.findall(".//rect")


def test_a_page_reads_what_the_picture_says(everything):
    root = ElementTree.fromstring(for_page(everything["card"].svg))
    said = [" ".join("".join(part.itertext()).split()) for part in root.iter("div")]
    assert "×2.0 faster, −610 MiB reserved" in said
    assert "batch 32, prompt 128, 512 new tokens" in said
    own = [svg.get("aria-label") for svg in root.iter("svg")]
    assert own[0].startswith("Time over the token position. naive: 12.0")
    assert own[1].startswith("Memory over the token position. naive: allocated from 450")


def test_bars_and_dots_say_their_numbers(everything):
    said = everything["work and idle"].alt
    assert "One: naive: 8.00 ms per token, GPU idle 90 %." in said
    assert "new: 1.00 ms per token, ×8.0, GPU idle 0 %." in said
    assert "yours: no measurement (CUDA ran out of memory at batch 32)." in said
    said = everything["dots"].alt
    assert "at once: 0.900 (0.700–1.20), 95th percentile 1.10, the model says 0.800." in said
    assert "late: 6.00 (5.90–6.10), ×2.0." in said


def test_a_difference_within_the_spread_is_marked_in_dots():
    near = record("kv_cache", per_token=12.05)
    _, late = drawing.cases({"never": SLOW, "late": near}, beside="never")
    assert late.more == words.WITHIN


def test_the_numbers_of_a_picture_are_folded_below_it():
    picture = drawing.dots({"": drawing.cases({"a": SLOW})}, "A title")
    bundle = drawing.with_numbers(picture, drawing.table(["x"], [["7"]]))._repr_mimebundle_()
    figure = ElementTree.fromstring(bundle["text/html"])
    fold = figure.find("details")
    assert fold.find("summary").text == "The numbers" and "open" not in fold.attrib
    assert fold.find(".//td").text == "7"
    assert bundle["image/svg+xml"] == picture.svg and bundle["text/plain"] == picture.alt


def test_a_row_of_the_board_opens_for_its_reasons():
    figure = ElementTree.fromstring(drawing.board(CLAIMS, "1 holds, 1 in part").html)
    assert figure.find("div/strong").text == "1 holds, 1 in part"
    first, second = figure.findall("details")
    assert "It is <fast>" in "".join(first.find("summary").itertext())
    assert [item.text for item in first.iter("li")] == ["at batch 1: met (×2.0)"]
    assert first.find(".//a").get("href") == "#fast"
    forms = {ElementTree.tostring(mark[0]) for mark in second.find("summary").iter("svg")}
    assert len(forms) == 3, "a mark tells by its form"


def test_a_page_leaves_other_svgs_alone():
    other = '<svg xmlns="http://www.w3.org/2000/svg" id="mine"/>'
    assert for_page(other) == other


def test_wide_drawings_scroll_on_a_narrow_page(everything):
    wide = ElementTree.fromstring(for_page(everything["board"].svg))
    assert wide.find(".//div[@class='ttb-scroll']/svg") is not None
    assert "ttb-scroll" not in for_page(everything["ladder"].svg)


def test_the_same_figure_gives_the_same_bytes(everything):
    again = draw_everything()
    assert {name: picture.svg for name, picture in again.items()} == {
        name: picture.svg for name, picture in everything.items()
    }


def test_a_picture_of_noisy_curves_is_small():
    noisy = record(per_token=10.0, new=2048)
    noisy["time"]["curve_ms"] = [10 + 3 * math.sin(1e4 * i) for i in range(2047)]
    picture = drawing.curves([noisy], title="Noise")
    assert len(picture.svg) < 15_000
    x, y = axes.thinned(list(range(2047)), noisy.curve)
    assert len(x) <= 302 and (x[0], x[-1]) == (0, 2046)
    assert (min(y), max(y)) == (min(noisy.curve), max(noisy.curve))


def clipped_figure():
    fig = Figure()
    ax = fig.add_subplot()
    ax.plot([0, 2])
    ax.set_ylim(0, 1)
    return fig


def hatched_figure():
    fig = Figure()
    fig.add_axes((0, 0, 1, 1)).set_axis_off()
    fig.axes[0].bar([0], [1], hatch="/", clip_on=False)
    return fig


@pytest.mark.parametrize(("make", "what"), [(clipped_figure, "clips"), (hatched_figure, "hatch")])
def test_what_needs_an_id_is_refused(make, what):
    with pytest.raises(ValueError, match=what):
        Picture("", [("", make())], alt="x")


def test_text_that_looks_like_markup_stays_text():
    picture = Picture('A "line" < 1 & $2$', [Panel("$x$ <b>")], 'It\'s "&"', alt='It is < 2 & "3"')
    assert texts(picture) == ['A "line" < 1 & $2$', "$x$ <b>", 'It\'s "&"']
    root = ElementTree.fromstring(for_page(picture.svg))
    assert "".join(root.itertext()).replace("\n", "") == "".join(texts(picture))


def test_a_saved_picture_is_its_svg(tmp_path, everything):
    everything["ladder"].save(tmp_path / "ladder.svg")
    assert (tmp_path / "ladder.svg").read_text("utf-8").strip() == everything["ladder"].svg.strip()


def test_the_card_shows_what_was_measured():
    assert len(drawings(drawing.step_card(SLOW, FAST))) == 2
    assert len(drawings(drawing.step_card(SLOW, FAST, before2=SLOW, after2=FAST))) == 4
    on_cpu = drawing.step_card(*ON_CPU)
    assert len(drawings(on_cpu)) == 1
    assert "×2.0 faster, memory not measured" in texts(on_cpu)
    failed = drawing.step_card(FAILED, FAST)
    assert len(drawings(failed)) == 2
    assert "naive: no measurement (CUDA ran out of memory at batch 32)." in texts(failed)
    neither = drawing.step_card(FAILED, FAILED)
    assert drawings(neither) == []
    assert "naive gave no measurement" in texts(neither)


def test_the_card_has_the_numbers_behind_its_headline():
    said = texts(drawing.step_card(SLOW, FAST))
    assert (
        "naive: 12.0 (11.9–12.1) ms per token, peak memory 900 MiB allocated and "
        "2,000 MiB reserved." in said
    )
    assert (
        "KV cache: 6.00 (5.90–6.10) ms per token, peak memory 700 MiB allocated and "
        "1,390 MiB reserved." in said
    )


def test_one_new_token_has_no_curve():
    only = [record(name, new=1) for name in ("naive", "kv_cache")]
    assert len(drawings(drawing.step_card(*only))) == 1  # the memory


def test_steps_off_the_scale_are_counted():
    spiky = record(per_token=10.0)
    spiky["time"]["curve_ms"][100] = 500.0
    shown = drawing.curves([spiky], title="Spiky")
    assert any("1 single step is off the scale, up to 500 ms" in text for text in texts(shown))


def test_large_memory_is_in_gib():
    shown = drawing.curves([record(reserved=80 * 1024.0)], title="Full", what="memory")
    assert any(text.startswith("Memory in GiB") for text in texts(shown))
    assert "80" in texts(shown)


@pytest.mark.parametrize("values", [[-30, -10, 20], [-30, -20, -10], [5, 0, -400]])
def test_values_below_zero_stand_inside_the_axes(values):
    lines = [axes.Line([1, 2, 4], values, "#000000", label="saved", marked=True)]
    (ax,) = axes.lines_over("batch size", lines, 432, 231, top=1.08 * max(values)).axes
    low, high = ax.get_ylim()
    assert low < min(values) and max(0, *values) <= high
    shares = [(value - low) / (high - low) for value in values]
    (name,) = ax.texts
    tall = 72 * ax.get_window_extent().height / ax.figure.dpi
    assert abs(name.xyann[1] / tall - shares[-1]) < 0.1  # at its line's end
    saved = drawing.sweep([1, 2, 4], {"two_streams": values}, title="Saved")
    assert f"{words.number(values[0])} at 1, " in saved.alt


def test_running_median():
    assert drawing.running_median([1, 9, 2, 3, 4], window=3) == [5, 2, 3, 3, 3.5]
    assert drawing.running_median([3, 1, 2]) == [3, 1, 2]


def test_labels_keep_apart_and_near():
    assert axes.spread_out([10, 50], [10, 10], 100) == [10, 50]
    assert axes.spread_out([50, 50], [10, 10], 100) == [45, 55]
    assert axes.spread_out([0, 1, 2], [10, 20, 10], 100) == [5, 20, 35]
    assert axes.spread_out([99, 99], [10, 10], 100) == [85, 95]


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(one, other):
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_timeline_stands_out_from_the_page(mode):
    block = re.search(rf'data-theme="{mode}"\] {{(.*?)}}', CSS.read_text("utf-8"), re.DOTALL)[1]
    page = dict(re.findall(r"--ttb-(\w+): (#\w{6})", block))
    for name, fallback in (("idle", theme.IDLE), ("work", theme.WORK), ("host", theme.HOST)):
        for ground in ("background", "surface"):  # a page's and a card's
            assert contrast(page.get(name, fallback), page[ground]) >= 3, (name, ground)
        assert contrast(fallback, theme.BACKGROUND) >= 3, name


@pytest.mark.parametrize(("first", "last"), [(128, 640), (129, 383), (1, 700), (0, 31)])
def test_ticks_are_steps_of_one_two_or_five(first, last):
    figure = axes.lines_over("x", [axes.Line([first, last], [1, 2], "#0072B2")], 400, 270, top=2)
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        ticks = axis.get_majorticklocs()
        step = f"{ticks[1] - ticks[0]:e}"[0]
        assert step in "125", ticks


def cells(table):
    """The rows of a Markdown table."""
    lines = [line for line in table.text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_sets_each_row_beside_the_row_before():
    other = record("naive", per_token=3.0, batch=1, reserved=500.0)
    shown = drawing.records_table([SLOW, FAST, FAILED, other], caption="All of it")
    assert shown.text.startswith("All of it\n\n|")
    assert shown.text.endswith("naive: no measurement (CUDA ran out of memory at batch 32).")
    head, rule, *rows = cells(shown)
    assert rule[0] == rule[1] == ":-" and set(rule[2:]) == {"-:"}
    assert rows[0][:5] == ["naive", "batch 32", "12.0 (11.9–12.1)", "", ""]
    assert rows[1] == [
        *("KV cache", "batch 32", "6.00 (5.90–6.10)", "×2.0", "×2.0"),
        *("9.22", "1,390", "−610", "50 %"),
    ]
    assert rows[2][:4] == ["naive", "batch 32", "failed", ""]
    assert rows[3][:5] == ["naive", "batch 1", "3.00 (2.90–3.10)", "", ""]
    assert {len(row) for row in (head, *rows)} == {9}


def test_a_difference_within_the_spread_is_no_factor():
    near = record("kv_cache", per_token=11.95)  # their ranges overlap
    shown = drawing.records_table([SLOW, near])
    assert cells(shown)[3][2:4] == ["≈", "≈"]
    assert shown.text.endswith("≈: the same time within the spread.")
    once = record("kv_cache", per_token=11.95, processes=1)
    assert cells(drawing.records_table([SLOW, once]))[3][2] == "×1.00"


def test_a_table_of_a_cpu_has_no_memory_columns():
    shown = drawing.records_table(list(ON_CPU))
    assert "MiB" not in shown.text
    assert "×2.0" in shown.text


def test_a_table_aligns_numbers_and_keeps_words():
    shown = drawing.table(
        ["batch", "kind", "share", "time", "of"],
        [
            [1, "a|b", "–", words.ms(0.5), "3 of 20"],
            [1024, None, "+5 %", "12 ms (9–14)", "0 of 20"],
        ],
        "A caption",
    )
    assert shown.text.splitlines() == [
        "A caption",
        "",
        "| batch | kind | share | time | of |",
        "| -: | :- | -: | -: | -: |",
        "| 1 | a\\|b | – | 0.500 ms | 3 of 20 |",
        "| 1,024 |  | +5 % | 12 ms (9–14) | 0 of 20 |",
    ]
    assert shown._repr_mimebundle_()["text/markdown"] == shown.text
    with pytest.raises(ValueError, match="has 2"):
        drawing.table(["a"], [[1, 2]])


OLD = '''"""Do it the old way.

And more.
"""

import this


def decode(model):
    tokens = model(None, 1 < 2)
    return tokens
'''
NEW = '''"""Do it the new way."""

import this


def decode(model):
    """Say what it does."""
    tokens = model(cache, 1 < 2)
    tokens.append(3)
    return tokens
'''


def test_the_diff_shows_the_whole_loop_and_exactly_the_changed_lines(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    (tmp_path / "new.py").write_text(NEW.replace('    """Say what it does."""\n', ""))
    shown = drawing.diff(tmp_path / "old.py", str(tmp_path / "new.py"))
    assert shown.text.splitlines() == [
        "`old.py` → `new.py`: 1 line removed, 2 lines added.",
        "",
        "```diff",
        '-"""Do it the old way."""',
        '+"""Do it the new way."""',
        " ",
        " import this",
        " ",
        " ",
        " def decode(model):",
        "-    tokens = model(None, 1 < 2)",
        "+    tokens = model(cache, 1 < 2)",
        "+    tokens.append(3)",
        "     return tokens",
        "```",
    ]


def test_a_loop_that_does_not_change_is_a_sentence(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    shown = drawing.diff(tmp_path / "old.py", tmp_path / "old.py")
    assert "no line of the loop changes" in shown.text
    assert "```" not in shown.text


def test_the_loops_of_the_ladder_have_a_diff():
    from decoding.loops import kv_cache, naive

    by_name = drawing.diff("naive", "kv_cache").text
    assert by_name == drawing.diff(naive, kv_cache.decode).text
    added = [line[1:] for line in by_name.splitlines() if line.startswith("+")]
    assert any("DynamicCache" in line for line in added)
    assert set(added) <= set(drawing.source("kv_cache").text.splitlines())


def test_an_excerpt_is_one_whole_statement_of_a_loop():
    shown = drawing.excerpt("compiled", "stop_check").text
    assert shown.startswith("```python\nwith ranges.stop_check(step):\n    if eos_token_id")
    assert shown.endswith("\n        break\n```")
    with pytest.raises(ValueError, match="'no such words'"):
        drawing.excerpt("compiled", "no such words")


def test_source_is_a_block_of_code(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    bundle = drawing.source(tmp_path / "old.py")._repr_mimebundle_()
    assert bundle["text/markdown"] == f"```python\n{OLD.rstrip()}\n```"


def test_source_of_a_function_has_no_docstring():
    shown = drawing.source(contrast_of_nothing).text
    assert shown == "```python\ndef contrast_of_nothing():\n    return 1  # as it is\n```"
    assert drawing.source(Documented.method).text.startswith(
        "```python\ndef method(self):\n    ret"
    )


def contrast_of_nothing():
    """Say nothing.

    In many lines.
    """
    return 1  # as it is


class Documented:
    def method(self):
        """Say nothing."""
        return 1
