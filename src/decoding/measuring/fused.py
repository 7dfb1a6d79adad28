"""The step in kernels of our own beside the compiled one: what fewer kernels and an early start gain."""

from decoding.models import resolve_device

from .controls import SINGLE
from .races import race

LOOPS = {
    "compiled": {"rung": "compiled"},
    "captured graph": {"rung": "captured_graph"},
    "device loop": {"rung": "device_loop"},
    "one after another": {"rung": "fused_step", "dependent_launch": False},
    "dependent launch": {"rung": "fused_step"},
}


def fused_steps(workload=SINGLE, *, loops=tuple(LOOPS)):
    """Race the fused step, with dependent launch and without, beside the loops of the compiled step.

    Args:
        workload: a ``Workload`` of at most ``fused_step.MOST_ROWS`` rows.
        loops: names in ``LOOPS``. On a CPU the fused step is left out: Triton's interpreter shows that its
            kernels are right, and takes seconds a token.

    Returns:
        What ``race`` returns, each loop with its busy time and its kernels a token on a GPU. Where the GPU
        knows no dependent launch, both fused steps are the same.

    Raises:
        MeasurementError: the process failed.
    """
    on_gpu = resolve_device(workload.device).type == "cuda"
    entrants = {loop: LOOPS[loop] for loop in loops}
    entrants = {
        loop: entrant
        for loop, entrant in entrants.items()
        if on_gpu or entrant["rung"] != "fused_step"
    }
    return race(entrants, workload, busy=True)
