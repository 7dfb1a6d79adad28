"""What a chapter's masthead says, from the book's records: its headline, its questions, the ladder.

A chapter whose page is called after its rung, ``08_ask_late`` say, needs no entry below: its step is
the one from the rung before it that has the same allocator. Its sentence is in its metadata.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from decoding.drawing import headline
from decoding.drawing.masthead import Masthead, Question, Row, Step, draw_masthead
from decoding.drawing.words import (
    Words,
    count,
    known,
    mib,
    ms,
    number,
    percent,
    ratio,
    reserved,
    share_of_limit,
    speed,
    us,
)
from decoding.measuring import NotComparable, NotRecorded, Record
from decoding.measuring.comparing import FEWEST
from decoding.measuring.records import load, slug
from decoding.rungs import RUNGS

from . import endings, engines, floor, one_kernel, results, stamp
from .machines import BOOK_RECORDS, LADDER
from .teaching import WORKLOADS

BATCHES = (32, 1)  # in the order in which they are shown
LIMIT = "../book/glossary.html#term-share-of-the-limit"


class Records:
    """The records of one machine, in a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def rung(self, name, batch):
        """Return the record of a rung, or of a variant by the beginning of its file's name."""
        return self._load(f"{name}_{WORKLOADS[batch]}.json")

    def race(self, batch):
        """Return what the book's race at a batch size found: loop -> record."""
        return self._load(f"watch_b{batch}.json")["results"]

    def endings(self, batch):
        """Return what the race of all ways to end the waiting found: loop -> record."""
        return self._load(f"endings_gpt2_b{batch}.json")["results"]

    def fused(self):
        """Return what the race of the fused step found: loop -> record."""
        return self._load("race_fused.json")["results"]

    def one_kernel(self):
        """Return what the race of the one kernel's steps found: name -> record, in their order."""
        found = self._load("one_kernel_steps.json")["found"]
        return {name: Record(one, label=name, race=found) for name, one in found["results"].items()}

    def way(self):
        """Return the loops of ``one_kernel.WAY`` in the race that goes farthest: label -> record; and its floor in µs."""
        try:
            race = self.one_kernel()
        except NotRecorded:
            race = self.fused()
        way = one_kernel.way(race)
        return way, 1000 * floor.floor_of(next(iter(way.values())), self.folder)

    def engines(self, batch):
        """Return what the race beside transformers' own ways to generate found: entrant -> record."""
        return self._load(f"engines_b{batch}.json")["results"]

    def _load(self, file):
        if not (self.folder / file).exists():
            raise NotRecorded(f"There is no record {file}.")
        found = load(self.folder / file)
        floor.put(found, self.folder)
        return found


def folder_for(recorded):
    """Return the folder with the records of the GPU that a page was recorded on; None if there is none.

    Args:
        recorded: what the page's metadata say of it, or None.
    """
    folder = BOOK_RECORDS / slug(recorded["gpu"]) if recorded else None
    return folder if folder and folder.is_dir() else None


def before(rung):
    """Return the rung whose place ``rung`` takes: the last before it with the same allocator."""
    names = list(RUNGS)
    earlier = names[: names.index(rung)]
    alike = [name for name in earlier if RUNGS[name].environment == RUNGS[rung].environment]
    return (alike or earlier or [None])[-1]


def of_time(rung, records, third=("idle", 1)):
    """The time of a token, and beside it the GPU's idle share ("idle") or the memory ("reserved").

    ``third`` says which of the two, and at which batch size the third question asks for it.
    """
    first, (beside, asked) = before(rung), third
    write = headline if beside == "idle" else speed
    rows, questions = [], []
    for batch in BATCHES:
        old, new = records.rung(first, batch), records.rung(rung, batch)
        rows.append(_row(f"batch {batch}", old, new, _said(write, old, new), BESIDE[beside]))
        question = (f"b{batch}", f"A token at batch {batch}", "ms", new.ms, ms(new.ms), old.ms)
        questions.append(Question(*question))
    old, new = records.rung(first, asked), records.rung(rung, asked)
    if beside == "idle":
        label = f"GPU idle at batch {asked}"
        questions.append(Question(beside, label, "%", 100 * new.idle, percent(new.idle)))
    else:
        label, found = f"Reserved at batch {asked}", new.reserved_mib
        questions.append(Question(beside, label, "MiB", found, mib(found), old.reserved_mib))
    return f"Time of a token: {_label(first)} → {_label(rung)}", rows, questions


def along(rung, records):
    """The time of the first tokens of a run and of the last: there is no step before it."""
    rows, questions = [], []
    for batch in BATCHES:
        record = records.rung(rung, batch)
        first, last = results.ends(record.curve)
        said, share = _grown(record), _share(record)
        rows.append(Row(f"batch {batch}", number(first), ms(last), said, share=share))
        label = f"Last tokens at batch {batch}"
        questions.append(Question(f"b{batch}", label, "ms", last, ms(last), first, grows=True))
    held = records.rung(rung, BATCHES[0]).reserved_mib
    label = f"Reserved at batch {BATCHES[0]}"
    questions.append(Question("reserved", label, "MiB", held, mib(held)))
    return "Time of a token: first eighth of the run → last eighth", rows, questions


def of_reserved(rung, records):
    """The peak of the reserved memory, under the one allocator and under the other."""
    plain, own = "naive", before(rung)
    pairs = {
        f"{_label(plain)}, batch 32": (plain, f"{plain}_{rung}", 32),
        f"{_label(own)}, batch 32": (own, rung, 32),
        f"{_label(own)}, batch 1": (own, rung, 1),
    }
    rows, questions = [], []
    for where, (one, other, batch) in pairs.items():
        records_of = [records.rung(name, batch) for name in (one, other)]
        old, new = (record.reserved_mib for record in records_of)
        rows.append(Row(where, count(old), mib(new), _said(_with_allocator, *records_of)))
        questions.append(Question(f"{one}{batch}", where, "MiB", new, mib(new), old))
    return f"Reserved memory: default allocator → {_label(rung)}", rows, questions


def of_check(rung, records, batches=(32, 1, 128)):
    """The time of a token with the check at once, and without one: a race."""
    rows, questions = [], []
    for batch in batches:
        race = records.race(batch)
        cost = results.cost_of_check(race)
        rows.append(_row(f"batch {batch}", race["check"], race["no check"], _cost(race)))
        label = f"The check at batch {batch}"
        questions.append(Question(f"b{batch}", label, "µs", cost, us(cost)))
    return "Time of a token: checked at once → not checked", rows, questions


def of_race(rung, records, first, loop):
    """The time of a token, ``first`` beside ``loop``: in the race of all ways to end the waiting."""
    rows, questions = [], []
    for batch in BATCHES:
        race = records.endings(batch)
        old, new = race[first], race[loop]
        rows.append(_row(f"batch {batch}", old, new, _said(speed, old, new)))
        question = (f"b{batch}", f"A token at batch {batch}", "ms", new.ms, ms(new.ms), old.ms)
        questions.append(Question(*question))
    return f"Time of a token: {first} → {loop}", rows, questions


def of_launch(rung, records):
    """What the check costs if it is asked at once, of a compiled step and of a captured one: a race."""
    rows, questions = [], []
    for batch in BATCHES:
        race = records.endings(batch)
        old, new = (endings.cost_at_once(race, kind) for kind in ("compiled", "captured"))
        share = percent(endings.share_at_once(race, "captured"))
        rows.append(Row(f"batch {batch}", count(old), us(new), f"{share} of a token"))
        label = f"The check at once, batch {batch}"
        questions.append(Question(f"b{batch}", label, "µs", new, us(new), old))
    return "What the check at once costs: compiled → captured", rows, questions


def of_kernel(rung, records):
    """The time of a token at batch 1: the device's loop, the fused step, the one kernel; each in its own race."""
    race = records.fused()
    old, new = race[one_kernel.BEFORE], race[one_kernel.EARLY]
    rows = [_row("fused step", old, new, _said(speed, old, new))]
    questions = [Question("fused", "A token of the fused step", "ms", new.ms, ms(new.ms), old.ms)]
    with suppress(NotRecorded):
        steps = records.one_kernel()
        old, new = (one_kernel.way(steps)[label] for label in ("device loop", "one kernel"))
        said = f"{ratio(old.ms / new.ms)} faster"
        rows.append(Row("one kernel", number(old.ms), ms(new.ms), said))
        asked = "A token of the one kernel"
        questions.append(Question("kernel", asked, "ms", new.ms, ms(new.ms), old.ms))
    return "Time of a token, batch 1: device loop → here", tuple(rows), questions


def of_engines(rung, records):
    """The time of a token, transformers' static cache beside the fastest loop of the book: a race."""
    rows, questions = [], []
    for batch in BATCHES:
        race = records.engines(batch)
        if engines.STATIC not in race:
            raise NotRecorded(f"There is no {engines.STATIC} at batch {batch}.")
        name = engines.best({"results": race}, theirs=False)
        old, new = race[engines.STATIC], race[name]
        rows.append(_row(f"batch {batch}, {name}", old, new, _said(speed, old, new)))
        question = (f"b{batch}", f"A token at batch {batch}", "ms", new.ms, ms(new.ms), old.ms)
        questions.append(Question(*question))
    return f"Time of a token: {engines.STATIC} → the fastest loop of the book", rows, questions


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What is particular to a chapter's masthead.

    ``rung`` is the last part of its page's name unless it is given; a chapter without one has None.
    ``raced`` is what its loop is called in the race of all ways to end the waiting, if that is its measure.
    """

    rung: str | None = ""
    of: object = of_time
    name: str = ""  # on the small ladder, where it is not the rung's
    raced: str = ""


CHAPTERS = {
    "01_naive": Chapter(of=along),
    "02_kv_cache": Chapter(of=partial(of_time, third=("idle", 32))),
    "03_expandable_segments": Chapter(of=of_reserved),
    "04_static_cache": Chapter(of=partial(of_time, third=("reserved", 32))),
    "05_torch_compile": Chapter(rung="compiled"),
    "06_stop_check": Chapter(rung=None, of=of_check, name="no check"),
    "07_two_streams": Chapter(),
    "08_deferred_check": Chapter(
        of=partial(of_race, first="two streams", loop="deferred check"), raced="deferred check"
    ),
    "09_captured_graph": Chapter(of=of_launch, raced="captured graph"),
    "10_device_loop": Chapter(
        of=partial(of_race, first="captured graph", loop="device loop"), raced="device loop"
    ),
    "11_when_it_pays": Chapter(rung=None),
    "12_what_can_go_wrong": Chapter(rung=None),
    "13_how_far": Chapter(rung=None),
    "14_one_kernel": Chapter(rung=None, of=of_kernel),
    "15_beside_the_engines": Chapter(rung=None, of=of_engines),
}
SCOREBOARD = "scoreboard"


def chapter_of(page):
    """Return the ``Chapter`` of a page, by its name: ``08_ask_late`` has the rung ``ask_late``."""
    found = CHAPTERS.get(page, Chapter())
    if found.rung != "":
        return found
    rung = page.partition("_")[2]
    return replace(found, rung=rung if rung in RUNGS else None)


def gain(page, batch, records):
    """Return what a chapter's step changes at a batch size, as words; "" if it has no step.

    Raises:
        NotRecorded: a record is missing.
    """
    chapter = chapter_of(page)
    if chapter.of is of_check:
        return _cost(records.race(batch))
    if chapter.of is of_launch:
        race = records.endings(batch)
        old, new = (endings.cost_at_once(race, kind) for kind in ("compiled", "captured"))
        return Words(f"the check at once: {count(old)} → {us(new)}")
    if chapter.raced:
        race, pair = records.endings(batch), chapter.of.keywords
        return _said(headline, race[pair["first"]], race[pair["loop"]])
    if chapter.rung is None:
        return ""
    new = records.rung(chapter.rung, batch)
    if chapter.of is along:
        return _grown(new)
    write = _with_allocator if chapter.of is of_reserved else headline
    return _said(write, records.rung(before(chapter.rung), batch), new)


def told(page, records, sentence=""):
    """Return the ``Masthead`` of a chapter; without a headline where its records are missing."""
    chapter = chapter_of(page)
    here = int(page.partition("_")[0])
    bare = Masthead(page, sentence, here=here)
    if records is None or (chapter.rung is None and chapter.of is of_time):
        return bare
    try:
        of, rows, questions = chapter.of(chapter.rung, records)
    except (NotRecorded, NotComparable):
        return bare
    asked = [one for one in questions if known(one.answer) and one.answer > 0]
    return bare._replace(of=of, rows=tuple(rows), questions=tuple(asked))


def whole_ladder(records, pages, sentence=""):
    """Return the ``Masthead`` of the page that sums up: from the first recorded rung to the last."""
    words, found = Masthead(SCOREBOARD, sentence), {}
    for rung in LADDER:
        with suppress(NotRecorded):
            if any(chapter_of(page).rung == rung for page in pages):
                found[rung] = [records.rung(rung, batch) for batch in BATCHES]
    if not found:
        return words
    (first, before), (last, after) = list(found.items())[0], list(found.items())[-1]
    rows = [
        _row(f"batch {batch}", old, new, _said(speed, old, new))
        for batch, old, new in zip(BATCHES, before, after, strict=True)
    ]
    of = f"Time of a token: {_label(first)} → {_label(last)}"
    return words._replace(of=of, rows=tuple(rows))


def steps(pages, records):
    """Return the ``Step``s of the small ladder: the chapters that have something to show on it.

    Args:
        pages: the names of the chapters' pages, in order.
        records: ``Records``.
    """
    found = []
    for page in pages:
        chapter = chapter_of(page)
        try:
            if chapter.of is of_check:
                shown = {batch: records.race(batch)["no check"] for batch in BATCHES}
            elif chapter.raced:
                shown = {batch: records.endings(batch)[chapter.raced] for batch in BATCHES}
            elif chapter.rung:
                shown = {batch: records.rung(chapter.rung, batch) for batch in BATCHES}
            else:
                continue
        except NotRecorded:
            continue
        bars = {batch: (one.ms, one.idle) for batch, one in shown.items() if known(one.ms)}
        # A race of its own, or one process: its time stands in no ratio with the others'.
        raced = chapter.of is of_check or chapter.raced
        apart = bool(raced) or any(one.spread_over < FEWEST for one in shown.values())
        name = chapter.name or _label(chapter.rung)
        if bars:
            found.append(Step(int(page.partition("_")[0]), name, f"{page}.html", bars, apart))
    return found


def masthead(page, pages, folder, sentence=""):
    """Return the HTML of a page's masthead; "" for a page that has none.

    Args:
        page: its name, ``05_torch_compile`` or ``scoreboard``.
        pages: the names of all chapters' pages, in order.
        folder: of the records of the machine that the page was recorded on, or None.
        sentence: what the page is about, from its metadata.
    """
    records = folder and Records(folder)
    ladder = steps(pages, records) if records else []
    if page in pages:
        return draw_masthead(told(page, records, sentence), ladder, limit_href=LIMIT)
    if page != SCOREBOARD or not records:
        return ""
    places = {step.number: step for step in ladder}
    asked = [
        (places.get(one.here), one.page, one.questions) for one in (told(p, records) for p in pages)
    ]
    asked = [row for row in asked if row[0] and row[2]]
    return draw_masthead(
        whole_ladder(records, pages, sentence), ladder, limit_href=LIMIT, all_questions=asked
    )


def limit_line(folder):
    """Return where the limit of a machine comes from, as words; "" where it is not known."""
    path = Path(folder or "") / floor.FILE
    if not folder or not path.exists():
        return ""
    found = load(path)
    rate, date = found["found"]["gb_per_s"], stamp.day(found["machine"]["date"])
    return f"Limit: bytes over {number(rate)} GB/s, a copy timed on {date}."


def _idle(old, new):
    return (f"GPU idle {percent(old.idle)}", percent(new.idle)) if known(old.idle) else ()


def _reserved(old, new):
    found = old.reserved_mib, new.reserved_mib
    return (f"reserved {count(found[0])}", mib(found[1])) if all(map(known, found)) else ()


BESIDE = {"idle": _idle, "reserved": _reserved}


def _row(where, old, new, said, beside=_idle):
    return Row(where, number(old.ms), ms(new.ms), said, beside(old, new), _share(new))


def _share(record):
    return share_of_limit(record) if floor.KEY in record else ""


def _label(rung):
    return RUNGS[rung].label


def _grown(record):
    first, last = results.ends(record.curve)
    return f"{ratio(last / first)} the time at the end, {mib(record.reserved_mib)} reserved"


def _with_allocator(old, new):
    return reserved(old, new, "allocator")


def _cost(race):
    cost, share = results.cost_of_check(race), results.share_of_check(race)
    return f"the check costs {us(cost)}, {percent(share)}"


def _said(write, old, new):
    try:
        return write(old, new)
    except NotComparable:
        return ""
