"""Launch and work: how long a token takes by the host's time *L* and the GPU's time *G*.

The model of chapter 6, as a drawing of two patterns and as a calculator: with a check at once a token
takes L + G; with one that is read a step late, or with none, the larger of the two.
"""

from math import ceil, nan
from typing import NamedTuple
from xml.etree import ElementTree

from matplotlib import rc_context

from .explorers import Explorer
from .shapes import bars, canvas, label, lines, write
from .svg import Panel, Picture, page_element
from .theme import BACKGROUND, FOREGROUND, HOST, IDLE, STYLE, WIDTH, WORK
from .toys import CONTROLS, STILL, choices
from .words import count, known, percent, us

LOOPS = ("check at once", "one step late", "never")


class Token(NamedTuple):
    """What the model says of one token, in µs; ``idle`` is a share."""

    token: float
    bubble: float  # for how long the GPU waits
    cost: float  # by how much the token is longer than without a check
    idle: float


def token_of(launch, work, loop=LOOPS[0]):
    """Return what the model says of a token.

    Args:
        launch, work: L and G, in µs, above 0.
        loop: one of ``LOOPS``.

    Raises:
        ValueError: there is no such loop, or a time is not above 0.
    """
    if loop not in LOOPS:
        raise ValueError(f"{loop!r} is no loop; choose from {', '.join(LOOPS)}.")
    if not (launch > 0 and work > 0):
        raise ValueError(f"L={launch} and G={work} must both be above 0 µs.")
    bound = max(launch, work)
    token = launch + work if loop == LOOPS[0] else bound
    return Token(token, token - work, token - bound, 1 - work / token)


# --- The drawing ----------------------------------------------------------------------------------

LEFT, BAR, STEPS = 44, 22, 3


def launch_and_work(launch, work, *, title=None, notes=(), caption=None):
    """Draw L and G as two bars, in two patterns: checked at once, and one step late or never.

    Args:
        launch, work: L and G, in µs.
        title: its message; by default what the check costs.
        notes: sentences below it.
        caption: a sentence below these.

    Returns:
        A ``Picture``, which names the bubble and the cost with their numbers.

    Raises:
        ValueError: a time is not above 0.
    """
    checked, late = token_of(launch, work), token_of(launch, work, LOOPS[1])
    smaller = "L" if launch <= work else "G"
    title = title or (
        f"The bubble is L, {us(checked.bubble)}. The check costs the smaller of L and G, "
        f"{us(checked.cost)}"
    )
    scale = (WIDTH - LEFT) / (STEPS * checked.token)
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, 240)
        words = f"check at once: L + G = {us(checked.token)} a token"
        _draw_pattern(ax, 14, words, launch, work, checked.token, scale)
        _draw_ruler(ax, 100, 0, checked.token * scale, "one token")
        words = f"one step late, or never: the longer one, {us(late.token)}"
        _draw_pattern(ax, 140, words, launch, work, late.token, scale)
        _draw_ruler(ax, 226, 0, late.token * scale, "")
        words = f"the check costs {us(checked.cost)}: {smaller}"
        _draw_ruler(ax, 226, late.token * scale, checked.token * scale, words, colour=IDLE)
    alt = (
        f"{title}. Two bars a pattern, the host's launch L of {us(launch)} and the GPU's work G of "
        f"{us(work)}. Checked at once they take turns: a token takes {us(checked.token)}, and the GPU "
        f"waits {us(checked.bubble)} of it, the bubble. One step late or never they overlap: "
        f"{us(late.token)}, and the GPU waits {us(late.bubble)}. The check costs the difference, "
        f"{us(checked.cost)}: {smaller}, the smaller of the two."
    )
    rows = [Panel("", fig), *(Panel(words, kind="note") for words in notes)]
    return Picture(title, rows, caption, alt=" ".join([alt, *notes]))


def _draw_pattern(ax, top, words, launch, work, token, scale):
    """Draw the steps of the host and of the GPU at the pace of ``token``, and the waits between."""
    write(ax, 0, top, words, bold=True)
    host, gpu = top + 14, top + 14 + BAR + 8
    for name, y in (("host", host), ("GPU", gpu)):
        write(ax, 0, y + 16, name, muted=True)
    for lane, begin, end in _pattern(launch, work, token):
        y, fill, words = {
            "host": (host, HOST, "L"),
            "work": (gpu, WORK, "G"),
            "idle": (gpu, IDLE, "bubble"),
        }[lane]
        x, width = LEFT + begin * scale, (end - begin) * scale
        bars(ax, [(x, y, width, BAR)], fill=fill, edge=BACKGROUND)
        label(ax, x, y + 16, width, (words,), colour=BACKGROUND)


def _pattern(launch, work, token):
    """Yield ("host", "work" or "idle", begin, end) of what happens while ``STEPS`` checked tokens pass.

    Checked at once, a step's work follows its launch; later, that of the step before runs meanwhile.
    """
    room = STEPS * (launch + work)
    offset = launch if token > max(launch, work) else 0
    for step in range(-1, int(room / token) + 1):
        begins, starts = step * token, step * token + offset
        for lane, begin, end in (
            ("host", begins, begins + launch),
            ("work", starts, starts + work),
            ("idle", starts + work, starts + token),
        ):
            begin, end = max(begin, 0), min(end, room)
            if end - begin > room / 1e6:
                yield lane, begin, end


def _draw_ruler(ax, y, begin, end, words, colour=FOREGROUND):
    """Draw a measure below a pattern, with words behind it."""
    begin, end = LEFT + begin, LEFT + end
    ends = [((x, y - 5), (x, y + 5)) for x in (begin, end)]
    lines(ax, [((begin, y), (end, y)), *ends], colour=colour, width=2)
    write(ax, end + 8, y + 5, words, colour=colour)


# --- The calculator -------------------------------------------------------------------------------

LEAST, MOST = 10, 2000  # µs; a preset beyond moves the end of the scale
ROUND = (400, 500, nan)  # L, G and no token


def calculator(presets, *, loop=LOOPS[0]):
    """Return a calculator of a token's time: L, G and the loop go in, and numbers and a drawing come out.

    Args:
        presets: what the presets have in common -> label -> loop, as in ``LOOPS`` -> what was
            measured: L, G and the token, in µs. The first preset is shown first. One that has not all
            three for ``loop`` is left out; if none is left, it begins with round numbers.
        loop: which loop it begins with, one of ``LOOPS``.

    Returns:
        An ``Explorer``. Its picture is the drawing of the first preset, with all presets below.

    Raises:
        ValueError: there is no such loop.
    """
    if loop not in LOOPS:
        raise ValueError(f"{loop!r} is no loop; choose from {', '.join(LOOPS)}.")
    presets = {
        group: {label: loops for label, loops in labels.items() if _whole(loops.get(loop, ()))}
        for group, labels in presets.items()
    }
    presets = {group: labels for group, labels in presets.items() if labels}
    presets = presets or {"round numbers, not measured": {"400 and 500": {loop: ROUND}}}
    picture = _still(presets, loop)
    figure = ElementTree.Element("figure", {"class": "ttb-toy ttb-calculator"})
    figure.set("oninput", ON_INPUT)
    ElementTree.SubElement(figure, "style").text = CONTROLS + LOOK
    live = ElementTree.SubElement(figure, "div", {"class": "live"})
    ElementTree.SubElement(live, "p", {"class": "title"}).text = TITLE
    every = [loops for labels in presets.values() for loops in labels.values()]
    live.set("data-presets", ";".join(map(_written, every)))
    launch, work, measured = every[0][loop]
    found = token_of(launch, work, loop)
    longest = [value for loops in every for times in loops.values() for value in _times(times)]
    most = max(MOST, 1000 * ceil(max(longest, default=0) / 1000))
    live.append(_form(presets, loop, launch, work, most))
    lanes = ElementTree.SubElement(live, "div", {"class": "lanes"})
    for name in ("host", "GPU", "token"):
        ElementTree.SubElement(lanes, "span").text = name
    lanes.append(_chart(launch, work, found))
    live.append(_results(found, measured))
    ElementTree.SubElement(live, "p", {"class": "below"}).text = CAPTION
    still = ElementTree.SubElement(figure, "div", STILL)
    still.append(page_element(picture))
    return Explorer(ElementTree.tostring(figure, encoding="unicode"), picture)


TITLE = "How long does a token take? Give the launch and the work"
CAPTION = (
    "The bubble is how long the GPU waits in a token; the cost of the check is how much longer the "
    "token is than without one. Red: the GPU waits. With measured numbers stands the token that was "
    "timed; the model knows nothing of the flag's way, of pauses inside the graph, or of launches "
    "that are late."
)


def _whole(times):
    return len(times) == 3 and all(map(known, times))


def _written(loops):
    found = [loops[loop] if _whole(loops.get(loop, ())) else () for loop in LOOPS]
    return "/".join(",".join(f"{value:.4g}" for value in times) for times in found)


def _times(times):
    """L and G of a preset; nothing where it has not all three times."""
    return times[:2] if _whole(times) else ()


def _form(presets, loop, launch, work, most):
    form = ElementTree.Element("form", {"onsubmit": "return false", "autocomplete": "off"})
    form.set("data-lm-suppress-shortcuts", "true")
    form.append(choices("loop", LOOPS, LOOPS.index(loop)))
    for name, words, value in (("L", "L, launch", launch), ("G", "G, GPU work", work)):
        row = ElementTree.SubElement(form, "div", {"class": "keys"})
        ElementTree.SubElement(row, "span", {"class": "of"}).text = words
        limits = {"min": str(LEAST), "max": str(most), "value": f"{value:.4g}"}
        for kind, step, unit in (("range", "1", "µs"), ("number", "any", "µs, as a number")):
            attributes = {"type": kind, "step": step, "data-of": name}
            attributes["aria-label"] = f"{words} in {unit}"
            field = ElementTree.SubElement(row, "input", attributes | limits)
        field.tail = "µs"
    number = 0
    for group, labels in presets.items():
        form.append(choices(group, labels, None if number else 0, name="measured", first=number))
        number += len(labels)
    return form


def _chart(launch, work, found):
    words = "The host's launches above the GPU's work, and where the GPU waits"
    chart = ElementTree.Element("svg", {"class": "chart", "role": "img", "aria-label": words})
    room = STEPS * (launch + work)
    bound = found.token - found.cost
    shapes = [
        (*{"host": (2, 26, "L"), "work": (34, 26, "G"), "idle": (34, 26, "")}[lane], lane, a, b)
        for lane, a, b in _pattern(launch, work, found.token)
    ]
    shapes += [(70, 6, "", "bound", 0, bound), (70, 6, "cost", "idle", bound, found.token)]
    for y, height, words, kind, begin, end in shapes:
        share = 100 * (end - begin) / room
        place = {"x": f"{100 * begin / room:.1f}%", "width": f"{share:.1f}%"}
        attributes = {"class": kind, "y": f"{y}", "height": f"{height}"} | place
        ElementTree.SubElement(chart, "rect", attributes)
        if words and share > 5:
            place = {"x": f"{50 * (begin + end) / room:.1f}%", "y": "90" if y > 40 else f"{y + 18}"}
            ElementTree.SubElement(chart, "text", place).text = words
    return chart


RESULTS = ("a token takes", "bubble", "GPU idle", "cost of check", "tokens/s a row", "timed")


def _results(found, measured):
    """What comes out: a name and a number each; the last is what was measured, if anything was."""
    box = ElementTree.Element("dl", {"aria-live": "polite", "aria-atomic": "true"})
    numbers = [us(found.token), us(found.bubble), percent(found.idle), us(found.cost)]
    numbers += [count(1e6 / found.token), us(measured)]
    for name, words in zip(RESULTS, numbers, strict=True):
        part = ElementTree.SubElement(box, "div")
        ElementTree.SubElement(part, "dt").text = name
        ElementTree.SubElement(part, "dd").text = words
    return box


# The same as token_of, _pattern, _chart and _results; where a preset has no numbers of a loop, those
# of the loop before stay. Halves go to the even number, as in Python: the tables say the same.
ON_INPUT = (
    "const q=s=>[...this.querySelectorAll(s)],t=event.target,"
    "set=(n,v)=>q(`[data-of=${n}]`).map(e=>e.value=v),V=n=>+q(`[data-of=${n}]`)[1].value;"
    "if(t.dataset.of){if(!(+t.value>0))return;set(t.dataset.of,t.value);"
    "q('[name=measured]').map(e=>e.checked=0)}"
    "const i=q('[name=loop]:checked')[0].value,p=q('[name=measured]:checked')[0],"
    "x=p?q('.live')[0].dataset.presets.split(';')[p.value].split('/')[i].split(','):[];"
    "if(x[2]){set('L',x[0]);set('G',x[1])}"
    "const L=V('L'),G=V('G'),B=Math.max(L,G),T=i>0?B:L+G,R=3*(L+G),o=i>0?0:L,"
    "r=v=>v.toLocaleString('en',{maximumFractionDigits:0,roundingMode:'halfEven'}),"
    "u=v=>r(v)+' µs';let s='';"
    "const bar=(c,y,h,w,a,b)=>{a=Math.max(a,0);b=Math.min(b,R);if(b-a<=R/1e6)return;"
    "const W=100*(b-a)/R;s+=`<rect class='${c}' x='${100*a/R}%' y='${y}' width='${W}%' height='${h}'/>`;"
    "if(w&&W>5)s+=`<text x='${50*(a+b)/R}%' y='${y>40?90:y+18}'>${w}</text>`};"
    "for(let n=-1;n*T<R;n++){const a=n*T,g=a+o;bar('host',2,26,'L',a,a+L);"
    "bar('work',34,26,'G',g,g+G);bar('idle',34,26,'',g+G,g+T)}"
    "bar('bound',70,6,'',0,B);bar('idle',70,6,'cost',B,T);q('.chart')[0].innerHTML=s;"
    "[u(T),u(T-G),r(100-100*G/T)+' %',u(T-B),r(1e6/T),"
    "x[2]?u(+x[2]):'–'].map((w,k)=>q('dd')[k].textContent=w)"
)
LOOK = """
.ttb-calculator .of{min-width:7.2rem;font-weight:600}
@media(max-width:640px){.ttb-calculator .of{flex-basis:100%}}
.ttb-calculator [type=range]{flex:1 1 8rem;min-width:0;min-height:1.6rem}
.ttb-calculator [type=number]{width:6rem;font:inherit;color:inherit;background:var(--ground);border:1px solid var(--line);border-radius:7px;padding:.15rem .4rem}
.ttb-calculator .lanes{display:grid;grid-template-columns:auto minmax(0,1fr);gap:0 .6rem;margin:1rem 0 .4rem;line-height:30px}
.ttb-calculator .chart{grid-area:1/2/4;width:100%;height:96px;font-size:13px}
.ttb-calculator .chart text{fill:var(--ground);text-anchor:middle}
.ttb-calculator .chart text[y="90"]{fill:var(--idle)}
.ttb-calculator .chart rect{stroke:var(--surface)}
.ttb-calculator .host{fill:var(--host)}
.ttb-calculator .work{fill:var(--work)}
.ttb-calculator .idle{fill:var(--idle)}
.ttb-calculator .bound{fill:var(--muted)}
.ttb-calculator dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(5.8rem,1fr));gap:.5rem;margin:.4rem 0}
.ttb-calculator dt{font-weight:400;font-size:.86rem;color:var(--muted)}
.ttb-calculator dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}
"""


def _still(presets, loop):
    """The drawing of the first preset, with what was measured of all of them below it."""
    notes, drawn = [], None
    for group, labels in presets.items():
        for name, loops in labels.items():
            launch, work, measured = loops[loop]
            drawn = drawn or (launch, work, f"{group} {name}")
            token = us(token_of(launch, work, loop).token)
            words = f"L {count(launch)}, G {us(work)}: {token}; timed {us(measured)}."
            notes.append(f"{group} {name}, {loop}: {words}")
    launch, work, name = drawn
    caption = f"Drawn for: {name}. {CAPTION}"
    return launch_and_work(launch, work, notes=notes, caption=caption)
