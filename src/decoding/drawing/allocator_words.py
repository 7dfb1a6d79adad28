"""What an allocator did along a run, in words."""

from .words import counted, mib


def told_of(name, found, step, since, broken):
    """Return what an allocator did in the steps after ``since`` up to ``step``; "" for nothing.

    Args:
        name: "default" or "expandable".
        found: what a walk through the requests has found: ``reserved`` after each step in MiB;
            ``taken``, (step, MiB asked, MiB free) each time that large memory was taken; ``breaks``,
            step -> what was asked, free, largest, given back, and whether it was fatal; ``ends``,
            step -> ``Side``; ``failed``, the step at which memory ran out, or None.
        step, since: numbers of steps.
        broken: whether ``step`` is told at the request that finds no room.
    """
    title = name.capitalize()
    if broken and step in found.breaks:
        return _broken(title, found.breaks[step])
    if found.failed is not None and step >= found.failed:
        return f"{title}: out of memory since step {found.failed}."
    if name == "expandable" and any(since < at <= step for at in found.breaks):
        return f"{title}: at the end of the card, too; it gives back free pages and goes on."
    taken = [one for one in found.taken if since < one[0] <= step]
    if not taken:
        return ""
    if step == 0:
        return f"{title}: the prefill takes {counted(len(found.ends[0].segments), 'segment')}."
    if name == "expandable":
        return f"{title}: the segment grows by {mib(found.reserved[step] - found.reserved[since])}."
    _, asked, free = taken[-1]
    return (
        f"{title}: {counted(len(taken), 'new segment')}, {'the last ' if len(taken) > 1 else ''}because "
        f"{mib(free)} are free and no piece of them has {asked:,.2f} MiB."
    )


def _broken(title, at):
    said = (
        f"{title}: {at.asked:,.2f} MiB are asked for. {mib(at.free)} are free, but the largest piece "
        f"has {at.largest:,.2f}, and the card has no room for another segment. "
    )
    if at.fatal:
        return said + "Giving back what is wholly free does not help: CUDA out of memory."
    return said + f"{counted(at.segments, 'segment')} with {mib(at.given)} are given back."
