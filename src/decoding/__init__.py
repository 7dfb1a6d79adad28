"""Decoding loops for transformers causal LMs, from naive to pipelined, and their measurement."""

from importlib import import_module

from .generation import generate
from .models import load_model
from .prepared import release
from .rungs import RUNGS

MEASURING = ("Workload", "compare", "measure", "race")

__all__ = ["RUNGS", "generate", "load_model", "release", *MEASURING]


def __getattr__(name):
    """Import the measurement when it is first asked for: decoding alone does not need it."""
    if name in MEASURING:
        return getattr(import_module(".measuring", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
