"""``generate``: one call for every loop on the ladder."""

import torch

from . import checks
from .rungs import find_rung


@torch.no_grad()
def generate(
    model, input_ids, *, rung="two_streams", max_new_tokens=128, eos_token_id=None, **options
):
    """Decode greedily with one of the loops in ``RUNGS``.

    Every rung returns what ``model.generate(input_ids, do_sample=False, max_new_tokens=...,
    eos_token_id=..., pad_token_id=eos_token_id)`` of transformers returns: a row that has finished
    is padded with ``eos_token_id``, and the result ends at the step in which the last row finished.
    Nothing is written to the model or its configuration.

    A call may come from any thread and any stream, also right behind another one: what calls share
    is used by one at a time, in order (see ``decoding.prepared``). A call that fails, whatever the
    reason, leaves nothing behind that a later one would use.

    Args:
        model: a transformers causal LM in evaluation mode, on a CUDA GPU or a CPU; for the rungs from
            ``static_cache`` on, one that supports ``StaticCache``. An architecture whose tokens
            would be wrong is refused.
        input_ids: int64 or int32 [batch, prompt], prompts of one length, without padding, on the
            model's device. Rows that look padded are refused: some begin or end with the model's
            ``pad_token_id``, or, where that is unset or also ends a text, with more of it than others.
        rung: a name in ``RUNGS``.
        max_new_tokens: how many tokens to add at most.
        eos_token_id: the end-of-sequence id, or a list of ids of which each ends a row (rows are then
            padded with the first); None means: never stop early, and never check. A chat model's
            are in ``model.generation_config.eos_token_id``.
        **options: what the rung's loop takes besides (see ``Rung.options``): ``cache_length``, the
            positions of the static cache (default: prompt + ``max_new_tokens``, rounded up to a
            multiple of 64), and ``compile_mode``, a mode of ``torch.compile`` (default:
            "reduce-overhead").

    Returns:
        int64 [batch, prompt + n], n <= ``max_new_tokens``.

    Raises:
        ValueError, TypeError: an argument is out of its range; the message says which, what is
            allowed and what to do. Nothing has been run by then.
        RuntimeError: the step cannot be compiled here, with the reason; or ``generate`` was called
            from inside a loop (by an observer of ``decoding.ranges``, say) that uses the same device.

    The rung "expandable_segments" runs the loop of "kv_cache": what sets it apart is an environment
    variable that PyTorch reads before CUDA starts (see ``Rung.environment``).
    """
    chosen = find_rung(rung)
    options = checks.check_options(chosen, options)
    checks.check_model(model, chosen)
    checks.check_prompt(model, input_ids)
    max_new_tokens = checks.whole_number("max_new_tokens", max_new_tokens)
    checks.check_lengths(
        max_positions(model), input_ids.shape[1], max_new_tokens, options.get("cache_length")
    )
    size = vocabulary_size(model)
    eos_token_id = checks.check_ends(size, eos_token_id)
    checks.check_token_ids(model, size, input_ids)
    return chosen.decode(model, input_ids.long(), max_new_tokens, eos_token_id, **options)


def vocabulary_size(model):
    """Return how many token ids ``model`` can read and choose."""
    return model.get_input_embeddings().num_embeddings


def max_positions(model):
    """Return how many positions ``model`` has, or None if its configuration sets no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)
