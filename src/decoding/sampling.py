"""Sampling without a hidden wait: the most likely token after noise that depends on a seed is the sample.

The loops take the argmax of the logits. Add to each logit a number drawn from the Gumbel distribution,
and the argmax falls on token *i* with exactly the probability softmax(logits)[i] (the Gumbel-max trick,
Gumbel 1954; Maddison, Tarlow and Minka 2014). The noise is no state of a generator but a hash of the
seed, the row, the column and the token: the same in every rung, eager, compiled or captured, in whatever
order steps run.
"""

import functools
import math

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from .checks import whole_number
from .step import CACHE
from .text import begins, keep, view

BITS = 0xFFFFFFFF  # hashes have 32 bits, in int64, so that no product overflows
ODD = 0x045D9F3B  # below 2**31; of Thomas Mueller's hash in the public domain
LARGEST = 1 - 2**-24  # the largest float32 below 1


def sampled(model, *, temperature=1.0, top_k=None, top_p=None, seed=0):
    """Return a view of ``model`` whose most likely token is a sample: for every rung of ``generate``.

    A call gives the same text for the same ``seed``, in every rung. The seed may change between calls
    (``view.seed = 1``): a compiled step serves every seed. Another temperature, ``top_k`` or ``top_p``
    needs another view, with compiled steps of its own. Keep a view: they go with it.

    Args:
        model: a transformers causal LM, or a view of one (see ``decoding.text.padded``).
        temperature: above 0; logits are divided by it first.
        top_k: keep this many of the largest logits; None keeps all.
        top_p: of those, keep the most likely tokens until their probabilities sum to ``top_p``, in
            (0, 1]; None keeps all.
        seed: a whole number.

    Raises:
        ValueError: an argument is out of its range, or the model's ``forward`` has been replaced.
        TypeError: ``top_k`` or ``seed`` is no whole number.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(
            f"temperature is {temperature}; it must be above 0: for the most likely token, decode the model itself."
        )
    if top_k is not None and whole_number("top_k", top_k) < 1:
        raise ValueError(f"top_k is {top_k}; keep at least 1 token, or pass None to keep all.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(
            f"top_p is {top_p}; it must be above 0 and at most 1, or None to keep all tokens."
        )
    return view(
        model,
        _sampled(type(model)),
        rule=(temperature, top_k, top_p),
        seed=whole_number("seed", seed),
    )


def filtered(logits, temperature=1.0, top_k=None, top_p=None):
    """Return tempered logits, float32 [batch, vocabulary], -inf where a token is not to be drawn.

    The rules come in transformers' order: temperature, then ``top_k``, then ``top_p``. Tokens that tie
    with the last one kept are kept, too.

    Args:
        logits: [batch, vocabulary].
        temperature, top_k, top_p: as in ``sampled``.
    """
    logits = logits.float() / temperature
    if top_k is None and top_p is None:
        return logits
    if top_k is None:
        best = logits.sort(dim=-1, descending=True).values
    else:
        best = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values
    if top_p is not None:
        rest = (
            best.softmax(dim=-1).flip(-1).cumsum(dim=-1).flip(-1)
        )  # of this token and those below it
        best = torch.where(rest > 1 - top_p, best, best[:, :1])
    return logits.masked_fill(logits < best.amin(dim=-1, keepdim=True), -math.inf)


def gumbel(seed, column, batch, vocabulary):
    """Return noise of the Gumbel distribution, float32 [batch, vocabulary], a hash of where it is used.

    Args:
        seed: int64 scalar, a tensor on the device.
        column: where in the row the token will stand: a number, or int64, a scalar or [batch, 1].
        batch: rows.
        vocabulary: token ids.
    """
    rows = torch.arange(batch, device=seed.device)[:, None]
    ids = torch.arange(vocabulary, device=seed.device)
    key = _mixed(_mixed(_mixed(seed & BITS) + (seed >> 32 & BITS)) + rows)
    key = _mixed(key + column)
    # Two keys: with one, the noise of two steps could be the same numbers in another order.
    drawn = _mixed(_mixed(ids ^ key) + _mixed(key + ODD))
    uniform = ((drawn.float() + 0.5) * 2**-32).clamp(max=LARGEST)
    return -(-torch.log1p(-uniform)).log()


def _mixed(number):
    """Return a hash of the low 32 bits of ``number``, int64: two rounds of xor, shift and multiply."""
    number = number & BITS
    for _ in range(2):
        number = ((number >> 16) ^ number) * ODD & BITS
    return (number >> 16) ^ number


@functools.cache
def _sampled(kind):
    class Sampled(kind):
        @functools.wraps(kind.forward)
        def forward(self, input_ids, **options):
            cache, width = options.get(CACHE), input_ids.shape[1]
            if begins(cache):
                seed = torch.full((), self.seed, dtype=torch.long, device=input_ids.device)
                keep(cache, "seed", seed)
                column = width
            else:
                seed = cache.seed
                column = cache.get_seq_length() + width  # before the model moves it on
            logits = super().forward(input_ids, **options).logits[:, -1]
            drawn = filtered(logits, *self.rule) + gumbel(seed, column, *logits.shape)
            return CausalLMOutputWithPast(logits=drawn[:, None])

    Sampled.__name__ = kind.__name__  # by which transformers tells architectures apart
    return Sampled
