"""Draw what was measured, and ideas: every figure is a ``Picture``, every table and diff Markdown."""

from .calculator import calculator, launch_and_work
from .cards import headline, ladder, step_card
from .code import diff, listing, source
from .curves import curves, running_median, sweep
from .excerpts import excerpt
from .explorers import Explorer, explorer, explorer2
from .gap_parts import gap_parts
from .ladders import ladders_explorer
from .markdown import Markdown
from .one_scale import draw_one_of
from .record_explorers import (
    batch_explorer,
    cache_length_explorer,
    memory_explorer,
    position_explorer,
)
from .schedules import draw_schedule
from .segments import draw_segments
from .segments_explorer import segments_explorer
from .steps import (
    dead_positions,
    finished_board,
    growing_tensor,
    positions_read,
    three_ways_to_launch,
    two_bars,
)
from .streams_toy import streams_toy
from .svg import Panel, Picture, for_page
from .tables import Table, records_table, table
from .theme import COLOURS, LABELS, colour_of
from .timelines import draw

__all__ = [
    "COLOURS",
    "LABELS",
    "Explorer",
    "Markdown",
    "Panel",
    "Picture",
    "Table",
    "batch_explorer",
    "calculator",
    "cache_length_explorer",
    "colour_of",
    "curves",
    "dead_positions",
    "diff",
    "draw",
    "draw_one_of",
    "draw_schedule",
    "draw_segments",
    "excerpt",
    "explorer",
    "explorer2",
    "finished_board",
    "for_page",
    "gap_parts",
    "growing_tensor",
    "headline",
    "ladder",
    "ladders_explorer",
    "launch_and_work",
    "listing",
    "memory_explorer",
    "position_explorer",
    "positions_read",
    "records_table",
    "running_median",
    "segments_explorer",
    "source",
    "step_card",
    "streams_toy",
    "sweep",
    "table",
    "three_ways_to_launch",
    "two_bars",
]
