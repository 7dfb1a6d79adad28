"""What is measured: which model reads and generates how much, how often."""

from dataclasses import dataclass, replace

DTYPES = ("bfloat16", "float16", "float32", "float64")
COUNTS = ("batch_size", "prompt_tokens", "new_tokens", "repeats")


@dataclass(frozen=True)
class Workload:
    """What is generated, and how often.

    Args:
        model: a name that ``load_model`` knows (random weights).
        batch_size: rows.
        prompt_tokens: tokens in each row's prompt, drawn at random from ``seed``.
        new_tokens: tokens to generate in each row.
        dtype: the name of a torch dtype; None means ``load_model``'s choice.
        device: None means the GPU if there is one, else the CPU.
        stop_check: whether the loop asks in every step if all rows have finished. If so, the
            end-of-sequence id is the last one of the vocabulary.
        repeats: timed runs after the first, cold one.
        seed: of the prompts.

    Raises:
        ValueError: a number is below 1, or there is no such dtype.
    """

    model: str = "gpt2"
    batch_size: int = 32
    prompt_tokens: int = 128
    new_tokens: int = 512
    dtype: str | None = None
    device: str | None = None
    stop_check: bool = True
    repeats: int = 5
    seed: int = 0

    def __post_init__(self):
        for name in COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 up.")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}.")

    def but(self, **changes):
        """Return this workload with ``changes``."""
        return replace(self, **changes)
