"""GPT-2's decoding loop as one kernel: what ``one_kernel.cu`` is given, how it is compiled and launched.

The kernel lives for the whole loop: its blocks keep to their multiprocessors, bring the weights of a
phase into shared memory while the phase before computes, and tell each other what they have computed; the last
thing that they do for a token is to ask whether it ends the text. It reads weights in an order of
its own, so they are packed once; what may change between two calls is compared once a call: the
addresses and the versions of the weights. (torch counts a version for each tensor, up with every
operation that writes to it, but for those on ``tensor.data``, and on tensors made under ``inference_mode``.)

The tokens go to the host through pinned memory as they come: one store each, into a place that held -1.

The arithmetic is float32's on the model's bfloat16 weights, of the prompt too: a float32 copy of the model
reads it. Keys and values are kept in float32. So the tokens are those of that copy, decoded by transformers.

The kernel is compiled by NVRTC, which a CUDA build of torch brings along; no CUDA toolkit is needed.
"""

import copy
import ctypes
import functools
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import GPT2LMHeadModel

INSTEAD = "use the rung 'device_loop'"
HEAD, CLUSTER = 64, 8
OLDEST = (9, 0)  # the compute capability of Hopper, the first with clusters of blocks
SOURCE = Path(__file__).with_name("one_kernel.cu")
PLUMBING = Path(__file__).with_name("one_kernel_blocks.cuh")
#: The kernel's variants, from the plainest: what each step of chapter 14 changes.
VARIANTS = {
    "weights when needed": {"SUMS": 0, "SENDS": 0, "AHEAD": 0},
    "weights a phase ahead": {"SUMS": 0, "SENDS": 0},
    "sends within a cluster": {"SUMS": 0},
    "numbered words": {"SUMS": 1},
    "shared sums": {},
}
DEFAULTS = {
    "CLUSTER": CLUSTER,
    "SUMS": 2,
    "SENDS": 1,
    "AHEAD": 1,
    "PROFILE": 0,
    "FAULT": 0,
    "PATIENCE": 6_000_000_000,  # clock cycles, some three seconds
}
#: The phases of a token in the order of the kernel's ``Phase``.
PHASES = (
    "embed",
    "wait for the units' sums",
    "wait for attention's weights",
    "layer norm 1",
    "q, k, v",
    "wait for q, k, v",
    "attention",
    "wait for the cluster's attention",
    "projection",
    "wait for the heads' sums",
    "wait for the feed-forward's weights",
    "layer norm 2",
    "feed-forward in",
    "feed-forward out",
    "wait for the last sums",
    "last layer norm",
    "lm_head",
    "next token",
)


def why_not(model, batch_size):
    """Return why the kernel cannot decode with ``model``, one sentence that says what to use instead, or None.

    Args:
        model: a transformers causal LM.
        batch_size: rows.
    """
    if model.device.type != "cuda":
        return _refusal(f"needs a CUDA GPU, and this model is on {model.device}")
    device = torch.cuda.get_device_properties(model.device)
    capability = device.major, device.minor
    if capability < OLDEST:
        return _refusal(
            "needs a GPU of compute capability 9.0 or later, whose blocks form clusters, and "
            f"{device.name} has {capability[0]}.{capability[1]}"
        )
    return why_not_of(model, batch_size, device.shared_memory_per_block_optin)


def why_not_of(model, batch_size, shared_bytes=232_448):
    """Return the same for any device whose blocks have ``shared_bytes`` of shared memory (227 KiB on an H100)."""
    config = model.config
    if not isinstance(model, GPT2LMHeadModel):
        return _refusal(f"knows GPT-2 only, and this is {type(model).__name__}")
    if type(model) is not GPT2LMHeadModel or "forward" in vars(model):
        return _refusal(
            "calls no forward, and this model has one of its own, as a view has that samples or pads"
        )
    if {weight.dtype for weight in model.parameters()} != {torch.bfloat16}:
        return _refusal(f"needs weights in bfloat16, and these are in {model.dtype}")
    if batch_size != 1:
        return _refusal(f"decodes one row, and input_ids has {batch_size}")
    width, heads = config.n_embd, config.n_head
    if width != HEAD * heads or heads % 4 or width > 1024:
        return _refusal(
            f"needs heads of 64, a multiple of 4 of them, 16 at most, and this model has {heads} of "
            f"{width / heads:g}"
        )
    if (taken := _shared_bytes(_sizes(config))) > shared_bytes:
        return _refusal(
            f"keeps two phases of a layer's weights in a block's shared memory, {taken:,} bytes at this model's "
            f"width, and there are {shared_bytes:,}"
        )
    plain = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "n_inner": (None, 4 * width),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    for name, allowed in plain.items():
        if getattr(config, name) not in allowed:
            return _refusal(
                f"computes GPT-2 as it was published, and this model's config.{name} is {getattr(config, name)!r}"
            )
    if config.vocab_size > 1 << 20 or config.n_positions >= 1 << 12:
        return _refusal(
            f"has room for 1048576 tokens and 4095 positions, and this model has {config.vocab_size} and "
            f"{config.n_positions}"
        )
    return None


def _refusal(reason):
    return f"The rung 'one_kernel' {reason}: {INSTEAD}."


def one_kernel(prepared, model, **macros):
    """Return the ``OneKernel`` of what is lent, made at the first call and kept with it.

    It is kept as ``prepared.one_kernel`` and goes when that goes. It is made anew where the model's
    weights are others than before.

    Args:
        prepared: the ``Prepared`` that a loop got lent, for one row and ``cache_length(model)`` positions. Its
            own cache stays empty.
        model: the model that it is lent for.
        **macros: a variant of the kernel: other values of ``DEFAULTS``.

    Raises:
        RuntimeError: the kernel cannot be compiled, or its blocks cannot all run at once; the message
            says why and what to do.
    """
    key = _version_of(model), tuple(macros.items())
    if getattr(vars(prepared).get("one_kernel"), "key", None) != key:
        prepared.one_kernel = None  # the old weights go before there are new ones
        made = prepared.one_kernel = OneKernel(model, **macros)
        # As long as the weights are kept, no others can have their addresses.
        made.key, made.packed_from = key, [weight.detach() for weight in model.parameters()]
    return prepared.one_kernel


def cache_length(model):
    """Return how many positions the kernel's cache has: the model's, up to whole slots of a cluster."""
    return -(-model.config.n_positions // CLUSTER) * CLUSTER


def _version_of(model):
    return tuple(
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        for weight in model.parameters()
    )


class OneKernel:
    """The loop of one model: its packed weights, its cache, and the kernel that reads them.

    Attributes:
        exact: the model in float32, with the same weights; it reads the prompt.
        tokens: int64 [positions + 1] on the device: the prompt, and the tokens as they are made.
        told: int64 [positions + 1] in pinned memory: the new tokens by position, -1 where there is none yet.
        cycles: int64 [blocks, phases] on the device: clock cycles, with the macro ``PROFILE``.

    Raises:
        RuntimeError: as for ``one_kernel``.
    """

    def __init__(self, model, **macros):
        sizes = _sizes(model.config)
        self.heads, self.cluster = sizes["HEADS"], macros.get("CLUSTER", CLUSTER)
        blocks, slots = self.heads * self.cluster, cache_length(model) // self.cluster
        self.function = _loaded(torch.cuda.current_device(), tuple((sizes | macros).items()))
        self.configuration = _configuration(blocks, self.cluster, sizes)
        _check_room(self.function, self.configuration, self.heads)
        with model.device:  # not the default device that the caller may have set
            self.exact = copy.deepcopy(model).float()
            self.weights = packed(model, self.cluster)
            self.cache = torch.zeros(
                (sizes["LAYERS"], self.heads, self.cluster, 2, slots, HEAD), dtype=torch.float32
            )
            words, choices = 2 * self.heads * sizes["WIDTH"], 2 * blocks
            self.exchange = torch.zeros(words + choices, dtype=torch.int64)
            self.tokens = torch.zeros(slots * self.cluster + 1, dtype=torch.int64)
            self.cycles = torch.zeros((blocks, len(PHASES)), dtype=torch.int64)
        self.choices = self.exchange[words:]
        self.told = torch.empty(self.tokens.shape, dtype=torch.int64, device="cpu").pin_memory()
        self.gave_up = torch.zeros((), dtype=torch.int32, device="cpu").pin_memory()
        self.over = torch.cuda.Event()

    def begin(self, input_ids, token, cache):
        """Take over what ``exact`` has read: the prompt, the token behind it, the keys and values.

        Args:
            input_ids: int64 [1, prompt].
            token: int64 [1, 1].
            cache: the ``Cache`` that the prompt was read into.
        """
        self.prompt = input_ids.shape[1]
        self.tokens[: self.prompt + 1] = torch.cat([input_ids, token], 1)[0]
        pack_cache(self.cache, cache, self.prompt)

    def launch(self, most, eos):
        """Start the loop behind what the current stream has been given.

        Args:
            most: how many new tokens to make at most.
            eos: int64 [ids], the end-of-sequence ids, as from ``start``.
        """
        self.told.fill_(-1)
        self.gave_up.zero_()
        self.exchange.zero_()
        self.most, self.eos = most, eos  # which must live as long as the kernel
        weights = (self.weights[name].data_ptr() for name in WEIGHTS)
        position, last = self.prompt, self.prompt + most - 1
        arguments = (
            *weights,
            *(
                tensor.data_ptr()
                for tensor in (self.cache, self.exchange, self.choices, self.tokens)
            ),
            *(position, last, eos.data_ptr(), len(eos)),
            *(tensor.data_ptr() for tensor in (self.told, self.gave_up, self.cycles)),
        )
        stream = torch.cuda.current_stream()
        self.configuration.hStream = stream.cuda_stream
        values = arguments, (ctypes.c_uint64,) * len(arguments)
        _done(_cuda().driver.cuLaunchKernelEx(self.configuration, self.function, values, 0))
        self.over.record(stream)

    def goes_on(self, generated):
        """Return whether there is a token after the first ``generated`` new ones; wait until that is known.

        The host looks at pinned memory over and over: it does not wait for the device. It returns False
        once the loop is over.

        Raises:
            RuntimeError: some block waited for another one for too long, and all gave up.
        """
        told = self.told[self.prompt + generated]
        while told.item() < 0:
            if self.over.query():  # an error of the device is raised here
                if self.gave_up.item():
                    raise RuntimeError(
                        "The rung 'one_kernel' gave up: one of its blocks waited for another for some seconds. The "
                        "GPU may be shared, stopped by a debugger, or the kernel wrong. Call it again, or "
                        f"{INSTEAD}."
                    )
                return generated < self.most and told.item() >= 0
        return True

    def result(self, generated):
        """Return the prompt and the first ``generated`` new tokens, int64 [1, prompt + generated], a new tensor."""
        return self.tokens[None, : self.prompt + generated].clone()


# ---- what the kernel reads

WEIGHTS = "attention", "feed_forward", "norms", "wte", "wpe", "lm_head"


def packed(model, cluster=CLUSTER):
    """Return the weights of a GPT-2 as the kernel reads them, ``WEIGHTS``, on the model's device.

    - attention, bytes [layers, blocks, n]: of each block its rows of q, k and v, its rows of the
      projection, and in float32 the biases of both. Blocks stand by head, then by rank in the cluster.
    - feed_forward, bytes [layers, blocks, n]: of its hidden units the weights in and out, the biases in,
      and the biases of the outputs, which belong to the first head's blocks. (The others' are 0.)
    - norms [2 layers + 1, 2, width]: weight and bias of each layer norm.
    - wte, wpe, lm_head: the model's own; a copy where it does not begin on 16 bytes.
    """
    config, body = model.config, model.transformer
    width, heads = config.n_embd, config.n_head
    blocks, rows, share = heads * cluster, HEAD // cluster, width // cluster

    def of_first_head(bias):
        """Split a bias of the residual over the first head's blocks: [blocks, share]."""
        split = bias.new_zeros((heads, cluster, share))
        split[0] = bias.view(cluster, share)
        return split.view(blocks, share)

    attention, feed_forward, norms = [], [], []
    for layer in body.h:
        qkv, out, mlp = layer.attn.c_attn, layer.attn.c_proj, layer.mlp
        by_rank = qkv.weight.t().reshape(3, heads, cluster, rows, width).permute(1, 2, 0, 3, 4)
        by_head = out.weight.t().reshape(cluster, share, heads, HEAD).permute(2, 0, 1, 3)
        biases = qkv.bias.view(3, heads, cluster, rows).permute(1, 2, 0, 3)
        attention.append(
            _bytes(blocks, by_rank, by_head, biases.float(), of_first_head(out.bias).float())
        )
        feed_forward.append(
            _bytes(
                blocks,
                mlp.c_fc.weight.t(),
                mlp.c_proj.weight,
                mlp.c_fc.bias.float(),
                of_first_head(mlp.c_proj.bias).float(),
            )
        )
        norms += [layer.ln_1, layer.ln_2]
    norms = [torch.stack([norm.weight, norm.bias]) for norm in [*norms, body.ln_f]]
    return {
        "attention": torch.stack(attention),
        "feed_forward": torch.stack(feed_forward),
        "norms": torch.stack(norms),
        "wte": _aligned(body.wte.weight),
        "wpe": _aligned(body.wpe.weight),
        "lm_head": _aligned(model.lm_head.weight),
    }


def _aligned(weight):
    weight = weight.detach().contiguous()
    return weight.clone() if weight.data_ptr() % 16 else weight


def _bytes(blocks, *parts):
    """Return the parts of each block one behind the other: uint8 [blocks, n]."""
    return torch.cat(
        [part.detach().reshape(blocks, -1).contiguous().view(torch.uint8) for part in parts], 1
    )


def pack_cache(packed, cache, positions):
    """Copy the first ``positions`` of ``cache`` into the kernel's own.

    Args:
        packed: float32 [layers, heads, cluster, 2, slots, 64]: position p is slot p // cluster of
            block p % cluster.
        cache: a ``Cache`` with keys and values [1, heads, positions, 64].
    """
    cluster, place = packed.shape[2], torch.arange(positions, device=packed.device)
    for into, layer in zip(packed, cache.layers):
        for which, states in enumerate((layer.keys, layer.values)):
            into[:, place % cluster, which, place // cluster] = states[0, :, :positions]


# ---- compiling and launching


def _sizes(config):
    """Return the macros of a model's sizes."""
    return {
        "WIDTH": config.n_embd,
        "HEADS": config.n_head,
        "LAYERS": config.n_layer,
        "VOCABULARY": config.vocab_size,
        "POSITIONS": config.n_positions,
        "EPSILON": f"{config.layer_norm_epsilon!r}f",
    }


def _shared_bytes(sizes):
    """Return how many bytes the kernel's ``State`` takes."""
    width, cluster = sizes["WIDTH"], sizes.get("CLUSTER", CLUSTER)
    slots, share = -(-sizes["POSITIONS"] // cluster), width // cluster
    rows, units, warps = 3 * HEAD // cluster, 4 * HEAD // cluster, width // 32
    attention = 2 * (rows * width + share * HEAD) + 4 * (rows + share)
    feed_forward = 2 * 2 * units * width + 4 * (units + share)
    cache, norms = 2 * 4 * slots * HEAD, 2 * 2 * 2 * width
    vectors = 4 * (3 * HEAD + HEAD + units + max(cluster * (HEAD + 2), width)) + 16 * warps
    box = 4 * 2 * width + 8 * 6 + 16
    rest = 4 * slots + 4
    return -(-(attention + feed_forward + cache + norms + vectors + box + rest) // 128) * 128


def compiled(architecture, **macros):
    """Return ``one_kernel.cu`` as a binary for an architecture, such as "sm_90"; it needs no GPU.

    Args:
        architecture: as NVRTC calls it.
        **macros: the model's sizes (WIDTH, HEADS, LAYERS, VOCABULARY, POSITIONS, EPSILON), and other
            values of ``DEFAULTS``.

    Raises:
        RuntimeError: there is no NVRTC here, or it does not compile; the message has its words.
    """
    binary, said = _compile(architecture, macros)
    return binary


def _compile(architecture, macros):
    """Return the binary, and what the compiler said."""
    nvrtc = _cuda().nvrtc
    macros = DEFAULTS | {"SHARED_BYTES": _shared_bytes(macros)} | macros
    options = [
        f"--gpu-architecture={architecture}",
        "--device-as-default-execution-space",
        "--ptxas-options=--verbose",
        *(f"--define-macro={name}={value}" for name, value in macros.items()),
    ]
    headers = [PLUMBING.read_bytes()], [PLUMBING.name.encode()]
    program = _done(
        nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), SOURCE.name.encode(), 1, *headers)
    )
    (failed,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    said = bytes(_done(nvrtc.nvrtcGetProgramLogSize(program)))
    _done(nvrtc.nvrtcGetProgramLog(program, said))
    said = said.rstrip(b"\0").decode()
    if failed:
        raise RuntimeError(f"The rung 'one_kernel' cannot be compiled here, {INSTEAD}: {said}")
    binary = bytes(_done(nvrtc.nvrtcGetCUBINSize(program)))
    _done(nvrtc.nvrtcGetCUBIN(program, binary))
    nvrtc.nvrtcDestroyProgram(program)
    return binary, said


@functools.cache
def _loaded(device, macros):
    """Return the kernel, compiled for the GPU with this number and loaded there."""
    driver, macros = _cuda().driver, dict(macros)
    binary = compiled("sm_{}{}".format(*torch.cuda.get_device_capability(device)), **macros)
    library = _done(driver.cuLibraryLoadData(binary, [], [], 0, [], [], 0))
    kernel = _done(driver.cuLibraryGetKernel(library, b"one_kernel"))
    function = _done(driver.cuKernelGetFunction(kernel))
    shared = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _done(driver.cuFuncSetAttribute(function, shared, _shared_bytes(macros)))
    return function


def _configuration(blocks, cluster, sizes):
    """Return the launch of ``blocks`` blocks in clusters, a ``CUlaunchConfig``."""
    driver = _cuda().driver
    clusters = driver.CUlaunchAttribute()
    clusters.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    clusters.value.clusterDim.x, clusters.value.clusterDim.y, clusters.value.clusterDim.z = (
        cluster,
        1,
        1,
    )
    launch = driver.CUlaunchConfig()
    launch.gridDimX, launch.gridDimY, launch.gridDimZ = blocks, 1, 1
    launch.blockDimX, launch.blockDimY, launch.blockDimZ = sizes["WIDTH"], 1, 1
    launch.sharedMemBytes = _shared_bytes(sizes | {"CLUSTER": cluster})
    launch.attrs, launch.numAttrs = [clusters], 1
    return launch


def _check_room(function, configuration, clusters):
    """Refuse a kernel whose blocks could not all run at once: they would wait for each other in vain."""
    fits = _done(_cuda().driver.cuOccupancyMaxActiveClusters(function, configuration))
    if fits < clusters:
        raise RuntimeError(
            f"The rung 'one_kernel' needs {clusters} clusters of blocks at once, one for each head, and "
            f"{torch.cuda.get_device_name()} has room for {fits}: {INSTEAD}."
        )


@functools.cache
def _cuda():
    """Return the modules of ``cuda.bindings`` that are needed, which a CUDA build of torch brings along."""
    try:
        from cuda.bindings import driver, nvrtc
    except ImportError as error:
        raise RuntimeError(
            f"The rung 'one_kernel' is compiled with cuda-bindings, which cannot be imported here ({error}): install "
            f"it (pip install cuda-bindings), or {INSTEAD}."
        ) from error
    return SimpleNamespace(driver=driver, nvrtc=nvrtc)


def _done(results):
    """Return what a call of CUDA returned besides its status; raise where that is an error."""
    status, *values = results
    if status:
        name = getattr(status, "name", status)
        reason = "out of memory" if "OUT_OF_MEMORY" in str(name) else "not possible here"
        raise RuntimeError(
            f"The rung 'one_kernel' could not be compiled or launched, {reason}: CUDA says {name}. {INSTEAD.capitalize()}."
        )
    return values[0] if values else None
