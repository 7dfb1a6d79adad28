"""What every loop on the ladder repeats: one forward pass and the greedy choice of a token."""

import inspect

import torch
from transformers import Cache, DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

#: What a model of the installed transformers calls its cache: "cache" from 5.24 on (at the latest),
#: "past_key_values" before.
CACHE = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
)


class NoCache(Cache):
    """A cache that keeps nothing: every forward pass attends to what it reads, and to no more.

    Without any cache transformers would look for several documents packed into one row, with an
    ``if`` on a tensor of the GPU, for which the host waits in every step.
    """

    def __init__(self):
        super().__init__(layers=[])

    def update(self, keys, values, layer, *args, **kwargs):
        return keys, values


_read_only = {}  # model class -> arguments


def without_cache(model):
    """Return the arguments with which ``model`` reads and keeps nothing.

    That is ``NoCache`` where the layers keep nothing but keys and values.
    """
    kind = type(model)
    if kind not in _read_only:
        plain = {DynamicLayer, DynamicSlidingWindowLayer}
        if kind._can_compile_fullgraph and plain.issuperset(
            map(type, DynamicCache(config=model.config).layers)
        ):
            _read_only[kind] = {CACHE: NoCache(), "use_cache": True}
        else:
            _read_only[kind] = {"use_cache": False}
    return _read_only[kind]


def start(input_ids, eos_token_id):
    """Return the state a loop begins with: no row finished, and the ends of sequence as a tensor.

    The ids are a tensor, not numbers, so that a compiled step serves every id. ``None`` becomes -1,
    an id that no model can choose. The host does not wait for the device here.

    Args:
        input_ids: int64 [batch, prompt].
        eos_token_id: None, one id, or a list of ids.

    Returns:
        Two tensors on the device of ``input_ids``.

        - ``finished``, bool [batch], all False.
        - ``eos``, int64 [ids]; finished rows are filled with the first.
    """
    ids = [-1] if eos_token_id is None else eos_token_id
    ids = [ids] if isinstance(ids, int) else ids
    finished = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
    return finished, torch.stack([input_ids.new_full((), number) for number in ids])


def decode_step(model, unread, cache, finished, eos):
    """Run the model on the tokens it has not read yet and choose the next token of every row.

    Args:
        model: a transformers causal LM.
        unread: int64 [batch, n], the tokens that ``cache`` does not hold yet.
        cache: a transformers ``Cache`` that takes up the keys and values, or None for no cache.
        finished: bool [batch], True for rows that have produced an id of ``eos``.
        eos: int64 [ids], the end-of-sequence ids.

    Returns:
        Three tensors on the model's device.

        - ``next_token``, int64 [batch, 1], the most likely token, or ``eos[0]`` in a finished row.
        - ``finished``, bool [batch], a new tensor that also marks the rows that finish here.
        - ``all_finished``, bool scalar: nobody has waited for it yet.

    Nor does the host wait for the device anywhere else in here, with exceptions that transformers
    makes: an eager GPT-2 whose ``config.pad_token_id`` is set looks for that id in what it reads; a
    dynamic cache with a sliding window is made with a copy to the device for each layer; and an
    architecture that cannot be compiled as one graph may look at tensors of its own.
    """
    keeps = without_cache(model) if cache is None else {CACHE: cache, "use_cache": True}
    logits = model(unread, **keeps).logits[:, -1]
    next_token = torch.where(finished, eos[0], logits.argmax(dim=-1))[:, None]
    finished = finished | (next_token == eos).any(dim=1)
    return next_token, finished, torch.all(finished)
