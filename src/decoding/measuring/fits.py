"""What is told before anything is measured: whether a system can, and whether a workload fits a GPU, from its shapes."""

import os
import platform

import torch
from transformers import AutoModelForCausalLM

from decoding.allocator import MIB, replay
from decoding.models import _configuration

from .errors import MeasurementError
from .sizes import sizes_of

SMALL_MIB = 16_000  # of a GPU with more, nothing is foretold: what the book measures fits
RESERVE_MIB = (
    1024  # left for CUDA itself and for the libraries' workspaces: an allowance, not measured
)


def check_system():
    """Refuse to measure where no process can be forked.

    Raises:
        MeasurementError: this system cannot.
    """
    if not hasattr(os, "fork"):
        raise MeasurementError(
            f"Each measurement runs in a forked process, which {platform.system()} does not have: use Linux, on Windows "
            "within WSL 2; generate runs here as it is."
        )


def needed_mib(workload):
    """Return about how much memory a GPU needs for ``workload`` in every rung, in MiB.

    The most is needed in one of two moments. While the model is made, its weights are drawn in float32.
    In the last step of the naive loop, every position of every row has its logits; a loop with a cache
    holds less.

    Args:
        workload: a ``Workload``; its model is random weights of a known shape, or of a hub id that is at hand.
    """
    config = _configuration(workload.model)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = sum(one.numel() for one in model.parameters())
    of_each = (getattr(torch, workload.dtype) if workload.dtype else torch.bfloat16).itemsize
    last = workload.prompt_tokens + workload.new_tokens - 1
    step = replay(*sizes_of("naive", config, workload.batch_size, last, 1))["peak_allocated_mib"]
    running = weights * of_each / MIB + step * of_each / torch.bfloat16.itemsize
    return RESERVE_MIB + max(4 * weights / MIB, running)


def shortage(workload, memory_mib):
    """Return one sentence if a GPU with ``memory_mib`` has too little memory for ``workload``, else ""."""
    needed = needed_mib(workload) if memory_mib < SMALL_MIB else 0
    if needed <= memory_mib:
        return ""
    return (
        f"{workload.model} at batch {workload.batch_size} with {workload.prompt_tokens} + {workload.new_tokens} "
        f"tokens needs about {needed:,.0f} MiB, and this GPU has {memory_mib:,.0f}: what does not fit will be a "
        "row that says so; take fewer rows, fewer tokens or a smaller model."
    )
