"""A loop on a workload, ready to be called."""

import hashlib

import torch

from decoding.generation import generate, vocabulary_size
from decoding.models import load_model


class Run:
    """A loop on a workload, ready to be called any number of times; a call returns its tokens."""

    def __init__(self, model, rung, workload, options):
        self.model, self.rung, self.options = model, rung, options
        self.new_tokens = workload.new_tokens
        self.device = torch.get_device_module(model.device)
        self.on_gpu = model.device.type == "cuda"
        self.eos_token_id = vocabulary_size(model) - 1 if workload.stop_check else None
        generator = torch.Generator().manual_seed(workload.seed)
        shape = (workload.batch_size, workload.prompt_tokens)
        # One id short of the vocabulary, so that no prompt ends in the end-of-sequence id.
        input_ids = torch.randint(vocabulary_size(model) - 1, shape, generator=generator)
        self.input_ids = input_ids.to(model.device)

    def __call__(self):
        lengths = {"max_new_tokens": self.new_tokens, "eos_token_id": self.eos_token_id}
        if self.rung != "transformers":
            return generate(self.model, self.input_ids, rung=self.rung, **lengths, **self.options)
        return self.model.generate(
            self.input_ids,
            attention_mask=torch.ones_like(self.input_ids),
            do_sample=False,
            pad_token_id=self.eos_token_id,
            **lengths,
            **self.options,
        )

    def synchronize(self):
        self.device.synchronize()


def enter(model, workload, entrant):
    """Return the ``Run`` of an entrant, ``{"rung": ..., "stop_check": ..., **options}``."""
    options = dict(entrant)
    rung, stop_check = options.pop("rung"), options.pop("stop_check", workload.stop_check)
    return Run(model, rung, workload.but(stop_check=stop_check), options)


def load(workload):
    """Return the model of ``workload``."""
    dtype = getattr(torch, workload.dtype) if workload.dtype else None
    return load_model(workload.model, device=workload.device, dtype=dtype)


def describe(workload, model):
    """Return the workload as a dict, with the device and dtype that were chosen for it."""
    chosen = {"dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type}
    return vars(workload) | chosen


def checksum(tokens):
    """Return the SHA-256 of the token ids, as int64 in row order."""
    return hashlib.sha256(tokens.to("cpu", torch.int64).numpy().tobytes()).hexdigest()
