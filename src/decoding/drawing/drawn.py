"""From a matplotlib figure to a small ``<svg>`` element: plain, compact, without any id."""

import io
import re
from xml.etree import ElementTree

from matplotlib import rc_context

from .theme import FONT, FOREGROUND, STYLE

# What an element need not say, since the drawing says it for all of them.
INHERITED = {"fill": FOREGROUND.lower(), "font-size": f"{FONT}px", "text-anchor": "start"}


def drawn(fig):
    """Return a matplotlib figure as an ``<svg>`` element.

    Raises:
        ValueError: it has hatching, a gradient or a clip, whose ids two figures would share.
    """
    file = io.StringIO()
    unstamped = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context(STYLE):
        fig.savefig(file, format="svg", transparent=True, metadata=unstamped)
    found = ElementTree.fromstring(file.getvalue())
    for element in found.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    named = {element.get("id"): element for element in found.iter() if element.get("id")}
    attributes = {
        "viewBox": found.get("viewBox"),
        "font-size": f"{FONT}",
        "fill": FOREGROUND,
        "stroke-linejoin": "round",
        "style": "overflow:visible",
    }
    root = ElementTree.Element("svg", attributes)
    root.extend(list(_opened(found, named)))
    return root


def _opened(parent, named):
    """What is drawn inside ``parent``: groups opened, shared shapes put in place."""
    for child in parent:
        if child.tag == "g":
            if child.get("clip-path"):
                raise ValueError("This figure clips what it draws; draw with clip_on=False.")
            yield from _opened(child, named)
        elif child.tag in ("path", "use", "text"):
            element = _plain(child, named)
            if element is not None:
                yield element


def _plain(child, named):
    """One element of matplotlib's as a compact one, or None where nothing is to be seen."""
    if child.get("clip-path"):
        raise ValueError("This figure clips what it draws; draw with clip_on=False.")
    if child.tag == "text":
        return _plain_text(child)
    style, shape = child.get("style", ""), child
    own = {}
    if child.tag == "use":
        shape = named[child.get("href")[1:]]
        style = f"{shape.get('style', '')};{style}"
        at = (_tenths(child.get(key, "0")) for key in "xy")
        own["transform"] = "translate({} {})".format(*map(_number, at))
    style = _style(style)
    if style.get("fill") == "none" and style.get("stroke", "none") == "none":
        return None
    return ElementTree.Element("path", {"d": _path(shape.get("d"))} | own | _written(style))


def _plain_text(child):
    place = child.get("transform", "")
    moved = re.fullmatch(r"translate\(([-\d.]+)[ ,]([-\d.]+)\)", place)
    x, y = moved.groups() if moved else (child.get("x", "0"), child.get("y", "0"))
    own = {"x": _number(_tenths(x)), "y": _number(_tenths(y))}
    if not moved and place and not place.startswith("rotate(-0 "):
        own["transform"] = place
    element = ElementTree.Element("text", own | _written(_style(child.get("style", ""))))
    element.text = child.text
    return element


def _style(text):
    """The declarations of an element that differ from what it inherits."""
    if "url(#" in text:
        raise ValueError("This figure has hatching or a gradient; draw lines or light fills.")
    found = {"fill": FOREGROUND.lower()}
    for declaration in filter(None, map(str.strip, text.split(";"))):
        key, _, value = declaration.partition(": ")
        if key == "font":  # matplotlib before 3.11: "700 11px 'DejaVu Sans', …"
            weight, size = re.match(r"(?:.*?(bold|\d{3}) )?.*?([\d.]+)px", value).groups()
            found |= {"font-size": f"{size}px"} | ({"font-weight": weight} if weight else {})
        elif key != "font-family":
            found[key] = value
    return {key: value for key, value in found.items() if INHERITED.get(key) != value}


def _written(style):
    words = ";".join(f"{key}:{value}" for key, value in style.items())
    return {"style": words} if words else {}


def _tenths(text):
    return round(10 * float(text))


def _number(tenths):
    return f"{tenths / 10:g}"


def _path(data):
    """A path with relative steps, to a tenth of a pixel: what it looks like takes no more."""
    out, before, at, start = [], None, (0, 0), (0, 0)
    for letter, numbers in re.findall(r"([MLQCz])([^MLQCz]*)", data):
        values = [_tenths(number) for number in numbers.split()]
        points = list(zip(values[::2], values[1::2]))
        if letter == "z":
            out.append("z")
            before, at = "z", start
            continue
        if letter == "M":
            at = start = points[0]
            out.append("M" + _joined(at))
        else:
            steps = [value - at[i % 2] for i, value in enumerate(values)]
            if letter == "L" and steps == [0, 0]:
                continue
            letter, steps = _short(letter, steps)
            joined = _joined(steps)
            again = letter == before
            out.append(
                (" " if again and joined[0] != "-" else "") + joined if again else letter + joined
            )
            at = points[-1]
        before = letter
    return "".join(out)


def _short(letter, steps):
    """A relative command, horizontal or vertical where it can be."""
    if letter == "L" and steps[1] == 0:
        return "h", steps[:1]
    if letter == "L" and steps[0] == 0:
        return "v", steps[1:]
    return letter.lower(), steps


def _joined(values):
    return re.sub(r" (?=-)", "", " ".join(map(_number, values)))
