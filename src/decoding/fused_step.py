"""GPT-2's decode step in a few kernels of our own, captured as one graph.

``torch.compile`` makes many more kernels of this step, most of them so short that starting them takes longer
than their work. Here a layer is five kernels (``fused_kernels``), the step 5 × layers + 2.

The keys and values lie in the same static cache as those of the other loops, and the model itself reads
the prompt. The step takes the place of ``CapturedStep``, and whatever replays that replays this.
"""

import functools
import inspect
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from transformers import GPT2LMHeadModel

from .captured import CapturedStep
from .prepared import with_prepared

MOST_ROWS = 4  # each row lengthens every kernel, since the rows come one after the other
SPLITS, POSITIONS = 8, 64  # of the cache: 8 programs a head, which take 64 positions at a time
#: Of each kernel: most outputs of a program, most KiB of its tile, and its warps. For GPT-2's smallest size
#: in bfloat16 the two agree, and did best on an H100.
TILES = {
    "norm_qkv": (16, 32, 8),
    "combine_project": (8, 16, 4),
    "norm_mlp_gelu": (16, 32, 8),
    "mlp_project": (4, 32, 8),
    "norm_lm_head": (64, 128, 8),
}


def why_not(model, batch_size):
    """Return one sentence on why this step cannot be had for ``model`` on its device, or None.

    Args:
        model: a transformers causal LM.
        batch_size: rows.
    """
    otherwise = "use the rung 'device_loop'."
    config = model.config
    if type(model) is not GPT2LMHeadModel:
        return f"The rung 'fused_step' is GPT-2's step, and this is a {type(model).__name__}: {otherwise}"
    if config.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
        return (
            f"The rung 'fused_step' computes GPT-2's own activation, gelu_new, and this model's is "
            f"{config.activation_function}: {otherwise}"
        )
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
        return f"The rung 'fused_step' scales attention as GPT-2 does, and this model does not: {otherwise}"
    head = config.n_embd // config.n_head
    if head & (head - 1):
        return f"The rung 'fused_step' needs heads of a power of two, and this model's are {head} wide: {otherwise}"
    if model.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"The rung 'fused_step' reads weights of 16 or 32 bits, and these are {model.dtype}: {otherwise}"
    if batch_size > MOST_ROWS:
        return f"The rung 'fused_step' takes at most {MOST_ROWS} rows, and there are {batch_size}: {otherwise}"
    if find_spec("triton") is None:
        return f"The rung 'fused_step' needs Triton, which is not installed here: {otherwise}"
    if model.device.type != "cuda" and not _interprets():
        return (
            "The rung 'fused_step' needs an NVIDIA GPU, or Triton's interpreter: set TRITON_INTERPRET=1 before "
            f"Python starts, or {otherwise}"
        )
    return None


def _interprets():
    """Whether Triton runs kernels on the CPU: its own functions must have been made for that, too."""
    import triton.language

    return type(triton.language.sum).__name__ == "InterpretedFunction"


def launches_early(device):
    """Whether a kernel can start before the one before is over: on Hopper and later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def with_prepared_fused_step(decode):
    """Lend a loop what it needs to capture this step, and refuse what it is not made for.

    The loop, ``decode(…, prepared, dependent_launch)``, has the option ``dependent_launch`` besides
    ``cache_length``: whether a kernel may start before the one before is over, on GPUs that can (default: True).
    """

    def lent(dependent_launch=True):
        return with_prepared()(functools.partial(decode, dependent_launch=dependent_launch))

    @functools.wraps(decode)
    def checked(
        model, input_ids, max_new_tokens, eos_token_id, *, dependent_launch=True, **options
    ):
        if reason := why_not(model, len(input_ids)):
            raise ValueError(reason)
        return lent(dependent_launch)(model, input_ids, max_new_tokens, eos_token_id, **options)

    checked.__signature__ = inspect.signature(lent())
    return checked


def fused_step(prepared, model, input_ids, eos, dependent_launch=True):
    """Return the ``FusedStep`` of what is lent, made at the first call and kept with it.

    It is made anew for another number of end-of-sequence ids, and where the model's weights lie at other
    addresses than before. The matrices are copied in every call: they may have changed where they are.

    Args:
        prepared: the ``Prepared`` that a loop got lent; its cache is empty, and is again afterwards.
        model: the model that it is lent for.
        input_ids: int64 [batch, prompt].
        eos: int64 [ids], as from ``start``.
        dependent_launch: whether a kernel may start before the one before is over, where the GPU can.
    """
    dependent = dependent_launch and launches_early(model.device)
    key = len(eos), dependent, tuple(tensor.data_ptr() for tensor in model.parameters())
    kept = vars(prepared).get("fused_step")
    if kept is None or kept.key != key:
        # The old graph goes before there is a new one.
        vars(prepared).update(fused_step=None)
        kept = prepared.fused_step = FusedStep(prepared, model, input_ids, eos, dependent)
        kept.key = key
    else:
        kept.read_weights()
    kept.tokens[:, : input_ids.shape[1]] = input_ids
    kept.eos.copy_(eos)
    return kept


@dataclass
class Layer:
    """What one layer's kernels read: vectors where the model has them, matrices as [outputs, inputs].

    transformers keeps GPT-2's matrices as [inputs, outputs].
    """

    norms: tuple
    weights: tuple
    biases: tuple
    matrices: tuple

    @classmethod
    def of(cls, block):
        """Return the layer of a block of the model."""
        modules = block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj
        weights = tuple(module.weight for module in modules)
        return cls(
            tuple((norm.weight, norm.bias) for norm in (block.ln_1, block.ln_2)),
            weights,
            tuple(module.bias for module in modules),
            tuple(weight.new_empty(weight.shape[::-1]) for weight in weights),
        )

    def copy(self):
        """Copy the model's matrices: a program then reads an output's weights in one go."""
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            matrix.copy_(weight.t())


class FusedStep(CapturedStep):
    """A decode step of fused kernels; it reads and writes what a ``CapturedStep`` does.

    Args:
        prepared, model, input_ids, eos: as for ``CapturedStep``.
        dependent: whether a kernel starts before the one before is over.
    """

    def __init__(self, prepared, model, input_ids, eos, dependent):
        transformer, config, rows = model.transformer, model.config, len(input_ids)
        self.layers = [Layer.of(block) for block in transformer.h]
        self.read_weights()
        self.norm = transformer.ln_f.weight, transformer.ln_f.bias
        self.output = model.lm_head.weight
        self.embeddings = transformer.wte.weight, transformer.wpe.weight
        self.dependent, self.epsilon = dependent, config.layer_norm_epsilon
        self.width, self.heads = config.n_embd, config.n_head
        self.tiles = -(-len(self.output) // self._outputs("norm_lm_head", self.width))
        new = functools.partial(torch.zeros, dtype=torch.float32, device=model.device)
        self.x, self.middle, self.queries = (new(rows, self.width) for _ in range(3))
        self.hidden = new(rows, len(self.layers[0].biases[2]))
        self.splits = new(rows * self.heads, SPLITS, self.width // self.heads)
        self.maxima, self.shares = (new(rows * self.heads, SPLITS) for _ in range(2))
        self.best = new(rows, self.tiles)
        self.choice = new(rows, self.tiles, dtype=torch.int32)
        super().__init__(prepared, model, input_ids, eos)

    def read_weights(self):
        """Copy the matrices of all layers."""
        for layer in self.layers:
            layer.copy()

    def begin(self, results):
        super().begin(results)
        tokens, positions = self.embeddings
        self.x.copy_(tokens[self.unread[:, 0]].float() + positions[self.read].float())

    def run(self):
        """Run one step as it is captured: launch its kernels on the current stream."""
        rows, length = self.tokens.shape
        head = {"HEAD": self.width // self.heads}
        cached, split = {"LENGTH": length, **head}, {"SPLITS": SPLITS, **head}
        attended = self.splits, self.maxima, self.shares
        x, middle, hidden, epsilon = self.x, self.middle, self.hidden, self.epsilon
        for layer, cache in zip(self.layers, self.cache.layers, strict=True):
            (norm, norm_mlp), biases = layer.norms, layer.biases
            qkv, project, mlp, mlp_project = layer.matrices
            kept = self.queries, cache.keys, cache.values, self.read
            self._multiply("norm_qkv", qkv, x, *norm, qkv, biases[0], *kept, epsilon, **cached)
            grid = rows * self.heads, SPLITS
            scale = head["HEAD"] ** -0.5
            constants = {**cached, **split, "TILE": POSITIONS}
            self._launch("attention", grid, *kept, *attended, scale, num_warps=4, **constants)
            self._multiply(
                "combine_project", project, *attended, project, biases[1], x, middle, **split
            )
            self._multiply("norm_mlp_gelu", mlp, middle, *norm_mlp, mlp, biases[2], hidden, epsilon)
            self._multiply("mlp_project", mlp_project, hidden, mlp_project, biases[3], middle, x)
        chosen = self.best, self.choice
        self._multiply("norm_lm_head", self.output, x, *self.norm, self.output, *chosen, epsilon)
        self._launch(
            "next_token",
            (1,),
            *chosen,
            *self.embeddings,
            x,
            self.tokens,
            self.unread,
            self.read,
            self.finished.view(torch.uint8),
            self.all_finished.view(torch.uint8),
            self.eos,
            LENGTH=length,
            TILES=self.tiles,
            PADDED_TILES=_power_of_two(self.tiles),
            ENDS=len(self.eos),
            WIDTH=self.width,
            PADDED=_power_of_two(self.width),
            ROWS=rows,
            num_warps=4,
        )

    def _multiply(self, name, matrix, *arguments, **constants):
        """Launch a kernel whose programs share the outputs of ``matrix``."""
        outputs, width = matrix.shape
        tile = self._outputs(name, width)
        constants |= {"OUTPUTS": outputs, "WIDTH": width, "PADDED": _power_of_two(width)}
        constants |= {"ROWS": len(self.tokens), "TILE": tile, "num_warps": TILES[name][2]}
        self._launch(name, (-(-outputs // tile),), *arguments, **constants)

    def _launch(self, name, grid, *arguments, **constants):
        early = {"launch_pdl": True} if self.dependent else {}
        kernel = getattr(_kernels(), name)
        kernel[grid](*arguments, DEPENDENT=self.dependent, **constants, **early)

    def _outputs(self, name, width):
        """Return how many outputs a program takes whose matrix is ``width`` wide: fewer, the more bytes."""
        most, kib, _ = TILES[name]
        return max(1, min(most, kib * 1024 // (_power_of_two(width) * self.output.itemsize)))


def _kernels():
    """Return the module of the kernels: Triton is imported when they are first wanted."""
    from . import fused_kernels

    return fused_kernels


def _power_of_two(number):
    """Return the smallest power of two that is not less than ``number``."""
    return 1 << (number - 1).bit_length()
