"""The pipeline of ``loops/two_streams`` as a toy machine, in any order that its queues allow.

The host has a program, each stream a queue, and there is nothing else: no time, no model. Whatever
stands first in a queue and need not wait may go next, so that every order can be tried.
"""

import copy
from typing import NamedTuple

PROMPT, END = "The", "■"
NEXT = {"The": "GPU", "GPU": "works", "works": END, END: END}  # the model: newest token -> next
EXPECTED = ("GPU", "works", END)
OLD_TOKEN, OLD_FLAG = PROMPT, True  # what the call before has left in memory
LANES = ("host", "A", "B", "caller")

#: What may be taken out -> the line of the loop.
SAFEGUARDS = {
    "wait": "streams[this].wait_event(done[other])",
    "clone": "unread.clone()",
    "two flags": "flags[this], flags[other]",
    "synchronize": "done[other].synchronize()",
    "last wait": "current_stream().wait_event(done[this])",
}


class Item(NamedTuple):
    """One entry of a lane: of the host's program or of a stream's queue.

    ``kind`` is "launch", "read" or "return" for the host; "wait", "step", "clone", "flag" or "done"
    for the streams A and B; "last wait" or "join" for the caller's stream.
    """

    lane: str
    kind: str
    step: int


class Machine:
    """A pipeline at work.

    Args:
        without: the safeguard that is left out, one of ``SAFEGUARDS``; "" for none.
        limit: for how many tokens the loop may run.
        one_graph: whether the steps are replays of one CUDA graph, which run in the order of their
            launches on whatever stream; steps that are not have no order but the stated one.

    Attributes:
        tokens: the steps whose tokens the host means to return.
        queues: lane -> what waits there.
        raised: the steps whose event has happened.
        output: the token that the newest replay wrote; ``clones``, step -> its copy.
        flags: slot -> whether the host would read "all finished" there.
        text: what the caller gets, once it is joined.

    Raises:
        ValueError: there is no such safeguard.
    """

    def __init__(self, without="", limit=4, one_graph=True):
        if without and without not in SAFEGUARDS:
            raise ValueError(f"{without!r} is no safeguard; choose from {', '.join(SAFEGUARDS)}.")
        self.without, self.limit, self.one_graph = without, limit, one_graph
        self.queues = {lane: [] for lane in LANES}
        for step in range(limit):
            self.queues["host"].append(Item("host", "launch", step))
            self.queues["host"] += [Item("host", "read", step - 1)] * (step > 0)
        self.queues["host"].append(Item("host", "return", 0))
        self.tokens, self.raised, self.ran = [], set(), 0
        self.output, self.clones = OLD_TOKEN, dict.fromkeys(range(limit), OLD_TOKEN)
        self.finished, self.flags = OLD_FLAG, {"A": OLD_FLAG, "B": OLD_FLAG}
        self.text = None

    def stream_of(self, step):
        return "AB"[step % 2]

    def slot_of(self, step):
        """Return the flag to which a step's answer is copied."""
        return "A" if self.without == "two flags" else self.stream_of(step)

    def kept(self, step):
        """Return the token that the loop holds of a step."""
        return self.output if self.without == "clone" else self.clones[step]

    def ready(self):
        """Return what may go next: the first item of each lane, unless it has to wait."""
        firsts = [queue[0] for queue in self.queues.values() if queue]
        return [item for item in firsts if not self._waits(item)]

    def _waits(self, item):
        if item.kind == "read":
            return self.without != "synchronize" and item.step not in self.raised
        if item.kind == "wait":
            return item.step - 1 not in self.raised
        if item.kind == "last wait":
            return item.step not in self.raised
        return item.kind == "step" and self.one_graph and item.step > self.ran

    def run(self, item):
        """Let an item that is ``ready`` happen."""
        self.queues[item.lane].pop(0)
        getattr(self, f"_{item.kind.replace(' ', '_')}")(item.step)

    def _launch(self, step):
        stream = self.stream_of(step)
        kinds = ("wait", "step", "clone", "flag", "done")
        left_out = {"clone": {"clone"}, "wait": {"wait"}}.get(self.without, set())
        left_out = left_out | ({"wait"} if step == 0 else set())
        self.queues[stream] += [Item(stream, kind, step) for kind in kinds if kind not in left_out]
        self.tokens.append(step)
        self.launched = step

    def _read(self, step):
        if self.flags[self.slot_of(step)]:
            self.tokens.pop()
            self.queues["host"] = self.queues["host"][-1:]

    def _return(self, _):
        kinds = ("join",) if self.without == "last wait" else ("last wait", "join")
        self.queues["caller"] += [Item("caller", kind, self.launched) for kind in kinds]

    def _wait(self, step):
        pass

    _last_wait = _wait

    def _step(self, step):
        self.output = NEXT[PROMPT if step == 0 else self.kept(step - 1)]
        self.finished = self.output == END
        self.ran += 1

    def _clone(self, step):
        self.clones[step] = self.output

    def _flag(self, step):
        self.flags[self.slot_of(step)] = self.finished

    def _done(self, step):
        self.raised.add(step)

    def _join(self, _):
        self.text = tuple(self.kept(step) for step in self.tokens)


def outcomes(without="", **options):
    """Return every text that some order gives: a set of tuples of tokens.

    Args:
        without, options: those of ``Machine``.

    Raises:
        RuntimeError: an order ends with work that waits for good.
    """
    found, seen, waiting = set(), set(), [Machine(without, **options)]
    while waiting:
        machine = waiting.pop()
        state = repr(sorted(vars(machine).items()))
        if state in seen:
            continue
        seen.add(state)
        items = machine.ready()
        if not items and any(machine.queues.values()):
            raise RuntimeError(f"Everything waits: {machine.queues}.")
        if not items:
            found.add(machine.text)
        for item in items:
            other = copy.deepcopy(machine)
            other.run(item)
            waiting.append(other)
    return found


def traced(order, without="", **options):
    """Yield each item that runs, with the machine after it, until nothing is left.

    Args:
        order: the lanes, the one that goes first where it can before the others: who is fast.
        without, options: those of ``Machine``.
    """
    machine = Machine(without, **options)
    while items := machine.ready():
        item = min(items, key=lambda each: order.index(each.lane))
        machine.run(item)
        yield item, copy.deepcopy(machine)
