"""The explorer of segments: its settings, its tokens, and one scale for all."""

import re
from xml.etree import ElementTree

from decoding.allocator import MIB, CachingAllocator
from decoding.drawing import COLOURS, segments_explorer
from decoding.drawing.theme import THEME


def layouts(**setting):
    """Two tensors, the second after the first was freed: what the model holds with each."""
    allocator, found = CachingAllocator(**setting), {}
    for token, mib in ((1, 100), (8, 140)):
        address = allocator.malloc(mib * MIB)
        found[token] = allocator.layout()
        allocator.free(address)
    return found


def test_each_setting_and_token_has_its_picture():
    explorer = segments_explorer(
        {"default": layouts(), "expandable": layouts(expandable=True)},
        colours={"default": "naive", "expandable": "expandable_segments"},
        row_mib=64,
    )
    root = ElementTree.fromstring(explorer.html)
    states = {
        state.get("aria-label"): " ".join(" ".join(state.itertext()).split())
        for state in root.iterfind(".//div[@data-state]")
    }
    held = r"[\d,]+ MiB in \d+ segments?"
    assert {name: re.search(held, words)[0] for name, words in states.items()} == {
        "allocator default, new tokens 1": "100 MiB in 1 segment",
        "allocator default, new tokens 8": "240 MiB in 2 segments",
        "allocator expandable, new tokens 1": "100 MiB in 1 segment",
        "allocator expandable, new tokens 8": "140 MiB in 1 segment",
    }
    assert all("one row = 64 MiB" in words for words in states.values())
    for state in root.iterfind(".//div[@data-state]"):
        rung = "naive" if "default" in state.get("aria-label") else "expandable_segments"
        assert THEME[COLOURS[rung]] in ElementTree.tostring(state, encoding="unicode")
