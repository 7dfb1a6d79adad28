"""Timelines as files that Perfetto opens, in the trace event format of Chrome.

A loop is a process there; its host thread, its calls into CUDA and each stream are threads of it.
"""

import json
from pathlib import Path

from decoding.drawing.logged import WAYS, is_logged, logged, pauses
from decoding.measuring import Record
from decoding.measuring.records import load
from decoding.measuring.timeline import Timeline

HOST, CALLS, FIRST_STREAM = 1, 2, 3  # numbers of threads


def events(timelines):
    """Return the events of some timelines: a list of dicts, as JSON can hold them.

    Args:
        timelines: name -> ``Timeline``. All of them begin at 0.
    """
    found = []
    for process, (name, timeline) in enumerate(timelines.items(), start=1):
        found.append(_named(process, 0, "process_name", name))
        threads = {HOST: ("host thread", timeline.host), CALLS: ("CUDA calls", timeline.launches)}
        threads |= dict(enumerate(timeline.lanes.items(), start=FIRST_STREAM))
        start = timeline.extent[0]
        for thread, (words, items) in threads.items():
            if items:
                found.append(_named(process, thread, "thread_name", words))
                found += [_event(process, thread, item, start) for item in items]
    return found


def _named(process, thread, kind, words):
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": {"name": words}}


def _event(process, thread, item, start):
    numbered = thread == HOST and item.token is not None
    return {
        "ph": "X",
        "pid": process,
        "tid": thread,
        "name": f"{item.name} {item.token}" if numbered else item.name,
        "ts": round(item.start_us - start, 3),
        "dur": round(item.end_us - item.start_us, 3),
        "args": {key: value for key, value in vars(item).items() if not key.endswith("_us")},
    }


def write(timelines, path):
    """Write timelines to a file for Perfetto.

    Args:
        timelines: name -> ``Timeline``, as ``Chapter.trace`` returns them.
        path: of the file, which ends in .json.
    """
    found = {"traceEvents": events(timelines), "displayTimeUnit": "ns"}
    Path(path).write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")


def recorded(folder):
    """Return the timelines that the records in ``folder`` hold: name of a file -> timelines.

    ``trace_<name>.json`` is a trace with the profiler looking on, ``loops_b<batch>.json`` are the
    tokens that a race logged one by one, without it.
    """
    found = {}
    for path in sorted(Path(folder).glob("trace_*.json")):
        kept = load(path)["timelines"]
        found[path.name] = {name: Timeline.from_dict(each) for name, each in kept.items()}
    for path in sorted(Path(folder).glob("watch_b*.json")):
        race = {label: Record(each) for label, each in load(path)["results"].items()}
        loops = {
            label: logged(race[label], way, pauses(race))[0]
            for label, way in WAYS.items()
            if label in race and is_logged(race[label])
        }
        if loops:
            found[path.name.replace("watch_", "loops_")] = loops
    return found
