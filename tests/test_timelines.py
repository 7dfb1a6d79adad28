"""Pictures of timelines and schedules whose lanes and gaps are known exactly."""

import re
from xml.etree import ElementTree

import pytest

from decoding.drawing import draw, draw_one_of, draw_schedule
from decoding.drawing.svg import for_page
from decoding.drawing.theme import CHECK, COPY, IDLE, NARROW, WIDE, WORK
from decoding.drawing.timelines import tick_step
from decoding.measuring.timeline import SCHEDULES, HostRange, Launch, Timeline, Work

SVG = "{http://www.w3.org/2000/svg}"
ROWS = ("row", "row narrow")


@pytest.fixture
def timeline():
    """Three decode steps of 100 µs; step 2 works on a second stream, and copies there."""
    host = [HostRange("prefill", 0, 0, 45)]
    for token in (1, 2, 3):
        begin = 100 * token - 50
        host.append(HostRange("decode_step", token, begin, begin + 40))
        host.append(HostRange("stop_check", token, begin + 40, begin + 100))
    launches = [
        Launch("cudaLaunchKernel", 1, 60, 65),
        Launch("cudaStreamSynchronize", 1, 95, 145, blocking=True),
        Launch("cudaLaunchKernel", 2, 160, 165),
        Launch("cudaMemcpyAsync", 2, 192, 240, blocking=True),
    ]
    first = [Work("gemm", "kernel", 1, 80, 110), Work("gemm", "kernel", 2, 255, 280)]
    second = [Work("gemm", "kernel", 1, 100, 120), Work("gemm", "kernel", 2, 180, 210)]
    second.append(Work("Memcpy DtoH", "copy", 2, 210, 238))
    return Timeline(host, launches, {"stream 7": first, "stream 20": second}, (0, 350))


def drawing_of(picture, kind="row"):
    """The drawing of a picture, or with "row narrow" that for a phone."""
    (found,) = ElementTree.fromstring(picture.svg).iterfind(f"{SVG}g[@class='{kind}']//{SVG}svg")
    return found


def texts_of(picture):
    return [text.text for text in drawing_of(picture).iter(f"{SVG}text")]


def bars_of(picture, colour):
    """(x, width) of the bars of one colour, without the legend's samples."""
    found = []
    for path in drawing_of(picture).iter(f"{SVG}path"):
        if f"fill:{colour.lower()}" in path.get("style", ""):
            pieces = re.findall(r"M([\d.]+) [\d.]+h([\d.]+)v", path.get("d"))
            found += [(float(x), float(w)) for x, w in pieces]
    return found[:-1]


def test_the_picture_is_described_with_its_numbers(timeline):
    picture = draw(timeline.slice(1, 2), title='The "check" & its <cost>.', caption="Below.")
    assert picture.alt == (
        'The "check" & its <cost>. Timeline of tokens 1 to 2: the host thread and 2 streams over '
        "200 µs. The GPU is idle 51 % of that time. The longest idle gap is 60 µs, in token 1. "
        "The host waits for the GPU 98 µs, in 2 calls."
    )
    assert draw(timeline, title="x", alt="My own words.").alt == "My own words."


def test_without_gpu_work_or_ranges_words_say_so(timeline):
    on_cpu = Timeline([HostRange("decode_step", 1, 0, 50)])
    picture = draw(on_cpu, title="On a CPU")
    assert "No GPU work was recorded." in picture.alt
    assert "no GPU work was recorded" in texts_of(picture)
    bare = Timeline(lanes={"stream 7": [Work("gemm", "kernel", None, 10, 20)]})
    assert "a trace without token ranges" in draw(bare, title="No ranges").alt
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(Timeline(), title="Nothing")


def test_bars_and_gaps_stand_at_their_times(timeline):
    picture = draw(timeline.slice(1, 2), title="Title", us_range=(0, WIDE - 2))  # 1 µs is 1 pixel
    assert bars_of(picture, WORK) == [(31, 30), (51, 20), (131, 30)]
    assert bars_of(picture, COPY) == [(161, 28)]
    assert bars_of(picture, CHECK) == [(41, 60), (141, 60)]
    shaded = [(1, 30), (71, 60), (189, 12)]  # once on each stream, and none after the slice's end
    assert bars_of(picture, IDLE) == shaded * 2


def test_on_a_phone_the_whole_timeline_is_drawn_to_its_width(timeline):
    for picture in (draw(timeline, title="a"), draw_schedule("no check", title="b")):
        sizes = [drawing_of(picture, kind).get("viewBox").split()[2] for kind in ROWS]
        assert sizes == [str(WIDE), str(NARROW)]
        page = ElementTree.fromstring(for_page(picture.svg))
        _, wide, narrow = page.findall("div")
        assert "ttb-wide" in wide.get("class") and "ttb-narrow" in narrow.get("class")
        assert "display:none" in narrow.get("style") and narrow.find("svg").get("aria-label")
        assert "min-width" not in narrow.find("svg").get("style"), "it must not scroll"


@pytest.mark.parametrize(
    ("span", "width", "ticks"),
    [
        (1000, WIDE, 200),
        (5330, WIDE, 1000),
        (350, WIDE, 50),
        (1000, NARROW, 200),
        (5330, NARROW, 1000),
    ],
)
def test_ticks_stand_at_round_numbers(span, width, ticks):
    assert tick_step(width / span, width) == ticks


def test_two_timelines_are_drawn_at_one_scale(timeline):
    one, two = timeline.slice(1, 1), timeline.slice(1, 2)
    scale = (0, two.window[1])
    first = bars_of(draw(one, title="a", us_range=scale), WORK)
    assert bars_of(draw(two, title="b", us_range=scale), WORK)[: len(first)] == first
    assert bars_of(draw(one, title="a"), WORK) != first


def test_one_of_several_says_how_long_its_tokens_take(timeline):
    both = {"two": timeline.slice(1, 2), "one": timeline.slice(1, 1)}
    picture = draw_one_of(both, "one", "The first", caption="Below.")
    assert picture.title == "The first: 1 token in 0.1 ms, the GPU idle for 60 %"
    same = draw(both["one"], title=picture.title, us_range=(0, 200), caption="Below.")
    assert picture.svg == same.svg


def test_the_longest_gap_of_each_token_is_labelled(timeline):
    words = texts_of(draw(timeline, title="Title", us_range=(0, 3000)))  # too small for labels
    assert [w for w in words if w.endswith(" µs")] == ["80 µs", "60 µs", "17 µs", "70 µs"]
    words = texts_of(draw(timeline, title="Title", min_gap_us=65))
    assert sorted(w for w in words if w.endswith(" µs")) == ["70 µs"] * 2 + ["80 µs"] * 2
    words = set(texts_of(draw(timeline.slice(1, 1), title="Title")))
    assert words >= {"host thread", "stream 7", "stream 20", "decode_step 1", "stop_check"}
    assert words >= {"0", "20", "40", "60", "80", "100", "µs"}
    assert words >= {"decode step", "stop check", "CUDA calls", "host waits", "kernels", "GPU idle"}


def test_labels_of_gaps_do_not_overlap():
    tokens = range(6)
    host = [HostRange("decode_step", n, 10 * n, 10 * n + 9) for n in tokens]
    work = [Work("gemm", "kernel", n, 10 * n + 1, 10 * n + 4) for n in tokens]
    crowded = Timeline(host, [], {"stream 7": work})
    picture = draw(crowded, title="Title", us_range=(0, 600))
    spots = [
        (float(text.get("x")), float(text.get("y")))
        for text in drawing_of(picture).iter(f"{SVG}text")
        if text.text.endswith(" µs")
    ]
    assert len(spots) == 6
    for at, (x, y) in enumerate(spots):
        assert all(abs(x - other) > 30 for other, row in spots[:at] if row == y)


def test_pictures_follow_the_theme_and_share_no_id(timeline):
    pictures = [draw(timeline, title="a"), *(draw_schedule(p, title="b") for p in SCHEDULES)]
    for picture in pictures:
        html = for_page(picture.svg)
        for colour in re.findall(r"(?:fill|stroke)[:=]\"?([^;\"]+)", html):
            assert colour in ("none", "currentColor") or colour.startswith("var(--ttb-")
        assert " id=" not in picture.svg and "url(" not in picture.svg
    again = draw(timeline, title="a")
    assert again.svg == pictures[0].svg


def test_schedules_are_drawn_at_one_scale_and_described():
    pictures = {p: draw_schedule(p, title=f"Idea: {p}.", work=5, launch=2) for p in SCHEDULES}
    first = {bars_of(picture, WORK)[0] for picture in pictures.values()}
    assert len(first) == 1
    alt = pictures["check every token"].alt
    assert alt.startswith("Idea: check every token. Drawn schedule, not measured, of 5 steps")
    assert "the host waits for it 5 times" in alt and "idle 29 %" in alt
    assert "the GPU is idle 0 % of the time" in pictures["two streams"].alt
    assert "stream waits for the other" in texts_of(pictures["two streams"])
    with pytest.raises(ValueError, match="choose from check every token"):
        draw_schedule("three streams", title="x")
