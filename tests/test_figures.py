"""Words, numbers and shapes of the figures, on made-up records with known answers."""

import re
from xml.etree import ElementTree

import pytest
from factories import record
from matplotlib.figure import Figure

from decoding import figures

SLOW = record("naive", per_token=12.0, reserved=2000.0, allocated=900.0, growth=4.0)
FAST = record("kv_cache", per_token=6.0, reserved=1390.0, allocated=700.0, idle=0.5)
HARD = re.compile(r"#0{3,6}\b|#f{3,6}\b|[: \"](black|white)\b(?!-)", re.IGNORECASE)
FAILED = record("naive", error="CUDA ran out of memory at batch 32.")
ON_CPU = record("naive", gpu=False), record("kv_cache", per_token=5.0, gpu=False)


def drawings(shown):
    return [
        ElementTree.fromstring(found)
        for found in re.findall(r"<svg\b.*?</svg>", shown.html, re.DOTALL)
    ]


def everything():
    """Every kind of figure, from records that work, fail and lack a GPU."""
    return {
        "time": figures.curves([SLOW, FAST], title="Time", cold=True, busy=True),
        "memory": figures.curves([SLOW, FAST, FAILED], title="Memory", what="memory"),
        "card": figures.step_card(SLOW, FAST, before2=SLOW, after2=FAST),
        "card on a CPU": figures.step_card(*ON_CPU),
        "card of a failure": figures.step_card(FAILED, FAST),
        "ladder": figures.ladder([SLOW, FAST, FAILED], "The ladder"),
        "sweep": figures.sweep(
            [1, 2, 4], {"compiled": [3, 2, 1], "no check": [2, None, 1]}, title="A sweep"
        ),
    }


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
    assert figures.headline(record("naive", **before), record("kv_cache", **after)) == expected


def test_ranges_that_touch_are_the_same_time():
    one = record(per_token=10.0, around=0.5)
    other = record(per_token=9.0, around=0.5)
    assert figures.headline(one, other).startswith("same time within the spread")
    other["time"]["per_token_ms"]["max"] = 9.49
    assert figures.headline(one, other).startswith("×1.1 faster")


def test_the_headline_of_a_failure_names_it():
    assert figures.headline(FAILED, FAST) == "naive gave no measurement"
    assert figures.headline(FAST, FAILED) == "naive gave no measurement"


def test_records_of_two_workloads_are_not_compared():
    with pytest.raises(ValueError, match=r"batch_size 32.*batch_size|batch_size 32, .* with 1"):
        figures.headline(record(batch=32), record("kv_cache", batch=1))


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ({}, "naive"),
        ({"allocator": "expandable_segments"}, "naive, expandable segments"),
        ({"stop_check": False}, "naive, no check"),
        ({"compile_mode": "default", "cache_length": 1024}, "naive, default mode, cache of 1024"),
    ],
)
def test_a_variant_is_named(variant, name):
    assert figures.name_of(record("naive", variant=variant)) == name


def test_another_allocator_has_its_own_colour():
    plain = record("naive")
    expandable = record("naive", variant={"allocator": "expandable_segments"})
    assert figures.colour_of(plain) == figures.COLOURS["naive"]
    assert figures.colour_of(expandable) == figures.COLOURS["expandable_segments"]
    assert figures.colour_of(record("static_cache")) == figures.COLOURS["static_cache"]


def test_every_rung_has_a_colour_and_the_same_label():
    from decoding.rungs import RUNGS

    assert list(figures.COLOURS) == list(RUNGS)
    assert dict(figures.LABELS) == {name: rung.label for name, rung in RUNGS.items()}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5772, "0.577"), (6.41, "6.41"), (11.24, "11.2"), (100.2, "100"), (1234.5, "1,234")],
)
def test_times_have_three_digits(value, text):
    assert figures.milliseconds(value) == text


def test_alternative_text_has_the_numbers():
    shown = everything()
    assert "naive: 12.0 (11.9–12.1) ms per token, 10.1" in shown["time"].text
    assert "KV cache: 6.00 (5.90–6.10) ms per token" in shown["time"].text
    assert "allocated from 450 to 900 MiB, reserved from 1,000 to 2,000 MiB" in shown["memory"].text
    assert "CUDA ran out of memory at batch 32" in shown["memory"].text
    assert "×2.0 faster, −610 MiB reserved" in shown["card"].text
    assert "memory not measured" in shown["card on a CPU"].text
    assert "KV cache: 6.00 ms per token, ×2.0, GPU idle 50 %." in shown["ladder"].text
    assert "compiled (ms per token at batch size): 3.00 at 1, 2.00 at 2" in shown["sweep"].text
    assert "no check (ms per token at batch size): 2.00 at 1, 1.00 at 4." in shown["sweep"].text


def test_figures_are_well_formed_svg_in_the_theme_s_colours():
    for name, shown in everything().items():
        ElementTree.fromstring(shown.html.replace("&nbsp;", " "))
        assert drawings(shown), name
        for root in drawings(shown):
            assert root.get("role") == "img"
            assert len(root.get("aria-label")) > 40
            assert root.get("viewBox").startswith("0 0 ")
            assert "width" not in root.attrib
        assert not HARD.search(shown.html)
        assert "DejaVu" not in shown.html
        assert not re.findall(r"(?:fill|stroke):#\w+", shown.html), name
        assert "var(--ttb-" in shown.html


def test_every_text_starts_inside_its_drawing():
    for name, shown in everything().items():
        for root in drawings(shown):
            width, height = map(float, root.get("viewBox").split()[2:])
            for text in root.iter("tspan" if root.find(".//tspan") is not None else "text"):
                x, y = float(text.get("x", 0)), float(text.get("y", 0))
                place = re.match(r"translate\(([-\d.]+)[ ,]([-\d.]+)\)", text.get("transform", ""))
                if place:
                    x, y = map(float, place.groups())
                assert 0 <= x <= width, (name, text.text)
                assert 0 <= y <= height, (name, text.text)


def test_figures_have_no_ids_to_share():
    for name, shown in everything().items():
        assert " id=" not in shown.html, name
        assert "url(#" not in shown.html, name


def clipped_figure(values):
    fig = Figure()
    ax = fig.add_subplot()
    ax.plot(values)
    ax.set_ylim(0, 1)
    return fig


def test_clips_of_other_figures_have_unique_ids():
    one, other = (figures.svg(clipped_figure(v), "A line") for v in ([0, 2], [2, 0]))
    ids = [set(re.findall(r'\bid="([^"]+)"', drawing)) for drawing in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for drawing, own in zip((one, other), ids, strict=True):
        assert set(re.findall(r"url\(#([^)]+)\)", drawing)) == own
    again = figures.svg(clipped_figure([0, 2]), "Another text")
    assert not ids[0] & set(re.findall(r'\bid="([^"]+)"', again))


def test_the_same_figure_gives_the_same_bytes():
    first, second = everything(), everything()
    assert {name: shown.html for name, shown in first.items()} == {
        name: shown.html for name, shown in second.items()
    }
    assert figures.svg(clipped_figure([0, 2]), "x") == figures.svg(clipped_figure([0, 2]), "x")


def test_hatching_is_refused():
    fig = Figure()
    fig.add_subplot().bar([0], [1], hatch="/")
    with pytest.raises(ValueError, match="hatching"):
        figures.svg(fig, "Hatched")


def test_show_displays_html_and_text(monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "display", seen.append)
    figures.show(clipped_figure([0, 1]), 'A "line" < 1', "Caption & more", "Title")
    figures.show_svg('<svg role="img" aria-label="It is &lt; 2"></svg>', "A caption")
    figures.show_svg('<figure class="x"><svg aria-label="Whole"></svg></figure>', "Below")
    bundles = [shown._repr_mimebundle_() for shown in seen]
    assert bundles[0]["text/plain"] == 'A "line" < 1'
    root = ElementTree.fromstring(bundles[0]["text/html"])
    assert root.get("class") == "ttb-figure"
    assert root.find("{http://www.w3.org/2000/svg}svg").get("aria-label") == 'A "line" < 1'
    assert root.find("figcaption").text == "Caption & more"
    assert bundles[1]["text/plain"] == "It is < 2"
    assert bundles[1]["text/html"].endswith("<figcaption>A caption</figcaption></figure>")
    assert bundles[2]["text/html"].count("<figure") == 1
    assert ">Below<" in bundles[2]["text/html"]
    with pytest.raises(ValueError, match="aria-label"):
        figures.show_svg("<svg></svg>")


def test_a_saved_svg_stands_alone(tmp_path):
    figures.save_svg(figures.ladder([SLOW, FAST], "The ladder"), tmp_path / "ladder.svg")
    root = ElementTree.parse(tmp_path / "ladder.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme:dark" in root[0].text


def test_the_card_shows_what_was_measured():
    assert len(drawings(figures.step_card(SLOW, FAST))) == 2
    assert len(drawings(figures.step_card(SLOW, FAST, before2=SLOW, after2=FAST))) == 4
    on_cpu = figures.step_card(*ON_CPU)
    assert len(drawings(on_cpu)) == 1
    assert "memory not measured" in on_cpu.html
    failed = figures.step_card(FAILED, FAST)
    assert len(drawings(failed)) == 2
    assert "naive: no measurement (CUDA ran out of memory at batch 32)." in failed.html
    neither = figures.step_card(FAILED, FAILED)
    assert drawings(neither) == []
    assert "naive gave no measurement" in neither.html
    assert "–" not in drawn_text(figures.step_card(SLOW, FAST), "tbody/tr/td")


def drawn_text(shown, path):
    table = ElementTree.fromstring(shown.html).find(".//table")
    return [cell.text for cell in table.findall(path)]


def test_the_card_has_the_numbers_behind_its_headline():
    card = figures.step_card(SLOW, FAST)
    assert drawn_text(card, "thead/tr/th") == ["naive", "KV cache"]
    assert drawn_text(card, "tbody/tr/th") == [
        *("ms per token", "range", "peak allocated, MiB", "peak reserved, MiB")
    ]
    assert drawn_text(card, "tbody/tr/td") == [
        *("12.0", "6.00", "11.9–12.1", "5.90–6.10", "900", "700", "2,000", "1,390")
    ]
    assert drawn_text(figures.step_card(*ON_CPU), "tbody/tr/th") == ["ms per token", "range"]
    assert drawn_text(figures.step_card(FAILED, FAST), "tbody/tr/td")[:2] == ["–", "6.00"]


def test_one_new_token_has_no_curve():
    only = [record(name, new=1) for name in ("naive", "kv_cache")]
    assert len(drawings(figures.step_card(*only))) == 1  # the memory


def test_steps_off_the_scale_are_counted():
    spiky = record(per_token=10.0)
    spiky["time"]["curve_ms"][100] = 500.0
    shown = figures.curves([spiky], title="Spiky")
    assert "1 single step is off the scale, up to 500 ms" in shown.html


def test_large_memory_is_in_gib():
    shown = figures.curves([record(reserved=80 * 1024.0)], title="Full", what="memory")
    assert "Memory in GiB" in shown.html
    assert ">80</text>" in shown.html


def test_a_trend_is_drawn_as_medians_of_equal_groups():
    points = [(x, 2 * x) for x in range(20)] + [(19.5, 1000)]  # one that a mean would follow
    shown = figures.trend(
        {"compiled": points, "some": [(1, 1), (3, 3)]},
        title="A message.",
        xlabel="launch, ms",
        unit="ms of a token",
        groups=4,
        references={"twice": lambda x: 2 * x, "at least 10": lambda x: max(x, 10)},
    )
    assert "compiled (ms of a token at launch, ms): 4.00 at 2.00, 34.0 at 17.0." in shown.text
    assert "Dashed, twice: 2.00 at 1.00, 34.0 at 17.0." in shown.text
    assert "Dashed, at least 10: 10.0 at 1.00, 17.0 at 17.0." in shown.text
    assert shown.text.startswith("A message. ")
    assert "some (ms of a token at launch, ms): 1.00 at 1.00, 3.00 at 3.00." in shown.text


def test_running_median():
    assert figures.running_median([1, 9, 2, 3, 4], window=3) == [5, 2, 3, 3, 3.5]
    assert figures.running_median([3, 1, 2]) == [3, 1, 2]


def test_labels_keep_apart_and_near():
    assert figures.spread_out([10, 50], [10, 10], 100) == [10, 50]
    assert figures.spread_out([50, 50], [10, 10], 100) == [45, 55]
    assert figures.spread_out([0, 1, 2], [10, 20, 10], 100) == [5, 20, 35]
    assert figures.spread_out([99, 99], [10, 10], 100) == [85, 95]


def test_the_table_sets_each_row_beside_the_row_before():
    other = record("naive", per_token=3.0, batch=1, reserved=500.0)
    shown = figures.table([SLOW, FAST, FAILED, other], caption="All of it")
    root = ElementTree.fromstring(shown.html)
    assert root.find("table/caption").text == "All of it"
    assert {th.get("scope") for th in root.iter("th")} == {"col", "row"}
    rows = [["".join(cell.itertext()) for cell in row] for row in root.find("table/tbody")]
    assert rows[0][:5] == ["naive", "batch 32", "12.0 (11.9–12.1)", "", ""]
    assert rows[1] == [
        *("KV cache", "batch 32", "6.00 (5.90–6.10)", "×2.0", "×2.0"),
        *("18.0", "1,390", "−610", "50 %"),
    ]
    assert rows[2] == ["naive", "batch 32", "CUDA ran out of memory at batch 32."]
    assert rows[3][:5] == ["naive", "batch 1", "3.00 (2.90–3.10)", "", ""]
    widths = {sum(int(cell.get("colspan", 1)) for cell in row) for row in root.iter("tr")}
    assert widths == {9}


def test_a_table_of_a_cpu_has_no_memory_columns():
    shown = figures.table(list(ON_CPU))
    assert "MiB" not in shown.html
    assert "×2.0" in shown.html


OLD = '''"""Do it the old way."""

import this


def decode(model):
    tokens = model(None, 1 < 2)
    return tokens
'''
NEW = '''"""Do it the new way."""

import this


def decode(model):
    tokens = model(cache, 1 < 2)
    tokens.append(3)
    return tokens
'''


def changed_lines(shown, tag):
    body = ElementTree.fromstring(shown.html).find("pre/code")
    return ["".join(line.itertext()) for line in body.findall(tag)]


def test_the_diff_shows_exactly_the_changed_lines(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    (tmp_path / "new.py").write_text(NEW)
    shown = figures.diff(tmp_path / "old.py", str(tmp_path / "new.py"))
    assert changed_lines(shown, "del") == ["−     tokens = model(None, 1 < 2)"]
    assert changed_lines(shown, "ins") == [
        "+     tokens = model(cache, 1 < 2)",
        "+     tokens.append(3)",
    ]
    kept = [line for line in changed_lines(shown, "span") if not line.startswith(("−", "+"))]
    assert kept == ["  import this", "  ", "  ", "  def decode(model):", "      return tokens"]
    assert "<b>None</b>" in shown.html
    assert "<b>cache</b>" in shown.html
    assert "1 line removed, 2 lines added" in shown.html
    assert "− old.py: Do it the old way.+ new.py: Do it the new way." in changed_lines(
        shown, "span"
    )
    text = shown.text.splitlines()
    assert [line for line in text if line[0] in "+-"][2:] == [
        '-"""Do it the old way."""',
        '+"""Do it the new way."""',
        "-    tokens = model(None, 1 < 2)",
        "+    tokens = model(cache, 1 < 2)",
        "+    tokens.append(3)",
    ]


def test_a_loop_that_does_not_change(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    shown = figures.diff(tmp_path / "old.py", tmp_path / "old.py")
    assert "no line of the loop changes" in shown.html
    assert changed_lines(shown, "ins") == changed_lines(shown, "del") == []


def test_the_loops_of_the_ladder_have_a_diff():
    from decoding.loops import kv_cache, naive

    by_name = figures.diff("naive", "kv_cache")
    assert by_name.html == figures.diff(naive, kv_cache.decode).html
    added = changed_lines(by_name, "ins")
    assert any("DynamicCache" in line for line in added)
    new = figures.source("kv_cache").code.splitlines()
    assert {line[2:] for line in added} <= set(new)


def test_source_is_a_block_of_code(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    bundle = figures.source(tmp_path / "old.py")._repr_mimebundle_()
    assert bundle["text/markdown"] == f"```python\n{OLD.rstrip()}\n```"
    assert bundle["text/plain"] == OLD.rstrip()
