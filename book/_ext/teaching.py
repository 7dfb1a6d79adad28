"""What the teaching guide draws while it is built: the book's results, and two drawings for a board.

The role ``{result}`key` `` puts the figures of one result into a sentence; the directive
``{reference-results}`` lays out all of them as tables, ``{reference-times}`` says what a measurement takes.
"""

import re
from itertools import pairwise
from pathlib import Path
from statistics import median

import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

from decoding.chapter import BOOK_GPU
from decoding.figures import change, milliseconds, name_of, percent, ratio, spread_words
from decoding.records import load
from decoding.timeline import IDLE, LINE, WORK, Timeline, bars, draw_schedule, html_figure, text

NOT_RECORDED = "not recorded yet"
WORKLOADS = {1: "gpt2_b1_p128_n256_bfloat16", 32: "gpt2_b32_p128_n512_bfloat16"}
RACED = (1, 8, 32, 128)
# What the tables list, in the order of the ladder: the beginning of a record's file name.
ROWS = (
    "naive",
    "naive_expandable_segments",
    "kv_cache",
    "expandable_segments",
    "static_cache",
    "compiled_default",
    "compiled",
    "two_streams",
)
# The three commands of the page, as rows; the last row of C stands in for the loop without a check.
COMMANDS = {
    "A": (("naive", 1), ("kv_cache", 1)),
    "B": (("naive", 32), ("kv_cache", 32)),
    "C": (("two_streams", 1), ("compiled", 1), ("compiled", 1)),
}


class Book:
    """The book's records, by what they measured.

    Each method raises ``LookupError`` where the book has no such record.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def _load(self, name):
        path = self.folder / f"{name}.json"
        found = load(path) if path.exists() else {"error": "missing"}
        if found.get("error"):
            raise LookupError(name)
        return found

    def rung(self, name, batch):
        """Return the record of a row of ``ROWS``."""
        return self._load(f"{name}_{WORKLOADS[batch]}")

    def race(self, name):
        """Return the results of a race: loop -> what was measured of it."""
        return self._load(f"race_{name}")["results"]

    def timeline(self, loop):
        """Return the recorded timeline of a few tokens of ``loop``."""
        return Timeline.from_dict(self._load("trace_pipeline")["timelines"][loop])


def time_of(result):
    return (result.get("time") or result)["per_token_ms"]["median"]


def seconds(record):
    """Return about how long a measurement takes: the cold run, the timed ones, and two more."""
    time, repeats = record["time"], record["workload"]["repeats"]
    return (time["cold_total_ms"] + (repeats + 2) * time["total_ms"]["median"]) / 1000


def duration(value):
    """Return seconds as text, in minutes from 100 s on."""
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.1f} min"


def reserved(record):
    return record["memory"]["peak_reserved_mib"]


def ends(values):
    """Return the medians of the first and of the last eighth of ``values``, as chapter 1 does."""
    eighth = max(1, len(values) // 8)
    return median(values[:eighth]), median(values[-eighth:])


def at_both(words_of):
    return f"{words_of(1)} at batch 1, {words_of(32)} at batch 32"


def naive_growth(book):
    def words(batch):
        first, last = ends(book.rung("naive", batch)["time"]["curve_ms"])
        return f"{milliseconds(first)} → {milliseconds(last)} ms"

    return f"from the first tokens to the last, {at_both(words)}"


def idle(name):
    def words(book):
        shares = {batch: book.rung(name, batch)["gpu"]["idle_share"] for batch in WORKLOADS}
        said = [
            f"for {percent(1 - idle)} at batch {at} (idle {percent(idle)})"
            for at, idle in shares.items()
        ]
        return f"the GPU at work {', '.join(said)}"

    return words


def cache_time(book):
    def words(batch):
        old, new = (time_of(book.rung(name, batch)) for name in ("naive", "kv_cache"))
        return f"{milliseconds(old)} → {milliseconds(new)} ms a token"

    return at_both(words)


def cache_kernels(book):
    old, new = (book.rung(name, 1)["gpu"] for name in ("naive", "kv_cache"))
    return f"{old['kernels_per_token']:,.0f} → {new['kernels_per_token']:,.0f} kernels a token"


def fragmentation(book):
    pairs = (("naive", "naive_expandable_segments"), ("kv_cache", "expandable_segments"))
    peaks = [[reserved(book.rung(name, 32)) for name in pair] for pair in pairs]
    naive, cached = (f"{old:,.0f} → {new:,.0f} MiB" for old, new in peaks)
    return f"reserved at batch 32, default → expandable: naive {naive}, KV cache {cached}"


def flat_memory(book):
    def words(name):
        held = book.rung(name, 32)["memory"]["allocated_mib"]
        return f"{held[0]:,.0f} → {held[-1]:,.0f} MiB"

    old, new = words("expandable_segments"), words("static_cache")
    return (
        f"allocated after the first token → after the last, batch 32: dynamic {old}, static {new}"
    )


def cache_length(book):
    raced = book.race("cache_length")
    lengths = sorted(int(label) for label in raced if label.isdigit())
    said = [
        f"{milliseconds(raced[str(length)]['busy_ms_per_token'])} ms at {length:,}"
        for length in (lengths[0], lengths[-1])
    ]
    return f"the GPU busy for {' and '.join(said)} positions"


def compiled_rows(book):
    return [book.rung(name, 1) for name in ("static_cache", "compiled_default", "compiled")]


def compile_kernels(book):
    eager, default, graph = (r["gpu"]["kernels_per_token"] for r in compiled_rows(book))
    traced = book.timeline("check")
    calls = sum(call.count for call in traced.launches if not call.blocking)
    steps = sum(item.name == "decode_step" for item in traced.host)
    return (
        f"{eager:,.0f} kernels a token eager, {default:,.0f} compiled, {graph:,.0f} replayed, the last "
        f"with about {calls / steps:.0f} calls of the host"
    )


def compile_time(book):
    times = [f"{milliseconds(time_of(record))} ms" for record in compiled_rows(book)]
    return "{} eager, {} compiled, {} replayed, at batch 1".format(*times)


def compile_cost(book):
    eager, _, graph = compiled_rows(book)
    first_run = [
        r["time"]["cold_total_ms"] - r["time"]["total_ms"]["median"] for r in (eager, graph)
    ]
    spent = first_run[1] - first_run[0]  # as in chapter 5: what compiling adds to a first run
    steps = spent / (time_of(eager) - time_of(graph))
    return f"compiling adds {spent / 1000:.0f} s to a first run, paid for after {steps:,.0f} steps"


def traced_idle(book):
    with_check, without = (percent(book.timeline(loop).idle) for loop in ("check", "no check"))
    return f"{with_check} idle with the check, {without} without"


def over_batches(words_of):
    first, *more = (
        f"{words_of(batch)} at {'' if at else 'batch '}{batch}" for at, batch in enumerate(RACED)
    )
    return ", ".join([first, *more])


def race_times(book, batch):
    """Return the times per token with the check, without, and on two streams."""
    raced = book.race(f"stop_check_b{batch}")
    return tuple(time_of(raced[loop]) for loop in ("check", "no check", "two streams"))


def check_cost(book):
    def words(batch):
        check, bound, _ = race_times(book, batch)
        return f"{1000 * (check - bound):,.0f} µs"

    return f"the check costs {over_batches(words)}"


def streams_gain(book):
    def words(batch):
        check, _, pipeline = race_times(book, batch)
        return percent(1 - pipeline / check)

    return f"of a token's time two streams save {over_batches(words)}"


def streams_memory(book):
    def words(batch):
        return change(
            reserved(book.rung("two_streams", batch)) - reserved(book.rung("compiled", batch))
        )

    return f"{at_both(words)}, reserved"


def whole_ladder(book):
    def words(batch):
        first, last = (time_of(book.rung(name, batch)) for name in ("naive", "two_streams"))
        return f"{milliseconds(first)} → {milliseconds(last)} ms ({ratio(first / last)})"

    return at_both(words)


def command(letter):
    """Return a function that says what a command gave, row by row, but for a stand-in."""

    def words(book):
        said, before = [], None
        for name, batch in dict.fromkeys(COMMANDS[letter]):
            record = book.rung(name, batch)
            row = f"{name_of(record)} {spread_words(record['time']['per_token_ms'])} ms"
            if before:
                row += f" (× before {time_of(before) / time_of(record):.2f})"
            said.append(row)
            before = record
        return ", ".join(said)

    return words


def bound(book):
    check, without, pipeline = race_times(book, 1)
    return (
        f"compiled {milliseconds(check)} ms, without a check {milliseconds(without)} ms (× before "
        f"{check / without:.2f}), two streams {milliseconds(pipeline)} ms (× first {pipeline / without:.2f})"
    )


def command_time(letter):
    def words(book):
        return f"about {duration(sum(seconds(book.rung(*row)) for row in COMMANDS[letter]))}"

    return words


# Where a number and its unit must stay on one line.
UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|µs|s|min|MiB)\b|%)")

RESULTS = {
    "naive-growth": naive_growth,
    "naive-idle": idle("naive"),
    "cache-time": cache_time,
    "cache-kernels": cache_kernels,
    "cache-idle": idle("kv_cache"),
    "fragmentation": fragmentation,
    "flat-memory": flat_memory,
    "cache-length": cache_length,
    "compile-kernels": compile_kernels,
    "compile-time": compile_time,
    "compile-cost": compile_cost,
    "compiled-idle": idle("compiled"),
    "streams-idle": idle("two_streams"),
    "traced-idle": traced_idle,
    "check-cost": check_cost,
    "streams-gain": streams_gain,
    "streams-memory": streams_memory,
    "ladder": whole_ladder,
    "bound": bound,
    **{f"command-{letter.lower()}": command(letter) for letter in COMMANDS},
    **{f"command-{letter.lower()}-time": command_time(letter) for letter in COMMANDS},
}


def result(book, key):
    """Return the figures of one result as text, or that they are not recorded yet."""
    try:
        return UNIT.sub("\u00a0", RESULTS[key](book))
    except LookupError:
        if key not in RESULTS:
            raise ValueError(
                f"there is no result {key!r}; there are: {', '.join(RESULTS)}."
            ) from None
        return NOT_RECORDED


def unbroken(words):
    """Return ``words`` so that no line breaks inside them."""
    return words.replace(" ", "\u00a0").replace("–", "\u2060–\u2060")


def table(heads, rows):
    """Return the lines of a Markdown table; what follows the first column stands on the right."""
    rule = ["-", *["-:"] * (len(heads) - 1)]
    kept = [(name, *map(unbroken, cells)) for name, *cells in rows]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *kept)]


def rung_tables(book):
    """Return Markdown: for each batch size a table of the rungs that the book has measured there."""
    lines = []
    for batch in WORKLOADS:
        found = []
        for name in ROWS:
            try:
                found.append(book.rung(name, batch))
            except LookupError:
                continue
        heads = [f"batch {batch}", "ms per token (range)", "GPU idle", "kernels a token"]
        heads += ["reserved, MiB", "measuring takes"]
        rows = [
            (
                name_of(record),
                spread_words(record["time"]["per_token_ms"]),
                percent(record["gpu"]["idle_share"]),
                f"{record['gpu']['kernels_per_token']:,.0f}",
                f"{reserved(record):,.0f}",
                duration(seconds(record)),
            )
            for record in found
        ]
        lines += [*table(heads, rows), ""] if rows else []
    return lines


def race_table(book):
    """Return Markdown: what the stop check costs and what two streams save, over batch sizes."""
    heads = ["batch", "check, ms", "no check, ms", "two streams, ms"]
    heads += ["the check costs, µs", "two streams save", "above no check"]
    rows = []
    for batch in RACED:
        try:
            check, without, pipeline = race_times(book, batch)
        except LookupError:
            continue
        cells = [str(batch), *map(milliseconds, (check, without, pipeline))]
        cells += [f"{1000 * (check - without):,.0f}", percent(1 - pipeline / check)]
        rows.append([*cells, percent(pipeline / without - 1)])
    return table(heads, rows) if rows else []


def source(book):
    """Return one sentence: on what the rungs were measured, and with which workloads."""
    try:
        one, many = (book.rung("naive", batch) for batch in WORKLOADS)
    except LookupError:
        return ""
    first, second = one["workload"], many["workload"]
    return (
        f"{one['machine']['gpu']}, {first['model']}, {first['dtype']}, prompts of "
        f"{first['prompt_tokens']} tokens; batch {first['batch_size']} with {first['new_tokens']} new "
        f"tokens, batch {second['batch_size']} with {second['new_tokens']}."
    )


def reference(book):
    """Return the lines of all reference results as Markdown, or words where there is no record."""
    rungs, raced = rung_tables(book), race_table(book)
    if not rungs and not raced:
        return [f"The reference results are {NOT_RECORDED}."]
    lines = [f"The rungs, each measured in a process of its own: {source(book)}", "", *rungs]
    if raced:
        lines += ["", "The loops of chapters 6 and 7, in turn in one process (a race):", "", *raced]
    return lines


def chapter_seconds(notebooks):
    """Return how long the notebooks took when they were recorded: name -> seconds, or None."""
    found = {}
    for path in sorted(Path(notebooks).glob("*.ipynb")):
        metadata = nbformat.read(path, as_version=4).metadata
        if metadata.get("measures") is not False:
            found[path.stem] = (metadata.get("recorded") or {}).get("seconds")
    return found


def times(book, notebooks):
    """Return Markdown: what the commands and all chapters take on the book's machine."""
    rows = [
        (f"command {letter}", result(book, f"command-{letter.lower()}-time")) for letter in COMMANDS
    ]
    took = chapter_seconds(notebooks)
    timed = [value for value in took.values() if value is not None]
    if timed:
        whole = f"{'about' if len(timed) == len(took) else 'more than'} {duration(sum(timed))}"
    rows.append(("all chapters, `make run`", whole if timed else NOT_RECORDED))
    said = [
        f"{name.partition('_')[0]}: "
        f"{unbroken(duration(value)) if value is not None else 'not timed yet'}"
        for name, value in took.items()
    ]
    return [*table(["what", "takes"], rows), "", f"The chapters one by one: {', '.join(said)}."]


PIECES = [(at, at + 8) for at in range(12, 300, 23)]
# Each drawing: its title, two steps as (from, to) on the host and on the GPU, one step, and its words.
BARS = (
    (
        "Minute 8, batch 1: many launches, little work",
        ((0, 150), (150, 300)),
        PIECES,
        (0, 150),
        "one step: the host's bar",
    ),
    (
        "Minute 8, batch 32: many launches, much work",
        ((0, 50), (150, 200)),
        ((8, 150), (158, 300)),
        (8, 158),
        "one step: the GPU's bar",
    ),
    (
        "Minute 52: one graph, checked every token",
        ((0, 60), (150, 210)),
        ((60, 150), (210, 300)),
        (60, 210),
        "one step: both bars",
    ),
    (
        "Minute 66: one graph, the next launched first",
        ((0, 60), (60, 120)),
        ((60, 150), (150, 240)),
        (60, 150),
        "one step: the longer bar",
    ),
)
HOST = 'fill="currentColor" fill-opacity="0.14" stroke="currentColor"'
GPU = f'{WORK} fill-opacity="0.6" stroke="currentColor"'


def draw_bars():
    """Draw the host's and the GPU's bar of two steps, in the four ways in which the class draws them."""
    body, left, said = [], 44, []
    for number, (title, host, gpu, (begin, end), words) in enumerate(BARS):
        top = 14 + 112 * number
        body.append(text(0, top, title))
        for name, y in (("host", top + 24), ("GPU", top + 49)):
            body.append(text(0, y, name, muted=True))
        body.append(bars([(left + a, top + 10, b - a, 18) for a, b in host], HOST))
        waits = [(a, b) for (_, a), (b, _) in pairwise(gpu) if b > a]
        body.append(bars([(left + a, top + 35, b - a, 18) for a, b in waits], IDLE))
        body.append(bars([(left + a, top + 35, b - a, 18) for a, b in gpu], GPU))
        mark = f"M{left + begin} {top + 60}v8M{left + begin} {top + 64}H{left + end}m0 -4v8"
        body.append(f'<path d="{mark}" {LINE}/>')
        body.append(text(left + end + 8, top + 69, words, muted=True))
        said.append(f"{title}; {words}.")
    alt = f"Four drawings of two decode steps, a bar for the host and one for the GPU. {' '.join(said)}"
    title = "How long a step takes: the longer bar, or both"
    return html_figure(title, alt, 440, 14 + 112 * len(BARS) - 30, "".join(body), min_width=300)


def draw_board():
    """Draw the finished schedule of two streams, as it stands on the board."""
    return draw_schedule(
        "two streams",
        tokens=4,
        title="The finished board",
        alt="The host launches step 1, then step 2, then reads the flag of step 1; launches step 3, "
        "reads the flag of step 2; launches step 4, reads the flag of step 3. Steps 1 and 3 run on "
        "stream A, steps 2 and 4 on stream B, each after the step before: a dashed arrow, an event. "
        "A solid arrow leads from the end of each step to the host's reading of its flag. The GPU is "
        "never idle between two steps.",
    )


BOARDS = {"bars": draw_bars, "schedule": draw_board}


def book_of(env):
    """Return the book's records, and let the page be read again when one of them changes."""
    root = Path(env.srcdir)
    folder = root / "book" / "records" / BOOK_GPU
    for path in (*folder.glob("*.json"), *(root / "notebooks").glob("*.ipynb"), Path(__file__)):
        env.note_dependency(str(path))
    return Book(folder)


class Result(SphinxRole):
    """Put the figures of a result into the sentence."""

    def run(self):
        try:
            words = result(book_of(self.env), self.text)
        except ValueError as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [], [message]
        return [nodes.inline(self.rawtext, words, classes=["ttb-result"])], []


class Lines(SphinxDirective):
    """Show Markdown that is written while the book is built."""

    def run(self):
        at = nodes.container()
        self.state.nested_parse(StringList(self.lines(), source=""), self.content_offset, at)
        return at.children


class ReferenceResults(Lines):
    """Show all reference results as tables."""

    def lines(self):
        return reference(book_of(self.env))


class ReferenceTimes(Lines):
    """Show what the commands and the chapters take."""

    def lines(self):
        return times(book_of(self.env), Path(self.env.srcdir) / "notebooks")


class Board(SphinxDirective):
    """Show a drawing for the board: ``bars`` or ``schedule``."""

    required_arguments = 1

    def run(self):
        if self.arguments[0] not in BOARDS:
            raise self.error(f"board {self.arguments[0]!r} is unknown: {', '.join(BOARDS)}.")
        return [nodes.raw("", BOARDS[self.arguments[0]](), format="html")]


def setup(app):
    app.add_role("result", Result())
    app.add_directive("reference-results", ReferenceResults)
    app.add_directive("reference-times", ReferenceTimes)
    app.add_directive("board", Board)
    return {"parallel_read_safe": True, "version": "1"}
