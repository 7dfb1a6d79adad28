"""Measure decoding loops: each in fresh processes, one run per purpose."""

from .comparing import change_of, may_compare, ratio_of, resolved
from .errors import MeasurementError, NeedsGpu, NotComparable, NotMeasured, NotRecorded
from .history import allocations
from .ladders import compare, describe_variant, ladder, measure
from .races import race, trace
from .records import Record
from .watching import watch
from .workload import Workload

__all__ = [
    "MeasurementError",
    "NeedsGpu",
    "NotComparable",
    "NotMeasured",
    "NotRecorded",
    "Record",
    "Workload",
    "allocations",
    "change_of",
    "compare",
    "describe_variant",
    "ladder",
    "may_compare",
    "measure",
    "race",
    "ratio_of",
    "resolved",
    "trace",
    "watch",
]
