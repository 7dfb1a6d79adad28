"""Timelines as files for Perfetto: every event is there, at its time, in its lane."""

import json

import pytest

from decoding.measuring.records import load
from decoding.measuring.timeline import HostRange, Launch, Timeline, Work
from decoding.pages import perfetto
from decoding.pages.machines import book_folder

TIMELINE = Timeline(
    host=[HostRange("decode_step", 64, 10.0, 40.0), HostRange("stop_check", 64, 40.0, 70.5)],
    launches=[Launch("cudaGraphLaunch", 64, 20.0, 25.0)],
    lanes={"stream 7": [Work("gemm", "kernel", 64, 30.0, 60.0, 3)]},
    window=(10.0, 80.0),
)


def test_an_event_has_its_time_and_its_lane():
    found = perfetto.events({"check": TIMELINE, "no check": TIMELINE})
    names = {
        (one["pid"], one["tid"]): one["args"]["name"]
        for one in found
        if one["ph"] == "M" and one["name"] == "thread_name"
    }
    processes = {one["pid"]: one["args"]["name"] for one in found if one["name"] == "process_name"}
    assert processes == {1: "check", 2: "no check"}
    assert set(names.values()) == {"host thread", "CUDA calls", "stream 7"}
    shown = [
        (one["name"], names[1, one["tid"]], one["ts"], one["dur"])
        for one in found
        if one["ph"] == "X" and one["pid"] == 1
    ]
    assert shown == [
        ("decode_step 64", "host thread", 0.0, 30.0),
        ("stop_check 64", "host thread", 30.0, 30.5),
        ("cudaGraphLaunch", "CUDA calls", 10.0, 5.0),
        ("gemm", "stream 7", 20.0, 30.0),
    ]
    assert found[-1]["args"] == {"name": "gemm", "kind": "kernel", "token": 64, "count": 3}


def test_the_books_timelines_are_files_with_all_their_events(tmp_path):
    found = perfetto.recorded(book_folder())
    loops = [f"loops_b{size}.json" for size in (1, 128, 32, 8)]
    assert list(found) == ["trace_pipeline.json", *loops]
    for name, timelines in found.items():
        perfetto.write(timelines, tmp_path / name)
        events = json.loads((tmp_path / name).read_text("utf-8"))["traceEvents"]
        for process, timeline in enumerate(timelines.values(), start=1):
            mine = [one for one in events if one["ph"] == "X" and one["pid"] == process]
            works = [work for lane in timeline.lanes.values() for work in lane]
            assert len(mine) == len(timeline.host) + len(timeline.launches) + len(works)
            assert all(one["dur"] >= 0 for one in mine)
    kept = load(book_folder() / "trace_pipeline.json")["timelines"]
    assert {name: len(each.host) for name, each in found["trace_pipeline.json"].items()} == {
        name: len(each["host"]) for name, each in kept.items()
    }


@pytest.mark.parametrize("size", [1, 8, 32, 128])
def test_ranges_of_a_thread_do_not_overlap(size):
    """Perfetto drops an event that begins inside another one and ends outside."""
    for timeline in perfetto.recorded(book_folder())[f"loops_b{size}.json"].values():
        for lane in (timeline.host, *timeline.lanes.values()):
            assert all(a.end_us <= b.start_us + 1e-6 for a, b in zip(lane, lane[1:]))
