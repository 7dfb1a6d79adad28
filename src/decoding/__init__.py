"""Decoding loops for transformers causal LMs, from naive to pipelined, and their measurement."""

from .generation import generate
from .measurement import Workload, compare, measure
from .models import load_model
from .prepared import release
from .rungs import RUNGS

__all__ = ["RUNGS", "Workload", "compare", "generate", "load_model", "measure", "release"]
