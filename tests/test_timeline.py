"""Timelines of hand-made traces, whose lanes and gaps are known exactly."""

import gzip
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decoding.measuring.timeline import (
    Timeline,
    busy_us,
    device_intervals,
    gaps,
    idle_share,
    schedule,
    token_starts,
    union,
    window_of_tokens,
)
from decoding.measuring.traces import read_trace


def event(cat, name, start, end, pid=1, tid=1, **args):
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "ts": 5000 + start,
        "dur": end - start,
        "pid": pid,
        "tid": tid,
        "args": args,
    }


def annotation(name, start, end, tid=1):
    return event("user_annotation", name, start, end, tid=tid)


def call(name, start, end, correlation=0, tid=1):
    return event("cuda_runtime", name, start, end, tid=tid, correlation=correlation)


def kernel(start, end, correlation, stream=7, cat="kernel", name="gemm", device=0):
    return event(
        cat, name, start, end, device, stream, device=device, stream=stream, correlation=correlation
    )


# Three decode steps of 100 µs, out of order. Step 2 is launched on a second stream, and its copy
# overlaps with step 3's first kernel.
EVENTS = [
    annotation("decode_step 3", 200, 240),
    kernel(30, 60, 11),
    call("cudaGraphLaunch", 20, 28, 12, tid=1),
    kernel(50, 70, 12, stream=20),  # overlaps the first
    kernel(52, 52, 12, stream=20),  # zero length
    annotation("prefill 0", -50, -5),
    annotation("decode_step 1", 0, 40),
    annotation("stop_check 1", 40, 100),
    annotation("decode_step 2", 100, 140),
    annotation("stop_check 2", 140, 200),
    annotation("stop_check 3", 240, 300),
    call("cudaLaunchKernel", 10, 15, 11),
    call("cudaStreamSynchronize", 45, 95, -7),
    call("cudaLaunchKernel", 110, 115, 21),
    call("cudaMemcpyAsync", 142, 190, 22),
    call("cudaLaunchKernel", 192, 194, 31),  # in the stop check of step 2
    kernel(130, 160, 21, stream=20),
    kernel(160, 188, 22, stream=20, cat="gpu_memcpy", name="Memcpy DtoH (Device -> Pageable)"),
    kernel(205, 225, 31),
    kernel(225, 230, 99, cat="gpu_memset", name="Memset"),  # launched by nobody we know
    event("gpu_user_annotation", "decode_step 1", 30, 70, 0, 7),  # the range's shadow: not work
    event("cuda_sync", "Stream Sync", 70, 90, 0, 7),  # not work either
    event("cpu_op", "aten::mm", 1, 5),
    annotation("ProfilerStep#3", 0, 300),
    {"ph": "f", "cat": "ac2g", "name": "ac2g", "ts": 5030, "id": 11, "pid": 0, "tid": 7},
    call("cudaLaunchKernel", 0, 1, 41, tid=2),  # another thread's call
]


@pytest.fixture
def timeline():
    return read_trace({"traceEvents": EVENTS})


def test_union():
    assert union([]) == []
    assert union([(5, 9), (0, 2)]) == [(0, 2), (5, 9)]
    assert union([(0, 10), (2, 3), (4, 12)]) == [(0, 12)]  # nested, overlapping
    assert union([(0, 1), (1, 2)]) == [(0, 2)]  # touching
    assert union([(3, 3), (1, 1)]) == []  # empty
    with pytest.raises(ValueError, match="ends before"):
        union([(2, 1)])


def test_busy_time():
    intervals = [(30, 60), (50, 70), (10, 20)]
    assert busy_us(intervals) == 50
    assert busy_us(intervals, (15, 55)) == 5 + 25
    assert busy_us(intervals, (20, 30)) == 0
    assert busy_us([], (0, 1)) == 0


whole = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: tuple(sorted(pair)))


@given(st.lists(whole, max_size=12), whole)
def test_busy_and_idle_time_fill_the_window(intervals, window):
    covered = {us for start, end in intervals for us in range(start, end)}
    start, end = window
    assert busy_us(intervals) == len(covered)
    assert busy_us(intervals, window) == len(covered & set(range(start, end)))
    trace = [kernel(a, b, i, stream=i % 3) for i, (a, b) in enumerate([*intervals, (0, 60)])]
    timeline = read_trace(trace)
    timeline.lanes.pop(f"stream {len(intervals) % 3}")  # with the kernel that fixed the origin
    kept = [pair for i, pair in enumerate(intervals) if i % 3 != len(intervals) % 3]
    idle = gaps(timeline, window)
    assert sum(b - a for a, b in idle) + busy_us(kept, window) == end - start
    assert all(a < b for a, b in idle) and idle == union(idle)


def test_ranges_of_the_host_thread(timeline):
    rows = [(r.name, r.token, r.start_us, r.end_us) for r in timeline.host]
    assert rows == [
        ("prefill", 0, 0, 45),
        ("decode_step", 1, 50, 90),
        ("stop_check", 1, 90, 150),
        ("decode_step", 2, 150, 190),
        ("stop_check", 2, 190, 250),
        ("decode_step", 3, 250, 290),
        ("stop_check", 3, 290, 350),
    ]
    assert timeline.tokens == [0, 1, 2, 3]
    assert timeline.extent == (0, 350)


def test_calls_of_the_host_thread(timeline):
    rows = [(c.name, c.token, c.start_us, c.blocking) for c in timeline.launches]
    assert rows == [
        ("cudaLaunchKernel", 1, 60, False),
        ("cudaGraphLaunch", 1, 70, False),
        ("cudaStreamSynchronize", 1, 95, True),
        ("cudaLaunchKernel", 2, 160, False),
        ("cudaMemcpyAsync", 2, 192, True),  # to pageable memory, so it waits
        ("cudaLaunchKernel", 2, 242, False),
    ]


def test_lanes_and_their_tokens(timeline):
    assert list(timeline.lanes) == ["stream 7", "stream 20"]
    rows = {
        lane: [(w.kind, w.token, w.start_us, w.end_us) for w in works]
        for lane, works in timeline.lanes.items()
    }
    assert rows == {
        "stream 7": [
            ("kernel", 1, 80, 110),
            ("kernel", 2, 255, 275),
            ("memset", None, 275, 280),
        ],
        "stream 20": [
            ("kernel", 1, 100, 120),
            ("kernel", 1, 102, 102),
            ("kernel", 2, 180, 210),
            ("copy", 2, 210, 238),
        ],
    }


def test_gaps_of_the_device(timeline):
    assert union(device_intervals(timeline)) == [(80, 120), (180, 238), (255, 280)]
    assert gaps(timeline) == [(0, 80), (120, 180), (238, 255), (280, 350)]
    assert gaps(timeline, (100, 260)) == [(120, 180), (238, 255)]
    assert gaps(timeline, (100, 260), min_us=17.5) == [(120, 180)]
    assert gaps(timeline, (185, 200)) == []
    assert gaps(timeline, (130, 140)) == [(130, 140)]


def test_windows_of_tokens(timeline):
    assert token_starts(timeline) == {0: 0, 1: 50, 2: 150, 3: 250}
    assert window_of_tokens(timeline, 1, 1) == (50, 150)
    assert window_of_tokens(timeline, 1, 2) == (50, 250)
    assert window_of_tokens(timeline, 0, 3) == (0, 350)
    with pytest.raises(
        ValueError, match="token 9 has no range in this trace; tokens there: 0 to 3"
    ):
        window_of_tokens(timeline, 1, 9)
    with pytest.raises(ValueError, match="comes before"):
        window_of_tokens(timeline, 2, 1)


def test_the_last_window_holds_work_that_outlives_its_ranges():
    trace = [
        annotation("decode_step 1", 0, 10),
        call("cudaLaunchKernel", 5, 6, 1),
        kernel(8, 40, 1),
    ]
    assert window_of_tokens(read_trace(trace), 1, 1) == (0, 40)


def test_idle_share(timeline):
    assert idle_share(timeline) == pytest.approx(1 - (40 + 58 + 25) / 350)
    assert idle_share(timeline, (50, 150)) == pytest.approx(0.6)
    assert idle_share(timeline, (80, 120)) == 0


def test_sync_only_trace_is_idle_and_a_cpu_trace_says_nothing():
    waiting = read_trace(
        [annotation("decode_step 1", 0, 50), call("cudaStreamSynchronize", 10, 50)]
    )
    assert waiting.lanes == {} and waiting.launches[0].blocking
    assert gaps(waiting) == [(0, 50)] and idle_share(waiting) == 1
    on_cpu = read_trace([annotation("decode_step 1", 0, 50)])
    with pytest.raises(ValueError, match=r"ProfilerActivity\.CUDA"):
        idle_share(on_cpu)


def test_without_annotations_work_has_no_token():
    timeline = read_trace([call("cudaLaunchKernel", 0, 5, 1), kernel(10, 20, 1)])
    assert timeline.host == [] and timeline.tokens == []
    assert [w.token for w in timeline.lanes["stream 7"]] == [None]
    assert gaps(timeline) == [(0, 10)]
    empty = read_trace([])
    assert empty == Timeline() and empty.extent == (0, 0)


def test_the_thread_that_launches_is_the_host_thread():
    trace = [
        *(annotation(f"decode_step {n}", 10 * n, 10 * n + 9, tid=2) for n in range(1, 4)),
        annotation("decode_step 1", 0, 50, tid=3),
        call("cudaLaunchKernel", 3, 4, 1, tid=3),
        kernel(5, 6, 1),
    ]
    timeline = read_trace(trace)
    assert [(r.token, r.end_us) for r in timeline.host] == [(1, 50)]
    assert len(timeline.launches) == 1


def test_lanes_of_several_gpus():
    timeline = read_trace([kernel(0, 1, 1, device=1), kernel(0, 2, 2, device=0, stream=13)])
    assert list(timeline.lanes) == ["GPU 0 stream 13", "GPU 1 stream 7"]


def test_traces_are_read_from_files(tmp_path, timeline):
    plain, packed = tmp_path / "trace.json", tmp_path / "trace.json.gz"
    plain.write_text(json.dumps({"traceEvents": EVENTS}))
    with gzip.open(packed, "wt") as file:
        json.dump({"traceEvents": EVENTS}, file)
    assert read_trace(plain) == read_trace(str(packed)) == timeline


def test_round_trip(timeline):
    stored = json.loads(json.dumps(timeline.to_dict()))
    assert Timeline.from_dict(stored) == timeline
    part = timeline.slice(1, 2)
    assert Timeline.from_dict(json.loads(json.dumps(part.to_dict()))) == part


def test_slice(timeline):
    part = timeline.slice(2, 3)
    assert part.window == part.extent == (0, 200)
    assert part.tokens == [2, 3]
    assert [(w.start_us, w.end_us) for w in part.lanes["stream 20"]] == [(30, 60), (60, 88)]
    assert [(w.kind, w.token, w.start_us) for w in part.lanes["stream 7"]] == [
        ("kernel", 2, 105),
        ("memset", None, 125),
    ]
    assert idle_share(part) == idle_share(timeline, (150, 350)) == pytest.approx(1 - 83 / 200)
    assert gaps(part) == [(0, 30), (88, 105), (130, 200)]


def test_slices_join_runs_and_keep_the_exact_idle_share():
    kernels = [kernel(10 * n, 10 * n + 9.5, n) for n in range(1, 9)]  # 0.5 µs between them
    apart = kernel(95, 99, 9)
    launches = [call("cudaLaunchKernel", n / 100, n / 100 + 0.001, n) for n in range(1, 10)]
    trace = [annotation("decode_step 1", 0, 100), *kernels, apart, *launches]
    trace.append(call("cudaStreamSynchronize", 0.1005, 99.5))
    part = read_trace(trace).slice(1, 1)
    run, last = part.lanes["stream 7"]
    assert (run.start_us, run.end_us, run.count, run.name) == (10, 89.5, 8, "kernel run")
    assert (last.count, last.name) == (1, "gemm")
    assert idle_share(part) == pytest.approx(1 - (8 * 9.5 + 4) / 100)
    assert [c.count for c in part.launches] == [9, 1] and part.launches[1].blocking
    unmerged = read_trace(trace).slice(1, 1, merge_us=0.1)
    assert len(unmerged.lanes["stream 7"]) == 9


def test_a_slice_of_thousands_of_kernels_fits_a_record():
    trace = [annotation("decode_step 1", 0, 2000)]
    trace += [call("cudaLaunchKernel", n, n + 0.8, n) for n in range(1, 2000)]
    trace += [kernel(n, n + 0.9, n, name="void at::native::" + "x" * 200) for n in range(1, 2000)]
    assert len(json.dumps(read_trace(trace).slice(1, 1).to_dict())) < 500


def test_a_real_trace_of_the_profiler(tmp_path):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        with torch.profiler.record_function("prefill 0"):
            torch.ones(8) + 1
        for step in range(1, 4):
            with torch.profiler.record_function(f"decode_step {step}"):
                torch.ones(8) + 1
            with torch.profiler.record_function(f"stop_check {step}"):
                torch.ones(8).all().item()
    profiler.export_chrome_trace(str(tmp_path / "trace.json.gz"))
    timeline = read_trace(tmp_path / "trace.json.gz")
    named = [(r.name, r.token) for r in timeline.host]
    assert named == [("prefill", 0)] + [
        (name, step) for step in (1, 2, 3) for name in ("decode_step", "stop_check")
    ]
    ends = [0.0]
    for r in timeline.host:
        assert ends[-1] <= r.start_us < r.end_us
        ends.append(r.end_us)
    assert timeline.lanes == {} and timeline.launches == []


def test_schedules():
    numbers = {"tokens": 4, "launch": 2.0, "work": 5.0, "copy": 1.0, "read": 0.5}
    checked, arrows = schedule("check every token", **numbers)
    assert gaps(checked, (2, 32.5)) == [(7, 10.5), (15.5, 19), (24, 27.5)]  # copy + read + launch
    assert [a[-1] for a in arrows] == ["flag"] * 4
    unchecked, arrows = schedule("no check", **numbers)
    assert gaps(unchecked, (2, 22)) == [] and arrows == []
    pair, arrows = schedule("two streams", **numbers)
    assert gaps(pair, (2, 22)) == []
    assert {k: [w.token for w in v] for k, v in pair.lanes.items()} == {
        "stream A": [1, 3],
        "stream B": [2, 4],
    }
    assert next(a for a in arrows if a[-1] == "wait") == ("stream A", 7, "stream B", 7, "wait")
    flags = [a for a in arrows if a[-1] == "flag"]
    assert flags == [
        ("stream A", 7, "host", 8, "flag"),
        ("stream B", 12, "host", 13, "flag"),
        ("stream A", 17, "host", 18, "flag"),
    ]
    with pytest.raises(ValueError, match="choose from check every token, no check, two streams"):
        schedule("three streams")
