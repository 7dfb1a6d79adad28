"""Explorers of whole ladders: all rungs of a batch size, by what is compared."""

from .cards import ladder
from .curves import curves
from .explorers import explorer2
from .tables import records_table


def ladders_explorer(ladders):
    """Return an explorer of batch sizes and of what to compare of all their rungs.

    Args:
        ladders: batch size -> records, in the order of the ladder. Naive decoding, whose memory
            would hide the others', is left out of the memory.
    """
    states = {size: _pictures(size, list(records)) for size, records in ladders.items()}
    return explorer2(states, descriptions=("batch size", "compare"))


def _pictures(size, records):
    where = f"at batch {size}"
    cached = [record for record in records if record["rung"] != "naive"]
    return {
        "time and idle share": ladder(records, f"Time per token {where}, rung by rung"),
        "time along the tokens": curves(records, title=f"Every token {where}"),
        "memory along the tokens": curves(
            cached, title=f"Memory {where}, without naive decoding", what="memory"
        ),
        "all figures": records_table(records, f"All rungs {where}"),
    }
