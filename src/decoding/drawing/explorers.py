"""Explorers: a control and its pictures in one piece of HTML, which needs no kernel and no script file.

An explorer shows one of several states. It works in the book, in JupyterLab, where the notebook is
trusted, and from a file; where there is no HTML, the picture of its first state stands in for it.
"""

from xml.etree import ElementTree

from .folded import HtmlPicture, table_element
from .svg import Picture, page_element
from .tables import Table

CONTROLS = ("slider", "buttons")
# Shows the state that the controls name, and says what a slider stands at.
ON_INPUT = (
    "const q=s=>[...this.querySelectorAll(s)];"
    "q('[type=range]').map(e=>e.ariaValueText=e.nextSibling.value=e.dataset.labels.split('|')[e.value]);"
    "const k=''+q('[type=range],:checked').map(e=>e.value);"
    "q('[data-state]').map(e=>e.hidden=e.dataset.state!=k)"
)


class Explorer(HtmlPicture):
    """A control with its pictures; its picture is that of the first state."""


def explorer(states, *, description, control=None, start=0):
    """Return a control that shows one of several pictures.

    Args:
        states: label -> picture: a ``Picture``, a ``Table`` or a sentence. In their order.
        description: what the control chooses ("batch size"); its visible and accessible name.
        control: "slider" for an ordered quantity, "buttons" for a few choices; by default buttons
            for up to five states, else a slider.
        start: the index of the picture shown first.

    Returns:
        An ``Explorer``. Arrow keys move both controls.

    Raises:
        ValueError: no states, an unknown control, or no state at ``start``.
    """
    states = {str(label): picture for label, picture in states.items()}
    controls = [_control(list(states), description, control, start)]
    shown = {(at,): picture for at, picture in enumerate(states.values())}
    return _explorer(controls, shown, (start,), [(description, list(states))])


def explorer2(states, *, descriptions, controls=(None, None), start=(0, 0)):
    """Return two controls that show one of a grid of pictures: batch size × loop, say.

    Args:
        states: label of the first control -> label of the second -> picture. Every inner mapping
            has the same labels in the same order.
        descriptions, controls, start: as for ``explorer``, one for each control.

    Returns:
        An ``Explorer``.

    Raises:
        ValueError: no states, an unknown control, no state at ``start``, or inner mappings with different
            labels.
    """
    labels = {tuple(map(str, row)) for row in states.values()} or {()}
    if len(labels) > 1:
        raise ValueError(f"Every row needs the same labels in the same order, not {labels}.")
    choices = list(zip(descriptions, (list(map(str, states)), list(*labels)), strict=True))
    made = [
        _control(names, description, control, at)
        for (description, names), control, at in zip(choices, controls, start, strict=True)
    ]
    shown = {
        (row, column): picture
        for row, pictures in enumerate(states.values())
        for column, picture in enumerate(pictures.values())
    }
    return _explorer(made, shown, tuple(start), choices)


def _explorer(controls, shown, start, choices):
    figure = ElementTree.Element("figure", {"class": "ttb-explorer", "oninput": ON_INPUT})
    figure.set("style", "margin:1em 0")
    # A form keeps the buttons of one explorer apart from those of another without any id. The last
    # attribute keeps JupyterLab from taking the arrow keys of a control for its own shortcuts.
    attributes = {"onsubmit": "return false", "autocomplete": "off"}
    attributes["data-lm-suppress-shortcuts"] = "true"
    form = ElementTree.SubElement(figure, "form", attributes)
    form.extend(controls)
    for at, picture in shown.items():
        attributes = {"class": "ttb-state", "data-state": ",".join(map(str, at))}
        names = [f"{words} {labels[i]}" for (words, labels), i in zip(choices, at, strict=True)]
        attributes |= {"role": "group", "aria-label": ", ".join(names)}
        attributes |= {} if at == start else {"hidden": ""}
        state = ElementTree.SubElement(figure, "div", attributes)
        state.append(_html_of(picture))
        state.tail = "\n"
        if at == start:
            stand_in = _stand_in(picture, ", ".join(names), choices)
    return Explorer(ElementTree.tostring(figure, encoding="unicode"), stand_in)


def _stand_in(picture, name, choices):
    """The picture of the first state, which says what it is and what else there is to choose."""
    others = "; ".join(f"{words}: {_range(labels)}" for words, labels in choices)
    words = f"Shown: {name}. A control chooses another where this page is more than a picture. "
    words += f"{others[0].upper()}{others[1:]}."
    if not isinstance(picture, Picture):
        return Picture("", [], f"{picture} {words}", alt=f"{picture} {words}")
    shown = picture.with_caption(f"{picture.caption} {words}".strip())
    shown.alt = f"{picture.alt} {words}"
    return shown


def _range(labels):
    return ", ".join(labels) if len(labels) <= 6 else f"{labels[0]} to {labels[-1]}"


def _control(labels, description, control, start):
    """The element of a control: a slider with its value beside it, or a button for each choice."""
    if not labels:
        raise ValueError("An explorer needs at least one state.")
    if not 0 <= start < len(labels):
        raise ValueError(f"start is {start}; there are {len(labels)} states, from 0.")
    control = control or ("buttons" if len(labels) <= 5 else "slider")
    if control not in CONTROLS:
        raise ValueError(f"The control is {control!r}; choose one of {', '.join(CONTROLS)}.")
    return (slider if control == "slider" else buttons)(labels, description, start)


def slider(labels, description, start):
    """Return the element of a slider with a name, and beside it the label at which it stands."""
    label = ElementTree.Element("label", {"class": "ttb-choice"})
    label.text = f"{description} "
    attributes = {"type": "range", "min": "0", "max": str(len(labels) - 1), "value": str(start)}
    attributes |= {"aria-valuetext": labels[start], "data-labels": "|".join(labels)}
    attributes["style"] = "vertical-align:middle;width:min(50%,20rem)"
    ElementTree.SubElement(label, "input", attributes)
    output = ElementTree.SubElement(label, "output", {"style": "font-weight:600"})
    output.text = labels[start]
    return label


def buttons(labels, description, start):
    """Return the element of a choice: a button for each label, the one at ``start`` chosen."""
    style = {"class": "ttb-choice", "style": "border:0;margin:0;padding:0"}
    fieldset = ElementTree.Element("fieldset", style)
    ElementTree.SubElement(
        fieldset, "legend", {"style": "font-size:1em;margin:0;padding:0"}
    ).text = description
    for at, words in enumerate(labels):
        label = ElementTree.SubElement(
            fieldset, "label", {"style": "display:inline-block;margin-right:1em"}
        )
        attributes = {"type": "radio", "name": description, "value": str(at)}
        attributes |= {"checked": ""} if at == start else {}
        ElementTree.SubElement(label, "input", attributes).tail = f" {words}"
    return fieldset


def _html_of(picture):
    """A state as an element: a figure, a table or a sentence."""
    if isinstance(picture, Picture):
        figure = page_element(picture)
        figure.set("style", "margin:0.8rem 0 0")
        return figure
    if not isinstance(picture, Table):
        element = ElementTree.Element("div")
        element.text = str(picture)
        return element
    return table_element(picture)
