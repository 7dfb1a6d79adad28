"""Draw what was measured, and ideas: every figure is a ``Picture``, every table and diff Markdown."""

from .against import Mark, against
from .attention import attention
from .board import board
from .calculator import calculator, launch_and_work
from .cards import headline, ladder, rungs_as_bars, step_card
from .code import diff, listing, source
from .curves import curves, running_median, sweep
from .descent import Stage, descent
from .dots import Case, cases, dots
from .excerpts import excerpt, part_of
from .explorers import Explorer, explorer, explorer2
from .folded import HtmlPicture, with_numbers
from .gap_parts import gap_parts
from .holders import holders
from .ladders import ladders_explorer
from .logged import Way
from .loop_timelines import loop_timeline, loops_explorer
from .markdown import Markdown
from .nesting import memory_nesting
from .one_scale import draw_one_of
from .orders import draw_counterexample
from .phases import Phase, phases
from .record_explorers import (
    batch_explorer,
    cache_length_explorer,
    memory_explorer,
    position_explorer,
)
from .schedules import draw_schedule
from .scrubber import scrubber
from .segments import draw_segments
from .steps import (
    dead_positions,
    finished_board,
    growing_tensor,
    three_ways_to_launch,
    two_bars,
)
from .streams_toy import streams_toy
from .svg import Panel, Picture, for_page
from .tables import Table, records_table, table
from .theme import COLOURS, LABELS, colour_of
from .timelines import draw
from .work import Bar, work_and_idle

__all__ = [
    "COLOURS",
    "LABELS",
    "Bar",
    "Case",
    "Explorer",
    "HtmlPicture",
    "Mark",
    "Markdown",
    "Panel",
    "Phase",
    "Picture",
    "Stage",
    "Table",
    "Way",
    "against",
    "attention",
    "batch_explorer",
    "calculator",
    "cache_length_explorer",
    "board",
    "cases",
    "colour_of",
    "curves",
    "dead_positions",
    "descent",
    "diff",
    "dots",
    "draw",
    "draw_counterexample",
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
    "holders",
    "ladder",
    "ladders_explorer",
    "launch_and_work",
    "listing",
    "loop_timeline",
    "loops_explorer",
    "memory_explorer",
    "memory_nesting",
    "part_of",
    "phases",
    "position_explorer",
    "records_table",
    "rungs_as_bars",
    "running_median",
    "scrubber",
    "source",
    "step_card",
    "streams_toy",
    "sweep",
    "table",
    "three_ways_to_launch",
    "two_bars",
    "with_numbers",
    "work_and_idle",
]
