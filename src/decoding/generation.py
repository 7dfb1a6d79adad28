"""``generate``: one call for every loop on the ladder."""

from contextlib import contextmanager

import torch

from .rungs import find_rung


@torch.no_grad()
def generate(
    model, input_ids, *, rung="two_streams", max_new_tokens=128, eos_token_id=None, **options
):
    """Decode greedily with one of the loops in ``RUNGS``.

    Every rung returns what ``model.generate(input_ids, do_sample=False, max_new_tokens=...,
    eos_token_id=..., pad_token_id=eos_token_id)`` of transformers returns: a row that has finished
    is padded with ``eos_token_id``, and the result ends at the step in which the last row finished.

    Args:
        model: a transformers causal LM in evaluation mode; for the rungs from ``static_cache`` on,
            one that supports ``StaticCache``.
        input_ids: int64 or int32 [batch, prompt], prompts of one length, without padding, on the
            model's device.
        rung: a name in ``RUNGS``.
        max_new_tokens: how many tokens to add at most.
        eos_token_id: the end-of-sequence id; None means: never stop early, and never check.
        **options: what the rung's loop takes besides (see ``Rung.options``): ``cache_length``, the
            positions of the static cache (default: prompt + ``max_new_tokens``), and
            ``compile_mode``, a mode of ``torch.compile`` (default: "reduce-overhead").

    Returns:
        int64 [batch, prompt + n], n <= ``max_new_tokens``.

    Raises:
        ValueError, TypeError: an argument is out of its range; the message says which, what is
            allowed and what to do. Nothing has been run by then.

    The rung "expandable_segments" runs the loop of "kv_cache": what sets it apart is an environment
    variable that PyTorch reads before CUDA starts (see ``Rung.environment``).
    """
    chosen = find_rung(rung)
    _check_options(chosen, options)
    _check_model(model, chosen)
    _check_prompt(model, input_ids)
    _check_lengths(model, input_ids, max_new_tokens, options.get("cache_length"))
    _check_token_ids(model, input_ids, eos_token_id)
    with _without_padding_check(model):
        return chosen.decode(model, input_ids.long(), max_new_tokens, eos_token_id, **options)


def vocabulary_size(model):
    """Return how many token ids ``model`` can read and choose."""
    return model.get_input_embeddings().num_embeddings


def max_positions(model):
    """Return how many positions ``model`` has, or None if its configuration sets no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _check_options(rung, options):
    unknown = sorted(set(options) - rung.options)
    if unknown:
        allowed = ", ".join(sorted(rung.options)) or "none"
        raise TypeError(
            f"The rung {rung.name!r} has no option {', '.join(unknown)}; its options: {allowed}."
        )
    modes = torch._inductor.list_mode_options()
    mode = options.get("compile_mode", "default")
    if mode not in modes:
        raise ValueError(f"compile_mode={mode!r} is unknown; choose one of {', '.join(modes)}.")


def _check_model(model, rung):
    if model.training:
        raise ValueError(
            "The model is in training mode, where dropout changes its tokens: call model.eval() first."
        )
    if rung.needs_static_cache and not getattr(model, "_can_compile_fullgraph", False):
        raise ValueError(
            f"{type(model).__name__} does not support StaticCache, which the rung {rung.name!r} "
            "needs: use the rung 'naive' or 'kv_cache', or another architecture."
        )


def _check_prompt(model, input_ids):
    if not isinstance(input_ids, torch.Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        given = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise TypeError(
            f"input_ids is {given}; it must be a tensor of int64 or int32 token ids: "
            "encode the text with the model's tokenizer (return_tensors='pt')."
        )
    if input_ids.dim() != 2:
        raise ValueError(
            f"input_ids has shape {list(input_ids.shape)}; it must be [batch, prompt]: "
            "for one prompt, add the batch dimension with input_ids[None, :]."
        )
    if input_ids.numel() == 0:
        raise ValueError(
            f"input_ids has shape {list(input_ids.shape)}, which holds no token; it needs at least one row "
            "and one token a row: begin an empty prompt with the model's bos_token_id."
        )
    if input_ids.device != model.device:
        raise ValueError(
            f"input_ids is on {input_ids.device} and the model on {model.device}; they must share a "
            "device: call input_ids.to(model.device)."
        )


def _check_lengths(model, input_ids, max_new_tokens, cache_length):
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
        raise TypeError(
            f"max_new_tokens is {max_new_tokens!r}; it must be a whole number from 1 up."
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; ask for at least 1 token.")
    prompt, limit = input_ids.shape[1], max_positions(model)
    total = prompt + max_new_tokens
    if limit is not None and total > limit:
        raise ValueError(
            f"A prompt of {prompt} tokens and {max_new_tokens} new ones need {total} positions; this model "
            f"has {limit}: shorten the prompt or ask for at most {max(limit - prompt, 0)} new tokens."
        )
    if cache_length is not None and cache_length < total:
        raise ValueError(
            f"cache_length is {cache_length}, but {prompt} prompt tokens and {max_new_tokens} new ones need "
            f"{total} positions: ask for at least {total}."
        )


def _check_token_ids(model, input_ids, eos_token_id):
    size = vocabulary_size(model)
    if eos_token_id is not None and (
        isinstance(eos_token_id, bool)
        or not isinstance(eos_token_id, int)
        or not 0 <= eos_token_id < size
    ):
        raise ValueError(
            f"eos_token_id is {eos_token_id!r}; it must be None or one id from 0 to {size - 1}."
        )
    # The one synchronization of a call, before any work, so that the loop itself needs none.
    lowest, highest = torch.stack(input_ids.aminmax()).tolist()
    if lowest < 0 or highest >= size:
        raise ValueError(
            f"input_ids holds ids from {lowest} to {highest}; this model knows 0 to {size - 1}: "
            "encode the text with the tokenizer of this model."
        )


@contextmanager
def _without_padding_check(model):
    """Keep transformers from looking for padding, which would wait for the GPU in every step."""
    pad_token_id, model.config.pad_token_id = model.config.pad_token_id, None
    try:
        yield
    finally:
        model.config.pad_token_id = pad_token_id
