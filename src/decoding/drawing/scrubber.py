"""A scrubber over the caching allocator: two settings side by side, to the point where one breaks."""

import json
from typing import NamedTuple
from xml.etree import ElementTree

from matplotlib import rc_context

from .explorers import Explorer, slider
from .shapes import bars, canvas
from .svg import QUIET, Panel, Picture
from .theme import COLOURS, FOREGROUND, GRID, IDLE, MUTED, PANEL, STYLE, THEME
from .words import counted, mib

UNITS = 512  # in a row of the map: a state is drawn to this precision
TALL, STEP = 22, 28  # units: the height of a row, and from one to the next
FREE = 0.3  # how solid is what is reserved but free
CURVE = 100  # pixels: the height of the curves
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
LEAST = 5  # units that a segment needs to get an outline
QUIETLY = "Every request finds a free block."
LONGEST = 36**2 - 1  # units that two digits hold


class Side(NamedTuple):
    """What an allocator holds: segments as ``CachingAllocator.layout`` gives them, and MiB."""

    segments: list
    reserved_mib: float
    allocated_mib: float


class Stage(NamedTuple):
    """A moment of a run: after a step, or inside it, at the request that finds nothing."""

    step: int
    broken: bool
    default: Side
    expandable: Side
    words: str


class Run(NamedTuple):
    """A run under both settings.

    ``label`` says on which card, ``room_mib`` how much may be reserved there (None: no limit),
    ``recorded`` of how many steps the requests were recorded. ``reserved_mib`` has two curves:
    after each step, by default and expandable. So has ``measured``: what a process held, if known.
    ``failed`` says whether memory runs out by default.
    """

    label: str
    room_mib: float | None
    recorded: int
    reserved_mib: tuple[list, list]
    stages: tuple[Stage, ...]
    measured: tuple = ()
    failed: bool = False

    @property
    def breaks(self):
        """The steps during which the default allocator finds no room."""
        return [stage.step for stage in self.stages if stage.broken]


# Draws the stage at which the controls stand. A run's stages are kept as what changes from one to the
# next: "segment:lengths" of used and free blocks in turn, two digits each; "segment:" is one that left.
DRAW = f"""const q=s=>[...this.querySelectorAll(s)],D=this.ttb||=JSON.parse(this.dataset.runs),\
e=q("[type=range]")[0],R=D[q(":checked").map(b=>b.value)[0]||0],N=R.steps.length,U={UNITS};\
if(event.target!=e&&event.target.type=="radio")e.max=N-1,e.value=R.first;\
const i=Math.min(e.value,N-1),C=n=>n.toLocaleString("en"),\
words=(R.breaks.includes(i)?"during ":"after ")+R.steps[i],said=R.said[i]||"{QUIETLY}";\
if(!R.states)R.states=R.sides.map(s=>{{let now={{}};return s.map(d=>{{now={{...now}};\
for(const p of d.split(";")){{const[k,v]=p.split(":");if(v)now[k]=v;else delete now[k]}}return now}})}});\
e.ariaValueText=words+". "+said;e.nextSibling.value=words;\
q("[data-state]").map(g=>g.dataset.state=R.label+i);\
q("[data-said]").map(g=>g.textContent=said);\
q("[data-side]").map((g,a)=>{{const [r,c,u]=R.heads[a][i];g.querySelector("[data-head]").textContent=\
`${{C(r)}} MiB in ${{c}} segment${{c-1?"s":""}}, ${{C(u)}} MiB allocated`;\
let p=0,d=["","",""];const put=(k,n)=>{{while(n>0){{const x=p%U,w=Math.min(n,U-x);\
d[k]+=`M${{x}} ${{(p/U|0)*{STEP}+2}}h${{w}}v{TALL}h-${{w}}z`;p+=w;n-=w}}}};\
const S=R.states[a][i];Object.keys(S).sort((x,y)=>x-y).map(k=>{{const b=p;\
for(let j=0;j<S[k].length;j+=2)put(j/2%2,parseInt(S[k].substr(j,2),36));const n=p-b;if(n<{LEAST})return;p=b;put(2,n)}});\
g.querySelectorAll("path").forEach((l,k)=>l.setAttribute("d",d[k]))}});\
q("[data-curves]").map(g=>{{g.querySelectorAll("[data-curve]").forEach((l,k)=>l.setAttribute("d",R.curves[k]));\
g.querySelector("[data-at]").setAttribute("x",R.steps[i])}})"""
NEXT = """const e=form.querySelector("[type=range]"),f=closest("figure");\
if(!f.ttb)f.oninput({target:e});const R=f.ttb[[...form.querySelectorAll(":checked")].map(b=>b.value)[0]||0],\
b=R.breaks;e.value=b.find(i=>i>e.value)??b[0];e.dispatchEvent(new Event("input",{bubbles:true}))"""


def scrubber(runs, *, rung, title=None, caption=None):
    """Return a slider over what the allocator holds under two settings, side by side.

    It begins where the last run fails or first breaks. Without JavaScript and in print that moment stands
    below the first one, and where there is no HTML, too.

    Args:
        runs: ``Run``, one or more; buttons choose between them.
        rung: whose colour blocks have by default.
        title: the message; by default what is free, and what is asked for and not found.
        caption: a sentence below it; by default what is recorded and what is the model's.

    Returns:
        An ``Explorer``.
    """
    last = runs[-1]
    broken = _worst(last)
    stage = last.stages[broken]
    title = title or _title(last, stage)
    caption = caption or _caption(last)
    colours = COLOURS[rung], COLOURS["expandable_segments"]
    row = _row_mib(max(max(map(max, run.reserved_mib)) for run in runs))
    rows = 1 + int(max(_total(s) for run in runs for one in run.stages for s in one[2:4]) / row)
    start = runs[0].stages[0]
    shown = [(runs[0], start), (last, stage)]
    scale = f"A row of a map is {mib(row)}. An outline is a segment of {mib(LEAST * row / UNITS)} or more."
    caption = f"Strong: allocated. Pale: reserved, but free. {scale} {caption}"
    html = _html(runs, shown, title, caption, colours, row, rows)
    return Explorer(html, _picture(shown, title, caption, colours, row, rows))


def _total(side):
    return sum(segment["total_mib"] for segment in side.segments)


def _breaks(run):
    return [at for at, stage in enumerate(run.stages) if stage.broken]


def _worst(run):
    """Where a run fails; else where it first breaks; else its end."""
    breaks = _breaks(run) or [len(run.stages) - 1]
    return breaks[-1] if run.failed else breaks[0]


def _title(run, stage):
    free = [
        block["mib"]
        for segment in stage.default.segments
        for block in segment["blocks"]
        if block["state"] != "active"
    ]
    if not stage.broken:
        return f"Step {stage.step}: {mib(sum(free))} are free by default, in pieces"
    return (
        f"Step {stage.step}: {mib(sum(free))} are free, and the default allocator cannot use them"
    )


def _caption(run):
    steps = len(run.reserved_mib[1])
    said = "The segments are the model's."
    if run.recorded < steps:
        return (
            f"{said} Its requests are the recorded ones up to step {run.recorded - 1}; from there on "
            "each goes on growing as it grew. Step 0 is the prefill."
        )
    return f"{said} Its requests are the recorded ones. Step 0 is the prefill."


def _name(stage):
    return f"{'during' if stage.broken else 'after'} {stage.step}"


def _moment(run, stage):
    words = f"{run.label}, {'during' if stage.broken else 'after'} step {stage.step}"
    return words[0].upper() + words[1:]


def _numbers(side):
    return round(side.reserved_mib), len(side.segments), round(side.allocated_mib)


def _head(side):
    reserved, segments, allocated = _numbers(side)
    return f"{mib(reserved)} in {counted(segments, 'segment')}, {mib(allocated)} allocated"


def _said(stage):
    return stage.words or QUIETLY


# Maps: the same rectangles in a picture, in the page, and by the script.


def _lengths(segment, row):
    """The units of used and free blocks in turn, beginning with used; together to scale."""
    lengths, position, drawn = [0], 0.0, 0
    for block in segment["blocks"]:
        position += block["mib"]
        units = round(position * UNITS / row) - drawn
        drawn += units
        if not units:
            continue
        free = block["state"] != "active"
        if (len(lengths) - 1) % 2 != free:
            lengths.append(0)
        lengths[-1] += units
    return lengths


def _rectangles(side, row):
    """Used, free and outlined rectangles of a map, in units."""
    found, position = ([], [], []), 0
    for segment in sorted(side.segments, key=lambda one: one["address"]):
        begin = position
        for at, length in enumerate(_lengths(segment, row)):
            found[at % 2].extend(_cut(position, length))
            position += length
        if position - begin >= LEAST:
            found[2].extend(_cut(begin, position - begin))
    return found


def _cut(start, length):
    while length > 0:
        x = start % UNITS
        width = min(length, UNITS - x)
        yield x, start // UNITS * STEP + 2, width, TALL
        start, length = start + width, length - width


def _row_mib(total):
    """MiB per row, a power of two, so that ``total`` fills 6 to 12 rows."""
    row = 1.0
    while total / row > 12:
        row *= 2
    return row


# The picture where there is no HTML.


def _picture(shown, title, caption, colours, row, rows):
    panels = []
    for run, stage in shown:
        panels.append(Panel(f"{_moment(run, stage)}. {_said(stage)}", None, "note"))
        panels.append(
            [
                Panel(f"{name}: {_head(side)}", _map(side, colour, row, rows))
                for name, side, colour in zip(("default", "expandable"), stage[2:4], colours)
            ]
        )
    told = " ".join(
        f"{_moment(run, stage)}: default {_head(stage.default)}; expandable "
        f"{_head(stage.expandable)}. {_said(stage)}"
        for run, stage in shown
    )
    return Picture(title, panels, caption, alt=f"{title}. {told}")


def _map(side, colour, row, rows):
    scale = (PANEL - 2) / UNITS
    used, free, outline = (
        [(1 + x * scale, y * scale, w * scale, h * scale) for x, y, w, h in rectangles]
        for rectangles in _rectangles(side, row)
    )
    with rc_context(STYLE):
        fig, ax = canvas(PANEL, round(rows * STEP * scale))
        bars(ax, used, fill=colour)
        bars(ax, free, fill=IDLE, alpha=FREE)
        bars(ax, outline, edge=FOREGROUND, width=0.8)
    return fig


# The page.


def _html(runs, shown, title, caption, colours, row, rows):
    figure = ElementTree.Element("figure", {"class": "ttb-explorer ttb-scrubber", "oninput": DRAW})
    top = _top(runs)
    kept = [_kept(run, row, top) for run in runs]
    figure.set("data-runs", json.dumps(kept, separators=(",", ":"), ensure_ascii=False))
    figure.set("style", "margin:1em 0")
    ElementTree.SubElement(figure, "div", {"class": "ttb-title"}).text = title
    first, (run, stage) = shown
    form = {"onsubmit": "return false", "autocomplete": "off", "data-lm-suppress-shortcuts": "true"}
    form = ElementTree.SubElement(figure, "form", form)
    at = run.stages.index(stage)
    if len(runs) > 1:
        form.append(_choice([one.label for one in runs], len(runs) - 1))
    form.append(slider([_name(one) for one in run.stages], "step", at))
    del form[-1][0].attrib["data-labels"]
    form[-1][0].set("aria-valuetext", f"{_name(stage)}. {_said(stage)}")
    if any(one["breaks"] for one in kept):
        button = ElementTree.SubElement(form, "button", {"type": "button", "onclick": NEXT})
        button.text = "to where it breaks"
    start = ElementTree.SubElement(figure, "div", {"class": "ttb-still", "style": "display:none"})
    note = f"{_moment(*first)}. {_said(first[1])}"
    ElementTree.SubElement(start, "p", {"class": "ttb-said", "style": QUIET}).text = note
    start.append(_maps(first[1], colours, row, rows))
    live = ElementTree.SubElement(figure, "div", {"data-state": f"{run.label}{at}"})
    measured = [one.label for one in runs if one.measured]
    live.append(_curves(run, kept[-1]["curves"], colours, stage.step, top, measured))
    box = ElementTree.SubElement(
        live, "div", {"class": "ttb-said", "style": f"display:grid;{QUIET}"}
    )
    # The longest sentence keeps the room of all, so that nothing moves.
    said = [_said(one) for each in runs for one in each.stages]
    style = "grid-area:1/1;visibility:hidden"
    ElementTree.SubElement(box, "div", {"style": style, "aria-hidden": "true"}).text = max(
        said, key=len
    )
    attributes = {"style": "grid-area:1/1", "data-said": ""}
    ElementTree.SubElement(box, "div", attributes).text = _said(stage)
    live.append(_maps(stage, colours, row, rows, live=True))
    ElementTree.SubElement(figure, "figcaption", {"style": QUIET}).text = caption
    return ElementTree.tostring(figure, encoding="unicode")


def _choice(labels, start):
    fieldset = ElementTree.Element(
        "fieldset", {"class": "ttb-choice", "style": "border:0;padding:0"}
    )
    ElementTree.SubElement(fieldset, "legend", {"style": "font-size:1em;padding:0"}).text = "card"
    for at, words in enumerate(labels):
        style = {"style": "display:inline-block;margin-right:1em"}
        label = ElementTree.SubElement(fieldset, "label", style)
        attributes = {"type": "radio", "name": "card", "value": str(at)}
        attributes |= {"checked": ""} if at == start else {}
        ElementTree.SubElement(label, "input", attributes).tail = f" {words}"
    return fieldset


def _kept(run, row, top):
    """A run as the script reads it."""
    sides = [[stage[2 + a] for stage in run.stages] for a in (0, 1)]
    return {
        "label": run.label,
        "first": _worst(run),
        "steps": [stage.step for stage in run.stages],
        "said": [stage.words for stage in run.stages],
        "breaks": _breaks(run),
        "heads": [[_numbers(side) for side in along] for along in sides],
        "sides": [_changes(along, row) for along in sides],
        "curves": _paths(run, top),
    }


def _changes(sides, row):
    """For each side what differs from the one before, as the script reads it."""
    addresses = sorted({segment["address"] for side in sides for segment in side.segments})
    names, before, told = {address: at for at, address in enumerate(addresses)}, {}, []
    for side in sides:
        now = {names[one["address"]]: _digits(_lengths(one, row)) for one in side.segments}
        changed = [f"{key}:{now[key]}" for key in now if now[key] != before.get(key)]
        changed += [f"{key}:" for key in before if key not in now]
        told.append(";".join(changed))
        before = now
    return told


def _digits(lengths):
    words = ""
    for length in lengths:
        while length > LONGEST:
            words, length = words + "zz00", length - LONGEST
        words += DIGITS[length // 36] + DIGITS[length % 36]
    return words


def _maps(stage, colours, row, rows, live=False):
    style = "display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:0 1.2rem"
    box = ElementTree.Element("div", {"class": "ttb-maps", "style": style})
    for name, side, colour in zip(("default", "expandable"), stage[2:4], colours):
        panel = ElementTree.SubElement(box, "div", {"data-side": name} if live else {})
        heading = ElementTree.SubElement(panel, "div", {"class": "ttb-axis", "style": QUIET})
        edge = {"style": f"border-left:0.7em solid {THEME[colour]};padding-left:0.4em"}
        ElementTree.SubElement(heading, "strong", edge).text = name
        ElementTree.SubElement(heading, "br")
        attributes = {"data-head": ""} if live else {}
        ElementTree.SubElement(heading, "span", attributes).text = _head(side)
        svg = {"viewBox": f"0 0 {UNITS} {rows * STEP}", "role": "img"}
        svg["aria-label"] = f"{name}: a map of the segments" + ("" if live else f", {_head(side)}")
        svg["style"] = "display:block;width:100%;height:auto;overflow:visible;margin-top:0.4rem"
        svg = ElementTree.SubElement(panel, "svg", svg)
        styles = (
            f"fill:{THEME[colour]}",
            f"fill:{THEME[IDLE]};fill-opacity:{FREE}",
            "fill:none;stroke:currentColor;stroke-width:0.8;vector-effect:non-scaling-stroke",
        )
        for style, rectangles in zip(styles, _rectangles(side, row)):
            d = "".join(f"M{x} {y}h{w}v{h}h-{w}z" for x, y, w, h in rectangles)
            ElementTree.SubElement(svg, "path", {"style": style, "d": d})
    return box


def _top(runs):
    """The end of the scale of reserved memory, in MiB."""
    curves = [curve for run in runs for curve in (*run.reserved_mib, *run.measured)]
    return 1.04 * max(map(max, curves))


def _paths(run, top):
    """The curves of a run as the script exchanges them: measured, model, room, where it breaks."""
    measured = [_stairs(curve, top) for curve in run.measured] or ["", ""]
    steps = len(run.reserved_mib[1])
    room = "" if run.room_mib is None else f"M0 {_height(run.room_mib, top)}H{steps}"
    breaks = "".join(f"M{one.step} {CURVE - 8}v8" for one in run.stages if one.broken)
    return [*measured, *(_stairs(curve, top) for curve in run.reserved_mib), room, breaks]


def _height(value, top):
    return round(CURVE - CURVE * value / top)


def _stairs(curve, top):
    """A curve as stairs, a step only where it shows."""
    path = last = ""
    for step, value in enumerate(curve):
        y = _height(value, top)
        if not path:
            path = f"M0 {y}"
        elif y != last:
            path += f"H{step}V{y}"
        last = y
    return f"{path}H{len(curve)}"


def _curves(run, paths, colours, step, top, measured):
    """The curves of reserved memory along a run, and a mark at the step."""
    box = ElementTree.Element("div", {"data-curves": "", "style": QUIET})
    said = f"Reserved after each step, on a scale that ends at {mib(top)}. Grey ground: the requests were recorded. "
    said += (
        f"Dotted: measured on {measured[0]}, with what was reserved before the first request. "
        if measured
        else ""
    )
    said += "Red: the default allocator finds no room."
    ElementTree.SubElement(box, "div", {"class": "ttb-axis"}).text = said
    steps = len(run.reserved_mib[1])
    svg = {"viewBox": f"0 0 {steps} {CURVE}", "preserveAspectRatio": "none", "role": "img"}
    svg["aria-label"] = "Reserved memory along the run. " + "; ".join(
        f"{name}: from {mib(curve[0])} to {mib(max(curve))} at most, {mib(curve[-1])} at its end"
        for name, curve in zip(("default", "expandable"), run.reserved_mib)
    )
    svg["style"] = (
        f"display:block;width:100%;height:{CURVE}px;border-bottom:1px solid {THEME[MUTED]}"
    )
    svg = ElementTree.SubElement(box, "svg", svg)
    shade = {"width": str(run.recorded), "height": str(CURVE), "style": f"fill:{THEME[GRID]}"}
    ElementTree.SubElement(svg, "rect", shade | {"fill-opacity": "0.5"})
    line = "fill:none;vector-effect:non-scaling-stroke;stroke"
    styles = (
        *(f"{line}:currentColor;stroke-width:1.5;stroke-dasharray:1.5 3",) * 2,
        *(f"{line}:{THEME[colour]};stroke-width:2" for colour in colours),
        f"{line}:{THEME[MUTED]};stroke-width:1;stroke-dasharray:6 4",
        f"{line}:{THEME[IDLE]};stroke-width:3",
    )
    for style, path in zip(styles, paths):
        ElementTree.SubElement(svg, "path", {"data-curve": "", "style": style, "d": path})
    mark = {"data-at": "", "x": str(step), "width": "1.5", "height": str(CURVE)}
    ElementTree.SubElement(svg, "rect", mark | {"style": "fill:currentColor;fill-opacity:0.7"})
    return box
