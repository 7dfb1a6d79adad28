"""What every loop on the ladder repeats: one forward pass and the greedy choice of a token."""

import torch


def start(input_ids, eos_token_id):
    """Return the state a loop begins with: no row finished, and the end-of-sequence id as a tensor.

    The id is a tensor, not a number, so that a compiled step serves every id. ``None`` becomes -1,
    an id that no model can choose.

    Returns:
        Two tensors on the device of ``input_ids``.

        - ``finished``, bool [batch], all False.
        - ``eos``, int64 scalar.
    """
    finished = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
    eos = torch.tensor(-1 if eos_token_id is None else eos_token_id, device=input_ids.device)
    return finished, eos


def decode_step(model, unread, cache, finished, eos):
    """Run the model on the tokens it has not read yet and choose the next token of every row.

    Args:
        model: a transformers causal LM.
        unread: int64 [batch, n], the tokens that ``cache`` does not hold yet.
        cache: a transformers ``Cache`` that takes up the keys and values, or None for no cache.
        finished: bool [batch], True for rows that have produced ``eos``.
        eos: int64 scalar tensor, the end-of-sequence id.

    Returns:
        Three tensors on the model's device.

        - ``next_token``, int64 [batch, 1], the most likely token, or ``eos`` in a finished row.
        - ``finished``, bool [batch], a new tensor that also marks the rows that finish here.
        - ``all_finished``, bool scalar: nobody has waited for it yet.
    """
    logits = model(unread, past_key_values=cache, use_cache=cache is not None).logits[:, -1]
    next_token = torch.where(finished, eos, logits.argmax(dim=-1))
    finished = finished | (next_token == eos)
    return next_token[:, None], finished, torch.all(finished)
