"""Timelines of a race's loops, which no profiler stretched: as a picture, and to choose and scrub."""

import json
from importlib.resources import files
from xml.etree import ElementTree

from matplotlib import rc_context

from .explorers import Explorer, buttons
from .logged import LAUNCH, method, windows
from .shapes import bars, canvas, hatched, label, legend, lines, swatch, text_width, write
from .svg import Panel, Picture, page_element
from .theme import BACKGROUND, FONT, HOST, IDLE, MUTED, NARROW, STYLE, WIDE, WORK
from .timelines import tick_step
from .words import counted, ms

LEFT, LANE, ROW = 40, 26, 116  # pixels: room for the lanes' names, a lane, a loop
LAUNCHES = 0.3  # how solid a launch is, so that its number can be read
NOTHING = "No loop was logged token by token: that takes a GPU."


def loop_timeline(races, *, title, ways=None, caption=None):
    """Draw host and GPU of the loops of a race over a few tokens, as they were logged.

    Args:
        races: batch size -> loop -> ``Record``, the ``results`` of ``watch``. All loops of a batch
            size are to one scale.
        title: the message of the picture, in words.
        ways: loop -> ``Way``, in their order; by default ``WAYS``.
        caption: replaces the sentences that say what was logged.

    Returns:
        A ``Picture``.
    """
    found = {batch: windows(race, ways) for batch, race in races.items()}
    found = {batch: shown for batch, shown in found.items() if shown}
    if not found:
        return Picture(title, [], NOTHING, alt=f"{title}. {NOTHING}")
    caption = method(races, found) if caption is None else caption
    alt = " ".join([f"{title.rstrip('.')}.", *(_described(b, w) for b, w in found.items())])
    return Picture(title, _rows(found, WIDE), caption, alt=alt, narrow=_rows(found, NARROW))


def _rows(found, width):
    last = list(found)[-1]
    return [
        Panel(f"Batch {batch}", _drawn(shown, width, batch == last), "headline")
        for batch, shown in found.items()
    ]


def _drawn(shown, width, with_legend):
    """The lanes of the loops of one batch size below each other, and an axis."""
    scale = (width - LEFT - 2) / max(window.total for window in shown.values())
    bottom = ROW * len(shown) + 4
    height, draw_legend = legend(_legend(shown), width)
    with rc_context(STYLE):
        fig, ax = canvas(width, bottom + 30 + (height + 14) * with_legend)
        for at, window in enumerate(shown.values()):
            _draw_loop(ax, window, ROW * at, scale, width)
        _draw_axis(ax, scale, bottom, width)
        if with_legend:
            draw_legend(ax, bottom + 48)
    return fig


def _draw_loop(ax, window, top, scale, width):
    host, gpu = top + 24, top + 24 + LANE + 6
    write(ax, 0, top + FONT, window.way.asks, bold=True)
    write(ax, 0, host + 18, "host", muted=True)
    write(ax, 0, gpu + 18, "GPU", muted=True)

    def boxes(spans, y):
        return [(LEFT + a * scale, y, (b - a) * scale, LANE) for a, b in spans]

    ranges = window.timeline.host
    launches = boxes([_span(one) for one in ranges if one.name == LAUNCH], host)
    bars(ax, launches, fill=HOST, alpha=LAUNCHES)
    bars(ax, launches, edge=HOST, width=1)
    waits = boxes([_span(one) for one in ranges if one.name != LAUNCH], host)
    hatched(ax, waits, colour=HOST, step=10)
    bars(ax, boxes(window.idle, gpu), fill=IDLE)
    works = boxes([_span(work) for work in window.timeline.lanes["GPU"]], gpu)
    bars(ax, works, fill=WORK)
    lines(ax, [((x, y), (x, y + h)) for x, y, _, h in works], colour=BACKGROUND, width=1)
    tokens = [one.token for one in ranges if one.name == LAUNCH]
    room = [w for *_, w, _ in launches if w > text_width("00") + 6]
    if 2 * len(room) > len(launches):  # a few numbers here and there would not help
        for token, (x, y, room, _) in zip(tokens, launches, strict=True):
            label(ax, x, y + 18, room, (str(token),))
    for token, (x, y, room, _) in zip(window.tokens, works, strict=True):
        label(ax, x, y + 18, room, (str(token),), colour=BACKGROUND)
    words, end = took(window), LEFT + window.total * scale
    x = min(max(end, text_width(words, bold=True)), width)
    write(ax, x, gpu + LANE + 18, words, bold=True, align="right")


def took(window):
    """Return how long the tokens of a window take: 6 tokens in 3.2 ms.

    Where the round that was logged was far from the race's median, the median is said, too.
    """
    said = f"{counted(len(window.tokens), 'token')} in {ms(window.total / 1000)}"
    if abs(window.total / window.typical - 1) > 0.1:
        said += f" (the race's median: {ms(window.typical / 1000)})"
    return said


def _span(item):
    return item.start_us, item.end_us


def _draw_axis(ax, scale, y, width):
    step = tick_step(scale, width)
    lines(ax, [((LEFT, y), (width, y))])
    at = 0
    while LEFT + at * scale <= width:
        x = LEFT + at * scale
        lines(ax, [((x, y), (x, y + 5))])
        words = f"{at / 1000:g}" + (" ms" if at == 0 else "")
        half = text_width(words) / 2
        write(ax, min(x, width - half), y + 20, words, align="center")
        at += step


def _legend(shown):
    waits = any(one.name != LAUNCH for window in shown.values() for one in window.timeline.host)
    idle = any(window.idle for window in shown.values())
    entries = (
        ("host launches a step", _launch_swatch, True),
        ("host waits for a flag", _wait_swatch, waits),
        ("GPU works", swatch(WORK), True),
        ("GPU idle", swatch(IDLE), idle),
    )
    return [(words, sample) for words, sample, is_there in entries if is_there]


def _launch_swatch(ax, *box):
    bars(ax, [box], fill=HOST, alpha=LAUNCHES)
    bars(ax, [box], edge=HOST, width=1)


def _wait_swatch(ax, *box):
    hatched(ax, [box], colour=HOST, step=10)


def _described(batch, shown):
    said = []
    for window in shown.values():
        waits = [one for one in window.timeline.host if one.name != LAUNCH]
        idle = sum(b - a for a, b in window.idle) / 1000
        words = f"{window.way.asks}: {took(window)}, the GPU idle for {idle:.2f} ms of them"
        if waits:
            waited = sum(one.end_us - one.start_us for one in waits) / 1000
            words += f", the host waiting for {waited:.2f} ms"
        elif window.timeline.host:
            ahead = window.timeline.host[-1].token - window.tokens[-1]
            words += f", the host ahead by {counted(ahead, 'token')} at the end"
        said.append(words)
    return f"Batch {batch}: {'; '.join(said)}."


def loops_explorer(races, *, title, ways=None, start=None, before=None, caption=None):
    """Return timelines to choose from and to scrub: when the host asks, and the batch size.

    The choice before stays as an outline, so that two loops can be compared. Without JavaScript, and
    in print, the timelines of the smallest and the largest batch stand in for it.

    Args:
        races, title, ways, caption: as for ``loop_timeline``.
        start, before: the loop that is shown first, and the one that is its outline; by default the
            first, and none.

    Returns:
        An ``Explorer``; a ``Picture`` where nothing was logged.
    """
    found = {batch: windows(race, ways) for batch, race in races.items()}
    found = {batch: shown for batch, shown in found.items() if shown}
    batches = list(found)
    still = loop_timeline(
        {batch: races[batch] for batch in dict.fromkeys(batches[:1] + batches[-1:])},
        title=title,
        ways=ways,
        caption=method(races, found) if found and caption is None else caption,
    )
    if not found:
        return still
    loops = list(found[batches[0]])
    first = loops.index(start) if start in loops else 0
    outline = loops.index(before) if before in loops else first
    figure = ElementTree.Element(
        "figure", {"class": "ttb-explorer ttb-loops", "style": "margin:1em 0"}
    )
    shown = page_element(still)
    heading, words = shown.find("div[@class='ttb-title']"), shown.find("figcaption")
    for part in (heading, words):
        shown.remove(part)
    figure.append(heading)
    figure.append(_controls(found, loops, first, outline))
    ElementTree.SubElement(figure, "div", {"class": "ttb-still"}).append(shown)
    figure.append(_key(found))
    figure.append(words)
    html = ElementTree.tostring(figure, encoding="unicode")
    data = json.dumps(
        [_compact(batch, each) for batch, each in found.items()], separators=(",", ":")
    )
    scripts = f'<script type="application/json">{data}</script><script>{{{_script()}}}</script>'
    return Explorer(html.removesuffix("</figure>") + scripts + "</figure>", still)


def _script():
    lines_ = files(__package__).joinpath("loop_timelines.js").read_text("utf-8").splitlines()
    return "\n".join(line.strip() for line in lines_)


def _compact(batch, shown):
    """What the script draws of a batch size, in whole µs."""
    loops = [
        {
            "asks": window.way.asks,
            "took": str(took(window)),
            "total": round(window.total),
            "host": [
                [*map(round, _span(one)), one.token, int(one.name != LAUNCH)]
                for one in window.timeline.host
            ],
            "gpu": [[*map(round, _span(one)), one.token] for one in window.timeline.lanes["GPU"]],
            "idle": [[round(a), round(b)] for a, b in window.idle],
        }
        for window in shown.values()
    ]
    return {"name": str(batch), "scale": max(loop["total"] for loop in loops), "loops": loops}


def _controls(found, loops, first, outline):
    """The form that the script brings to life; until then it is hidden."""
    # The last attribute keeps JupyterLab from taking the arrow keys for its own shortcuts.
    attributes = {"onsubmit": "return false", "autocomplete": "off", "hidden": ""}
    attributes |= {"data-ghost": str(outline), "data-lm-suppress-shortcuts": "true"}
    form = ElementTree.Element("form", attributes)
    windows_ = next(iter(found.values()))
    for name, words, labels, at in (
        ("way", "the host asks", [windows_[loop].way.words for loop in loops], first),
        ("batch", "batch size", list(map(str, found)), 0),
    ):
        fieldset = buttons(labels, words, at)
        fieldset.set("data-choice", name)
        form.append(fieldset)
    longest = max(round(window.total) for window in windows_.values())
    drawing = {"role": "img", "aria-label": "timeline", "font-size": "13", "height": "158"}
    drawing["style"] = "display:block;width:100%;height:158px;overflow:visible"
    ElementTree.SubElement(form, "svg", drawing | {"fill": "currentColor"})
    slider = {"type": "range", "min": "0", "max": str(-(-longest // 10) * 10), "step": "10"}
    slider |= {"value": str(longest // 4), "aria-label": "time", "style": "width:100%"}
    ElementTree.SubElement(form, "input", slider)
    # Not empty: a page reads an empty element as one that has only begun.
    ElementTree.SubElement(form, "p", {"aria-live": "polite"}).text = "\u00a0"
    return form


def _key(found):
    """The legend, as text that wraps."""
    key = ElementTree.Element("div", {"class": "ttb-key", "aria-hidden": "true"})
    box = "display:inline-block;width:18px;height:12px;line-height:12px;margin-right:0.4em"
    grey = f"var(--ttb-host, {HOST})"
    hatch = f"repeating-linear-gradient(135deg, {grey} 0 1px, transparent 1px 5px)"
    for words, look in (
        (
            "host launches a step",
            f"border:1px solid {grey};background:color-mix(in srgb, {grey} 30%, transparent)",
        ),
        ("host waits for a flag", f"border:1px solid {grey};background:{hatch}"),
        ("GPU works", f"background:var(--ttb-work, {WORK})"),
        ("GPU idle", f"background:var(--ttb-idle, {IDLE})"),
        ("the choice before", f"border:1px dashed var(--ttb-muted, {MUTED})"),
    ):
        entry = ElementTree.SubElement(
            key, "span", {"style": "display:inline-block;margin-right:1em"}
        )
        sample = ElementTree.SubElement(entry, "span", {"style": f"{box};{look}"})
        sample.text, sample.tail = "\u00a0", words
    return key
