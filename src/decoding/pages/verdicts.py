"""The article's claims as rules, each applied wherever its claim can be tested.

A rule returns a ``Verdict``. Its arguments are the scoreboard's evidence:

- ``ladders``: place ("at batch 32") -> rung -> ``Record``;
- ``checks``: batch size -> the ``results`` of a race of "check", "no check" and "two streams".

A place where something was not measured on a GPU is left out.
"""

from collections import Counter
from dataclasses import dataclass

from decoding.drawing.words import Words, known
from decoding.measuring import resolved

from . import results

SIGNS = {
    "holds": "✔",
    "more than claimed": "▲",
    "holds in part": "◐",
    "does not hold": "✘",
    "not shown here": "–",
}
MORE = "more"  # a rule is met, and the gain is clearly larger than the one that is claimed
SMALL, LARGE = (1, 8), (32, 128)  # batch sizes


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a rule says of a claim; it shows itself in words.

    Attributes:
        met: where -> whether the rule is met there: True, False, ``MORE``, or None where that is
            not shown.
    """

    met: dict

    def __repr__(self):
        where = [place for place, met in self.met.items() if met]
        more = [place for place, met in self.met.items() if met == MORE]
        if where and len(where) == len(self.met):
            places = "" if len(more) == len(where) else f": {' and '.join(more)}"
            return f"more than claimed{places}" if more else "holds"
        if where:
            return f"holds in part: {' and '.join(where)}"
        shown = self.met and None not in self.met.values()
        return "does not hold" if shown else "not shown here"

    @property
    def kind(self):
        """The verdict without the places: one of ``SIGNS``."""
        return repr(self).partition(":")[0]

    @property
    def sign(self):
        """The sign of its kind."""
        return Words(SIGNS[self.kind])


def tally(*found):
    """Return how many verdicts there are of each kind."""
    return Counter(verdict.kind for verdict in found)


def at_batch(size):
    """Return what the place is called where a claim is tested at a batch size."""
    return f"at batch {size}"


def slower_later(record):
    """Return how many times the time of its first tokens the last tokens of a run take."""
    return results.growth(record.curve)


def works_more_later(record):
    """Return how many times its work for the first token the GPU's work for the last one is."""
    first, last = results.busy_ends(record)
    return last / first


def works_more_by(record):
    """Return by how much the GPU's work for the last token is more than for the first, in ms."""
    first, last = results.busy_ends(record)
    return last - first


def held(record):
    """Return how many times the peak of allocated memory that of reserved memory is."""
    return record.reserved_mib / record.allocated_mib


def unused_mib(record):
    """Return by how much the peak of reserved memory is above that of allocated memory, in MiB."""
    return record.reserved_mib - record.allocated_mib


def fills_the_card(record):
    """Return whether nearly all memory of the GPU is reserved."""
    return record.reserved_mib > 0.95 * (record["machine"]["gpu_memory_mib"] or 0)


def measured_at(ladders, *rungs):
    """Return the places, each with its ladder, where ``rungs`` have their GPU figures."""
    return [
        (where, ladder)
        for where, ladder in ladders.items()
        if _measured(*(ladder[rung] for rung in rungs))
    ]


def naive_is_quadratic(ladders):
    """Naive decoding is O(N²): a token at the end takes much more work than one at the beginning."""
    return Verdict(
        {
            where: works_more_later(ladder["naive"]) >= 1.5
            for where, ladder in measured_at(ladders, "naive")
        }
    )


def naive_fragments(ladders):
    """Naive decoding fragments memory: it reserves much more than it allocates."""
    return Verdict(
        {where: held(ladder["naive"]) >= 1.5 for where, ladder in measured_at(ladders, "naive")}
    )


def cache_is_linear(ladders):
    """A KV cache makes it O(N): the work for a token hardly grows any more, and it is faster."""
    met = {}
    for where, ladder in measured_at(ladders, "naive", "kv_cache"):
        naive, cached = ladder["naive"], ladder["kv_cache"]
        flat = works_more_by(cached) < 0.1 * works_more_by(naive)
        faster = results.speed(naive, cached) > 1 and resolved(naive, cached)
        met[where] = flat and faster
    return Verdict(met)


def expandable_cuts(large, naive_expandable):
    """Expandable segments cut fragmentation: at least a quarter of the unused memory goes.

    Args:
        large: rung -> ``Record`` of the batched workload.
        naive_expandable: the record of naive decoding with expandable segments.
    """
    return _cuts(
        {
            "for naive decoding": (large["naive"], naive_expandable),
            "for the KV cache": (large["kv_cache"], large["expandable_segments"]),
        }
    )


def static_cuts(large):
    """A static cache cuts fragmentation: at least a quarter of the unused memory goes.

    Args:
        large: rung -> ``Record`` of the batched workload.
    """
    beside, static = "beside a growing cache with", large["static_cache"]
    return _cuts(
        {
            f"{beside} the default allocator": (large["kv_cache"], static),
            f"{beside} expandable segments": (large["expandable_segments"], static),
        }
    )


def static_pays(lengths):
    """A static cache pays for its full length: the longest costs more than the shortest.

    Args:
        lengths: "dynamic" or the positions of a static cache -> ``Record`` of a race.
    """
    fixed = sorted((name for name in lengths if name != "dynamic"), key=int)
    short, long = lengths[fixed[0]], lengths[fixed[-1]]
    if not _measured(short, long):
        return Verdict({})
    return Verdict(
        {
            "in the GPU's work": long.busy_ms / short.busy_ms >= 1.05,
            "in the time": long.ms / short.ms >= 1.05,
        }
    )


def growing_gains(grown):
    """Return how many times as fast as its eager loop a compiled one with a growing cache is.

    Args:
        grown: the results of ``controls.compiled_dynamic_cache``; so for the next function.
    """
    eager, _, *compiled = _medians(grown)
    return eager / min(compiled)


def static_beside_growing(grown):
    """Return how many times as fast the compiled loop with a static cache is as with a growing one."""
    _, static, *compiled = _medians(grown)
    return min(compiled) / static


def _medians(grown):
    return [found["per_token_ms"]["median"] for found in grown.values()]


def compiling_helps(ladders, grown):
    """Compilation helps most with a static cache: it gains, and is faster than a growing one, compiled.

    Args:
        ladders: as for every rule.
        grown: as for ``growing_gains``.
    """
    met = {
        where: results.speed(ladder["static_cache"], ladder["compiled"]) >= 1.2
        for where, ladder in measured_at(ladders, "static_cache", "compiled")
    }
    beside = {"beside a growing cache, compiled": static_beside_growing(grown) >= 1.2}
    return Verdict(met | beside if met else {})


def check_idles(checks):
    """The stop check idles the GPU: without it the idle share is at least 5 points lower."""
    return Verdict(
        {
            at_batch(size): race["check"].idle >= race["no check"].idle + 0.05
            for size, race in _raced_on_gpu(checks)
        }
    )


def streams_gain(checks):
    """Two streams gain up to 11.6 % at small batches: they save at least that."""
    return Verdict(
        {
            at_batch(size): _or_more(results.saved(race), 0.116, 0.14)
            for size, race in _raced_on_gpu(checks)
            if size in SMALL
        }
    )


def streams_gain_less(checks):
    """Two streams gain less at large batches: less than at batch 1, beyond the scatter of the runs."""
    raced = dict(_raced_on_gpu(checks))
    if 1 not in raced:
        return Verdict({})
    least, most = results.saved_range(raced[1])
    met = {}
    for size in (size for size in raced if size in LARGE):
        low, high = results.saved_range(raced[size])
        met[at_batch(size)] = True if high < least else False if low > most else None
    return Verdict(met)


def missing_wait_corrupts(hazards):
    """A missing wait corrupts data silently: reads are stale without the wait, and none with it.

    Args:
        hazards: where -> (stale reads without a wait, with one).
    """
    return Verdict({where: bare > 0 == waited for where, (bare, waited) in hazards.items()})


def streams_reserve(ladders):
    """Two streams reserve more memory: at least 2 MiB, which is one segment."""
    return Verdict(
        {
            where: ladder["two_streams"].reserved_mib - ladder["compiled"].reserved_mib >= 2
            for where, ladder in measured_at(ladders, "compiled", "two_streams")
        }
    )


def five_times(ladders):
    """All together nearly 5 times: the last rung is at least 4.5 times as fast as the first."""
    return Verdict(
        {
            where: _or_more(results.speed(ladder["naive"], ladder["two_streams"]), 4.5, 5.5)
            for where, ladder in measured_at(ladders, "naive", "two_streams")
        }
    )


def _or_more(value, claimed, clearly_more):
    """Whether ``value`` reaches what is claimed; ``MORE`` if it is clearly more."""
    return MORE if value > clearly_more else value >= claimed


def _cuts(pairs):
    """Where a pair of records, before and after, leaves at most three quarters of what was unused."""
    return Verdict(
        {
            where: unused_mib(after) <= 0.75 * unused_mib(before)
            for where, (before, after) in pairs.items()
            if _measured(before, after)
        }
    )


def _measured(*records):
    """Whether all these records have their GPU figures."""
    return all(known(record.busy_ms) for record in records)


def _raced_on_gpu(checks):
    return [(size, race) for size, race in checks.items() if _measured(*race.values())]
