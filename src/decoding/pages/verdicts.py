"""The article's claims as rules, each applied wherever its claim can be tested.

A rule returns a ``Verdict``. Its arguments are the scoreboard's ``evidence``, by their names:

- ``ladders``: place ("at batch 32") -> rung -> ``Record``;
- ``checks``: batch size -> the ``results`` of a race of "check", "no check" and "two streams".

A place where something was not measured on a GPU is left out.
"""

import inspect
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

from decoding.drawing import board, table
from decoding.drawing.board import MET, NOT_MET, NOT_SHOWN, Row, Tested
from decoding.drawing.board import MORE as MORE_THAN_CLAIMED
from decoding.drawing.words import Words, change, known, mib, percent, ratio, speed, us
from decoding.measuring import controls, experiments, resolved
from decoding.rungs import EXPANDABLE

from . import results
from .machines import LADDER

SIGNS = {
    "holds": "✔",
    "more than claimed": "▲",
    "holds in part": "◐",
    "does not hold": "✘",
    "not shown here": "–",
}
MORE = "more"  # a rule is met, and the gain is clearly larger than the one that is claimed
MARKS = {True: MET, MORE: MORE_THAN_CLAIMED, False: NOT_MET, None: NOT_SHOWN}
SMALL, LARGE = (1, 8), (32, 128)  # batch sizes


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a rule says of a claim; it shows itself in words.

    Attributes:
        met: where -> whether the rule is met there: True, False, ``MORE``, or None where that is
            not shown.
        figures: where -> what was measured there, in a few words.
    """

    met: dict
    figures: dict = field(default_factory=dict, compare=False)

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
    grows = {
        where: works_more_later(ladder["naive"]) for where, ladder in measured_at(ladders, "naive")
    }
    return _judge(grows, lambda times: times >= 1.5, lambda times: f"{ratio(times)} the work")


def naive_fragments(ladders):
    """Naive decoding fragments memory: it reserves much more than it allocates."""
    found = {where: held(ladder["naive"]) for where, ladder in measured_at(ladders, "naive")}
    return _judge(
        found, lambda times: times >= 1.5, lambda times: f"reserves {ratio(times)} of what it uses"
    )


def cache_is_linear(ladders):
    """A KV cache makes it O(N): the work for a token hardly grows any more, and it is faster."""
    met, figures = {}, {}
    for where, ladder in measured_at(ladders, "naive", "kv_cache"):
        naive, cached = ladder["naive"], ladder["kv_cache"]
        flat = works_more_by(cached) < 0.1 * works_more_by(naive)
        faster = results.speed(naive, cached) > 1 and resolved(naive, cached)
        met[where] = flat and faster
        figures[where] = f"work {'flat' if flat else 'grows'}; {speed(naive, cached)}"
    return Verdict(met, figures)


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
    times = {
        "in the GPU's work": long.busy_ms / short.busy_ms,
        "in the time": long.ms / short.ms,
    }
    return _judge(times, lambda times: times >= 1.05, ratio)


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
    times = {
        where: results.speed(ladder["static_cache"], ladder["compiled"])
        for where, ladder in measured_at(ladders, "static_cache", "compiled")
    }
    beside = {"beside a growing cache, compiled": static_beside_growing(grown)}
    return _judge(times | beside if times else {}, lambda times: times >= 1.2, ratio)


def check_idles(checks):
    """The stop check idles the GPU: without it the idle share is at least 5 points lower."""
    idle = {
        at_batch(size): (race["check"].idle, race["no check"].idle)
        for size, race in _raced_on_gpu(checks)
    }
    return _judge(
        idle,
        lambda shares: shares[0] >= shares[1] + 0.05,
        lambda shares: f"{percent(shares[0])} idle, {percent(shares[1])} without it",
    )


def streams_gain(checks):
    """Two streams gain up to 11.6 % at small batches: they save at least that."""
    saved = {
        at_batch(size): results.saved(race) for size, race in _raced_on_gpu(checks) if size in SMALL
    }
    return _judge(
        saved, lambda share: _or_more(share, 0.116, 0.14), lambda share: f"saves {percent(share)}"
    )


def streams_gain_less(checks):
    """Two streams gain less at large batches: less than at batch 1, beyond the scatter of the runs."""
    raced = dict(_raced_on_gpu(checks))
    if 1 not in raced:
        return Verdict({})
    least, most = results.saved_range(raced[1])
    ranges = {at_batch(size): results.saved_range(raced[size]) for size in raced if size in LARGE}
    return _judge(
        ranges,
        lambda found: True if found[1] < least else False if found[0] > most else None,
        lambda found: f"saves {' to '.join(map(percent, found))}",
    )


def missing_wait_corrupts(hazards):
    """A missing wait corrupts data silently: reads are stale without the wait, and none with it.

    Args:
        hazards: where -> (stale reads without a wait, with one).
    """
    return _judge(
        hazards,
        lambda stale: stale[0] > 0 == stale[1],
        lambda stale: f"{stale[0]} stale reads, {stale[1]} with the wait",
    )


def streams_reserve(ladders):
    """Two streams reserve more memory: at least 2 MiB, which is one segment."""
    more = {
        where: ladder["two_streams"].reserved_mib - ladder["compiled"].reserved_mib
        for where, ladder in measured_at(ladders, "compiled", "two_streams")
    }
    return _judge(more, lambda mib: mib >= 2, change)


def five_times(ladders):
    """All together nearly 5 times: the last rung is at least 4.5 times as fast as the first."""
    times = {
        where: results.speed(ladder["naive"], ladder["two_streams"])
        for where, ladder in measured_at(ladders, "naive", "two_streams")
    }
    return _judge(times, lambda times: _or_more(times, 4.5, 5.5), ratio)


def _judge(found, rule, words):
    """The verdict of ``rule`` on what was ``found``, where -> value, with the values in ``words``."""
    return Verdict(
        {where: rule(value) for where, value in found.items()},
        {where: words(value) for where, value in found.items()},
    )


def _or_more(value, claimed, clearly_more):
    """Whether ``value`` reaches what is claimed; ``MORE`` if it is clearly more."""
    return MORE if value > clearly_more else value >= claimed


def _cuts(pairs):
    """Where a pair of records, before and after, leaves at most three quarters of what was unused."""
    unused = {
        where: tuple(map(unused_mib, both)) for where, both in pairs.items() if _measured(*both)
    }
    return _judge(
        unused,
        lambda found: found[1] <= 0.75 * found[0],
        lambda found: f"unused: {' → '.join(map(mib, found))}",
    )


def _measured(*records):
    """Whether all these records have their GPU figures."""
    return all(known(record.busy_ms) for record in records)


def _raced_on_gpu(checks):
    return [(size, race) for size, race in checks.items() if _measured(*race.values())]


# The claims in the order of the ladder: what a verdict is called -> the claim, as its section is
# called, and its rule.
CLAIMS = {
    "quadratic": ("Naive decoding is O(N²)", naive_is_quadratic),
    "fragments": ("Naive decoding fragments memory", naive_fragments),
    "linear": ("A KV cache makes it O(N)", cache_is_linear),
    "expandable": ("Expandable segments cut fragmentation", expandable_cuts),
    "frozen": ("A static cache cuts fragmentation", static_cuts),
    "pays": ("A static cache pays for attention over its full length", static_pays),
    "compiling": ("Compilation helps most with a static cache", compiling_helps),
    "idles": ("The stop check idles the GPU", check_idles),
    "gains": ("Interleaving two streams gains up to 11.6 % at small batches", streams_gain),
    "less": ("Interleaving gains less at large batches", streams_gain_less),
    "corrupts": ("A missing wait corrupts data silently", missing_wait_corrupts),
    "reserves": ("Interleaving reserves more memory", streams_reserve),
    "fivefold": ("All together: nearly 5 times", five_times),
}
SHORT = {  # what a place is called beside its mark; a batch size is a number
    "for naive decoding": "naive",
    "for the KV cache": "KV cache",
    "beside a growing cache with the default allocator": "default",
    "beside a growing cache with expandable segments": "expandable",
    "beside a growing cache, compiled": "growing",
    "in the GPU's work": "GPU's work",
    "in the time": "time",
    "where the GPU lags behind the host": "GPU lags",
    "where the GPU keeps up with the host": "keeps up",
}
TOLD = {  # a kind of verdict, as it is counted
    "holds": ("holds", "hold"),
    "more than claimed": ("exceeded", "exceeded"),
    "holds in part": ("in part", "in part"),
    "does not hold": ("does not hold", "do not hold"),
    "not shown here": ("not shown here", "not shown here"),
}


def evidence(chapter):
    """Return what the rules ask for: its name -> what was measured, or the book's recording of it.

    Args:
        chapter: the ``Chapter`` that keeps the records.
    """
    work, single = chapter.batched, chapter.single
    ladders = {
        at_batch(workload.batch_size): {rung: chapter.measure(rung, workload) for rung in LADDER}
        for workload in (work, single)
    }
    caches = {"dynamic": {"rung": "kv_cache"}}
    for times in (2, 4, 8):
        length = times * work.prompt_tokens
        caches[str(length)] = {"rung": "static_cache", "cache_length": length}
    short = work.but(new_tokens=work.prompt_tokens // 2)
    return {
        "ladders": ladders,
        "large": next(iter(ladders.values())),
        "naive_expandable": chapter.measure("naive", environment=EXPANDABLE),
        "lengths": chapter.race("cache_length", caches, short, busy=True)["results"],
        "checks": results.races(chapter),
        "grown": chapter.evidence("compiled_dynamic_cache", controls.compiled_dynamic_cache)[
            "results"
        ],
        "hazards": chapter.evidence("hazards", experiments.provoke),
    }


def judged(evidence):
    """Return the verdict on every one of ``CLAIMS``, by its name."""
    return {
        name: rule(*(evidence[one] for one in inspect.signature(rule).parameters))
        for name, (_, rule) in CLAIMS.items()
    }


def verdicts_board(found):
    """Return the board of ``judged``: a row a claim, a mark for each place, opened for reasons."""
    rows = [
        Row(
            CLAIMS[name][0],
            f"{verdict.sign} {TOLD[verdict.kind][0]}",
            _tested(verdict),
            "The rule: " + inspect.getdoc(CLAIMS[name][1]).partition("\n")[0].partition(": ")[2],
            f"#{section(CLAIMS[name][0])}",
        )
        for name, verdict in found.items()
    ]
    return board(rows, in_short(tally(*found.values())))


def checks_table(checks):
    """Return what the check costs and what two streams save, at every batch size of the races."""
    head = ["at batch", "GPU idle", "idle without the check", "the check costs"]
    head += ["leaving it out saves", "two streams save (single rounds)"]
    rows = [
        (
            size,
            percent(race["check"].idle),
            percent(race["no check"].idle),
            us(results.cost_of_check(race)),
            percent(results.share_of_check(race)),
            f"{percent(results.saved(race))} "
            f"({' to '.join(map(percent, results.saved_range(race)))})",
        )
        for size, race in checks.items()
    ]
    return table(head, rows, "The loop with its check, beside no check and two streams")


def in_short(score):
    """Return a ``tally`` in words: 4 hold, 2 exceeded, 6 in part, 1 not shown here."""
    told = [f"{score[kind]} {TOLD[kind][score[kind] != 1]}" for kind in SIGNS if score[kind]]
    return Words(", ".join(told))


def section(title):
    """Return the address that a section has in the book's pages."""
    plain = unicodedata.normalize("NFKD", title.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _tested(verdict):
    """The places of a verdict, batch sizes in their order."""
    found = [
        Tested(
            where,
            SHORT.get(where) or where.removeprefix(at_batch("")),
            MARKS[met],
            verdict.figures.get(where, ""),
        )
        for where, met in verdict.met.items()
    ]
    return sorted(found, key=lambda one: int(one.short) if one.short.isdigit() else 1e9)
