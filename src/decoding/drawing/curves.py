"""Curves of records over the token position, and other lines: over batch sizes, against each other."""

from statistics import median

from .axes import DASHED, DOTTED, HAIR, THICK, THIN, Line, lines_over
from .svg import Panel, Picture
from .theme import COLOURS, MUTED, WIDTH, colour_of, label_of
from .words import count, number, spread_words

HEIGHT = 270


def curves(records, *, title, what="time", cold=False, busy=False, caption=None, names=None):
    """Draw time per token or memory against the position of the token, a line for each record.

    Time is a running median over the faint single steps. Memory is allocated (solid) and reserved
    (dashed).

    Args:
        records: in the order of the ladder; failed ones are named below the figure.
        title: the message of the figure.
        what: "time" (ms per token) or "memory" (MiB; nothing to draw on a CPU).
        cold: whether to draw the first run of the process, too (dotted).
        busy: whether to draw the time for which the GPU works, too (dotted).
        caption: a sentence below the figure.
        names: what to call the lines, for other words than the records' own names.

    Returns:
        A ``Picture``.
    """
    named = list(zip(records, names or [record.name for record in records], strict=True))
    shown = [(record, name) for record, name in named if has(record, what)]
    left_out = [_why_not(record, name, what) for record, name in named if not has(record, what)]
    said = [_say_curve(record, name, what, cold) for record, name in shown]
    alt = " ".join([f"{title.rstrip('.')}.", *said, *left_out])
    rows = [panel_of(shown, what, WIDTH, HEIGHT, cold, busy)] if shown else []
    return Picture(title, rows, " ".join(filter(None, (caption, *left_out))), alt=alt)


def running_median(values, window=None):
    """Return the median around each value, over a 16th of all of them unless told otherwise."""
    half = (window or len(values) // 16) // 2
    return [median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def has(record, what):
    """Return whether a record has something to draw of "time" or "memory"."""
    return not record.error and bool(record.get(what)) and (what == "memory" or bool(record.curve))


def panel_of(named, what, width, height, cold=False, busy=False):
    """Return the ``Panel`` with the curves of (record, name) pairs, "time" or "memory"."""
    lines = [
        line
        for at, (record, name) in enumerate(named)
        for line in (
            _memory_lines(record, name, _repeats(named, at))
            if what == "memory"
            else _time_lines(record, name, _repeats(named, at), cold, busy)
        )
    ]
    top = max(value for line in lines if not line.faint for value in line.y)
    heading = "Time per token in ms"
    if what == "memory":
        unit, divisor = ("MiB", 1) if top < 20 * 1024 else ("GiB", 1024)
        top /= divisor
        lines = [line._replace(y=[value / divisor for value in line.y]) for line in lines]
        heading = f"Memory in {unit}: allocated (solid), reserved (dashed)"
    singles = [value for line in lines if line.faint for value in line.y]
    top = 1.08 * max(top, min(max(singles, default=0), 1.25 * top))
    heading += _beyond([value for value in singles if value > top])
    lines = [line._replace(y=[min(value, top) for value in line.y]) for line in lines]
    said = [_say_curve(record, name, what, cold) for record, name in named]
    alt = " ".join([f"{what.capitalize()} over the token position.", *said])
    return Panel(heading, lines_over("token position", lines, width, height, top=top), alt=alt)


def _beyond(values):
    """Words for the single steps that are off the scale."""
    if not values:
        return ""
    are = "step is" if len(values) == 1 else "steps are"
    return f"; {len(values)} single {are} off the scale, up to {number(max(values))} ms"


def _why_not(record, name, what):
    reason = (record.error or f"{what} was not measured").rstrip(".")
    return f"No line for {name}: {reason}."


def _say_curve(record, name, what, cold=False):
    if what == "memory":
        memory = record["memory"]
        ends = [
            f"{kind} from {count(memory[key][0])} to {count(memory[key][-1])} MiB"
            for kind, key in (("allocated", "allocated_mib"), ("reserved", "reserved_mib"))
        ]
        return f"{name}: {', '.join(ends)}."
    first, smooth = _first(record), running_median(record.curve)
    words = f"{name}: {spread_words(record.spread)} ms per token"
    if smooth:
        words += (
            f", {number(smooth[0])} ms at position {first} and {number(smooth[-1])} ms "
            f"at position {first + len(smooth) - 1}"
        )
    if cold:
        words += f"; {number(record.cold_ms)} ms in the first run"
    return words + "."


def _first(record):
    """The position of the first token after the prefill's."""
    return record["workload"]["prompt_tokens"] + 1


def _repeats(named, at):
    """How many records before this one have its colour."""
    return sum(colour_of(record) == colour_of(named[at][0]) for record, _ in named[:at])


def _time_lines(record, name, again, cold, busy):
    colour, first, smooth = colour_of(record), _first(record), running_median(record.curve)
    positions = list(range(first, first + len(record.curve)))
    if smooth != record.curve:
        yield Line(positions, record.curve, colour, faint=True, width=HAIR)
    yield Line(positions, smooth, colour, DASHED if again else "-", name)
    if cold:
        smooth = running_median(record["time"]["cold_curve_ms"])
        yield Line(positions, smooth, colour, DOTTED, f"{name}, first run")
    gpu = record.get("gpu") or {}
    if busy and gpu.get("curve_busy_ms"):
        steps = gpu.get("curve_steps") or range(1, len(gpu["curve_busy_ms"]) + 1)
        where = [first - 1 + step for step in steps]
        yield Line(where, gpu["curve_busy_ms"], colour, DOTTED, f"{name}, GPU busy")


def _memory_lines(record, name, again):
    memory, colour = record["memory"], colour_of(record)
    first = record["workload"]["prompt_tokens"]
    positions = list(range(first, first + len(memory["allocated_mib"])))
    width = THIN if again else THICK
    yield Line(positions, memory["allocated_mib"], colour, width=width)
    yield Line(positions, memory["reserved_mib"], colour, DASHED, name, width=width)


def sweep(
    x, series, *, title, xlabel="batch size", unit="ms per token", caption=None, colours=None
):
    """Draw lines over batch sizes, cache lengths or the like, on a scale of powers of two.

    Args:
        x: positive numbers, ascending.
        series: name -> values, one for each of ``x``, None or nan where there is none. A rung's
            name gives the line its label and colour.
        title: the message of the figure.
        xlabel: what ``x`` holds, below the axis.
        unit: of the values, with what they are ("ms per token").
        caption: a sentence below the figure.
        colours: name -> colour, for lines that are not rungs.

    Returns:
        A ``Picture``.
    """
    lines, alts = [], [f"{title.rstrip('.')}."]
    for name, values in series.items():
        points = [
            (at, value)
            for at, value in zip(x, values, strict=True)
            if value is not None and value == value
        ]
        said = ", ".join(f"{number(value)} at {at:,}" for at, value in points)
        alts.append(f"{label_of(name)} ({unit} at {xlabel}): {said or 'no figure'}.")
        colour = _colour(name, colours)
        again = colour == MUTED or any(line.colour == colour for line in lines)
        if points:
            at, y = map(list, zip(*points, strict=True))
            dashes = DASHED if again else "-"
            lines.append(Line(at, y, colour, dashes, label_of(name), marked=True))
    rows = []
    if lines:
        top = 1.08 * max(value for line in lines for value in line.y)
        figure = lines_over(xlabel, lines, WIDTH, HEIGHT, top=top, powers_of_two=True)
        rows = [Panel(unit, figure)]
    return Picture(title, rows, caption, alt=" ".join(alts))


def _colour(name, colours):
    return (colours or {}).get(name) or COLOURS.get(name, MUTED)
