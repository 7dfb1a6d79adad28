"""The masthead: what a chapter gains, before → after, and its place on the ladder, as HTML for a page.

What a reader is asked to predict is marked, so that ``masthead.js`` can cover it until there is a guess.
Without scripts, and in print, everything is shown.
"""

from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from .theme import IDLE, THEME, WORK
from .words import known, ms, percent

TALLEST, BAR = 52, 16  # of a bar of the small ladder: its height and its width in pixels
APART = "0.45"  # how solid a bar is that was not measured in turn with the others


class Row(NamedTuple):
    """A regime in the headline.

    ``beside`` is a second quantity, "GPU idle 86 %" and "32 %", before and after, or nothing;
    ``share`` the share of the limit, as words, "" if unknown.
    """

    where: str
    before: str
    after: str
    said: str = ""
    beside: tuple = ()
    share: str = ""


class Question(NamedTuple):
    """What a reader guesses: its key on the page, words for it, and the answer.

    ``before`` is the value before the step, so that a guess may be a factor; nan for none. "×2" means
    half of it, or twice of it where it ``grows``.
    """

    key: str
    label: str
    unit: str
    answer: float
    words: str
    before: float = float("nan")
    grows: bool = False


class Step(NamedTuple):
    """A chapter on the small ladder. ``bars``: batch size -> (ms per token, idle share)."""

    number: int
    name: str
    href: str
    bars: dict
    apart: bool = False  # not measured in turn with the others


class Masthead(NamedTuple):
    """What a masthead says.

    Args:
        page: its name, under which guesses are kept.
        sentence: what the chapter does, in one sentence.
        of: what the headline is of: "Time of a token: naive → KV cache".
        rows: the headline, a ``Row`` for each regime.
        questions: what is guessed before the answer is shown; none where nothing is covered.
        here: the chapter's number; None for the whole ladder.
    """

    page: str
    sentence: str
    of: str = ""
    rows: tuple = ()
    questions: tuple = ()
    here: int | None = None


def draw_masthead(masthead, steps, *, limit_href="", all_questions=None):
    """Return the HTML of a masthead; its provenance is to follow inside of it.

    Args:
        masthead: a ``Masthead``.
        steps: the ``Step``s of the ladder.
        limit_href: where the share of the limit is explained.
        all_questions: for the page that sums guesses up: tuples of a chapter's ``Step``, its page's
            name and its ``Question``s.
    """
    root = Element("div", {"class": "ttb-masthead", "data-page": masthead.page})
    if masthead.questions:
        root.set("class", "ttb-masthead ttb-asks")
    if masthead.rows:
        _words(root, "div", masthead.of, "ttb-of")
        heads = SubElement(root, "div", {"class": "ttb-heads", "tabindex": "-1"})
        for row in masthead.rows:
            _row(heads, row, limit_href)
    if masthead.sentence:
        _words(root, "p", masthead.sentence, "ttb-sentence")
    if masthead.questions:
        _form(root, masthead.questions)
    if steps:
        _ladder(root, steps, masthead.here)
    if all_questions:
        _board(root, all_questions)
    return tostring(root, encoding="unicode", method="html")


def _row(parent, row, limit_href):
    head = SubElement(parent, "div", {"class": "ttb-head"})
    _words(head, "div", row.where, "ttb-where")
    change = SubElement(head, "div", {"class": "ttb-change"})
    _words(change, "span", row.before)
    if " " not in row.before:
        # Covered, the answer's unit is missing.
        _words(change, "span", f" {row.after.rpartition(' ')[2]}", "ttb-unit-of")
    _words(change, "span", " → ")
    _secret(change, row.after)
    detail = SubElement(head, "div", {"class": "ttb-detail"})
    _words(detail, "span", row.said, "ttb-secret")
    if row.beside:
        _words(detail, "span", " · " if row.said else "", "ttb-secret")
        beside = _words(detail, "span", f"{row.beside[0]} → ", "ttb-together")
        _secret(beside, row.beside[1])
    if row.share:
        share = _words(detail, "span", " · ", "ttb-secret")
        link = SubElement(share, "a", {"href": limit_href}) if limit_href else share
        if limit_href:
            link.text = "share of the limit"
            link.tail = f" {row.share}"
        else:
            share.text += f"share of the limit {row.share}"


def _secret(parent, words):
    """Write what is covered until there is a guess, and its cover."""
    _words(parent, "span", words, "ttb-secret")
    lid = _words(parent, "span", "?", "ttb-lid")
    lid.attrib |= {"role": "img", "aria-label": "covered until you guess"}


def _form(parent, questions):
    form = SubElement(parent, "form", {"class": "ttb-guess", "autocomplete": "off"})
    fieldset = SubElement(form, "fieldset")
    legend = _words(fieldset, "legend", "Your guess, before you look")
    if any(known(one.before) for one in questions):
        part = "twice" if any(one.grows for one in questions) else "half"
        _words(legend, "span", f" a number, or ×2 for {part} of what it was", "ttb-hint")
    for one in questions:
        label = SubElement(fieldset, "label")
        _words(label, "span", one.label)
        # A text field: a guess may be a factor, and a comma may stand in it.
        attributes = {"type": "text", "inputmode": "decimal", "size": "6", "name": one.key}
        attributes |= {"data-answer": repr(float(one.answer)), "data-words": one.words}
        attributes |= {"data-unit": one.unit, "data-label": one.label}
        if known(one.before):
            attributes |= {"data-before": repr(float(one.before))}
            attributes |= {"data-grows": ""} if one.grows else {}
        field = SubElement(label, "input", attributes)
        field.set("aria-label", f"{one.label}, in {one.unit}")
        _words(label, "span", one.unit, "ttb-unit")
    buttons = SubElement(form, "div", {"class": "ttb-buttons"})
    SubElement(buttons, "button", {"type": "submit"}).text = "Compare"
    SubElement(buttons, "button", {"type": "button", "class": "ttb-show"}).text = "Show me"
    SubElement(parent, "div", {"class": "ttb-verdict", "role": "status"})


def _ladder(parent, steps, here):
    nav = SubElement(parent, "nav", {"class": "ttb-rungs", "aria-label": "The ladder"})
    listing = SubElement(nav, "ol")
    longest = max((time for step in steps for time, _ in step.bars.values()), default=1)
    for step in steps:
        classes = [
            *(["ttb-here"] if step.number == here else []),
            *(["ttb-ahead"] if here is not None and step.number >= here else []),
        ]
        item = SubElement(listing, "li", {"class": " ".join(classes)} if classes else {})
        link = SubElement(item, "a", {"href": step.href})
        if step.number == here:
            link.set("aria-current", "page")
        box = SubElement(link, "span", {"class": "ttb-bars", "aria-hidden": "true"})
        box.append(_bars(step, longest))
        _words(box, "span", "?", "ttb-lid")
        _words(link, "span", f"{step.number}", "ttb-number")
        _words(link, "span", f" {step.name}", "ttb-name")
        told = _words(link, "span", f" {_told(step)}", "ttb-secret ttb-told")
        told.set("data-name", step.name)
    sizes = ", then ".join(f"batch {size}" for size in steps[0].bars)
    key = SubElement(nav, "p", {"class": "ttb-key"})
    _words(key, "span", f"Time of a token: {sizes}. ")
    for colour, words in ((WORK, "the GPU works"), (IDLE, "it waits")):
        swatch = SubElement(key, "span", {"class": "ttb-swatch", "aria-hidden": "true"})
        swatch.set("style", f"background:{THEME[colour]}")
        swatch.tail = f" {words} "
    if any(step.apart for step in steps):
        _words(
            key,
            "span",
            "· pale: from a race or a process of its own, not to be compared with the others",
        )


def _bars(step, longest):
    """The bars of a chapter beside each other: the GPU's work below, its idle time on top."""
    width = len(step.bars) * (BAR + 4) - 4
    size = {"width": f"{width}", "height": f"{TALLEST}"}
    svg = Element("svg", {"viewBox": f"0 0 {width} {TALLEST}", "aria-hidden": "true"} | size)
    svg.set("preserveAspectRatio", "none")  # a narrow page makes them thinner, not shorter
    for at, (time, idle) in enumerate(step.bars.values()):
        whole = time / longest * TALLEST
        waits = whole * idle if known(idle) else 0
        for colour, top, height in (
            (WORK, TALLEST - whole + waits, whole - waits),
            (IDLE, TALLEST - whole, waits),
        ):
            rect = {"x": f"{at * (BAR + 4)}", "y": f"{top:.2f}", "width": f"{BAR}"}
            rect |= {"height": f"{height:.2f}", "style": f"fill:{THEME[colour]}"}
            SubElement(svg, "rect", rect | ({"opacity": APART} if step.apart else {}))
    return svg


def _told(step):
    parts = [
        f"{ms(time)} at batch {size}" + (f", idle {percent(idle)}" if known(idle) else "")
        for size, (time, idle) in step.bars.items()
    ]
    return "\n".join(parts).replace(" %", "\u00a0%")


def _board(parent, pages):
    """A table of all guesses, which the script fills; hidden until there is one."""
    board = SubElement(parent, "details", {"class": "ttb-guesses", "hidden": ""})
    SubElement(board, "summary", {"role": "status"})
    table = SubElement(board, "table")
    head = SubElement(SubElement(table, "thead"), "tr")
    for words in ("chapter", "question", "you said", "measured", "off"):
        SubElement(head, "th", {"scope": "col"}).text = words
    body = SubElement(table, "tbody")
    for step, page, questions in pages:
        for one in questions:
            row = SubElement(body, "tr", {"hidden": "", "data-page": page, "data-key": one.key})
            row.set("data-answer", repr(float(one.answer)))
            row.set("data-unit", one.unit)
            link = SubElement(SubElement(row, "td"), "a", {"href": step.href})
            link.text = f"{step.number} · {step.name}"
            for words in (one.label, "", one.words, ""):
                SubElement(row, "td").text = words
    SubElement(board, "button", {"type": "button", "class": "ttb-forget"}).text = "Forget them"


def _words(parent, tag, words, kind=""):
    element = SubElement(parent, tag, {"class": kind} if kind else {})
    element.text = words
    return element
