"""On what something was measured."""

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime

import torch
import transformers

from .errors import NeedsGpu

MIB = 2**20


def machine():
    """Return what runs here: GPU, driver, versions, date, as a dict for a record.

    ``allocator`` is what is found in memory so far: call it after the work.
    """
    on_gpu = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if on_gpu else None
    return {
        "device": "cuda" if on_gpu else "cpu",
        "gpu": properties.name if on_gpu else None,
        "gpu_id": hashlib.sha256(str(properties.uuid).encode()).hexdigest()[:12]
        if on_gpu
        else None,
        "gpu_memory_mib": properties.total_memory // MIB if on_gpu else None,
        "driver": driver_version() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cpu_cores": os.cpu_count(),
        "allocator": allocator_found(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def require_gpu(what, device=None):
    """Refuse to go on where ``what``, "Tracing" say, would not run on a CUDA GPU.

    Raises:
        NeedsGpu: ``device`` is another one (None means the GPU if there is one), or there is none.
    """
    if device is not None and torch.device(device).type != "cuda":
        raise NeedsGpu(f"{what} needs a CUDA GPU; device={device!r} was asked for.")
    if not torch.cuda.is_available():
        raise NeedsGpu(f"{what} needs a CUDA GPU, and PyTorch sees none here.")


def driver_version():
    """Return the NVIDIA driver's version, or None where ``nvidia-smi`` is missing."""
    return _asked_of_the_driver("driver_version")


def clocks():
    """Return the clocks of the GPU now, as a dict; None where they cannot be read.

    ``sm_mhz`` and ``memory_mhz`` are in MHz, ``temperature_c`` in °C.
    """
    if not torch.cuda.is_available():
        return None
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    card = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    found = _asked_of_the_driver("clocks.sm,clocks.mem,temperature.gpu", card)
    numbers = [_whole(part) for part in (found or "").split(",")]
    if len(numbers) != 3:
        return None
    return dict(zip(("sm_mhz", "memory_mhz", "temperature_c"), numbers))


def allocator_found():
    """Return which segments the caching allocator holds; None where CUDA holds no memory.

    The setting says what was asked for; this is what there is: "default", "expandable_segments", or
    "mixed".
    """
    if not torch.cuda.is_initialized():
        return None
    kinds = {segment.get("is_expandable", False) for segment in torch.cuda.memory_snapshot()}
    if not kinds:
        return None
    names = {True: "expandable_segments", False: "default"}
    return names[kinds.pop()] if len(kinds) == 1 else "mixed"


def cpu_model():
    """Return the name of the CPU, or None where the system does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            named = (line for line in file if line.startswith("model name"))
            return next(named).partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.processor() or None


def _asked_of_the_driver(query, card=None):
    """Return the first line that ``nvidia-smi`` answers, or None."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    command += ["-i", card] if card else []
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split("\n")[0].strip() or None


def _whole(text):
    return int(text) if text.strip().isdigit() else None
