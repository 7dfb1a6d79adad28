"""The output's matrix product for a vocabulary of an odd size, and for one that is padded."""

from math import ceil

from .controls import SINGLE
from .limits import Gemm, alone_us, gemms
from .machine import machine
from .processes import run_fresh
from .runs import load

BATCH_SIZES = (1, 8, 32, 128)
MULTIPLE = 64  # rows of a padded table come in so many


def odd_vocabulary(workload=SINGLE, batch_sizes=BATCH_SIZES, multiple=MULTIPLE):
    """Time the output's product alone, as the model has it and with more columns, in one fresh process.

    Args:
        workload: a ``Workload``; its model must be one that ``limits.gemms`` knows.
        batch_sizes: rows.
        multiple: the padded size is the next multiple of this.

    Returns:
        A dict: ``machine``; ``sizes``, "as it is" and "padded" -> how many tokens the vocabulary has; and
        ``alone_us``, batch size -> the same two -> the time of one product, see ``limits.alone_us``.
    """
    what = "Timing the output's product"
    return run_fresh(
        _timed, what, workload=workload, batch_sizes=tuple(batch_sizes), multiple=multiple
    )


def _timed(report, workload, batch_sizes, multiple):
    model = load(workload)
    output = gemms(model.config)[-1]
    sizes = {"as it is": output.outputs, "padded": multiple * ceil(output.outputs / multiple)}
    found = {}
    for number, size in enumerate(batch_sizes):
        found[str(size)] = {
            name: alone_us(Gemm("output", output.inputs, many, 1), size, model.device, model.dtype)
            for name, many in sizes.items()
        }
        report(number + 1, len(batch_sizes))
    return {"machine": machine(), "sizes": sizes, "alone_us": found}
