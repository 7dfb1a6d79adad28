"""Small experiments that look for the cause behind a number of a chapter.

Each returns what JSON can hold.
"""

from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from decoding.generation import generate, vocabulary_size
from decoding.models import load_model

from .machine import require_gpu

OTHERS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
LAG_CYCLES = 10_000_000  # some milliseconds of a GPU's clock


def repeated_runs(model_name="gpt2", device="cuda", new_tokens=96, runs=4, batches=(1, 32)):
    """Run two loops several times each, with all attention kernels of PyTorch and without cuDNN's.

    Args:
        model_name, device: for ``load_model``; in bfloat16.
        new_tokens: tokens to generate in each row.
        runs: of each loop, in one process.
        batches: the batch sizes.

    Returns:
        A dict with ``cudnn``, the version of cuDNN, ``runs``, and ``cases``, a list of dicts: the
        ``rung``, the ``batch_size``, whether cuDNN's kernel could be chosen (``with_cudnn``),
        how many of the runs after the first ``differ`` from it, and the new token at which the
        first of them does (``first_token``, None if none does).

    Raises:
        NeedsGpu: ``device`` is a CUDA GPU and there is none.
    """
    if torch.device(device).type == "cuda":
        require_gpu("Comparing a loop's runs on a GPU")
    model = load_model(model_name, device=device, dtype=torch.bfloat16)
    cases = []
    for batch_size in batches:
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, 128)
        prompt = torch.randint(vocabulary_size(model) - 1, shape, generator=generator)
        prompt = prompt.to(model.device)
        for rung in ("kv_cache", "static_cache"):
            for with_cudnn in (True, False):
                with nullcontext() if with_cudnn else sdpa_kernel(list(OTHERS)):
                    found = _differing(model, prompt, rung, new_tokens, runs)
                case = {"rung": rung, "batch_size": batch_size, "with_cudnn": with_cudnn}
                cases.append(case | found)
    return {"cudnn": torch.backends.cudnn.version(), "runs": runs, "cases": cases}


def _differing(model, prompt, rung, new_tokens, runs):
    """Return how many later runs of a loop differ from its first, and from which token on."""
    first, *later = (
        generate(model, prompt, rung=rung, max_new_tokens=new_tokens) for _ in range(runs)
    )
    differing = [(tokens != first).any(dim=0) for tokens in later]
    at = [one.int().argmax().item() - prompt.shape[1] for one in differing if one.any()]
    return {"differ": len(at), "first_token": min(at, default=None)}


def stale_reads(lag_cycles, wait, tries=20):
    """Return how many of ``tries`` tokens one stream reads before another has written them.

    The hazard of two streams in its smallest form: one writes, another reads.

    Args:
        lag_cycles: how many clock cycles the writing stream is kept busy before it writes.
        wait: whether the reading stream is told to wait for the writing one.
        tries: how many tokens.

    Raises:
        NeedsGpu: there is no CUDA GPU.
    """
    require_gpu("A race between two streams")
    writer, reader = torch.cuda.Stream(), torch.cuda.Stream()
    stale = 0
    for number in range(1, tries + 1):
        token = torch.zeros(1, dtype=torch.long, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(writer):
            if lag_cycles:
                torch.cuda._sleep(lag_cycles)
            token.fill_(number)
        with torch.cuda.stream(reader):
            if wait:
                reader.wait_stream(writer)
            seen = token.clone()
        torch.cuda.synchronize()
        stale += int(seen.item() != number)
    return stale


def provoke():
    """Return where -> [stale reads without a wait, with one], of 20 each.

    Raises:
        NeedsGpu: there is no CUDA GPU.
    """
    stale_reads(1000, wait=True, tries=2)  # loads the kernels
    return {
        where: [stale_reads(cycles, wait) for wait in (False, True)]
        for where, cycles in (
            ("where the GPU lags behind the host", LAG_CYCLES),
            ("where the GPU keeps up with the host", 0),
        )
    }
