"""Claims: what a sentence says of the numbers, asserted beside it."""

from IPython.display import display


def holds(name, condition):
    """Show nothing if ``condition`` holds; else a box that says which claim fails on this machine.

    It raises nothing, so that a chapter goes on. A figure that was not measured is nan, and compares
    as False. The book is not recorded with a claim that fails.

    Args:
        name: the claim in a few words, in snake case: ``"copy_is_not_the_cost"``.
        condition: a bool.

    Raises:
        ValueError: the name is no identifier.
    """
    if not name.isidentifier():
        raise ValueError(
            f"A claim's name is in snake case, as copy_is_not_the_cost; this is {name!r}."
        )
    if condition and condition == condition:  # nan is true, and equals nothing
        return
    words = name.replace("_", " ")
    shown = {
        "text/markdown": f"> **Not seen on this machine:** {words}.",
        "text/plain": f"Not seen on this machine: {words}.",
    }
    display(shown, raw=True, metadata={"claim": name, "holds": False})


def failed_in(cell):
    """Return the names of the claims that a cell's outputs show as failed."""
    outputs = [output.get("metadata", {}) for output in cell.get("outputs", ())]
    return [shown["claim"] for shown in outputs if shown.get("holds") is False]
