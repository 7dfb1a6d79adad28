"""One of several timelines of the same tokens, drawn at the scale of them all."""

from .timelines import draw
from .words import counted, percent


def draw_one_of(timelines, name, words, *, caption=None):
    """Draw one timeline so that it can be compared with the others.

    Args:
        timelines: name -> ``Timeline``, of as many tokens each. All begin at 0.
        name: which one to draw.
        words: what it shows. The title adds how many tokens these are, how long they take, and for
            which share of that time the GPU is idle.
        caption: a sentence below it.

    Returns:
        A ``Picture``, as wide as the longest of the timelines.
    """
    timeline, longest = timelines[name], max(each.extent[1] for each in timelines.values())
    tokens, took = counted(len(timeline.tokens), "token"), timeline.extent[1] / 1000
    title = f"{words}: {tokens} in {took:.1f} ms, the GPU idle for {percent(timeline.idle)}"
    return draw(timeline, title=title, us_range=(0, longest), caption=caption)
