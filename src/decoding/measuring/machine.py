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
    """Return what runs here: GPU, driver, versions, date, as a dict for a record."""
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
        "cpu_cores": os.cpu_count(),
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
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.split("\n")[0].strip() or None
