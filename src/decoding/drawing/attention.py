"""Attention reads a cache: which rows a step computes and which keys they read, word by word."""

from typing import NamedTuple
from xml.etree import ElementTree

from matplotlib import rc_context

from .explorers import Explorer, slider
from .shapes import bars, canvas, diagonals, hatched, write
from .svg import QUIET, Picture
from .theme import COLOURS, MUTED, STYLE, THEME

WORDS = ("The", "GPU", "waits", "for", "the", "host")
LENGTH = 8  # positions of the static buffer
LEFT, TOP, PITCH, ROW, CELL, TALL = 52, 18, 43, 27, 40, 23  # pixels
HATCH = 9  # pixels from one diagonal line to the next
KEPT = 0.3  # how solid is what an earlier step has computed
NEW, OLD, DASHED, EMPTY, HIDDEN = "new", "old", "dashed", "empty", "hidden"


class Form(NamedTuple):
    """One way to attend: its name, what its rows look like, and its words.

    ``heading`` and ``alt`` have {n} for the step. ``past`` is how a row of an earlier step looks.
    """

    name: str
    heading: str
    past: str
    positions: int
    says: str
    alt: str


FORMS = {
    "naive": Form(
        "naive",
        "rows through every layer: {n}",
        OLD,
        len(WORDS),
        "Strong: the row of the newest word. Pale: rows computed again, as in the step before.",
        "Naive: {n} rows are computed, one for each word; only the last is new.",
    ),
    "kv_cache": Form(
        "with the cache",
        "rows through every layer: 1",
        DASHED,
        len(WORDS),
        "With the cache, dashed: rows that are not computed. K and V: kept from earlier steps "
        "(pale), written now (strong).",
        "With the cache: 1 row is computed. It reads the keys and values of {n} positions, of which "
        "this step writes one.",
    ),
    "static_cache": Form(
        "static cache",
        f"positions read: {LENGTH}, written so far: {{n}}",
        DASHED,
        LENGTH,
        "Dashed: rows that are not computed. K and V: kept (pale), written now (strong), not "
        "written yet (hatched). The mask hides the hatched ones; attention reads them all the same.",
        f"Static cache: 1 row is computed. It reads all {LENGTH} positions of the buffer, of which "
        "{n} are written; the mask hides the others.",
    ),
}
TITLES = {
    ("naive",): "One row is new. Every other row was computed a step ago.",
    ("kv_cache",): "One row is computed. It reads what earlier steps have kept.",
    ("static_cache",): "The buffer has its final length, and every step reads all of it.",
}
TITLE = "Without a cache every row is computed again; with it, only the new one"
READING = "A row is a query, a column a key that it reads."
STEP = """const q=s=>[...this.querySelectorAll(s)],e=q("[type=range]")[0],n=+e.value+1;\
e.ariaValueText=e.nextSibling.value=e.dataset.labels.split("|")[e.value];\
q("[data-state]").map(g=>g.dataset.state=n);q("[data-count]").map(g=>g.textContent=n);\
q("[data-n]").map(g=>g.style.cssText=g.dataset.looks.split("|")[Math.sign(g.dataset.n-n)+1])"""
POINT = """const r=event.type=="mouseover"&&event.target.closest("[data-reads]");\
this.querySelectorAll("[data-key]").forEach(k=>k.style.opacity=\
r&&r.ownerSVGElement==k.ownerSVGElement&&+k.dataset.key>r.dataset.reads?.15:"")"""

FOCUS = "closest('figure').onmouseover({{type:'mouse{}',target:this}})"


class _Part(NamedTuple):
    """What changes together: it belongs to word ``n``, and looks like ``looks`` in a step after
    that word's, in its own, and before."""

    n: int
    looks: tuple[str, str, str]
    cells: tuple = ()
    words: tuple = ()  # (x, y, text, align)
    key: int = 0  # the key that it is
    reads: int = 0  # the row that it is: how many keys it reads


def attention(*forms, title=None):
    """Draw which rows of attention a step computes, and which keys they read.

    A slider goes through the steps; who points at a row sees the keys that it reads. The still form
    is the last step.

    Args:
        *forms: "naive", "kv_cache" or "static_cache", beside each other.
        title: the message of the picture; each form has one.

    Returns:
        An ``Explorer``.

    Raises:
        ValueError: no form, or one that there is not.
    """
    if not forms or set(forms) - FORMS.keys():
        raise ValueError(f"The forms are {', '.join(FORMS)}, one or more; not {forms}.")
    title = title or TITLES.get(forms, TITLE)
    chosen = [FORMS[name] for name in forms]
    caption = " ".join([READING, *(form.says for form in chosen)])
    said = " ".join(form.alt.format(n=len(WORDS)) for form in chosen)
    alt = f"{title} Step {len(WORDS)} of “{' '.join(WORDS)}”. {said}"
    panels = [_panel(name) for name in forms]
    return Explorer(_html(forms, title, caption), Picture(title, [panels], caption, alt=alt))


def _parts(form):
    """The parts of a form: key names, rows, and keys and values below."""
    last = len(WORDS)
    for n, word in enumerate(WORDS, 1):
        x, y = LEFT + PITCH * (n - 1), TOP + ROW * (n - 1)
        names = ((x + CELL / 2, 12, word, "center"),)
        yield _Part(n, (OLD, NEW, HIDDEN), words=names, key=n)
        cells = tuple((LEFT + PITCH * at, y, CELL, TALL) for at in range(n))
        name = ((LEFT - 8, y + 17, word, "right"),)
        reads = form.positions if form.positions > last else n
        yield _Part(n, (form.past, NEW, HIDDEN), cells, name, reads=reads)
        if form.positions > last:
            beyond = tuple((LEFT + PITCH * at, y, CELL, TALL) for at in range(n, form.positions))
            yield _Part(n, (HIDDEN, EMPTY, HIDDEN), beyond)
    if form.past == DASHED:
        y = TOP + ROW * last + 12
        for at, name in enumerate("KV"):
            yield _Part(0, (OLD,) * 3, words=((LEFT - 8, y + 20 * at + 14, name, "right"),))
        later = EMPTY if form.positions > last else HIDDEN
        for n in range(1, form.positions + 1):
            cells = tuple((LEFT + PITCH * (n - 1), y + 20 * at, CELL, 17) for at in (0, 1))
            yield _Part(n, (OLD, NEW, later), cells, key=n)


def _size(form):
    below = 52 if form.past == DASHED else 2
    return LEFT + PITCH * form.positions, TOP + ROW * len(WORDS) + below


def _look(part, step):
    return part.looks[(part.n >= step) + (part.n > step)]


def _panel(name):
    """A form at the last step, for a picture that stands alone."""
    form, step = FORMS[name], len(WORDS)
    with rc_context(STYLE):
        fig, ax = canvas(*_size(form))
        for part in _parts(form):
            look, colour = _look(part, step), COLOURS[name]
            if look in (NEW, OLD):
                bars(ax, part.cells, fill=colour, alpha=1 if look == NEW else KEPT)
            elif look == DASHED:
                bars(ax, part.cells, edge=MUTED, dashes=(0, (3, 2)), width=1)
            elif look == EMPTY:
                hatched(ax, part.cells, colour=MUTED, step=HATCH)
            for x, y, words, align in part.words if look != HIDDEN else ():
                write(ax, x, y, words, align=align, bold=look == NEW)
    return f"{form.name}: {form.heading.format(n=step)}", fig


def _html(forms, title, caption):
    attributes = {"class": "ttb-explorer ttb-attention", "oninput": STEP, "style": "margin:1em 0"}
    attributes |= {"onmouseover": POINT, "onmouseout": POINT}
    figure = ElementTree.Element("figure", attributes)
    ElementTree.SubElement(figure, "div", {"class": "ttb-title"}).text = title
    form = ElementTree.SubElement(
        figure,
        "form",
        {"onsubmit": "return false", "autocomplete": "off", "data-lm-suppress-shortcuts": "true"},
    )
    labels = [f"{n}, “{word}”" for n, word in enumerate(WORDS, 1)]
    form.append(slider(labels, "step", len(WORDS) - 1))
    style = "display:flex;flex-wrap:wrap;gap:0.8rem 2rem;align-items:flex-start"
    shown = {"class": "ttb-row", "style": style, "data-state": str(len(WORDS))}
    row = ElementTree.SubElement(figure, "div", shown)
    for name in forms:
        row.append(_live(name))
    ElementTree.SubElement(figure, "figcaption", {"style": QUIET}).text = caption
    return ElementTree.tostring(figure, encoding="unicode")


def _live(name):
    """A form as an element whose parts know how they look in every step."""
    form, step = FORMS[name], len(WORDS)
    width, height = _size(form)
    panel = ElementTree.Element("div", {"style": f"flex:1 1 300px;min-width:0;max-width:{width}px"})
    heading = ElementTree.SubElement(panel, "div", {"class": "ttb-axis", "style": QUIET})
    ElementTree.SubElement(heading, "strong").text = form.name
    before, count, after = form.heading.partition("{n}")
    heading[0].tail = f": {before}"
    if count:
        ElementTree.SubElement(heading, "span", {"data-count": ""}).text = str(step)
        heading[-1].tail = after
    attributes = {"viewBox": f"0 0 {width} {height}", "font-size": "13", "fill": "currentColor"}
    attributes["style"] = "display:block;width:100%;height:auto;overflow:visible"
    attributes |= {"role": "group", "aria-label": f"{form.name}: queries and the keys they read"}
    svg = ElementTree.SubElement(panel, "svg", attributes)
    colour = THEME[COLOURS[name]]
    for part in _parts(form):
        group = _group(part, colour, step)
        if part.key:
            svg.append(ElementTree.Element("g", {"data-key": str(part.key)}))
            svg[-1].append(group)
        else:
            svg.append(group)
    return panel


def _group(part, colour, step):
    styles = {
        NEW: f"fill:{colour};font-weight:600",
        OLD: f"fill:{colour};fill-opacity:{KEPT}",
        DASHED: f"fill:transparent;stroke:{THEME[MUTED]};stroke-dasharray:3 2",
        EMPTY: f"fill:none;stroke:{THEME[MUTED]}",
        HIDDEN: "display:none",
    }
    attributes = {"style": styles[_look(part, step)]}
    if part.n:
        attributes |= {"data-n": str(part.n), "data-looks": "|".join(map(styles.get, part.looks))}
    if part.reads:
        reads = f"all {part.reads} positions" if part.reads > len(WORDS) else "the keys of "
        reads += "" if part.reads > len(WORDS) else ", ".join(WORDS[: part.reads])
        attributes |= {"data-reads": str(part.reads), "tabindex": "0", "role": "img"}
        # Focus does not bubble: a row hands it on as if a pointer had come.
        attributes["onfocus"] = FOCUS.format("over")
        attributes["onblur"] = FOCUS.format("out")
        attributes["aria-label"] = f"the query of “{WORDS[part.n - 1]}” reads {reads}"
    group = ElementTree.Element("g", attributes)
    if EMPTY in part.looks:  # hatched in that look only: the other looks fill what lies below
        d = "".join(f"M{a:g} {b:g}L{c:g} {e:g}" for (a, b), (c, e) in diagonals(part.cells, HATCH))
        ElementTree.SubElement(group, "path", {"d": d})
    if part.cells:
        d = "".join(f"M{x:g} {y:g}h{w:g}v{h:g}h-{w:g}z" for x, y, w, h in part.cells)
        ElementTree.SubElement(group, "path", {"d": d})
    for x, y, words, align in part.words:
        place = {"x": f"{x:g}", "y": f"{y:g}"}
        place |= {"center": {"text-anchor": "middle"}, "right": {"text-anchor": "end"}}[align]
        place["style"] = "fill:currentColor;fill-opacity:1;stroke:none"
        ElementTree.SubElement(group, "text", place).text = words
    return group
