"""What is refused before any work, and in which words; and why a step could not be compiled.

Every check raises with one sentence that says what was given, what is allowed and what to do.
"""

import inspect
import operator
import os
import platform

import torch
from transformers import PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

from .step import CACHE

#: What of a model's ``generation_config`` changes greedy tokens, and the values that change nothing.
#: transformers' ``generate`` obeys it; the loops, which only take the most likely token, do not.
NEUTRAL = {
    "num_beams": (None, 1),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "penalty_alpha": (None, 0.0),
    "watermarking_config": (None,),
    "stop_strings": (None,),
    "max_time": (None,),
}

#: Architectures whose ``config.is_decoder`` is False although they read from left to right only.
DECODERS_ALL_THE_SAME = {"gpt_neox", "gpt_neox_japanese"}
#: Architectures that cannot be decoded with our calls of ``forward``, and why.
UNSUPPORTED = {
    "cpmant": "it puts tokens of its own before the prompt",
    "git": "it captions a picture",
    "rwkv": "what it returns depends on a state of its own",
    "xlm": "it predicts a masked token",
    "xlnet": "it predicts a masked token",
} | dict.fromkeys(
    ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm")
    + ("xlm-roberta", "xlm-roberta-xl", "xmod"),
    "transformers' generate and its forward number its positions differently",
)
#: Architectures whose tokens without a cache are others than with one, also in transformers.
OTHER_WITHOUT_CACHE = {"big_bird", "doge", "megatron-bert", "moshi", "rembert", "roformer"}
#: Architectures that claim to support ``StaticCache`` as one graph, but need masks of ``generate``.
NO_STATIC_CACHE = {"biogpt", "bloom", "opt"}


def check_options(rung, options):
    """Refuse options that the rung does not take; return them as a dict of plain values."""
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
    if options.get("cache_length") is not None:
        return options | {"cache_length": whole_number("cache_length", options["cache_length"])}
    return options


def whole_number(name, value):
    """Return ``value``, a Python, numpy or one-element torch integer, as an ``int``."""
    try:
        if isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be a whole number.") from None


def check_model(model, rung):
    """Refuse a model, or an architecture, whose tokens on this rung would be wrong."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"The model is a {type(model).__name__}; it must be a transformers causal LM (of load_model or "
            "AutoModelForCausalLM): of a wrapper, such as torch.compile's or PEFT's, pass the model inside."
        )
    if model.training:
        raise ValueError(
            "The model is in training mode, where dropout changes its tokens: call model.eval() first."
        )
    if model.device.type not in ("cuda", "cpu"):
        raise ValueError(
            f"The model is on {model.device}; the loops run on CUDA GPUs and on CPUs: call model.to('cuda') "
            "or model.to('cpu')."
        )
    _check_architecture(model, rung)
    _check_generation_config(model)


def _check_architecture(model, rung):
    name, config = type(model).__name__, model.config
    kind = config.model_type
    if kind in UNSUPPORTED:
        raise ValueError(
            f"{name} cannot be decoded by the loops of this ladder: {UNSUPPORTED[kind]}."
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{name} reads its prompt with an encoder; the loops decode models that are decoders only: "
            "use transformers' own generate."
        )
    if getattr(config, "is_decoder", None) is False and kind not in DECODERS_ALL_THE_SAME:
        raise ValueError(
            f"{name} with config.is_decoder=False attends to later tokens, too, and does not continue a text: load "
            "it with is_decoder=True if it was trained so, or use another architecture."
        )
    if not rung.needs_cache and kind in OTHER_WITHOUT_CACHE:
        raise ValueError(
            f"{name} chooses other tokens without a cache than with one: use the rung 'kv_cache', or another "
            "architecture."
        )
    if rung.needs_cache and not _takes_cache(model):
        raise ValueError(
            f"{name} takes no cache of keys and values, which the rung {rung.name!r} needs: use the rung 'naive', "
            "or another architecture."
        )
    if rung.needs_static_cache and not _supports_static_cache(model):
        raise ValueError(
            f"{name} does not support StaticCache, which the rung {rung.name!r} needs: use the rung 'kv_cache', "
            "or another architecture."
        )
    devices = set(getattr(model, "hf_device_map", {}).values())
    if rung.needs_static_cache and len(devices) > 1:
        raise ValueError(
            f"The model is spread over {', '.join(sorted(map(str, devices)))}, and the rung {rung.name!r} needs it on "
            "one device: load it without device_map, or use the rung 'kv_cache'."
        )


def _takes_cache(model):
    """Whether its forward pass takes a cache, and one that is not of its own kind."""
    takes = CACHE in inspect.signature(model.forward).parameters
    return takes and model._supports_default_dynamic_cache()


def _supports_static_cache(model):
    """Whether every layer's state is keys and values of a fixed size, and one graph holds a step."""
    if not model._can_compile_fullgraph or model.config.model_type in NO_STATIC_CACHE:
        return False
    try:
        layers = StaticCache(config=model.config, max_cache_len=1).layers
    except Exception:  # a kind of layer that transformers has no static form of
        return False
    return all(isinstance(layer, StaticLayer) for layer in layers)


def _check_generation_config(model):
    settings = getattr(model, "generation_config", None)
    for name, neutral in NEUTRAL.items():
        value = getattr(settings, name, None)
        if value not in neutral:
            raise ValueError(
                f"model.generation_config.{name} is {value!r}, which changes what transformers' generate chooses; the "
                f"loops take the most likely token and nothing else: set model.generation_config.{name} = None."
            )


def check_prompt(model, input_ids):
    """Refuse what is not a batch of token ids on the model's device."""
    if not isinstance(input_ids, torch.Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        given = getattr(input_ids, "dtype", type(input_ids).__name__)
        hint = " (of a tokenizer's result, pass .input_ids)" if hasattr(input_ids, "keys") else ""
        raise TypeError(
            f"input_ids is {given}; it must be a tensor of int64 or int32 token ids: "
            f"encode the text with the model's tokenizer (return_tensors='pt'){hint}."
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


def check_lengths(limit, prompt, max_new_tokens, cache_length):
    """Refuse more tokens than the model has positions, or than the cache has.

    Args:
        limit: the model's positions, or None.
        prompt: tokens of the prompt.
        max_new_tokens: tokens to add.
        cache_length: positions of the static cache, or None for enough of them.
    """
    total = prompt + max_new_tokens
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; ask for at least 1 token.")
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


def check_ends(size, eos_token_id):
    """Return the end-of-sequence ids as a list, or None; refuse those that the model does not know.

    Args:
        size: how many ids the model knows.
        eos_token_id: None, an id, or a list or tensor of ids.
    """
    if eos_token_id is None:
        return None
    if isinstance(eos_token_id, torch.Tensor):
        eos_token_id = eos_token_id.tolist()
    several = isinstance(eos_token_id, (list, tuple))
    ids = [whole_number("eos_token_id", x) for x in (eos_token_id if several else [eos_token_id])]
    if not ids or not all(0 <= number < size for number in ids):
        raise ValueError(
            f"eos_token_id is {eos_token_id!r}; it must be None, or one id or a list of ids from 0 to {size - 1}."
        )
    return ids


def check_token_ids(model, size, input_ids):
    """Refuse ids that the model does not know, and rows that were filled up to one length.

    Here the host waits for the device, once, so that the loops need not.
    """
    config, settings = model.config.get_text_config(), getattr(model, "generation_config", None)
    ends = {*_ids(config, "eos_token_id"), *_ids(config, "bos_token_id")}
    padding = _ids(config, "pad_token_id") or _ids(settings, "pad_token_id")
    padding = (padding or _ids(config, "eos_token_id") or [-1])[0]
    is_padding = (input_ids == padding).int()
    left, right = (x.cumprod(1).sum(1).aminmax() for x in (is_padding, is_padding.flip(1)))
    facts = torch.stack([*input_ids.aminmax(), *left, *right]).tolist()
    lowest, highest, *runs = facts
    if lowest < 0 or highest >= size:
        raise ValueError(
            f"input_ids holds ids from {lowest} to {highest}; this model knows 0 to {size - 1}: "
            "encode the text with the tokenizer of this model."
        )
    for side, fewest, most in (("begin", *runs[:2]), ("end", *runs[2:])):
        # An id that also begins or ends a text may stand there in every row alike.
        if most > (fewest if padding in ends else 0):
            raise ValueError(
                f"Rows of input_ids {side} with up to {most} times {padding}, the id that this model fills rows up "
                "with, and the loops would take it for text: decode prompts of different lengths in batches of one "
                "length each, without padding."
            )


def _ids(settings, name):
    value = getattr(settings, name, None)
    return [] if value is None else value if isinstance(value, list) else [value]


def makes_graphs(device, mode):
    """Whether a step compiled in ``mode``, None for not at all, becomes CUDA graphs."""
    return device.type == "cuda" and mode in ("reduce-overhead", "max-autotune")


def check_compiler(device, mode):
    """Refuse to compile where ``torch.compile`` would do nothing, or could not."""
    if torch._dynamo.config.disable or os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        raise RuntimeError(
            "torch.compile is switched off here, and the step would run as it is: unset TORCH_COMPILE_DISABLE and "
            "TORCHDYNAMO_DISABLE and start Python anew, or use the rung 'static_cache'."
        )
    if makes_graphs(device, mode):
        from torch._inductor import cudagraph_trees

        known = hasattr(cudagraph_trees.local, "tree_manager_containers")
        if not known and not hasattr(cudagraph_trees, "_initialize_tls"):
            raise RuntimeError(
                f"In torch {torch.__version__} CUDA graphs are made in one thread of a process, and another one has "
                "made some: call generate from that thread (the main one, in most programs), use "
                "compile_mode='default', or a newer torch."
            )


def causes(error):
    """Return ``error`` and what led to it, a list."""
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def is_out_of_memory(error):
    """Whether ``error`` comes of too little memory, on a GPU or a CPU, wherever it was noticed."""
    words = ("out of memory", "can't allocate memory")
    return any(
        isinstance(cause, (torch.OutOfMemoryError, MemoryError))
        or any(word in str(cause) for word in words)
        for cause in causes(error)
    )


def why_not_compiled(error):
    """Return one sentence with the cause of a failed ``torch.compile`` and its cure, or None."""
    said = "\n".join(f"{type(cause).__name__}: {cause}" for cause in causes(error))
    if "Failed to find C compiler" in said or "InvalidCxxCompiler" in said:
        return (
            "The step could not be compiled, since this machine has no C compiler, which Triton needs: install one "
            "(apt-get install gcc) or name it in CC, or use the rung 'static_cache'."
        )
    if "Python.h" in said:
        return (
            "The step could not be compiled, since the headers of this Python are missing, which Triton needs: install "
            f"them (apt-get install python{platform.python_version().rpartition('.')[0]}-dev), or use the rung "
            "'static_cache'."
        )
    if "TritonMissing" in said or "working triton installation" in said.lower():
        return (
            f"The step could not be compiled, since there is no Triton for this PyTorch on {platform.system()}: it comes "
            "with PyTorch on Linux; elsewhere use the rung 'static_cache'."
        )
    if "recompile_limit" in said or "FailOnRecompileLimitHit" in said:
        return (
            "The step was compiled anew more often than torch._dynamo.config.recompile_limit "
            f"({torch._dynamo.config.recompile_limit}) allows, since something it reads changes from call to call: keep "
            "the model's attributes and torch's modes as they are between calls, or call release()."
        )
    return None
