"""What the pages of Part II say of its race: every way to end the waiting, over batch sizes and models."""

import inspect
import json
from dataclasses import asdict

from decoding.measuring import endings
from decoding.measuring.comparing import ratio_of
from decoding.measuring.endings import COMPILED, LOOPS, NEVER
from decoding.measuring.fingerprint import fingerprint

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


def race(chapter, batch_size=1, model=None, loops=tuple(LOOPS), rounds=5):
    """Return the ``results`` of ``measuring.endings.endings``, loop -> ``Record``, kept and read while recent.

    Args:
        chapter: the ``Chapter`` that keeps it.
        batch_size: rows.
        model: its name; default: that of the chapter.
        loops: names in ``LOOPS``.
        rounds: how often each loop is timed; on a CPU twice.
    """
    work = chapter.single.but(batch_size=batch_size)
    work = work.but(model=model) if model and chapter.on_gpu else work
    rounds = rounds if chapter.on_gpu else 2
    code = fingerprint((), [inspect.getsource(endings)])
    return chapter.shelf.recent_or(
        f"endings_{work.model}_b{batch_size}.json",
        [LOOPS[loop]["rung"] for loop in loops],
        lambda: endings.endings(work, rounds=rounds, loops=loops),
        json.dumps([asdict(work), list(loops), code]),
    )["results"]


def races(chapter, sizes=SIZES, **arguments):
    """Return ``race`` for each batch size: batch size -> loop -> ``Record``; on a CPU for 1 and 2."""
    return {
        size: race(chapter, size, **arguments) for size in (sizes if chapter.on_gpu else (1, 2))
    }


def predicted_us(found, loop):
    """Return what *L* and *G* alone say of a token of ``loop``, in µs.

    Asked at once it takes *L* + *G*, else the larger of the two. *G* is the busy time of the same
    kernels, compiled or captured, in the loop that never asks; of a loop that runs on the device *L*
    is nothing.

    Args:
        found: the ``results`` of a race.
        loop: one of its loops.
    """
    work = found[NEVER[LOOPS[loop]["rung"] in COMPILED]]["G_us"]
    launch = 0 if loop == "device loop" else found[loop]["L_us"]
    return launch + work if loop.endswith("at once") else max(launch, work)


def above(found, loop, bound="captured, never"):
    """Return by which share a token of ``loop`` takes longer than one of ``bound``."""
    return ratio_of(found[loop], found[bound]) - 1
