"""Pictures of segments: to scale, and what is left out is said."""

import re
from xml.etree import ElementTree

import pytest

from decoding.allocator import MIB, CachingAllocator
from decoding.drawing import COLOURS, draw_segments
from decoding.drawing.theme import IDLE, WIDTH

SVG = "{http://www.w3.org/2000/svg}"
SEGMENTS = [
    {
        "address": 0x10000000,
        "total_mib": 20.0,
        "blocks": [
            {"mib": 3.0, "state": "active"},
            {"mib": 4.0, "state": "active"},
            {"mib": 13.0, "state": "inactive"},
        ],
    },
    {
        "address": 0x90000000,
        "total_mib": 2.0,
        "blocks": [
            {"mib": 1 / 1024, "state": "active"},
            {"mib": 2 - 1 / 1024, "state": "inactive"},
        ],
    },
]


def area(picture, style):
    """The area of the rectangles in the first shape whose style holds ``style``, in pixels."""
    (drawing,) = ElementTree.fromstring(picture.svg).iterfind(f".//{SVG}svg")
    shape = next(p for p in drawing.iter(f"{SVG}path") if style in p.get("style", ""))
    pieces = re.findall(r"h([\d.]+)v([\d.]+)h-", shape.get("d"))
    return sum(float(width) * float(height) for width, height in pieces)


def per_mib(row_mib, row_height=20):
    return (WIDTH - 2) / row_mib * row_height


def test_drawn_segments_are_to_scale_and_described():
    picture = draw_segments(SEGMENTS, title="Free < used & more", row_mib=5, colour="naive")
    assert "Free < used & more. 2 segments, 22 MiB in all; 7 MiB of them (32 %)" in picture.alt
    assert "15 MiB are free. The largest free block has 13 MiB." in picture.alt
    used = area(picture, f"fill:{COLOURS['naive'].lower()}")
    assert used == pytest.approx((7 + 1 / 1024) * per_mib(5), rel=2e-3)
    free = area(picture, f"fill:{IDLE.lower()}")
    assert free == pytest.approx((15 - 1 / 1024) * per_mib(5), rel=2e-3)
    assert area(picture, "fill:none") == pytest.approx(22 * per_mib(5), rel=2e-3)


def test_segments_beyond_the_cap_are_counted_in_words():
    allocator = CachingAllocator()
    for _ in range(5):
        allocator.malloc(12 * MIB)
    allocator.malloc(100 * MIB)
    picture = draw_segments(allocator.layout(), title="Many", max_segments=2)
    # In the alternative text and beside the picture.
    assert picture.svg.lower().count("not drawn: 4 smaller segments") == 2
    assert area(picture, "fill:none") == pytest.approx(112 * per_mib(16), rel=2e-3)


def test_nothing_reserved_is_a_picture_too():
    assert "0 segments, 0 MiB in all" in draw_segments([], title="Empty").alt
