"""Why there is no number."""


class MeasurementError(RuntimeError):
    """A measurement gave no result; the message is one sentence that says why."""


class NeedsGpu(MeasurementError):
    """This can only run on a CUDA GPU, and there is none, or the workload asks for a CPU."""


class NotRecorded(MeasurementError):
    """Nothing is to be measured, and there is no record of what is asked for."""


class NotMeasured(MeasurementError):
    """A number is needed of a measurement that failed, for want of memory say."""


class NotComparable(MeasurementError):
    """Two numbers were not taken together, so that no ratio can be made of them."""
