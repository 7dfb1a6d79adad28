"""Real text: pretrained models with their tokenizers, and prompts of different lengths in one batch.

The loops call a model and take the most likely token. What real text needs besides stands in front of
the model, not in the loops: ``padded`` (here) and ``sampled`` (``decoding.sampling``) return a *view* of
a model, the same weights with another ``forward``. Whatever a view must remember from one step to the
next it keeps as tensors with the cache, written by the step that reads the prompt. That step is never
compiled, so a compiled step and a captured graph find new values at the old addresses.
"""

import copy
import functools
import inspect
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .models import default_dtype, load_model, resolve_device
from .prepared import FullLengthCache
from .step import CACHE, NoCache


def load_text_model(source, *, device=None, dtype=None):
    """Return a pretrained causal LM and its tokenizer, which pads on the left.

    Args:
        source: the id of a model on the Hugging Face hub, a local folder, or the path of a GGUF file
            (read with the packages ``gguf`` and ``accelerate``; its weights are turned into ``dtype``).
        device: as in ``load_model``.
        dtype: as in ``load_model``.

    Raises:
        FileNotFoundError: there is no such GGUF file.
        OSError: the model cannot be had; the message says why.
        ImportError: a package that reads GGUF files is missing.
    """
    if str(source).endswith(".gguf"):
        model, tokenizer = _from_gguf(Path(source), resolve_device(device), dtype)
    else:
        model = load_model(source, weights="pretrained", device=device, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _from_gguf(path, device, dtype):
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: check the path.")
    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    dtype = dtype or default_dtype(device)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=dtype).to(device)
    return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(**source)


def padded(model, pad_token_id):
    """Return a view of ``model`` that reads prompts of different lengths, padded on the left.

    With each call goes what transformers' own ``generate`` passes: an attention mask that leaves out
    the padding, and position ids that count from each row's first token. Padding is what a row begins
    with of ``pad_token_id``, so no text may begin with that id, and no row may be empty. The same view
    serves every batch. Keep it: caches and compiled steps are kept for it, and go with it.

    The host waits for the device nowhere in a step with a static cache. In the rungs without one
    transformers looks at the mask in every step, and in all rungs once, in the step of the prompt.

    Args:
        model: a transformers causal LM, or a view of one.
        pad_token_id: the id that rows are filled up with.

    Raises:
        ValueError: the model's ``forward`` takes no attention mask, or has been replaced.
    """
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"{type(model).__name__} takes no attention mask, so it cannot leave out padding: decode prompts of "
            "different lengths in batches of one length each."
        )
    found = view(model, _padded(type(model)), filler=int(pad_token_id))
    found.config = copy.deepcopy(model.config)
    found.config.get_text_config().pad_token_id = -1  # generate would refuse rows that look padded
    return found


def view(model, kind, **settings):
    """Return the same weights as an instance of ``kind``, a subclass of the model's class.

    Args:
        model: a transformers causal LM, or a view of one.
        kind: the class, with another ``forward``.
        **settings: attributes of the view.

    Raises:
        ValueError: the model's ``forward`` has been replaced.
    """
    if "forward" in vars(model):
        raise ValueError(
            f"The forward of this {type(model).__name__} has been replaced (by accelerate, for a model on several "
            "devices, say), and a view would pass it over: load it onto one device, without device_map."
        )
    found = copy.copy(model)
    found.__class__ = kind
    vars(found).update(settings)
    return found


def begins(cache):
    """Whether a call of a model with ``cache``, or with None, reads a sequence from its beginning."""
    if isinstance(cache, FullLengthCache):
        return cache.empty
    return cache is None or cache.get_seq_length() == 0


def keep(cache, name, value):
    """Keep the tensor ``value`` with ``cache``, at the address at which it was kept before."""
    if cache is None or isinstance(cache, NoCache):
        return  # every call begins anew
    if name in vars(cache):
        vars(cache)[name].copy_(value)
    else:
        setattr(cache, name, value)
        torch._dynamo.mark_static_address(value)


@functools.cache
def _padded(kind):
    takes_positions = "position_ids" in inspect.signature(kind.forward).parameters

    class Padded(kind):
        @functools.wraps(kind.forward)
        def forward(self, input_ids, **options):
            cache, width = options.get(CACHE), input_ids.shape[1]
            if begins(cache):
                padding = (input_ids == self.filler).int().cumprod(1).sum(1, keepdim=True)
                keep(cache, "padding", padding)
                seen = 0
            else:
                padding, seen = cache.padding, cache.get_seq_length()
            static = isinstance(cache, FullLengthCache)
            length = cache.layers[0].max_cache_len if static else seen + width
            columns = torch.arange(length, device=input_ids.device)
            options["attention_mask"] = (columns >= padding).long()
            if takes_positions:
                read = seen + torch.arange(width, device=input_ids.device)
                options["position_ids"] = (read - padding).clamp(min=0)
            return super().forward(input_ids, **options)

    Padded.__name__ = kind.__name__  # by which transformers tells architectures apart
    return Padded
