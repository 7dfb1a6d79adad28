"""An explorer of the caching allocator's segments, under several settings and along a run."""

from .explorers import explorer2
from .segments import draw_segments
from .words import counted, mib


def segments_explorer(layouts, *, colours, row_mib):
    """Return an explorer of segments: which setting, and after how many new tokens.

    Args:
        layouts: setting -> number of new tokens -> segments, as ``draw_segments`` takes them. Every
            setting has the same numbers of tokens.
        colours: setting -> a rung, whose colour its allocated blocks get.
        row_mib: MiB in a row, the same in all pictures.
    """
    states = {
        setting: {
            tokens: _picture(segments, colours[setting], row_mib)
            for tokens, segments in along.items()
        }
        for setting, along in layouts.items()
    }
    return explorer2(
        states, descriptions=("allocator", "new tokens"), controls=("buttons", "slider")
    )


def _picture(segments, colour, row_mib):
    total = sum(segment["total_mib"] for segment in segments)
    title = f"{mib(total)} in {counted(len(segments), 'segment')}"
    return draw_segments(segments, title=title, row_mib=row_mib, colour=colour)
