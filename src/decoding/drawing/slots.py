"""Requests in the rows of a batch: who holds a row in which step, and where a row runs for nothing."""

from typing import NamedTuple

from matplotlib import rc_context

from .shapes import bars, canvas, hatched, key, label, write
from .svg import Panel, Picture
from .theme import BACKGROUND, FOREGROUND, IDLE, STYLE, WIDTH, WORK
from .words import percent

ROW, LEFT = 22, 44  # pixels


class Held(NamedTuple):
    """A request in a row of the batch, both counted from 0.

    ``first`` is its first step, from 0; ``steps`` in how many steps it makes a token.
    """

    request: int
    row: int
    first: int
    steps: int


def slots(plans, title, caption=None):
    """Draw plans of the same requests below each other, to one scale of steps.

    Args:
        plans: heading -> an object with ``held``, a list of ``Held``, ``rows``, ``steps`` and ``wasted``,
            the share of row-steps that make no token.
        title: the message of the figure.
        caption: a sentence below it.

    Returns:
        A ``Picture``.
    """
    longest = max(plan.steps for plan in plans.values())
    panels, said = [], [f"{title.rstrip('.')}."]
    for heading, plan in plans.items():
        words = f"{heading}: {plan.steps} steps, {percent(plan.wasted)} of the work for nothing"
        panels.append(Panel(words, _draw(plan, longest), "group", words))
        said.append(f"{words}.")
    panels.append(Panel("", _key()))
    return Picture(title, panels, caption, alt=" ".join(said))


def _draw(plan, longest):
    unit = (WIDTH - LEFT) / longest
    with rc_context(STYLE):
        fig, ax = canvas(WIDTH, ROW * plan.rows + 6)
        whole = [(LEFT, ROW * row + 2, plan.steps * unit, ROW - 4) for row in range(plan.rows)]
        hatched(ax, whole, colour=IDLE)
        boxes = [
            (LEFT + one.first * unit, ROW * one.row + 2, one.steps * unit, ROW - 4)
            for one in plan.held
        ]
        bars(ax, boxes, fill=BACKGROUND)
        bars(ax, boxes, fill=WORK, alpha=0.3, edge=FOREGROUND)
        for row in range(plan.rows):
            write(ax, 0, ROW * row + 16, f"row {row + 1}")
        for one, (x, y, width, _) in zip(plan.held, boxes, strict=True):
            label(ax, x, y + 14, width, [str(one.request + 1)])
        return fig


def _key():
    entries = [("a request, by its number", _work), ("a row that makes no token", _waste)]
    return key(entries, WIDTH, below=4)


def _work(ax, x, y, width, height):
    bars(ax, [(x, y, width, height)], fill=WORK, alpha=0.3, edge=FOREGROUND)


def _waste(ax, x, y, width, height):
    hatched(ax, [(x, y, width, height)], colour=IDLE)
