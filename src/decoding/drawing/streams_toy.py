"""Streams as queues, events as signals, waits as gates: a toy to step through, made of data.

Every state that it can show was found by the toy machine in ``pipelines``; what runs in a page shows
them one after the other. Where nothing runs, two rounds are drawn: a right one, and a wrong one.
"""

from itertools import groupby
from xml.etree import ElementTree

from matplotlib import rc_context

from .explorers import Explorer
from .pipelines import END, EXPECTED, PROMPT, SAFEGUARDS, Machine, outcomes, traced
from .shapes import arrow, bars, canvas, text_width, write
from .svg import Panel, Picture, page_element
from .theme import BACKGROUND, COPY, FOREGROUND, IDLE, MUTED, PANEL, STYLE, WORK
from .toys import CONTROLS, STILL, button, choices

TITLE = "A stream is a queue. An event is a signal in it; a wait is a gate that the signal opens."
CAPTION = (
    "A stream: what stands in it runs in order; two streams have no order between them. An event (▲) "
    "is up once its stream has come that far. A wait (✕ closed, ✓ open) holds its stream until the "
    "event is up. Drawn, not measured. The steps are replays of one graph, which keep their order; "
    "what stands between them does not."
)
# What may be left out: its name on the button, who is fast in the order shown, for how many tokens
# the loop may run, and what has happened in the end.
SCENARIOS = {
    "": ("nothing", ("host", "A", "B", "caller"), 4, ""),
    "wait": (
        "the wait",
        ("host", "B", "A", "caller"),
        4,
        "step 1 read before step 0's token was kept.",
    ),
    "clone": (
        "the clones",
        ("host", "A", "B", "caller"),
        4,
        "all tokens share one piece of memory, and it holds the last. (PyTorch raises "
        "an error; a graph of one's own does not.)",
    ),
    "two flags": (
        "the second flag",
        ("B", "A", "host", "caller"),
        4,
        "step 2's answer overwrote step 1's before the host had read it. A good token is cut off.",
    ),
    "synchronize": (
        "synchronize",
        ("host", "A", "B", "caller"),
        4,
        "the host read a flag that had not arrived. The text ends after one token.",
    ),
    "last wait": (
        "the last wait",
        ("host", "caller", "A", "B"),
        3,
        "the last token was joined before it was there. (A run that ends early has waited for it.)",
    ),
}
FULL = (*EXPECTED, END, END)
LETTERS = {PROMPT: "t", "GPU": "g", "works": "w", END: "e", True: "y", False: "n"}
WORDS = {letter: {True: "yes", False: "no"}.get(word, word) for word, letter in LETTERS.items()}
TOGETHER = {"clone": "keep", "flag": "keep", "done": "keep", "wait": "step", "last wait": "join"}


def streams_toy():
    """Return the pipeline of two streams as a toy: stepped through, with each safeguard or without.

    Without a safeguard it shows an order in which the text comes out wrong, and says which hazard
    that is. It needs no kernel and no script file.

    Returns:
        An ``Explorer``. Its picture shows a right round and a wrong one.
    """
    picture = _picture()
    figure = ElementTree.Element("figure", {"class": "ttb-toy ttb-streams", "onclick": ON_CLICK})
    ElementTree.SubElement(figure, "style").text = CONTROLS + LOOK
    live = ElementTree.SubElement(figure, "div", {"class": "live"})
    ElementTree.SubElement(live, "p", {"class": "title"}).text = TITLE
    live.extend([_form(), _said(), _board(), _caption()])
    scenarios, sentences = _frames()
    live.set("data-words", "|".join(sentences))
    live.set("data-frames", "#".join("/".join(frames) for frames in scenarios))
    _set(live, scenarios[0][0], sentences, len(scenarios[0]))
    still = ElementTree.SubElement(figure, "div", STILL)
    still.append(page_element(picture))
    return Explorer(ElementTree.tostring(figure, encoding="unicode"), picture)


# --- What is shown, from the toy machine -----------------------------------------------------------

# Every box of the board in order: those of the host, of A, of B, of the caller's stream.
STEP_KINDS = ("wait", "step", "clone", "flag", "done")
BOARD = {
    "host": [("launch", 0)]
    + [(kind, step) for at in (1, 2, 3) for kind, step in (("launch", at), ("read", at - 1))],
    "A": [("step", 0), *((kind, 0) for kind in STEP_KINDS[2:]), *((k, 2) for k in STEP_KINDS)],
    "B": [(kind, step) for step in (1, 3) for kind in STEP_KINDS],
    "caller": [("last wait", 0), ("join", 0)],
}
BOXES = [(lane, *box) for lane, boxes in BOARD.items() for box in boxes]


def _frames():
    """Return the frames of each scenario, as text, and the sentences that they point to."""
    sentences, scenarios = {}, []
    for without, (_, order, limit, verdict) in SCENARIOS.items():
        machine = Machine(without, limit=limit)
        start = "Nothing has run. Grey: left in memory by an earlier call."
        frames, happened = [(machine, {}, {}, start)], {}
        runs = traced(order, without, limit=limit)
        before = machine
        for _, group in groupby(runs, key=_part):
            now, said = {}, []
            for item, after in group:
                wrong = _is_wrong(item, before, after)
                now[_box(item)] = "W" if wrong else "D"
                said.append(_sentence(item, before, after, wrong))
                before = after
            frames.append((after, dict(happened), now, " ".join(filter(None, said))))
            happened |= {box: letter.lower() for box, letter in now.items()}
            if after.text is not None:
                break  # what still runs changes nothing
        frames[-1] = (*frames[-1][:3], _verdict(without, verdict))
        written = [_frame(machine, done, now) for machine, done, now, _ in frames]
        numbers = [sentences.setdefault(words, len(sentences)) for *_, words in frames]
        scenarios.append([f"{text},{number}" for text, number in zip(written, numbers)])
    return scenarios, list(sentences)


def _part(run):
    """What happens at one press: a gate and its step, what follows the step, or one item alone."""
    item, _ = run
    return item.lane, item.step, TOGETHER.get(item.kind, item.kind)


def _box(item):
    return item.lane, item.kind, 0 if item.lane == "caller" else item.step


def _is_wrong(item, before, after):
    """Whether an item has read or written something else than in a run that is right."""
    if item.kind in ("step", "clone"):
        return (after.output if item.kind == "step" else after.clones[item.step]) != FULL[item.step]
    if item.kind == "read":
        return before.flags[before.slot_of(item.step)] != (FULL[item.step] == END)
    return item.kind == "join" and after.text != EXPECTED


def _frame(machine, happened, now):
    """The letters of all boxes, and those of all memory cells."""
    letters, waits = {}, {queue[0] for queue in machine.queues.values() if queue}
    waits -= set(machine.ready())
    queued = {_box(item) for queue in machine.queues.values() for item in queue}
    held = {_box(item) for item in waits}
    for box in BOXES:
        lane, kind, step = box
        out = {"wait": "wait", "clone": "clone", "last wait": "last wait"}.get(kind)
        letter = "q" if box in queued and lane != "host" else "."
        letter = "x" if box in held and kind != "step" else letter
        letter = {**happened, **now}.get(box, letter)
        letters[box] = "-" if out and out == machine.without else letter
    cells = [LETTERS[machine.output] if machine.ran else "T"]
    cells += [_kept(machine, happened | now, step) for step in range(4)]
    for slot in "AB":
        steps = [
            step
            for (lane, kind, step) in happened | now
            if kind == "flag" and machine.slot_of(step) == slot
        ]
        letter = LETTERS[machine.flags[slot]]
        cells.append(letter if steps else letter.upper())
    if machine.without == "two flags":
        cells[-1] = "-"
    text = machine.text or ()
    for at in range(4):
        right = EXPECTED[at : at + 1]
        found = text[at : at + 1]
        cells.append(_judged(found, right) if machine.text else ".")
    return "".join(letters[box] for box in BOXES) + "".join(cells)


def _kept(machine, happened, step):
    """The letter of the token that the loop holds of a step: capital while it is an old one."""
    stream = machine.stream_of(step)
    wrote = "step" if machine.without == "clone" else "clone"
    if (stream, wrote, step) not in happened:
        return "."
    return _judged((machine.kept(step),), FULL[step : step + 1])


def _judged(found, right):
    """The letter of a token, the one before it in the alphabet's second half where it is wrong."""
    if not found:
        return "!" if right else "."
    return LETTERS[found[0]] if found == right else str("tgwe".index(LETTERS[found[0]]))


def _sentence(item, before, after, wrong):
    """What an item does, in words."""
    step, stream = item.step, after.stream_of(item.step)
    slot = after.slot_of(step)
    if item.kind == "launch":
        return f"The host puts step {step} into stream {stream}."
    if item.kind == "read":
        return _of_read(step, slot, before, wrong)
    if item.kind == "return":
        return "The loop is over: the host hands the tokens to the caller's stream."
    if item.kind == "wait":
        return f"done {after.stream_of(step - 1)} is up: the gate opens."
    if item.kind == "step":
        read = PROMPT if step == 0 else before.kept(step - 1)
        late = " an old token," if step and read != FULL[step - 1] else ""
        return f"Step {step} reads{late} “{read}” and writes “{after.output}”."
    if item.kind == "clone":
        return f"Stream {stream} keeps a copy of the token."
    if item.kind == "flag":
        return f"It copies “{WORDS[LETTERS[after.finished]]}” to flag {slot}."
    if item.kind == "done":
        return f"done {stream} goes up."
    if item.kind == "last wait":
        return f"done {stream} is up: the last gate opens."
    return "The tokens are joined."


def _of_read(step, slot, before, wrong):
    """What the host makes of a flag."""
    if not before.flags[slot]:
        return f"The host reads flag {slot} for step {step}: not finished."
    if not wrong:
        return (
            f"The host reads flag {slot} for step {step}: finished. Step {step + 1} has run too far; "
            "its token is dropped."
        )
    whose = "the call before" if before.without == "synchronize" else f"step {step + 1}"
    return f"The host asks about step {step} and reads the “yes” of {whose}: it drops a token, and ends."


def _verdict(without, words):
    if not without:
        return "The text is right, as it is in every order that these queues allow."
    lucky = EXPECTED in outcomes(without, limit=SCENARIOS[without][2])
    luck = "Other orders give the right text: luck." if lucky else "No order gives the right text."
    return f"Wrong: {words} {luck} The line: {SAFEGUARDS[without]}"


# --- The board ------------------------------------------------------------------------------------


def _form():
    form = ElementTree.Element("form", {"onsubmit": "return false", "autocomplete": "off"})
    form.set("data-lm-suppress-shortcuts", "true")
    form.append(choices("leave out", [name for name, *_ in SCENARIOS.values()]))
    row = ElementTree.SubElement(form, "div", {"class": "keys"})
    for words, does in (("◀ back", "-1"), ("next ▶", "1"), ("play", "p"), ("reset", "0")):
        row.append(button(words, does))
    ElementTree.SubElement(row, "output", {"class": "at"})
    return form


COLOURED = (*STEP_KINDS, "last wait")
LABELS = {
    "launch": "launch {}",
    "read": "read {s}",
    "wait": "wait {o}",
    "step": "step {}",
    "clone": "keep",
    "flag": "flag {s}",
    "done": "done {s}",
    "last wait": "wait",
    "join": "join the tokens",
}


def _board():
    names = {"host": "host", "A": "stream A", "B": "stream B", "caller": "caller"}
    words = "Four lanes: the host, streams A and B, and the caller's stream, with what is in each."
    board = ElementTree.Element("div", {"class": "board", "role": "img", "aria-label": words})
    for lane, boxes in BOARD.items():
        row = _lane(board, names[lane])
        for _, group in groupby(boxes, key=lambda box: box[1] + (box[0] == "read")):
            part = ElementTree.SubElement(row, "span", {"class": "part"})
            for kind, step in group:
                attributes = {"data-b": "."}
                attributes |= {"class": kind.split()[-1]} if kind in COLOURED else {}
                label = LABELS[kind].format(step, s="AB"[step % 2], o="BA"[step % 2])
                ElementTree.SubElement(part, "b", attributes).text = label
    for name, cells in (
        ("on the GPU", (("output", 1), ("kept", 4))),
        ("on the host", (("flag A", 1), ("flag B", 1))),
        ("text", ((PROMPT, 4),)),
    ):
        row = _lane(board, name)
        for label, number in cells:
            part = ElementTree.SubElement(row, "span", {"class": "part"})
            ElementTree.SubElement(part, "span").text = label
            for _ in range(number):
                ElementTree.SubElement(part, "i", {"data-b": "."})
    return board


def _lane(board, name):
    lane = ElementTree.SubElement(board, "div", {"class": "lane"})
    ElementTree.SubElement(lane, "span", {"class": "name"}).text = name
    return ElementTree.SubElement(lane, "span", {"class": "queue"})


def _said():
    return ElementTree.Element("p", {"class": "said", "aria-live": "polite"})


def _caption():
    caption = ElementTree.Element("p", {"class": "below"})
    caption.text = CAPTION
    return caption


def _set(live, frame, sentences, frames):
    """Show a frame on the board, as the page's own code does."""
    letters, _, number = frame.rpartition(",")
    boxes = [element for element in live.iter() if element.tag in "bi"]
    for element, letter in zip(boxes, letters, strict=True):
        element.set("data-b", letter)
        if element.tag == "i":
            element.text = CELLS.get(letter, "–")
    live.find("p[@class='said']").text = sentences[int(number)]
    live.find(".//output").text = f"1 of {frames}"


CELLS = dict(WORDS)
CELLS |= {letter.upper(): word for letter, word in WORDS.items()}
CELLS |= {str(at): WORDS[letter] for at, letter in enumerate("tgwe")} | {"!": "missing"}

ON_CLICK = (
    "const f=this,v=f.querySelector('.live'),q=s=>[...v.querySelectorAll(s)],t=event.target,"
    "d=t.dataset.do,F=v.dataset.frames.split('#').map(s=>s.split('/')),"
    f"C={dict(sorted(CELLS.items()))},"
    "show=()=>{const S=F[q(':checked')[0].value],k=f.k=Math.max(0,Math.min(S.length-1,f.k)),"
    "[m,n]=S[k].split(',');"
    "q('b,i').map((e,i)=>{e.dataset.b=m[i];if(e.tagName=='I')e.textContent=C[m[i]]||'–'});"
    "q('.said')[0].textContent=v.dataset.words.split('|')[n];"
    "q('.at')[0].value=k+1+' of '+S.length;return k<S.length-1},"
    "stop=()=>{clearInterval(f.timer);f.timer=0;q('[data-do=p]')[0].textContent='play'};"
    "f.k||=0;"
    "if(t.type=='radio'){stop();f.k=0;show()}"
    "else if(d=='p'){if(f.timer)stop();else{if(!show()||f.k+1>=F[q(':checked')[0].value].length)f.k=-1;"
    "t.textContent='pause';const go=()=>{f.k++;if(!f.isConnected||!show())stop()};"
    "f.timer=setInterval(go,1400);go()}}"
    "else if(d){stop();f.k=d=='0'?0:f.k+ +d;show()}"
)
LOOK = """
.ttb-streams .board{display:grid;gap:.45rem;margin:.8rem 0}
.ttb-streams .lane{display:grid;grid-template-columns:5.6rem 1fr;align-items:center;gap:.2rem .5rem}
.ttb-streams .name{color:var(--muted)}
.ttb-streams .queue,.ttb-streams .part{display:flex;flex-wrap:wrap;gap:4px;align-items:center}
.ttb-streams .queue{gap:4px 14px}
.ttb-streams :is(b,i){font-size:13px;line-height:1.35;font-weight:500;font-style:normal;border:1px solid var(--k);border-radius:5px;padding:2px 6px;white-space:nowrap;--k:var(--host)}
.ttb-streams .step{--k:var(--work)}
.ttb-streams :is(.clone,.flag){--k:var(--copy)}
.ttb-streams :is(.wait,.done){--k:var(--accent)}
.ttb-streams i{min-width:3.3rem;text-align:center;border-color:var(--line)}
.ttb-streams .wait::after{content:" ✕"}
.ttb-streams .wait:is([data-b=d],[data-b=D])::after{content:" ✓"}
.ttb-streams .done::after{content:" △"}
.ttb-streams .done:is([data-b=d],[data-b=D])::after{content:" ▲"}
.ttb-streams b{background:var(--ground)}
.ttb-streams b[data-b="."]{color:var(--muted);border-style:dotted;background:none;font-weight:400}
.ttb-streams b:is([data-b=d],[data-b=D]){background:color-mix(in srgb,var(--k) 24%,transparent)}
.ttb-streams b:is([data-b=D],[data-b=W]){outline:2px solid var(--k);outline-offset:1px}
.ttb-streams b[data-b=x]{border:1px dashed var(--idle);color:var(--idle)}
.ttb-streams :is([data-b=w],[data-b=W]):is(b),.ttb-streams i:is([data-b="0"],[data-b="1"],[data-b="2"],[data-b="3"],[data-b="!"]){--k:var(--idle);background:var(--k);border-color:var(--k);color:var(--ground)}
.ttb-streams [data-b="-"]{text-decoration:line-through;border:1px dashed var(--idle);color:var(--muted)}
.ttb-streams i:is([data-b=T],[data-b=Y]){color:var(--muted);border-style:dotted}
.ttb-streams .said{min-height:4.6em;margin:.9rem 0 0;padding:0 .8rem;border-left:3px solid var(--accent);line-height:1.5}
@media(max-width:640px){.ttb-streams .lane{grid-template-columns:1fr}.ttb-streams .queue{gap:3px 10px}.ttb-streams .part{gap:3px}.ttb-streams b{padding:2px 4px}.ttb-streams .said{min-height:9.1em}}
"""


# --- The still form -------------------------------------------------------------------------------

SLOT, SHOWN = 56, 6
FILLS = {"step": WORK, "clone": COPY, "flag": COPY}


def _picture():
    right, wrong = (list(traced(SCENARIOS[name][1], name)) for name in ("", "wait"))
    words = "With every safeguard: each gate waits for its signal"
    other = "Without the wait: step 1 reads too early"
    texts = [" ".join(runs[-1][1].text) for runs in (right, wrong)]
    alt = (
        f"{TITLE} Drawn, not measured. On the left a right round: step 0 runs on stream A, its token "
        "is kept, its flag copied, its event done A goes up; then the gate on stream B opens and step "
        f"1 reads that token. The text is {texts[0]}. On the right the wait is left out, and the GPU "
        "lags: step 1 runs before step 0's token is kept and reads an old one. The text is "
        f"{texts[1]}."
    )
    rows = [
        [
            Panel(words, _round(right), alt=f"{words}. The text: {texts[0]}."),
            Panel(other, _round(wrong), alt=f"{other}. The text: {texts[1]}."),
        ]
    ]
    return Picture(TITLE, rows, CAPTION, alt=alt)


def _round(runs):
    """Draw the first items of streams A and B, a place for each, and the text that comes of it."""
    shown = [(item, after) for item, after in runs if item.lane in "AB"][:SHOWN]
    tops = {"A": 22, "B": 96}
    before = Machine()
    with rc_context(STYLE):
        fig, ax = canvas(PANEL, 190)
        for lane, top in tops.items():
            write(ax, 0, top - 6, f"stream {lane}", muted=True)
        signal = None
        for at, (item, after) in enumerate(shown):
            x, y = at * SLOT, tops[item.lane]
            wrong = _is_wrong(item, before, after)
            fill = IDLE if wrong else FILLS.get(item.kind, BACKGROUND)
            plain = fill == BACKGROUND
            bars(ax, [(x + 1, y, SLOT - 4, 30)], fill=fill, edge=FOREGROUND if plain else fill)
            stream = after.stream_of(item.step)
            other = after.stream_of(item.step + 1)
            label = LABELS[item.kind].format(item.step, s=stream, o=other)
            colour = FOREGROUND if plain else BACKGROUND
            write(ax, x + SLOT / 2 - 1, y + 20, label, align="center", colour=colour)
            if item.kind == "step":
                read = PROMPT if item.step == 0 else before.kept(item.step - 1)
                colour = IDLE if wrong else MUTED
                words = f"{read} → {after.output}"
                x = min(x + 2, PANEL - text_width(words))
                write(ax, x, y + 46, words, colour=colour)
            if item.kind == "done":
                signal = x + SLOT / 2, y + 30
            if item.kind == "wait" and signal:
                arrow(ax, signal, (x + SLOT / 2, y), dashes=(0, (4, 3)))
            before = after
        text = runs[-1][1].text
        colour = FOREGROUND if text == EXPECTED else IDLE
        write(ax, 0, 178, f"text: {' '.join(text)}", bold=True, colour=colour)
    return fig
