"""From a profiler's trace of a decoding loop to a ``Timeline``.

The trace is the Chrome-format JSON that ``torch.profiler`` writes (``export_chrome_trace``) when
it records CPU and CUDA activities.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

from .timeline import HostRange, Launch, Timeline, Work

RANGE_NAME = re.compile(r"(prefill|decode_step|stop_check)(?: (\d+))?")
DEVICE_WORK = {"kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "memset"}
CALLS = ("cuda_runtime", "cuda_driver")
BLOCKING_CALL = re.compile(r"Synchronize|^cudaMemcpy$|^cuMemcpy(DtoH|HtoD)(_v2)?$")


def read_trace(trace: dict | list | str | Path) -> Timeline:
    """Read a Chrome-format trace: a dict, its list of events, or the path of a .json or .json.gz.

    The host thread is the one that holds the ranges (with several, the one that launches most);
    ``launches`` are its calls into CUDA. Work belongs to the token in whose range it was launched,
    found by its correlation id; work launched outside of every range has token None.
    """
    calls, work, ranges = _events_of(trace)
    origin = min((float(event["ts"]) for event in [*calls, *work, *ranges]), default=0.0)
    host, launcher = _threads(ranges, calls)
    host_ranges = _host_ranges((event for event in ranges if _thread(event) == host), origin)
    tokens = _tokens_at(host_ranges, [_times(event, origin)[0] for event in calls])
    of_launcher = [pair for pair in zip(calls, tokens, strict=True) if _thread(pair[0]) == launcher]
    token_of_id = {
        event["args"]["correlation"]: token
        for event, token in zip(calls, tokens, strict=True)
        if "correlation" in event.get("args", {})
    }
    return Timeline(
        host=host_ranges,
        launches=_launches(of_launcher, work, origin),
        lanes=_lanes(work, token_of_id, origin),
    )


def _events_of(trace):
    """Return the calls into CUDA, the GPU's work and the loops' ranges of a trace."""
    if isinstance(trace, str | Path):
        opener = gzip.open if str(trace).endswith(".gz") else open
        with opener(trace, "rt", encoding="utf-8") as file:
            trace = json.load(file)
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    events = [event for event in events if event.get("ph") == "X"]
    calls = [event for event in events if event.get("cat") in CALLS]
    work = [event for event in events if event.get("cat") in DEVICE_WORK]
    ranges = [
        event
        for event in events
        if event.get("cat") == "user_annotation" and RANGE_NAME.fullmatch(event["name"])
    ]
    return calls, work, ranges


def _times(event, origin: float) -> tuple[float, float]:
    start = float(event["ts"]) - origin
    return round(start, 3), round(start + float(event.get("dur", 0)), 3)


def _thread(event):
    return event.get("pid"), event.get("tid")


def _threads(ranges, calls):
    """The host thread, and the one whose calls into CUDA are its launches."""
    calls_on = Counter(map(_thread, calls))
    ranges_on = Counter(map(_thread, ranges))
    host = max(ranges_on, key=lambda t: (calls_on[t], ranges_on[t]), default=None)
    launcher = host if calls_on[host] else max(calls_on, key=calls_on.get, default=None)
    return host, launcher


def _host_ranges(events, origin: float) -> list[HostRange]:
    found = []
    for event in events:
        name, number = RANGE_NAME.fullmatch(event["name"]).groups()
        token = int(number) if number else 0 if name == "prefill" else None
        found.append(HostRange(name, token, *_times(event, origin)))
    return sorted(found, key=lambda r: (r.start_us, -r.end_us))


def _launches(calls_with_tokens, work, origin: float) -> list[Launch]:
    # A copy to pageable memory returns only when it is done, whatever its name says.
    # (CUDA Runtime API, "API synchronization behavior")
    pageable = {
        event.get("args", {}).get("correlation")
        for event in work
        if event["cat"] == "gpu_memcpy" and "DtoH" in event["name"] and "Pageable" in event["name"]
    }
    launches = [
        Launch(
            event["name"],
            token,
            *_times(event, origin),
            blocking=bool(BLOCKING_CALL.search(event["name"]))
            or event.get("args", {}).get("correlation", -1) in pageable,
        )
        for event, token in calls_with_tokens
    ]
    return sorted(launches, key=lambda call: call.start_us)


def _lanes(work, token_of_id, origin: float) -> dict[str, list[Work]]:
    devices = {event.get("args", {}).get("device", event.get("pid")) for event in work}
    lanes = defaultdict(list)
    for event in work:
        args = event.get("args", {})
        lane = f"stream {args.get('stream', event.get('tid'))}"
        if len(devices) > 1:
            lane = f"GPU {args.get('device', event.get('pid'))} {lane}"
        token = token_of_id.get(args.get("correlation"))
        kind = DEVICE_WORK[event["cat"]]
        lanes[lane].append(Work(event["name"], kind, token, *_times(event, origin)))
    in_order = sorted(lanes, key=lambda lane: [int(n) for n in re.findall(r"\d+", lane)])
    return {lane: sorted(lanes[lane], key=lambda w: w.start_us) for lane in in_order}


def _tokens_at(ranges: list[HostRange], moments: list[float]) -> list[int | None]:
    """The token of the innermost range around each moment; ``ranges`` sorted and nested."""
    tokens: list[int | None] = [None] * len(moments)
    stack, upcoming = [], 0
    for i in sorted(range(len(moments)), key=moments.__getitem__):
        while upcoming < len(ranges) and ranges[upcoming].start_us <= moments[i]:
            stack.append(ranges[upcoming])
            upcoming += 1
        while stack and stack[-1].end_us < moments[i]:
            stack.pop()
        tokens[i] = stack[-1].token if stack else None
    return tokens
