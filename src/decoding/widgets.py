"""Explorers: a control and its pictures, linked in the browser, so that no Jupyter has to run.

Every picture is made beforehand. The control's index and the shown child of a ``Stack`` are linked
with ``jslink``, which works in a rendered page as it does in Jupyter.
"""

from html import escape

import ipywidgets

from . import figures

CONTROLS = ("slider", "toggle", "dropdown")


def explorer(states, *, description, control=None, start=0):
    """Return a control that shows one of several pictures.

    Args:
        states: label -> picture: HTML or SVG as text, or what ``figures`` returns. In their order.
        description: what the control chooses ("batch size"); its visible and accessible name.
        control: "slider" for an ordered quantity, "toggle" for a few choices, "dropdown" for many;
            by default a toggle for up to five states, else a slider.
        start: the index of the picture shown first.

    Returns:
        A widget. Arrow keys move the slider and the dropdown, Tab and Space the toggle.

    Raises:
        ValueError: no states, or an unknown control.
    """
    states = {str(label): picture for label, picture in states.items()}
    chooser = _control(list(states), description, control, start)
    stack = _stack(states, description, start)
    ipywidgets.jslink((chooser, "index"), (stack, "selected_index"))
    return _box([chooser, stack])


def explorer2(states, *, descriptions, controls=(None, None), start=(0, 0)):
    """Return two controls that show one of a grid of pictures: batch size × loop, say.

    Args:
        states: label of the first control -> label of the second -> picture. Every inner mapping
            has the same labels in the same order.
        descriptions, controls, start: as for ``explorer``, one for each control.

    Returns:
        A widget.

    Raises:
        ValueError: no states, an unknown control, or inner mappings with different labels.
    """
    labels = {tuple(map(str, row)) for row in states.values()} or {()}
    if len(labels) > 1:
        raise ValueError(f"Every row needs the same labels in the same order, not {labels}.")
    outer = _control(list(map(str, states)), descriptions[0], controls[0], start[0])
    inner = _control(list(*labels), descriptions[1], controls[1], start[1])
    rows = [
        _stack(row, f"{descriptions[0]} {label}, {descriptions[1]}", start[1])
        for label, row in states.items()
    ]
    stack = ipywidgets.Stack(rows, selected_index=start[0], layout=_wide())
    ipywidgets.jslink((outer, "index"), (stack, "selected_index"))
    for row in rows:
        ipywidgets.jslink((inner, "index"), (row, "selected_index"))
    return _box([outer, inner, stack])


def _control(labels, description, control, start):
    if not labels:
        raise ValueError("An explorer needs at least one state.")
    control = control or ("toggle" if len(labels) <= 5 else "slider")
    if control not in CONTROLS:
        raise ValueError(f"The control is {control!r}; choose one of {', '.join(CONTROLS)}.")
    make = {
        "slider": ipywidgets.SelectionSlider,
        "toggle": ipywidgets.ToggleButtons,
        "dropdown": ipywidgets.Dropdown,
    }[control]
    chooser = make(
        options=labels,
        index=start,
        description=description,
        style={"description_width": "auto"},
        layout=_wide(),
    )
    if control == "toggle":
        chooser.style.button_width = "auto"
    return chooser


def _stack(states, description, start):
    layout = _wide()  # one for all pictures
    pictures = [
        ipywidgets.HTML(_framed(picture, f"{description} {label}"), layout=layout)
        for label, picture in states.items()
    ]
    return ipywidgets.Stack(pictures, selected_index=start, layout=_wide())


def _framed(picture, name):
    """A picture in the page's own colour and line height, which HTML widgets set otherwise."""
    html = picture if isinstance(picture, str) else picture.html
    return (
        f'<div class="ttb-state" role="group" aria-label="{escape(name)}" '
        'style="color:var(--ttb-fg, inherit);line-height:1.5;white-space:normal">'
        f"{html}</div>"
    )


def _wide():
    return ipywidgets.Layout(width="100%")


def _box(children):
    box = ipywidgets.VBox(children, layout=_wide())
    box.add_class("ttb-explorer")
    return box


def position_explorer(records, *, positions=20):
    """Return an explorer of token positions: the time of that token, and the memory after it.

    Args:
        records: of one workload; failed ones are named in words.
        positions: how many positions to show, evenly spaced.
    """
    good = [record for record in records if not record.get("error")]
    curves = [figures.running_median(record["time"]["curve_ms"]) for record in good]
    steps = _evenly(min(map(len, curves), default=0), positions)
    if not steps:
        return _nothing("No record has a time for each token.", records)
    slowest = max(max(curve) for curve in curves)
    largest = _largest_reserved(good)
    states = {}
    for step in steps:
        rows = []
        for record, curve in zip(good, curves, strict=True):
            words = f"{figures.milliseconds(curve[step])} ms"
            rows.append((record, words, [(curve[step] / slowest, 1)]))
        html = _rows("Time of this token", rows)
        if largest:
            html += _memory_rows(good, step + 1, largest)
        states[f"{good[0]['workload']['prompt_tokens'] + 1 + step:,}"] = html + _failures(records)
    return explorer(states, description="token position", control="slider")


def memory_explorer(records, *, positions=20):
    """Return an explorer of token positions: memory allocated and reserved after each.

    Its arguments are those of ``position_explorer``. On a CPU, where memory is not measured, words
    say so.
    """
    good = [record for record in records if record.get("memory")]
    count = min((len(record["memory"]["reserved_mib"]) for record in good), default=0)
    if not count:
        return _nothing("Memory is measured on a GPU only.", records)
    largest = _largest_reserved(good)
    first = good[0]["workload"]["prompt_tokens"]
    states = {
        f"{first + token:,}": _memory_rows(good, token, largest) + _failures(records)
        for token in _evenly(count, positions)
    }
    return explorer(states, description="token position", control="slider")


def batch_explorer(results):
    """Return an explorer of batch sizes: time per token and tokens per second of each loop.

    Args:
        results: batch size -> name of a rung (or other label) -> a record, or one of the
            ``results`` of ``race``. All bars are to one scale.
    """
    if not results:
        return _nothing("No batch size has a measurement.", [])
    slowest = _slowest(result for row in results.values() for result in row.values())
    states = {}
    for batch, row in results.items():
        rows = []
        for name, result in row.items():
            if result.get("error"):
                rows.append((name, result["error"], []))
                continue
            time = figures.per_token(result)["median"]
            words = f"{figures.milliseconds(time)} ms · {1000 * batch / time:,.0f} tokens/s"
            rows.append((name, words, [(time / slowest, 1)]))
        states[str(batch)] = _rows("Time per token (all rows at once)", rows)
    return explorer(states, description="batch size")


def cache_length_explorer(results, *, beside=None):
    """Return an explorer of cache lengths: what a token costs, among the other lengths.

    Args:
        results: positions in the static cache, ascending -> a record, or one of the ``results`` of
            ``race``.
        beside: label -> a record or result to compare with (the dynamic cache, say).
    """
    good = {length: result for length, result in results.items() if not result.get("error")}
    if not good:
        return _nothing("No cache length has a measurement.", list(results.values()))
    slowest = _slowest([*results.values(), *(beside or {}).values()])
    shortest = min(good)
    states = {}
    for chosen in good:
        rows = []
        for name, result in [*results.items(), *(beside or {}).items()]:
            label = f"{name:,} positions" if isinstance(name, int) else name
            if result.get("error"):
                rows.append((label, result["error"], []))
                continue
            time = figures.per_token(result)["median"]
            words = f"{figures.milliseconds(time)} ms"
            strength = 1 if name == chosen or not isinstance(name, int) else 0.3
            rows.append((label, words, [(time / slowest, strength)]))
        times = [figures.per_token(good[length])["median"] for length in (chosen, shortest)]
        said = f"A cache of {chosen:,} positions: {figures.milliseconds(times[0])} ms per token"
        if chosen != shortest:
            said += f", ×{times[0] / times[1]:.2f} that of {shortest:,}"
        states[f"{chosen:,}"] = _rows(f"{said}.", rows, colour=figures.COLOURS["static_cache"])
    return explorer(states, description="cache length")


def _evenly(count, wanted):
    """Up to ``wanted`` indices below ``count``, evenly spaced, with the first and the last."""
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def _slowest(results):
    times = [figures.per_token(result)["max"] for result in results if not result.get("error")]
    return max(times, default=1)


def _largest_reserved(records):
    measured = [record["memory"]["reserved_mib"] for record in records if record["memory"]]
    return max(map(max, measured), default=0)


def _memory_rows(records, token, largest):
    rows = []
    for record in records:
        if not record["memory"]:
            rows.append((record, "not measured", []))
            continue
        allocated, reserved = (
            record["memory"][f"{k}_mib"][token] for k in ("allocated", "reserved")
        )
        words = f"{allocated:,.0f} of {reserved:,.0f} MiB"
        parts = [(allocated / largest, 1), ((reserved - allocated) / largest, 0.35)]
        rows.append((record, words, parts))
    return _rows("Memory after it: allocated (solid) of reserved (light)", rows)


def _rows(heading, rows, colour=None):
    """A list of bars under a heading; a row is (record or name, words, [(share, strength)])."""
    items = []
    for what, words, parts in rows:
        name = what if isinstance(what, str) else figures.name_of(what)
        own = figures.COLOURS.get(name) if isinstance(what, str) else figures.colour_of(what)
        fill = figures.THEME[own or colour or figures.MUTED]
        bars, left = "", 0.0
        for share, strength in parts:
            bars += (
                f'<rect x="{100 * left:.1f}" width="{max(100 * share, 0.3):.1f}" height="10" '
                f'style="fill:{fill};fill-opacity:{strength}"/>'
            )
            left += share
        items.append(
            '<li style="margin:0 0 0.5em;padding:0;list-style:none">'
            '<div style="display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1em">'
            f"<span>{escape(figures.LABELS.get(name, name))}</span>"
            f"<strong>{escape(words)}</strong></div>"
            '<svg aria-hidden="true" viewBox="0 0 100 10" preserveAspectRatio="none" '
            f'style="display:block;width:100%;height:0.7em">{bars}</svg></li>'
        )
    return (
        f'<div style="margin:0.4em 0;max-width:34em">{escape(heading)}</div>'
        f'<ul style="margin:0 0 1em;padding:0;max-width:34em">{"".join(items)}</ul>'
    )


def _failures(records):
    return "".join(
        f"<div>{escape(figures.name_of(record))}: {escape(record['error'])}</div>"
        for record in records
        if record.get("error")
    )


def _nothing(words, records):
    """What stands where there is nothing to explore."""
    return _box(
        [ipywidgets.HTML(_framed(f"<div>{escape(words)}</div>{_failures(records)}", words))]
    )
