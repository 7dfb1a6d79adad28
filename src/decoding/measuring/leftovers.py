"""What a profiled run leaves behind in its process."""

from .controls import SINGLE
from .machine import require_gpu
from .probes import busy_time
from .processes import run_fresh
from .replays import bare_replay
from .runs import enter, load


def replays_around_a_profile(workload=SINGLE):
    """Time bare replays of the step's graph before a profiled run of a loop, and after it. CUDA only.

    Returns:
        A dict of what ``replays.bare_replay`` gives: ``first``; ``after_runs``, when a compiled loop
        has run; ``after_profile``, when it has been profiled.
    """
    require_gpu("Replaying a captured step", workload.device)
    return run_fresh(_around, "Replays around a profiled run", workload=workload)


def _around(report, workload):
    model = load(workload)
    found = {"first": bare_replay(model, workload)}
    run = enter(model, workload, {"rung": "compiled"})
    for _ in range(3):
        run()
    found["after_runs"] = bare_replay(model, workload)
    busy_time(run)
    return found | {"after_profile": bare_replay(model, workload)}
