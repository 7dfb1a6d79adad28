"""What toys share: controls, and that a still picture takes their place in print and without scripts."""

from xml.etree import ElementTree

# Hidden as long as the toy itself can run; the last rule of ``CONTROLS`` shows it in its place.
STILL = {"class": "still", "hidden": ""}
CONTROLS = """
.ttb-toy{--line:var(--ttb-line,#ccc);--accent:var(--ttb-accent,#4b32a8);--muted:var(--ttb-muted,#5a616c);--idle:var(--ttb-idle,#c31);--ground:var(--ttb-background,Canvas);--surface:var(--ttb-surface,Canvas);--tint:var(--ttb-tint,#8882);--host:var(--ttb-host,#7d8490);--work:var(--ttb-work,#33779e);--copy:var(--ttb-copy,#175);margin:1em 0;padding:1.1rem 1.2rem;background:var(--surface);border:1px solid var(--line);border-radius:12px}
.ttb-toy p{margin:0}
.ttb-toy .title{font-weight:600;line-height:1.45;margin-bottom:.6rem}
.ttb-toy .below{color:var(--muted);font-size:.86rem;line-height:1.5}
.ttb-toy form{display:grid;gap:.6rem;margin:0}
.ttb-toy fieldset,.ttb-toy .keys{display:flex;flex-wrap:wrap;align-items:center;gap:.4rem;border:0;margin:0;padding:0;min-width:0}
.ttb-toy legend{float:left;font-size:1em;font-weight:600;width:auto;margin:0 .5rem 0 0;padding:0}
.ttb-toy :is(fieldset label,button){font:inherit;color:inherit;border:1px solid var(--line);border-radius:7px;background:var(--ground);margin:0;padding:.2rem .7rem;min-height:1.9rem;cursor:pointer}
.ttb-toy label:has(:checked){background:var(--tint);border-color:var(--accent)}
.ttb-toy :is(label:has(:focus-visible),button:focus-visible,input:focus-visible){outline:2px solid var(--accent);outline-offset:2px}
.ttb-toy input{accent-color:var(--accent)}
@media print,(scripting:none){.ttb-toy{border:0;padding:0;background:none}.ttb-toy .live{display:none}.ttb-toy .still[hidden]{display:block!important}}
"""


def choices(words, labels, start=0, name=None, first=0):
    """Return radio buttons as an element.

    Args:
        words: what they choose.
        labels: of the buttons, in order; their values count up from ``first``.
        start: the value that is chosen at first; None for none.
        name: of the group, where several of these elements make one; default: ``words``.
    """
    fieldset = ElementTree.Element("fieldset")
    ElementTree.SubElement(fieldset, "legend").text = words
    for value, label_words in enumerate(labels, first):
        label = ElementTree.SubElement(fieldset, "label")
        attributes = {"type": "radio", "name": name or words, "value": str(value)}
        attributes |= {"checked": ""} if value == start else {}
        ElementTree.SubElement(label, "input", attributes).tail = f" {label_words}"
    return fieldset


def button(words, does):
    """Return a button as an element; ``does`` tells the toy what it is for."""
    element = ElementTree.Element("button", {"type": "button", "data-do": does})
    element.text = words
    return element
