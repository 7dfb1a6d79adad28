"""Models to decode with: random weights of a real shape, or pretrained ones."""

import os
from contextlib import suppress

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, PreTrainedConfig

from .checks import causes
from .hub import HTTPError

# GPT-2 draws its weights with a standard deviation of 0.02, and its output layer is its embedding:
# so drawn, it repeats its last token, and a token check on it would pass a broken cache. Wider weights make every
# token depend on the whole sequence; the time of a step hardly changes.
GPT2_SHAPES = {
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "initializer_range": 0.05},
    "gpt2-medium": {"n_layer": 24, "n_embd": 1024, "n_head": 16, "initializer_range": 0.05},
    "gpt2-large": {"n_layer": 36, "n_embd": 1280, "n_head": 20, "initializer_range": 0.05},
    "gpt2-xl": {"n_layer": 48, "n_embd": 1600, "n_head": 25, "initializer_range": 0.05},
    # Not a published model: small enough for every chapter to run on a laptop's CPU.
    "gpt2-tiny": {
        "n_layer": 2,
        "n_embd": 64,
        "n_head": 2,
        "vocab_size": 512,
        "initializer_range": 0.5,
    },
}


def load_model(name, *, weights="random", device=None, dtype=None, seed=0):
    """Return a causal LM in evaluation mode.

    Args:
        name: a GPT-2 size ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", or "gpt2-tiny" for a
            CPU), the id of any causal LM on the Hugging Face hub, a local folder, or a
            transformers configuration object.
        weights: "random" draws weights of the model's real shape, on one kind of device the same
            ones for the same ``seed`` (the time of a step hardly depends on their values);
            "pretrained" loads the published ones.
        device: where to put the model, a ``torch.device`` or its name; None means the GPU if there
            is one, else the CPU.
        dtype: a torch dtype; None means bfloat16 on a GPU that has it, else float32.
        seed: the seed of random weights.

    Raises:
        ValueError: ``weights`` is neither word, or a configuration object is to be pretrained.
        RuntimeError: CUDA is asked for where there is none.
        OSError: the model cannot be had; the message says why: it is gated, there is none of that
            name, or the hub cannot be reached and there is no local copy. A local copy is used as it is.
    """
    if weights not in ("random", "pretrained"):
        raise ValueError(f'weights must be "random" or "pretrained", not {weights!r}.')
    device = resolve_device(device)
    dtype = dtype or default_dtype(device)
    if weights == "pretrained":
        if isinstance(name, PreTrainedConfig):
            raise ValueError(
                'A configuration object has no pretrained weights: give a model id, or weights="random".'
            )
        model = _from_hub(AutoModelForCausalLM, name, dtype=dtype)
    else:
        config = _configuration(name)
        on_gpu = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=on_gpu), device:
            torch.manual_seed(seed)
            # In float32, so that every dtype gets the same weights, rounded.
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


def resolve_device(device):
    """Return ``device`` as a ``torch.device``; None means the GPU if there is one, else the CPU.

    Raises:
        RuntimeError: CUDA is asked for where there is none.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f'device="{device}" was asked for, but PyTorch sees no CUDA GPU here: use device="cpu", '
            "or install a CUDA build of PyTorch on a machine with a GPU."
        )
    return device


def default_dtype(device):
    """Return bfloat16 on a GPU whose hardware has it (Ampere and later), else float32."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float32


def _configuration(name):
    if isinstance(name, PreTrainedConfig):
        return name
    if name in GPT2_SHAPES:
        shape = GPT2_SHAPES[name]
        last_id = shape.get("vocab_size", 50257) - 1
        return GPT2Config(**shape, bos_token_id=last_id, eos_token_id=last_id)
    return _from_hub(AutoConfig, name)


def _from_hub(loader, name, **options):
    """Load from a folder, from the local copy of a model of the hub, or from the hub, in this order."""
    if not os.path.isdir(name):
        if _has_copy(name):
            with suppress(OSError):  # the copy may be of the configuration only
                return loader.from_pretrained(name, local_files_only=True, **options)
        _ask_hub(name)
    try:
        return loader.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise OSError(_why_not_loaded(name, error)) from error


def _has_copy(name):
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        raise OSError(
            f"{name!r} is no folder, and no model on the Hugging Face hub can be called so (they are called like "
            "'openai-community/gpt2'): check the path."
        ) from None


def _ask_hub(name):
    """Ask the hub once whether it has this model: loading would try each of its files many times."""
    try:
        HfApi().model_info(name, timeout=10)
    except (OSError, HTTPError) as error:  # it answers in one way or in the other
        raise OSError(_why_not_loaded(name, error)) from error


def _why_not_loaded(name, error):
    def caused_by(*kinds):
        return any(isinstance(cause, kinds) for cause in causes(error))

    if os.path.isdir(name):
        return f"The folder {name!r} holds no model that transformers can load: {error}"
    if caused_by(GatedRepoError):
        return (
            f"{name!r} is gated on the Hugging Face hub: accept its terms at https://huggingface.co/{name}, then log in "
            "with `hf auth login`."
        )
    if caused_by(RepositoryNotFoundError):
        return (
            f"The Hugging Face hub has no model {name!r} that you may see: check the name, or, for a private one, log in "
            "with `hf auth login`."
        )
    without = (
        "give the path of a folder that holds the model, or use one of "
        f'{", ".join(GPT2_SHAPES)} with weights="random", or pass a configuration object.'
    )
    if caused_by(HfHubHTTPError, EntryNotFoundError, ValueError) and not caused_by(
        LocalEntryNotFoundError
    ):
        return f"The Hugging Face hub has {name!r}, but not as a model for transformers ({error}): {without}"
    return (
        f"{name!r} is neither a folder nor in the local cache, and the Hugging Face hub cannot be reached from here. "
        f"Without a network: {without}"
    )
