"""What is measured: which model reads and generates how much, how often."""

from dataclasses import dataclass, replace


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

    def but(self, **changes):
        """Return this workload with ``changes``."""
        return replace(self, **changes)
