"""Explorers of records: bars of time and memory at one position, batch size or cache length."""

from typing import NamedTuple

from matplotlib import rc_context

from .curves import running_median
from .explorers import explorer
from .shapes import bars, canvas, write
from .svg import Panel, Picture
from .theme import COLOURS, MUTED, STYLE, WIDTH, colour_of, label_of
from .words import count, known, medians, mib, ms

MEMORY = "Memory after it: allocated (solid) of reserved (light)"
ROW, BAR = 40, 12  # pixels


class Row(NamedTuple):
    """A bar with its name to the left and its words to the right; ``parts`` are (share, alpha)."""

    name: str
    words: str
    colour: str = MUTED
    parts: tuple = ()


def position_explorer(records, *, positions=20):
    """Return an explorer of token positions: the time of that token, and the memory after it.

    Args:
        records: of one workload; failed ones are named in words.
        positions: how many positions to show, evenly spaced.
    """
    good = [record for record in records if not record.error]
    curves = [running_median(record.curve) for record in good]
    steps = _evenly(min(map(len, curves), default=0), positions)
    if not steps:
        return _nothing("No record has a time for each token.", records)
    slowest, largest = max(max(curve) for curve in curves), _largest_reserved(good)
    first = good[0]["workload"]["prompt_tokens"] + 1
    states = {}
    for step in steps:
        rows = [
            Row(record.name, ms(curve[step]), colour_of(record), ((curve[step] / slowest, 1),))
            for record, curve in zip(good, curves, strict=True)
        ]
        panels = {"Time of this token": rows}
        if largest:
            panels[MEMORY] = _memory_rows(good, step + 1, largest)
        states[f"{first + step:,}"] = _bars(panels, records)
    return explorer(states, description="token position", control="slider")


def memory_explorer(records, *, positions=20):
    """Return an explorer of token positions: memory allocated and reserved after each.

    Its arguments are those of ``position_explorer``. On a CPU, where memory is not measured, words
    say so.
    """
    good = [record for record in records if record.get("memory")]
    tokens = min((len(record["memory"]["reserved_mib"]) for record in good), default=0)
    if not tokens:
        return _nothing("Memory is measured on a GPU only.", records)
    largest, first = _largest_reserved(good), good[0]["workload"]["prompt_tokens"]
    states = {
        f"{first + token:,}": _bars({MEMORY: _memory_rows(good, token, largest)}, records)
        for token in _evenly(tokens, positions)
    }
    return explorer(states, description="token position", control="slider")


def batch_explorer(results):
    """Return an explorer of batch sizes: time per token and tokens per second of each loop.

    Args:
        results: batch size -> name of a rung (or other label) -> a record, or one of the
            ``results`` of ``race``. All bars are to one scale.
    """
    if not results:
        return _nothing("No batch size has a measurement.", [])
    slowest = _slowest(result for row in results.values() for result in row.values())
    states = {}
    for batch, row in results.items():
        rows = [
            _time_row(name, result, slowest, f" · {count(1000 * batch / result.ms)} tokens/s")
            for name, result in row.items()
        ]
        states[batch] = _bars({"Time per token (all rows at once)": rows}, row.values())
    return explorer(states, description="batch size")


def cache_length_explorer(results, *, beside=None, busy=False):
    """Return an explorer of cache lengths: what a token costs, among the other lengths.

    Args:
        results: positions in the static cache, ascending -> a record, or one of the ``results`` of
            ``race``.
        beside: label -> a record or result to compare with (the dynamic cache, say).
        busy: whether the cost is the GPU's busy time, not the whole time.
    """
    beside, clock = beside or {}, "busy_ms" if busy else "ms"
    good = {length: result for length, result in results.items() if known(getattr(result, clock))}
    if not good:
        return _nothing("No cache length has a measurement.", list(results.values()))
    slowest, shortest = _slowest([*results.values(), *beside.values()], clock), min(good)
    states = {}
    for chosen, result in good.items():
        rows = [
            _time_row(
                f"{length:,} positions",
                other,
                slowest,
                colour=COLOURS["static_cache"],
                alpha=1 if length == chosen else 0.3,
                clock=clock,
            )
            for length, other in results.items()
        ]
        rows += [_time_row(name, other, slowest, clock=clock) for name, other in beside.items()]
        cost, least = getattr(result, clock), getattr(good[shortest], clock)
        said = f"A cache of {chosen:,} positions: {ms(cost)} per token"
        if chosen != shortest:
            said += f", ×{cost / least:.2f} that of {shortest:,}"
        states[f"{chosen:,}"] = _bars({f"{said}.": rows}, results.values())
    return explorer(states, description="cache length")


def _time_row(name, result, slowest, more="", colour=None, alpha=1, clock="ms"):
    """The bar of a record or result by its name, which may be that of a rung."""
    time = getattr(result, clock)
    if not known(time):
        return Row(label_of(name), "failed" if result.error else "not measured")
    colour = COLOURS.get(name) or colour or MUTED
    return Row(label_of(name), ms(time) + more, colour, ((time / slowest, alpha),))


def _memory_rows(records, token, largest):
    rows = []
    for record in records:
        if not record.get("memory"):
            rows.append(Row(record.name, "not measured"))
            continue
        kept, held = (record["memory"][f"{kind}_mib"][token] for kind in ("allocated", "reserved"))
        parts = (kept / largest, 1), ((held - kept) / largest, 0.35)
        words = f"{count(kept)} of {mib(held)}"
        rows.append(Row(record.name, words, colour_of(record), parts))
    return rows


def _bars(panels, records):
    """The picture of a state: heading -> rows, and what the failed records failed of."""
    drawn = [Panel(heading, _draw(rows)) for heading, rows in panels.items()]
    failures = " ".join(medians(record) for record in records if record.error)
    said = [
        f"{heading.rstrip('.')}: {', '.join(f'{row.name} {row.words}' for row in rows)}."
        for heading, rows in panels.items()
    ]
    return Picture("", drawn, failures, alt=" ".join([*said, failures]).strip())


def _draw(rows):
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, ROW * len(rows))
        for at, row in enumerate(rows):
            left, y = 0.0, ROW * at
            write(ax, 0, y + 14, row.name)
            write(ax, WIDTH, y + 14, row.words, bold=True, align="right")
            for share, alpha in row.parts:
                width = max(WIDTH * share, 1)
                bars(ax, [(left, y + 20, width, BAR)], fill=row.colour, alpha=alpha)
                left += width
        return fig


def _evenly(available, wanted):
    """Up to ``wanted`` indices below ``available``, evenly spaced, with the first and the last."""
    if available <= wanted:
        return list(range(available))
    return [round(i * (available - 1) / (wanted - 1)) for i in range(wanted)]


def _slowest(results, clock="ms"):
    times = [result.high if clock == "ms" else getattr(result, clock) for result in results]
    return max(filter(known, times), default=1)


def _largest_reserved(records):
    measured = [record["memory"]["reserved_mib"] for record in records if record.get("memory")]
    return max(map(max, measured), default=0)


def _nothing(words, records):
    """What stands where there is nothing to explore."""
    failures = [medians(record) for record in records if record.error]
    said = " ".join([words, *failures])
    return Picture("", [], said, alt=said)
