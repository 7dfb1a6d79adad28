"""Machines beside each other: whose records lie in the tree, and where in a token they differ."""

from math import isnan
from pathlib import Path

from decoding import RUNGS
from decoding.drawing import (
    explorer,
    explorer2,
    ladder,
    rungs_as_bars,
    table,
    with_numbers,
    work_and_idle,
)
from decoding.drawing.words import known, ms, percent, ratio, spread_words
from decoding.measuring import Record
from decoding.measuring.records import load

from .machines import BOOK_GPU, BOOK_RECORDS, PROMPT_TOKENS
from .shelf import Shelf

HEAD = ("rung", "the book's", "this one", "its speed", "where the difference lies")


class Machines(dict):
    """The machines that have records of the ladder: name of the folder -> kind -> ``Record``.

    Args:
        *roots: folders that hold a folder for each machine; default: the book's records, and
            ``records`` where this runs.
        sitting: how the notebook is run; default: as this kernel was configured.

    Attributes:
        shelf: which has given out the records of the book's machine.

    Raises:
        NotRecorded: while redrawing, the code has changed since one of the book's was made.
    """

    def __init__(self, *roots, sitting=None):
        super().__init__()
        for root in map(Path, roots or (BOOK_RECORDS, Path.cwd() / "records")):
            for folder in sorted(root.iterdir()) if root.is_dir() else ():
                loaded = [load(path) for path in sorted(folder.glob("*.json"))]
                kept = {kind_of(record): record for record in loaded if is_of_the_ladder(record)}
                if kept:
                    self[folder.name] = kept
        self.shelf = Shelf(sitting)
        for record in self.ours.values():
            self.shelf.give(record, [record["rung"]])

    @property
    def ours(self):
        """The records of the book's machine: kind -> ``Record``."""
        return self.get(BOOK_GPU, {})

    @property
    def others(self):
        """All machines but the book's."""
        return {name: found for name, found in self.items() if name != BOOK_GPU}

    @property
    def batch_sizes(self):
        """The batch sizes of all records, the largest first."""
        sizes = {record.batch for found in self.values() for record in found.values()}
        return sorted(sizes, reverse=True)


def kind_of(record):
    """Return what must be equal for two records to be comparable. The dtype may differ."""
    workload, variant = record["workload"], record["variant"]
    keys = ("model", "batch_size", "prompt_tokens", "new_tokens", "stop_check")
    plain = ("compile_mode", "cache_length", "allocator")
    return (record["rung"], *(workload.get(key) for key in keys), *(variant[key] for key in plain))


def is_of_the_ladder(record):
    """Return whether a record is of a rung as its chapter introduces it, on the ladder's prompts."""
    if record.get("rung") not in RUNGS:
        return False
    variant = record["variant"]
    own = variant["allocator"] == variant["rung_allocator"]
    plain = not variant["compile_mode"] and not variant["cache_length"]
    length = record["workload"]["prompt_tokens"] == PROMPT_TOKENS
    return own and plain and variant["stop_check"] and length


def ladder_of(found, batch_size):
    """Return a machine's records at one batch size, in the ladder's order."""
    return sorted((record for record in found.values() if record.batch == batch_size), key=_place)


def machines_table(machines):
    """Return what is known of the machines, as a table."""
    head = ("GPU", "whose", "memory", "driver", "torch", "measured on", "records")
    rows = []
    for name, found in machines.items():
        machine = max((record["machine"] for record in found.values()), key=_date)
        rows.append(
            (
                machine["gpu"],
                "the book's" if name == BOOK_GPU else "yours or a reader's",
                f"{machine['gpu_memory_mib'] / 1024:,.0f} GiB",
                machine["driver"] or "unknown",
                machine["torch"],
                machine["date"][:10],
                len(found),
            )
        )
    return table(head, rows, "Machines with records of the ladder")


def machines_explorer(machines):
    """Return an explorer of the machines' ladders by batch size; None if there are no machines."""
    states = {
        name: {size: _ladder_or_none(found, size) for size in machines.batch_sizes}
        for name, found in machines.items()
    }
    if len(states) > 1:
        return explorer2(states, descriptions=("machine", "batch size"))
    return explorer(*states.values(), description="batch size") if states else None


def parts_table(machines):
    """Return, for each rung of the book's machine, its time, the two parts, and who sets it."""
    head = ("rung", "time per token", "the GPU works", "work per kernel", "idle")
    rows = [
        (
            _where(record),
            _time_of(record),
            ms(record.busy_ms),
            f"{_each_kernel_us(record.busy_ms, record):.1f} µs",
            percent(record.idle),
            _who_and_what(record),
        )
        for size in machines.batch_sizes
        for record in ladder_of(machines.ours, size)
        if known(record.busy_ms)
    ]
    caption = "The book's own machine: median (smallest–largest)"
    return table((*head, "who sets the time"), rows, caption)


def comparisons(machines):
    """Return a picture for each machine beside the book's; without any, one with made-up figures.

    Its numbers, and where the difference lies, stand folded below it. Where no rung was measured
    alike there is a table that says so.
    """
    ours = machines.ours
    made = []
    for name, theirs in machines.others.items():
        gpu = next(iter(theirs.values()))["machine"]["gpu"]
        caption = f"{gpu} ({name}) beside the book's {BOOK_GPU}"
        made.append(_comparison(ours, theirs, caption, HEAD))
    if ours and not made:
        example = {kind: made_up(record) for kind, record in ours.items() if known(record.busy_ms)}
        caption = "Made up, not measured: a GPU half as fast, a host twice as fast"
        head = ["made up" if words == "this one" else words for words in HEAD]
        made.append(_comparison(ours, example, caption, head))
    return made


def _comparison(ours, theirs, caption, head):
    rows = list(beside(ours, theirs))
    if not rows:
        return table(head, rows, f"{caption}: no rung measured alike")
    panels = {
        _where(one): rungs_as_bars(dict(zip(head[1:3], (one, theirs[kind_of(one)]))))
        for one in _measured_alike(ours, theirs)
    }
    picture = work_and_idle(
        panels, caption, one_scale=False, caption="Each pair of bars has its own scale."
    )
    return with_numbers(picture, table(head, rows))


def beside(ours, theirs):
    """Yield a row for each rung that two machines have measured alike.

    Args:
        ours, theirs: kind -> ``Record``.
    """
    for one in _measured_alike(ours, theirs):
        other = theirs[kind_of(one)]
        times = _time_of(one), _time_of(other), ratio(one.ms / other.ms)
        failed = one.error or other.error
        yield (_where(one), *(("–",) * 3 if failed else times), reason_for(one, other))


def _measured_alike(ours, theirs):
    """The records of ``ours`` whose kind is in ``theirs``, the largest batch first."""
    both = [record for kind, record in ours.items() if kind in theirs]
    return sorted(both, key=lambda record: (-record.batch, _place(record)))


def reason_for(ours, theirs):
    """Return, in words, in which part of a token's time two comparable records differ.

    Where the host sets the time on both machines, the difference is the host's. Elsewhere the part
    with more than two thirds of it is named: what the GPU works, or what it waits.
    """
    if isnan(ours.busy_ms + theirs.busy_ms):
        return theirs.error or ours.error or "not measured on a GPU"
    words = [_part_that_differs(ours, theirs)]
    one, other = (record["workload"]["dtype"] for record in (ours, theirs))
    if one != other:
        words.append(f"measured in {other}, not in {one}")
    if abs(theirs.kernels - ours.kernels) > 0.05 * ours.kernels:
        words.append(f"{theirs.kernels:.0f} kernels a token instead of {ours.kernels:.0f}")
    return "; ".join(words)


def _part_that_differs(ours, theirs):
    more, work = theirs.ms - ours.ms, theirs.busy_ms - ours.busy_ms
    share = work / more if more else 0
    working = f"{ratio(theirs.busy_ms / ours.busy_ms)} as long"
    waiting = f"waits {ms(_waits(theirs))} a token instead of {ms(_waits(ours))}"
    overlap = ours.low <= theirs.high and theirs.low <= ours.high
    if overlap or abs(more) < 0.05 * ours.ms:
        though = f", though the GPU works {working}" if abs(work) > 0.25 * ours.busy_ms else ""
        return f"about the same time{though}"
    if binds(ours) == binds(theirs) == "the host" and not in_turns(ours):
        takes, of_what = host_takes(theirs)
        return f"the host: {takes} {of_what} instead of {host_takes(ours)[0]}"
    if share >= 2 / 3:
        return f"the GPU's work: {working}"
    if share <= 1 / 3:
        return f"the host: the GPU {waiting}"
    return f"both: the GPU works {working} and {waiting}"


def in_turns(record):
    """Return whether the GPU waits while the host works: it asks the check, then replays a graph.

    In the other rungs, host and GPU work side by side, and the slower one sets the time.
    """
    return record["rung"] == "compiled"


def binds(record):
    """Return who sets the time of a token: the host if the GPU waits for more than half of it."""
    return "the host" if record.idle > 1 / 2 else "the GPU" if record.idle < 1 / 4 else "both"


def host_takes(record):
    """Return what the host takes, and of what: of waiting where they take turns, else of the time."""
    if in_turns(record):
        return ms(_waits(record)), "of waiting for check and replay"
    if "compile_mode" in RUNGS[record["rung"]].options:
        return ms(record.ms), "of time per replay"
    return f"{_each_kernel_us(record.ms, record):.1f} µs", "of time per kernel"


def made_up(record):
    """Return what a rule makes of a record: a GPU half as fast, a host twice as fast."""
    work, half = 2 * record.busy_ms, record.ms / 2
    time = work + _waits(record) / 2 if in_turns(record) else max(work, half)
    times = dict.fromkeys(("median", "min", "max"), time)
    gpu = record["gpu"] | {"busy_ms_per_token": work, "idle_share": 1 - work / time}
    return Record(record | {"time": record["time"] | {"per_token_ms": times}, "gpu": gpu})


def _where(record):
    """A record's name and its batch size, which stays in one line with its word."""
    return f"{record.name}, batch\N{NO-BREAK SPACE}{record.batch}"


def _who_and_what(record):
    who = binds(record)
    return who if who == "the GPU" else f"{who}: {' '.join(host_takes(record))}"


def _waits(record):
    """For how long the GPU waits in a token, in ms."""
    return max(0.0, round(record.ms - record.busy_ms, 3))


def _each_kernel_us(time, record):
    """Microseconds of a token's ``time``, in ms, for each of its kernels."""
    return 1000 * time / record.kernels


def _time_of(record):
    return f"{spread_words(record.spread)} ms"


def _ladder_or_none(found, size):
    records = ladder_of(found, size)
    if not records:
        return f"No records at batch {size}."
    return ladder(records, f"{records[0]['machine']['gpu']}: time per token at batch {size}")


def _place(record):
    return list(RUNGS).index(record["rung"])


def _date(machine):
    return machine.get("date", "")
