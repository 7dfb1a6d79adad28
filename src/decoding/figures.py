"""Figures and tables of records: inline SVG that follows the page's theme, with alternative text.

Matplotlib draws, ``svg`` rewrites: text and axes take the colour of the page's text, every rung has
one colour through the whole book (a CSS variable with the printed colour as its fallback), ids that
two figures of one page could share are gone, and the same figure always gives the same bytes.
"""

import hashlib
import inspect
import io
import re
import textwrap
from difflib import SequenceMatcher, unified_diff
from html import escape, unescape
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import NamedTuple
from xml.etree import ElementTree

from IPython.display import display
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

# Okabe and Ito's palette for all forms of colour blindness (jfly.uni-koeln.de/color), and a violet.
COLOURS = MappingProxyType(
    {
        "naive": "#D55E00",
        "kv_cache": "#0072B2",
        "expandable_segments": "#CC79A7",
        "static_cache": "#E69F00",
        "compiled": "#009E73",
        "two_streams": "#7B4FD6",
    }
)
LABELS = MappingProxyType(
    {
        "naive": "naive",
        "kv_cache": "KV cache",
        "expandable_segments": "expandable segments",
        "static_cache": "static cache",
        "compiled": "compiled",
        "two_streams": "two streams",
    }
)
FOREGROUND, MUTED, GRID, IDLE = "#000000", "#757575", "#D9D9D8", "#CC3311"
THEME = {
    FOREGROUND: "currentColor",
    "#FFFFFF": "var(--ttb-background, Canvas)",
    MUTED: "var(--ttb-muted, currentColor)",
    GRID: "var(--ttb-grid, #88888840)",
    IDLE: f"var(--ttb-idle, {IDLE})",
} | {colour: f"var(--ttb-{name}, {colour})" for name, colour in COLOURS.items()}

WIDTH, FONT = 340, 11  # points; a point is 1.5 pixels at most, and 1.06 on a 390-pixel phone
PANEL_WIDTH, PANEL_HEIGHT = 270, 190
STYLE = MappingProxyType(
    {
        "font.size": FONT,
        "font.family": "DejaVu Sans",  # ships with matplotlib; wider than the fonts of most pages
        "axes.titlesize": FONT,
        "axes.titlelocation": "left",
        "axes.labelsize": FONT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": FOREGROUND,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.labelsize": FONT - 0.5,
        "ytick.labelsize": FONT - 0.5,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": FOREGROUND,
        "ytick.labelcolor": FOREGROUND,
        "ytick.major.size": 0,
        "lines.linewidth": 2.2,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "none",
        "svg.hashsalt": "decoding",
    }
)


class Html:
    """Something to display: ``html`` where a page shows it, ``text`` where there is only text."""

    def __init__(self, html, text):
        self.html, self.text = html, text

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self):
        return self.text


def svg(fig, alt, max_width=None):
    """Return a matplotlib figure as an ``<svg>`` element for a page.

    Args:
        fig: a matplotlib ``Figure``.
        alt: what the figure says, with its numbers; becomes its ``aria-label``.
        max_width: CSS pixels beyond which it does not grow; default: 1.5 per point of its width.

    Raises:
        ValueError: the figure has hatching or a gradient, whose ids figures would share.
    """
    file = io.StringIO()
    unstamped = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context(STYLE):
        fig.savefig(file, format="svg", transparent=True, metadata=unstamped)
    drawn = ElementTree.fromstring(file.getvalue())
    for element in drawn.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if "}" in key]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))
    named = {element.get("id"): element for element in drawn.iter() if element.get("id")}
    root = ElementTree.Element("svg")
    root.extend(list(_themed(drawn, named)))
    _name_clips(root, named, alt)
    width = float(drawn.get("viewBox").split()[2])
    size = f"display:block;width:100%;max-width:{max_width or 1.5 * width:.0f}px;height:auto"
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "role": "img",
        "aria-label": alt,
        "viewBox": drawn.get("viewBox"),
        "font-family": "inherit",
        "style": f"{size};stroke-linejoin:round;stroke-linecap:butt",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _themed(parent, named):
    """The drawing inside ``parent``: shared shapes put in place, groups opened, colours themed."""
    for child in parent:
        if child.tag in ("metadata", "defs", "style"):
            continue
        if child.tag == "g" and not set(child.keys()) - {"id"}:
            yield from _themed(child, named)
            continue
        own = dict(child.attrib)
        if child.tag == "use":
            shape = named[own.pop("href")[1:]]
            at = f"translate({own.pop('x', 0)} {own.pop('y', 0)})"
            style = ";".join(filter(None, (shape.get("style"), own.pop("style", ""))))
            own = {"d": shape.get("d"), "style": style, "transform": at} | own
            child = shape
        own.pop("id", None)
        for key in ("d", "x", "y", "transform"):
            if key in own:
                own[key] = _short(own[key])
        if own.get("transform") == f"rotate(-0 {own.get('x')} {own.get('y')})":
            del own["transform"]
        if child.tag in ("path", "text", "tspan"):
            own["style"] = _themed_style(own.get("style", ""))
        element = ElementTree.Element(child.tag, own)
        element.text = child.text if child.tag in ("text", "tspan") else None
        element.extend(list(_themed(child, named)))
        yield element


def _themed_style(style):
    if "url(#" in style:
        raise ValueError("This figure has hatching or a gradient; draw lines or light fills.")
    declarations = {"fill": FOREGROUND.lower()}  # what an SVG fills with unless told otherwise
    for declaration in filter(None, map(str.strip, style.split(";"))):
        key, _, value = declaration.partition(": ")
        if key == "font":  # "700 11px 'DejaVu Sans', …": the page chooses the family
            weight, size = re.match(r"(?:.*?(bold|\d{3}) )?.*?([\d.]+)px", value).groups()
            declarations["font-size"] = f"{size}px"
            if weight:
                declarations["font-weight"] = weight
        elif key != "font-family":
            declarations[key] = value
    themed = {key: THEME.get(value.upper(), value) for key, value in declarations.items()}
    return ";".join(f"{key}:{value}" for key, value in themed.items())


def _short(numbers):
    """A path or transform with its numbers to a tenth of a point and no needless spaces."""
    text = re.sub(r"-?\d+\.\d+", lambda n: f"{float(n[0]):.1f}".removesuffix(".0"), numbers)
    return re.sub(r"\s*([A-Za-z])\s*(?=[-\d])", r"\1", text.replace("\n", " ")).strip()


def _name_clips(root, named, alt):
    """Give clipping paths ids made from the drawing, so that no other figure shares them."""
    clipped = [element for element in root.iter() if element.get("clip-path")]
    paths = sorted({element.get("clip-path")[5:-1] for element in clipped})
    digest = hashlib.sha256(ElementTree.tostring(root) + alt.encode()).hexdigest()[:10]
    new = {path: f"ttb-{digest}-{number}" for number, path in enumerate(paths)}
    for element in clipped:
        element.set("clip-path", f"url(#{new[element.get('clip-path')[5:-1]]})")
    for path in paths:
        clip = ElementTree.Element("clipPath", id=new[path])
        for shape in named[path]:
            clip.append(ElementTree.Element(shape.tag, shape.attrib))
        root.insert(0, clip)


def framed(drawings, title=None, caption=None, kind="ttb-figure"):
    """Return ``<figure>`` HTML around HTML drawings: the message above, the caption below."""
    above = f'<div class="ttb-title"><strong>{escape(title)}</strong></div>' if title else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}">{above}{drawings}{below}</figure>'


def show(fig, alt, caption=None, title=None):
    """Display a matplotlib figure as inline SVG.

    Args:
        fig: a matplotlib ``Figure``.
        alt: what it says, with its numbers.
        caption: a sentence below it.
        title: its message, above it.
    """
    display(Html(framed(svg(fig, alt), title, caption), alt))


def show_svg(drawing, caption=None):
    """Display an ``<svg>`` string, or a whole ``<figure>`` that holds one, made elsewhere.

    The SVG's ``aria-label`` is its alternative text.

    Raises:
        ValueError: it has none.
    """
    label = re.search(r'<svg\b[^>]*\baria-label="([^"]+)"', drawing)
    if not label:
        raise ValueError("This SVG has no aria-label: give it one that says what it shows.")
    if drawing.lstrip().startswith("<figure"):
        below = f'<div class="ttb-caption">{escape(caption)}</div>' if caption else ""
        html = f"{below}</figure>".join(drawing.rsplit("</figure>", 1))
    else:
        html = framed(drawing, caption=caption)
    display(Html(html, unescape(label[1])))


def save_svg(shown, path):
    """Write the first SVG of what a function here returned to a file, for a README, say.

    A file does not know the page's theme: it takes dark or light text from the reader's system.
    """
    drawing = re.search(r"<svg\b.*?</svg>", shown.html, re.DOTALL)[0]
    style = "<style>svg{color:#24292f}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
    drawing = drawing.replace('font-family="inherit"', 'font-family="system-ui, sans-serif"', 1)
    Path(path).write_text(drawing.replace(">", f">{style}", 1) + "\n", encoding="utf-8")


def name_of(record):
    """Return what a figure calls a record: its rung, and what sets the variant apart."""
    variant = record.get("variant") or {}
    words = [record.get("label") or LABELS.get(record["rung"], record["rung"])]
    allocator = variant.get("allocator")
    if allocator != variant.get("rung_allocator", allocator):
        words.append(LABELS.get(allocator, f"{allocator} allocator"))
    if variant.get("compile_mode"):
        words.append(f"{variant['compile_mode']} mode")
    if variant.get("cache_length"):
        words.append(f"cache of {variant['cache_length']}")
    if not variant.get("stop_check", True):
        words.append("no check")
    return ", ".join(words)


def colour_of(record):
    """Return the colour of a record: its rung's, or expandable segments' where only it has them."""
    variant = record.get("variant") or {}
    allocator = variant.get("allocator")
    lent = allocator != variant.get("rung_allocator", allocator)
    return COLOURS.get(lent and allocator) or COLOURS.get(record["rung"], MUTED)


def milliseconds(value):
    """Return a time in ms as text, to three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def ratio(value):
    """Return a ratio as text: ×12, ×1.8, ×1.04."""
    if value == 1:
        return "×1"
    digits = 0 if value >= 9.95 else 1 if value >= 1.095 else 2
    return f"×{value:.{digits}f}"


def percent(share):
    """Return a share (0 to 1) as text: 55 %."""
    return f"{100 * share:.0f} %"


def change(mib):
    """Return a difference of memory as text, with its sign: −610 MiB."""
    return f"{'−' if mib < 0 else '+'}{abs(mib):,.0f} MiB"


def per_token(result):
    """Return the spread of the time per token (ms) of a record or of a result of ``race``."""
    return result.get("time", result)["per_token_ms"]


def spread_words(spread):
    """Return a spread as text: 6.41 (6.30–6.52)."""
    low, high = milliseconds(spread["min"]), milliseconds(spread["max"])
    return milliseconds(spread["median"]) + (f" ({low}–{high})" if low != high else "")


def workload_words(record):
    """Return the workload of a record as text: batch 32, prompt 128, 512 new tokens."""
    workload = record["workload"]
    return (
        f"batch {workload['batch_size']}, prompt {workload['prompt_tokens']}, "
        f"{workload['new_tokens']} new tokens"
    )


def headline(before, after):
    """Return what a step changed, in a few words: "×1.8 faster, −610 MiB reserved".

    A difference of time counts only where the ranges over the repeats don't overlap; one of memory
    from 1 MiB on. Where memory was not measured (on a CPU) the headline says so.

    Raises:
        ValueError: the two are records of different workloads.
    """
    _same_workload(before, after)
    for record in (before, after):
        if record.get("error"):
            return f"{name_of(record)} gave no measurement"
    return f"{_time_headline(before, after)}, {_memory_headline(before, after)}"


def _same_workload(before, after):
    for key in ("model", "batch_size", "prompt_tokens", "new_tokens", "dtype"):
        one, other = before["workload"].get(key), after["workload"].get(key)
        if one != other:
            raise ValueError(
                f"{name_of(before)} ran with {key} {one}, {name_of(after)} with {other}: "
                "compare records of one workload."
            )


def _time_headline(before, after):
    old, new = per_token(before), per_token(after)
    if old["min"] <= new["max"] and new["min"] <= old["max"]:
        return "same time within the spread"
    faster = old["median"] > new["median"]
    factor = old["median"] / new["median"] if faster else new["median"] / old["median"]
    if factor < 1.005:
        return "same time within 0.5 %"
    return f"{ratio(factor)} {'faster' if faster else 'slower'}"


def _memory_headline(before, after):
    if not before["memory"] or not after["memory"]:
        return "memory not measured"
    gained = after["memory"]["peak_reserved_mib"] - before["memory"]["peak_reserved_mib"]
    return "same memory reserved" if abs(gained) < 1 else f"{change(gained)} reserved"


def _figures_of(record):
    """One sentence with the medians of a record, or why it has none."""
    if record.get("error"):
        return f"{name_of(record)}: no measurement ({record['error'].rstrip('.')})."
    words = f"{name_of(record)}: {spread_words(per_token(record))} ms per token"
    if record["memory"]:
        memory = record["memory"]
        words += (
            f", peak memory {memory['peak_allocated_mib']:,.0f} MiB allocated and "
            f"{memory['peak_reserved_mib']:,.0f} MiB reserved"
        )
    return words + "."


class Line(NamedTuple):
    """A line of a figure, in data units."""

    x: list
    y: list
    colour: str
    dashes: object = "-"
    label: str = ""
    faint: bool = False
    width: float = 2.2


DOTTED, DASHED = (0, (1, 1.8)), (0, (4, 2))


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
        names: what to call the lines, for other words than ``name_of`` finds.

    Returns:
        An ``Html`` that displays itself.
    """
    named = list(zip(records, names or map(name_of, records), strict=True))
    drawn = [(record, name) for record, name in named if _has(record, what)]
    left_out = [_why_not(record, name, what) for record, name in named if not _has(record, what)]
    said = [_say_curve(record, name, what, cold) for record, name in drawn]
    alt = " ".join([f"{title.rstrip('.')}.", *said, *left_out])
    drawing = _panel(drawn, what, alt, WIDTH, 230, cold, busy) if drawn else ""
    return Html(framed(drawing, title, " ".join(filter(None, (caption, *left_out)))), alt)


def running_median(values, window=None):
    """Return the median around each value, over a 16th of all of them unless told otherwise."""
    half = (window or len(values) // 16) // 2
    return [median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def _has(record, what):
    return not record.get("error") and bool(record.get(what))


def _why_not(record, name, what):
    reason = (record.get("error") or f"{what} was not measured").rstrip(".")
    return f"No line for {name}: {reason}."


def _say_curve(record, name, what, cold=False):
    first = record["workload"]["prompt_tokens"] + 1
    if what == "memory":
        memory = record["memory"]
        ends = [
            f"{kind} from {memory[key][0]:,.0f} to {memory[key][-1]:,.0f} MiB"
            for kind, key in (("allocated", "allocated_mib"), ("reserved", "reserved_mib"))
        ]
        return f"{name}: {', '.join(ends)}."
    words = f"{name}: {spread_words(per_token(record))} ms per token"
    smooth = running_median(record["time"]["curve_ms"])
    if smooth:
        words += (
            f", {milliseconds(smooth[0])} ms at position {first} and {milliseconds(smooth[-1])} ms "
            f"at position {first + len(smooth) - 1}"
        )
    if cold:
        words += f"; {milliseconds(record['time']['cold_per_token_ms'])} ms in the first run"
    return words + "."


def _panel(drawn, what, alt, width, height, cold=False, busy=False):
    """The HTML of one pair of axes with the curves of (record, name) pairs."""
    lines = [
        line
        for number, (record, name) in enumerate(drawn)
        for line in (
            _memory_lines(record, name, _repeats(drawn, number))
            if what == "memory"
            else _time_lines(record, name, _repeats(drawn, number), cold, busy)
        )
    ]
    top = max(value for line in lines if not line.faint for value in line.y)
    heading = "Time per token in ms"
    if what == "memory":
        unit = "MiB" if top < 20 * 1024 else "GiB"
        if unit == "GiB":
            top /= 1024
            lines = [line._replace(y=[value / 1024 for value in line.y]) for line in lines]
        heading = f"Memory in {unit}: allocated (solid), reserved (dashed)"
    singles = [value for line in lines if line.faint for value in line.y]
    top = 1.08 * max(top, min(max(singles, default=0), 1.25 * top))
    beyond = [value for value in singles if value > top]
    if beyond:
        are = "step is" if len(beyond) == 1 else "steps are"
        heading += (
            f"; {len(beyond)} single {are} off the scale, up to {milliseconds(max(beyond))} ms"
        )
    with rc_context(STYLE):
        fig = Figure(figsize=(width / 72, height / 72))
        ax = fig.add_subplot()
        ax.set_ylim(0, top or 1)
        for line in lines:
            _plot(ax, line._replace(y=[min(value, top) for value in line.y]))
        _lay_out(ax, "token position", lines)
        return _headed(heading, svg(fig, alt))


def _headed(heading, drawing):
    """A drawing under words about its vertical axis, which wrap where the page is narrow."""
    return f'<div class="ttb-axis">{escape(heading)}</div>{drawing}'


def _repeats(drawn, number):
    """How many records before this one have its colour."""
    return sum(colour_of(r) == colour_of(drawn[number][0]) for r, _ in drawn[:number])


def _time_lines(record, name, again, cold, busy):
    time, colour = record["time"], colour_of(record)
    first = record["workload"]["prompt_tokens"] + 1
    positions = list(range(first, first + len(time["curve_ms"])))
    smooth = running_median(time["curve_ms"])
    if smooth != time["curve_ms"]:
        yield Line(positions, time["curve_ms"], colour, faint=True, width=0.8)
    yield Line(positions, smooth, colour, (("-", DASHED)[min(again, 1)]), name)
    if cold:
        yield Line(
            positions, running_median(time["cold_curve_ms"]), colour, DOTTED, f"{name}, first run"
        )
    if busy and (record.get("gpu") or {}).get("curve_busy_ms"):
        gpu = record["gpu"]
        steps = gpu.get("curve_steps") or range(1, len(gpu["curve_busy_ms"]) + 1)
        where = [first - 1 + step for step in steps]
        yield Line(where, gpu["curve_busy_ms"], colour, DOTTED, f"{name}, GPU busy")


def _memory_lines(record, name, again):
    memory, colour = record["memory"], colour_of(record)
    first = record["workload"]["prompt_tokens"]
    positions = list(range(first, first + len(memory["allocated_mib"])))
    width = 2.2 if not again else 1.2
    yield Line(positions, memory["allocated_mib"], colour, width=width)
    yield Line(positions, memory["reserved_mib"], colour, DASHED, name, width=width)


def _plot(ax, line):
    ax.plot(
        line.x,
        line.y,
        color=line.colour,
        linestyle=line.dashes,
        linewidth=line.width,
        alpha=0.35 if line.faint else 1,
        clip_on=False,
    )


def _lay_out(ax, xlabel, lines, label_width=13):
    """Place the axes and the lines' names, which stand to the right, at their lines' ends."""
    fig = ax.figure
    width, height = fig.get_size_inches() * 72
    positions = [x for line in lines for x in line.x]
    ax.set_xlim(min(positions), max(max(positions), min(positions) + 1))
    if ax.get_xscale() == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    ax.set_xlabel(xlabel)
    for line in ax.get_ygridlines():
        line.set_clip_on(False)  # a clip needs an id, and they are inside
    ticks = ax.yaxis.get_major_formatter().format_ticks(ax.get_yticks())
    named = [line for line in lines if line.label]
    labels = ["\n".join(textwrap.wrap(line.label, label_width)) for line in named]
    longest = max((len(row) for label in labels for row in label.split("\n")), default=0)
    left, right = 0.62 * FONT * max(map(len, ticks)) + 7, 0.58 * FONT * longest + 18
    bottom, top = 38, 10
    fig.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    wide, tall = width - left - right, height - bottom - top
    ceiling = ax.get_ylim()[1]
    ends = sorted(
        (line.y[-1] / ceiling * tall, line.x[-1], line.y[-1], label, line.colour)
        for line, label in zip(named, labels, strict=True)
    )
    room = [1.2 * FONT * (label.count("\n") + 1) for *_, label, _ in ends]
    below = FONT / 2  # a label may stand this far below the axis
    placed = spread_out([at + below for at, *_ in ends], room, tall + top + below)
    for (_, x, y, label, colour), at in zip(ends, placed, strict=True):
        ax.annotate(
            label,
            (x, y),
            xytext=(wide + 14, at - below),
            textcoords="axes points",
            verticalalignment="center",
            linespacing=1.1,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 1.6,
                "shrinkA": 0,
                "shrinkB": 1,
                "relpos": (0, 0.5),
            },
        )


def spread_out(wanted, room, limit):
    """Return the positions nearest to ``wanted`` (ascending) that don't overlap.

    ``room`` is the size of each, centred on its position; all stay between 0 and ``limit`` where
    they fit. Each cluster is centred on what its members wanted (isotonic regression).
    """
    centres = [sum(room[:i]) + size / 2 for i, size in enumerate(room)]
    clusters = []  # (mean of wanted - centre, members)
    for shift in (want - centre for want, centre in zip(wanted, centres, strict=True)):
        members = 1
        while clusters and clusters[-1][0] > shift:
            before, count = clusters.pop()
            shift = (shift * members + before * count) / (members + count)
            members += count
        clusters.append((shift, members))
    shifts = [shift for shift, members in clusters for _ in range(members)]
    highest = limit - sum(room)
    return [
        max(0, min(shift, highest)) + centre for shift, centre in zip(shifts, centres, strict=True)
    ]


def step_card(before, after, *, before2=None, after2=None, title=None):
    """Draw the step card: time per token and memory of a step beside the step before.

    Args:
        before, after: records of one workload.
        before2, after2: records of a second workload (batch 1, say).
        title: the message; by default the two names.

    Returns:
        An ``Html`` that displays itself. For each workload it has the headline, the medians, and a
        panel each for time and memory over the token position. A failed record is told in words.
    """
    pairs = [(before, after)] + ([(before2, after2)] if before2 and after2 else [])
    title = title or f"{name_of(before)} → {name_of(after)}"
    cards, alts = zip(*(_workload_card(*pair) for pair in pairs), strict=True)
    return Html(
        framed("".join(cards), title, kind="ttb-figure ttb-step-card"),
        f"{title.rstrip('.')}. {' '.join(alts)}",
    )


def _workload_card(before, after):
    records = (before, after)
    said = headline(before, after)
    panels = []
    for what in ("time", "memory"):
        drawn = [(record, name_of(record)) for record in records if _has(record, what)]
        if drawn and (what == "memory" or any(r["time"]["curve_ms"] for r, _ in drawn)):
            curve_words = [_say_curve(record, name, what) for record, name in drawn]
            alt = " ".join([f"{what.capitalize()} over the token position.", *curve_words])
            panel = _panel(drawn, what, alt, PANEL_WIDTH, PANEL_HEIGHT)
            panels.append(f'<div style="flex:1 1 290px;min-width:0">{panel}</div>')
    html = (
        f'<div class="ttb-workload"><div class="ttb-headline"><strong>{escape(said)}</strong> '
        f"<span>{escape(workload_words(after))}</span></div>"
        f'<div style="display:flex;flex-wrap:wrap;gap:0.5rem 1rem">{"".join(panels)}</div>'
        f"{_medians(records)}</div>"
    )
    words = " ".join(map(_figures_of, records))
    return html, f"{workload_words(after).capitalize()}: {said}. {words}"


def _medians(records):
    """A small table of what the headline was made from, and why a record has nothing to show."""
    rows = {"ms per token": [], "range": [], "peak allocated, MiB": [], "peak reserved, MiB": []}
    for record in records:
        time = {} if record.get("error") else per_token(record)
        memory = record["memory"] or {}
        rows["ms per token"].append(milliseconds(time["median"]) if time else "–")
        rows["range"].append(
            f"{milliseconds(time['min'])}–{milliseconds(time['max'])}" if time else "–"
        )
        for kind in ("allocated", "reserved"):
            peak = f"{memory[f'peak_{kind}_mib']:,.0f}" if memory else "–"
            rows[f"peak {kind}, MiB"].append(peak)
    head = "".join(f'<th scope="col">{escape(name_of(record))}</th>' for record in records)
    cell = '<td style="white-space:nowrap">{}</td>'
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(map(cell.format, values))}</tr>'
        for name, values in rows.items()
        if set(values) != {"–"}
    )
    reasons = "".join(
        f'<div class="ttb-failed">{escape(_figures_of(record))}</div>'
        for record in records
        if record.get("error")
    )
    return (
        '<table class="ttb-medians"><thead><tr><td></td>'
        f"{head}</tr></thead><tbody>{body}</tbody></table>{reasons}"
    )


def ladder(records, title, *, caption=None):
    """Draw the ladder: a bar of time per token for each record, and × the first that succeeded.

    Where the GPU's busy time is known, its part of the bar is solid and the idle part light.

    Args:
        records: in the order of the ladder; failed ones are told in words.
        title: the message of the figure.
        caption: a sentence below it.

    Returns:
        An ``Html`` that displays itself.
    """
    good = [record for record in records if not record.get("error")]
    first = per_token(good[0])["median"] if good else None
    longest = max((per_token(record)["median"] for record in good), default=1)
    row, top = 38, 24
    height = row * len(records) + top
    with rc_context(STYLE):
        fig = Figure(figsize=(WIDTH / 72, height / 72))
        ax = fig.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        ax.set(xlim=(0, WIDTH), ylim=(height, 0))
        idle_known = any(_idle(record) is not None for record in good)
        key = "solid: the GPU works · light: it waits" if idle_known else "time per token"
        ax.text(0, 12, key, color=MUTED)
        ax.text(WIDTH, 12, f"× {name_of(good[0])}" if good else "", color=MUTED, ha="right")
        alts = [f"{title.rstrip('.')}."]
        for number, record in enumerate(records):
            alts.append(_ladder_row(ax, top + row * number + 13, record, first, longest))
        alt = " ".join(alts)
        drawing = svg(fig, alt)
    failures = [_figures_of(record) for record in records if record.get("error")]
    return Html(framed(drawing, title, " ".join(filter(None, (caption, *failures)))), alt)


def _ladder_row(ax, y, record, first, longest):
    """Draw a record's words at ``y`` and its bar below them, and return them as a sentence."""
    ax.text(0, y, name_of(record), weight="bold")
    if record.get("error"):
        ax.text(WIDTH, y, "failed", ha="right")
        return _figures_of(record)
    value, idle = per_token(record)["median"], _idle(record)
    ax.text(WIDTH - 48, y, f"{milliseconds(value)} ms", ha="right")
    ax.text(WIDTH, y, ratio(first / value), ha="right", weight="bold")
    length = value / longest * WIDTH
    works = length * (1 - (idle or 0))
    for left, right, alpha in ((0, works, 1), (works, length, 0.35)):
        if right > left:
            bar = {"left": left, "color": colour_of(record), "alpha": alpha, "clip_on": False}
            ax.barh(y + 12, right - left, 14, **bar)
    words = f"{percent(idle or 0)} idle"
    if length - works > 0.6 * FONT * len(words) + 6:
        ax.text(works + 5, y + 15.8, words, size=FONT - 1)
    said = f"{name_of(record)}: {milliseconds(value)} ms per token, {ratio(first / value)}"
    return said + (f", GPU idle {percent(idle)}." if idle is not None else ".")


def _idle(record):
    return (record.get("gpu") or {}).get("idle_share")


def sweep(
    x, series, *, title, xlabel="batch size", unit="ms per token", caption=None, colours=None
):
    """Draw lines over batch sizes, cache lengths or the like, on a scale of powers of two.

    Args:
        x: positive numbers, ascending.
        series: name -> values, one for each of ``x``, None where there is none. A rung's name gives
            the line its label and colour.
        title: the message of the figure.
        xlabel: what ``x`` holds, below the axis.
        unit: of the values, with what they are ("ms per token").
        caption: a sentence below the figure.
        colours: name -> colour, for lines that are not rungs.

    Returns:
        An ``Html`` that displays itself.
    """
    lines, alts = [], [f"{title.rstrip('.')}."]
    for name, values in series.items():
        label = LABELS.get(name, name)
        points = [(at, value) for at, value in zip(x, values, strict=True) if value is not None]
        said = ", ".join(f"{milliseconds(value)} at {at:,}" for at, value in points)
        alts.append(f"{label} ({unit} at {xlabel}): {said or 'no figure'}.")
        colour = (colours or {}).get(name) or COLOURS.get(name, MUTED)
        if points:
            again = colour == MUTED or any(line.colour == colour for line in lines)
            dashes = DASHED if again else "-"
            lines.append(Line(*map(list, zip(*points, strict=True)), colour, dashes, label))
    alt = " ".join(alts)
    if not lines:
        return Html(framed("", title, caption), alt)
    with rc_context(STYLE):
        fig = Figure(figsize=(WIDTH / 72, 230 / 72))
        ax = fig.add_subplot()
        ax.set_xscale("log", base=2)
        ax.set_ylim(0, 1.08 * max(value for line in lines for value in line.y))
        ax.xaxis.set_major_locator(FixedLocator(list(x)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        for line in lines:
            _plot(ax, line)
            ax.plot(line.x, line.y, "o", color=line.colour, markersize=5, clip_on=False)
        _lay_out(ax, xlabel, lines)
        drawing = _headed(unit, svg(fig, alt))
    return Html(framed(drawing, title, caption), alt)


def trend(points, *, title, xlabel, unit, references=None, groups=10, caption=None, colours=None):
    """Draw how one measured quantity goes with another, as medians over groups of equal size.

    Args:
        points: name -> (x, y) pairs. A rung's name gives the line its label and colour.
        title: the message of the figure.
        xlabel: what the x are, with their unit.
        unit: of the y, with what they are.
        references: name -> function of x, drawn dashed over the same x to compare with.
        groups: into how many groups the points of a line go, in the order of their x.
        caption: a sentence below the figure.
        colours: name -> colour, for lines that are not rungs.

    Returns:
        An ``Html`` that displays itself.
    """
    lines, alts = [], [f"{title.rstrip('.')}."]
    for name, pairs in points.items():
        ordered = sorted(pairs)
        size = max(1, len(ordered) // groups)
        chunks = [ordered[at : at + size] for at in range(0, len(ordered) - size + 1, size)]
        x, y = ([median(pair[axis] for pair in chunk) for chunk in chunks] for axis in (0, 1))
        label = LABELS.get(name, name)
        colour = (colours or {}).get(name) or COLOURS.get(name, MUTED)
        lines.append(Line(x, y, colour, label=label))
        ends = [f"{milliseconds(y[at])} at {milliseconds(x[at])}" for at in (0, -1)]
        alts.append(f"{label} ({unit} at {xlabel}): {ends[0]}, {ends[1]}.")
    measured = list(lines)
    first, last = (end(x for line in measured for x in line.x) for end in (min, max))
    for name, expected in (references or {}).items():
        x = [first + (last - first) * step / 50 for step in range(51)]
        lines.append(Line(x, list(map(expected, x)), MUTED, DASHED, name, width=1.2))
        ends = [f"{milliseconds(expected(at))} at {milliseconds(at)}" for at in (first, last)]
        alts.append(f"Dashed, {name}: {ends[0]}, {ends[1]}.")
    alt = " ".join(alts)
    with rc_context(STYLE):
        fig = Figure(figsize=(WIDTH / 72, 250 / 72))
        ax = fig.add_subplot()
        ax.set_ylim(0, 1.08 * max(value for line in lines for value in line.y))
        for line in lines:
            _plot(ax, line)
        for line in measured:
            ax.plot(line.x, line.y, "o", color=line.colour, markersize=5, clip_on=False)
        _lay_out(ax, xlabel, lines)
        ax.set_xlim(first, last)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        drawing = _headed(unit, svg(fig, alt))
    return Html(framed(drawing, title, caption), alt)


def table(records, caption="Each row beside the row before"):
    """Show records as a table, each row beside the row before of the same workload.

    Args:
        records: in the order of the rows.
        caption: a sentence that names the table.

    Returns:
        An ``Html`` that displays itself. A failed row says why.
    """
    on_gpu = any(record.get("memory") for record in records)
    workloads = [workload_words(record) for record in records]
    several = len(set(workloads)) > 1
    batches = len({workload.partition(",")[2] for workload in workloads}) == 1
    heads = ["rung", *(["workload"] if several else []), "ms per token (range)"]
    heads += ["speed × before", "speed × first", "first run, ms per token"]
    heads += ["peak reserved, MiB", "change, MiB", "GPU idle"] if on_gpu else []
    rows, firsts, befores = [], {}, {}
    for record, workload in zip(records, workloads, strict=True):
        start = f'<th scope="row">{escape(name_of(record))}</th>'
        shown = workload.partition(",")[0] if batches else workload
        start += f"<td>{escape(shown)}</td>" if several else ""
        if record.get("error"):
            span = len(heads) - 1 - several
            rows.append(f'{start}<td colspan="{span}">{escape(record["error"])}</td>')
            continue
        cells = _cells(record, befores.get(workload), firsts.setdefault(workload, record), on_gpu)
        rows.append(
            start + "".join(f'<td style="white-space:nowrap">{cell}</td>' for cell in cells)
        )
        befores[workload] = record
    head = "".join(f'<th scope="col">{escape(words)}</th>' for words in heads)
    html = (
        f'<div class="ttb-scroll" style="overflow-x:auto" tabindex="0" role="group" '
        f'aria-label="{escape(caption)}"><table class="ttb-table"><caption>{escape(caption)}'
        f"</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table></div>"
    )
    return Html(html, " ".join([f"{caption.rstrip('.')}.", *map(_figures_of, records)]))


def _cells(record, before, first, on_gpu):
    """The figures of a row; ``before`` is None in the first row of a workload."""
    time, memory, idle = per_token(record), record["memory"], _idle(record)
    cells = [spread_words(time)]
    for other in (before, before and first):
        cells.append(ratio(per_token(other)["median"] / time["median"]) if other else "")
    cells.append(milliseconds(record["time"]["cold_per_token_ms"]))
    if on_gpu:
        reserved = memory and memory["peak_reserved_mib"]
        cells.append(f"{reserved:,.0f}" if memory else "not measured")
        if memory and before and before["memory"]:
            gained = reserved - before["memory"]["peak_reserved_mib"]
            cells.append(change(gained).removesuffix(" MiB"))
        else:
            cells.append("")
        cells.append("not measured" if idle is None else percent(idle))
    return cells


def diff(before, after):
    """Show how one loop becomes the next: a diff of their files, whole, changed words marked.

    Args:
        before, after: modules, functions, paths of Python files, or names of files in ``loops``.

    The first line of each module's docstring stands at the top, in place of the docstring.

    Returns:
        An ``Html`` that displays itself; as text, a unified diff.
    """
    old_path, new_path = _path_of(before), _path_of(after)
    old_text, new_text = (path.read_text(encoding="utf-8") for path in (old_path, new_path))
    (old_idea, old), (new_idea, new) = map(_split_docstring, (old_text, new_text))
    rows, removed, added = [], 0, 0
    for operation, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            rows += [_diff_line(" ", _breakable(line), line) for line in old[a:b]]
            continue
        removed, added = removed + b - a, added + d - c
        was, is_now = _marked(old[a:b], new[c:d])
        rows += [_diff_line("−", html, line) for html, line in zip(was, old[a:b], strict=True)]
        rows += [_diff_line("+", html, line) for html, line in zip(is_now, new[c:d], strict=True)]
    count = f"{_counted(removed, 'line')} removed, {_counted(added, 'line')} added"
    ideas = _diff_line("−", escape(f"{old_path.name}: {old_idea}"), "")
    ideas += _diff_line("+", escape(f"{new_path.name}: {new_idea}"), "")
    if old_text == new_text:
        count, ideas = "no line of the loop changes", ""
    html = (
        f'<figure class="ttb-diff"><figcaption>{escape(old_path.name)} → {escape(new_path.name)}: '
        f'{count}</figcaption><pre style="white-space:pre-wrap;overflow-wrap:anywhere"><code>'
        f'<span class="ttb-ideas" style="display:block;margin-bottom:0.7em">{ideas}</span>'
        f"{''.join(rows)}</code></pre></figure>"
    )
    lines = old_text.splitlines(), new_text.splitlines()
    text = unified_diff(*lines, old_path.name, new_path.name, n=max(map(len, lines)), lineterm="")
    return Html(html, "\n".join(text) or f"{new_path.name}: {count}")


def source(loop):
    """Show one loop's file as a block of code. ``loop`` is what ``diff`` takes."""
    code = _path_of(loop).read_text(encoding="utf-8").rstrip()
    return Code(code)


class Code:
    """Python code to display, as Markdown where that is understood."""

    def __init__(self, code):
        self.code = code

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/markdown": f"```python\n{self.code}\n```", "text/plain": self.code}

    def __repr__(self):
        return self.code


def _path_of(loop):
    if isinstance(loop, str) and loop.isidentifier():
        return Path(__file__).with_name("loops") / f"{loop}.py"
    return Path(loop if isinstance(loop, str | Path) else inspect.getsourcefile(loop))


def _split_docstring(code):
    """The first line of the module's docstring and the lines below the docstring."""
    docstring = re.match(r'\s*"""(.*?)"""\n*', code, re.DOTALL)
    idea = docstring[1].strip().split("\n")[0] if docstring else ""
    return idea, code[docstring.end() if docstring else 0 :].splitlines()


def _counted(number, noun):
    return f"{number} {noun}" + ("" if number == 1 else "s")


SIGNS = MappingProxyType(
    {
        " ": ("span", ""),
        "−": ("del", "background:var(--ttb-del, #ff6a5426);text-decoration:none;"),
        "+": ("ins", "background:var(--ttb-ins, #2da44e2e);text-decoration:none;"),
    }
)


def _diff_line(sign, html, line):
    """One line with its sign, wrapped under its own indentation where the page is narrow."""
    tag, style = SIGNS[sign]
    hang = len(line) - len(line.lstrip()) + 4
    style += f"display:block;padding-left:{hang}ch;text-indent:-{hang}ch"
    return f'<{tag} style="{style}">{sign} {html}</{tag}>'


def _breakable(code):
    """Code as HTML that may also break after a dot or an opening parenthesis."""
    return re.sub(r"[.(](?!\))", r"\g<0><wbr/>", escape(code))


def _marked(old, new):
    """The HTML of replaced lines, in which the words that changed are marked.

    Each old line is compared with the new line it resembles most, if it resembles one at all.
    """
    was, is_now = list(map(_breakable, old)), list(map(_breakable, new))
    free = set(range(len(new)))
    for i, line in enumerate(old):
        alike = {j: SequenceMatcher(None, line.strip(), new[j].strip()).ratio() for j in free}
        best = max(alike, key=lambda j: (alike[j], -j), default=None)
        if best is None or alike[best] < 0.6:
            continue
        free.discard(best)
        words, others = (re.findall(r"\s+|\w+|.", text) for text in (line, new[best]))
        pieces = [], []
        for operation, a, b, c, d in SequenceMatcher(None, words, others, False).get_opcodes():
            for out, part in ((pieces[0], words[a:b]), (pieces[1], others[c:d])):
                changed = _breakable("".join(part))
                out.append(changed if operation == "equal" or not part else f"<b>{changed}</b>")
        was[i], is_now[best] = map("".join, pieces)
    return was, is_now
