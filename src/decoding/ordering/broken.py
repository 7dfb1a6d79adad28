"""The loop of ``two_streams`` with one safeguard taken out at a time, made from its own source.

A change names a piece of that source, which must stand there: a loop that is rewritten cannot leave
its broken forms behind.
"""

import inspect
import linecache
import textwrap
from contextlib import contextmanager
from typing import NamedTuple

from decoding.loops import two_streams
from decoding.prepared import Turn


class Safeguard(NamedTuple):
    """A safeguard of ``two_streams`` and how to take it out.

    Attributes:
        old, new: which piece of the source becomes which.
        protects: "tokens", or "time" if the tokens stay right without it.
        threat: what can happen without it, in a few words.
    """

    old: str
    new: str
    protects: str
    threat: str


_COPY = "            flags[this].copy_(all_finished, non_blocking=True)\n"
_RECORD = "            done[this].record()\n"

#: The safeguards by name, in the order of the loop's lines.
SAFEGUARDS = {
    "the order behind the caller's stream": Safeguard(
        "    done[1].record()  # the first step waits for what the caller's stream has been given\n",
        "",
        "tokens",
        "the first step reads the prompt before it is there",
    ),
    "the wait between the streams": Safeguard(
        "            streams[this].wait_event(done[other])\n",
        "",
        "tokens",
        "a step reads the token before it is chosen",
    ),
    "the other stream's event": Safeguard(
        "wait_event(done[other])",
        "wait_event(done[this])",
        "tokens",
        "a step waits for its own stream, and so for nothing",
    ),
    "the clone of a graph's output": Safeguard(
        "unread, finished = unread.clone(), finished.clone()",
        "pass",
        "tokens",
        "the next replay overwrites the token",
    ),
    "pinned memory": Safeguard(
        "prepared.done, prepared.flags\n",
        "prepared.done, [torch.zeros((), dtype=torch.bool, device='cpu') for _ in range(2)]\n",
        "time",
        "the host waits for every copy",
    ),
    "a flag for each step in flight": Safeguard(
        "prepared.done, prepared.flags\n",
        "prepared.done, prepared.flags[:1] * 2\n",
        "tokens",
        "the host reads the flag of a later step",
    ),
    "the event behind the copy": Safeguard(
        _COPY + _RECORD,
        _RECORD + _COPY,
        "tokens",
        "the host reads the flag before it has arrived",
    ),
    "the wait for the flag": Safeguard(
        "            done[other].synchronize()\n",
        "",
        "tokens",
        "the host reads the flag before it has arrived",
    ),
    "no question before the first answer": Safeguard(
        " and step > 0",
        "",
        "tokens",
        "the host reads what the call before has left",
    ),
    "the wait at the end": Safeguard(
        "    device.current_stream().wait_event(done[this])\n",
        "",
        "tokens",
        "the caller puts the tokens together before the last is there",
    ),
}
#: What no line of the loop does, but the package for all loops: see ``calls_in_no_order``.
BETWEEN_CALLS = "the order between calls"


def without(decode, old, new=""):
    """Return a loop with one piece of its source changed: what would it be without that line?

    Args:
        decode: a function whose source is in a file or in a notebook's cell.
        old: a piece of that source, which stands there exactly once.
        new: what to put in its place. The lines behind it keep their numbers.

    Raises:
        ValueError: ``old`` does not stand there once.
    """
    original = inspect.unwrap(decode)
    lines, first = inspect.getsourcelines(original)
    source = textwrap.dedent("".join(lines))
    if source.count(old) != 1:
        raise ValueError(
            f"{old!r} stands {source.count(old)} times in the source of {name_of(decode)}; it must stand there once."
        )
    source = source.replace(old, new + "\n" * max(old.count("\n") - new.count("\n"), 0))
    source = "\n" * (first - 1) + source
    file = f"<{name_of(decode)} with {' '.join(new.split())!r} for {' '.join(old.split())!r}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    names = dict(original.__globals__)
    exec(compile(source, file, "exec"), names)
    return names[original.__name__]


def without_safeguard(name):
    """Return the loop of ``two_streams`` without one of ``SAFEGUARDS``, by its name."""
    return without(two_streams.decode, SAFEGUARDS[name].old, SAFEGUARDS[name].new)


@contextmanager
def calls_in_no_order():
    """In here no call waits on the device for the call before."""
    earlier = Turn.end_call
    Turn.end_call = lambda self, kept, stream: None
    try:
        yield
    finally:
        Turn.end_call = earlier


def name_of(decode):
    """Return what a loop is called: its own name, or its module's if that is ``decode``."""
    original = inspect.unwrap(decode)
    if original.__name__ == "decode":
        return original.__module__.rpartition(".")[2]
    return original.__name__
