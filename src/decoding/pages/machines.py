"""Where records are kept, which GPU is the book's, and what a machine is given to do."""

import tempfile
from pathlib import Path

import torch

from decoding import RUNGS
from decoding.measuring import Workload
from decoding.measuring.records import load, slug
from decoding.models import default_dtype

BOOK_GPU = "NVIDIA-H100-80GB-HBM3"
BOOK_DTYPE = "bfloat16"
BOOK_RECORDS = Path(__file__).resolve().parents[3] / "book" / "records"
LADDER = tuple(RUNGS)[:6]  # the rungs that are measured together as the ladder
PROMPT_TOKENS = 128  # of the ladder's workloads on a GPU
SMALL_GPU_MIB = 16_000  # below, batch 32 does not fit the naive loop
SAME_MACHINE = ("gpu", "driver", "torch", "transformers", "python")


def book_folder():
    """Return the folder of the book's records.

    Raises:
        FileNotFoundError: there is none here, as in an installed copy of the package.
    """
    folder = BOOK_RECORDS / BOOK_GPU
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The book's records are not at {folder}: they come with a clone of the book's "
            "repository, so run this notebook there."
        )
    return folder


def folder_of(machine):
    """Return the folder for the records of ``machine``: the book's for a GPU, else a scratch one."""
    if machine["device"] != "cuda":
        return Path(tempfile.gettempdir()) / "token-by-token-records"
    root = BOOK_RECORDS if BOOK_RECORDS.is_dir() else Path.cwd() / "records"
    return root / slug(machine["gpu"])


def machine_of(folder):
    """Return the machine of the newest record in ``folder``.

    Raises:
        FileNotFoundError: the folder holds no records.
    """
    machines = [load(path)["machine"] for path in Path(folder).glob("*.json")]
    if not machines:
        raise FileNotFoundError(f"{folder} holds no records: run `make record` on a GPU first.")
    return max(machines, key=lambda machine: machine["date"])


def workload(machine, batch_size, new_tokens, dtype=None):
    """Return the workload of a chapter on ``machine``, small where there is no GPU.

    Args:
        machine: as in a record.
        batch_size: rows; fewer on a GPU with less than 16 GB.
        new_tokens: tokens to generate.
        dtype: the name of a dtype; None asks the GPU in this machine.
    """
    if machine["device"] != "cuda":
        few = min(batch_size, 2)
        return Workload("gpt2-tiny", few, 8, 16, dtype="float32", device="cpu", repeats=2)
    if machine["gpu_memory_mib"] < SMALL_GPU_MIB:
        batch_size = min(batch_size, 8)
    dtype = dtype or _dtype_of_this_gpu()
    return Workload("gpt2", batch_size, PROMPT_TOKENS, new_tokens, dtype=dtype, repeats=3)


def _dtype_of_this_gpu():
    """The dtype in which chapters decode: half precision even where bfloat16 is slow."""
    chosen = default_dtype(torch.device("cuda"))
    return "float16" if chosen == torch.float32 else str(chosen).removeprefix("torch.")
