"""Measure decoding loops: each in a fresh process, one run per purpose."""

from .errors import MeasurementError, NeedsGpu, NotMeasured, NotRecorded
from .races import race, trace
from .records import Record
from .tasks import allocations, compare, describe_variant, measure
from .workload import Workload

__all__ = [
    "MeasurementError",
    "NeedsGpu",
    "NotMeasured",
    "NotRecorded",
    "Record",
    "Workload",
    "allocations",
    "compare",
    "describe_variant",
    "measure",
    "race",
    "trace",
]
