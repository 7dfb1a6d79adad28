"""The hazard of two streams in its smallest form: one writes, another reads, and nobody waits."""

import torch

LAG_CYCLES = 10_000_000  # some milliseconds of a GPU's clock


def stale_reads(lag_cycles, wait, tries=20):
    """Return how many of ``tries`` tokens one stream reads before another has written them.

    Args:
        lag_cycles: how many clock cycles the writing stream is kept busy before it writes.
        wait: whether the reading stream is told to wait for the writing one.
        tries: how many tokens.

    CUDA only.
    """
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
    """Return where -> (stale reads without a wait, with one), of 20 each. CUDA only."""
    stale_reads(1000, wait=True, tries=2)  # loads the kernels
    return {
        where: [stale_reads(cycles, wait) for wait in (False, True)]
        for where, cycles in (
            ("where the GPU lags behind the host", LAG_CYCLES),
            ("where the GPU keeps up with the host", 0),
        )
    }
