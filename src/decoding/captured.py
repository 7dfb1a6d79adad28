"""A decode step whose every tensor has a fixed address, so that it can be captured as a CUDA graph.

A graph is a list of kernels with their arguments, addresses among them. Captured once, it is launched
by one call, ``replay``: no Python, no guards, no inputs copied into place. For that

- the step reads its inputs where the step before has written its outputs (``CapturedStep``);
- it has run before, on the stream of the capture, so that nothing is compiled, loaded or planned
  during the capture (``WARM_UP``);
- it allocates from a pool of memory of its own, which is the graph's for as long as the graph lives;
- nothing in it asks the device for a value, and no shape depends on one: ``torch.compile`` with
  ``fullgraph=True`` has made sure of it.

What the guards of ``torch.compile`` would notice in every step, nobody notices here. What may change
between two calls is compared once a call: the addresses of the weights, and how many
end-of-sequence ids there are. (Shape, dtype, device and torch's modes: see ``prepared.lend``.)

On a CPU, which has no graphs, ``replay`` calls the same step on the same tensors.
"""

import functools
from weakref import ref

import torch

from .checks import makes_graphs
from .prepared import with_prepared
from .step import decode_step

WARM_UP = 3  # runs before the capture: the first compiles


def with_prepared_capture(decode):
    """Lend a loop what it needs to capture its step: ``with_prepared`` for a graph of one's own.

    The step is compiled first, without graphs of ``torch.compile``: its option ``compile_mode`` is
    "default" by default.
    """
    lent = with_prepared(compile_mode="default")(decode)

    @functools.wraps(lent)
    def checked(model, input_ids, max_new_tokens, eos_token_id, **options):
        mode = options.get("compile_mode")
        if makes_graphs(model.device, mode):
            raise ValueError(
                f"compile_mode={mode!r} captures CUDA graphs itself, and this rung captures the step by hand: use "
                "'default' or 'max-autotune-no-cudagraphs'."
            )
        return lent(model, input_ids, max_new_tokens, eos_token_id, **options)

    return checked


def captured_step(prepared, model, input_ids, eos):
    """Return the ``CapturedStep`` of what is lent, made at the first call and kept with it.

    It is kept as ``prepared.captured`` and goes when that goes. It is made anew for another number
    of end-of-sequence ids, and where the model's weights lie at other addresses than before.

    Args:
        prepared: the ``Prepared`` that a loop got lent; its cache is empty, and is again afterwards.
        model: the model that it is lent for.
        input_ids: int64 [batch, prompt].
        eos: int64 [ids], as from ``start``.
    """
    weights = (*model.parameters(), *model.buffers())
    key = len(eos), tuple(tensor.data_ptr() for tensor in weights)
    kept = vars(prepared).get("captured")
    if kept is None or kept.key != key:
        # The old graph, and the loops made of it, go before there is a new one.
        vars(prepared).update(captured=None, while_graphs={})
        kept = prepared.captured = CapturedStep(prepared, model, input_ids, eos)
        kept.key = key
    kept.tokens[:, : input_ids.shape[1]] = input_ids
    kept.eos.copy_(eos)
    return kept


class CapturedStep:
    """One decode step that reads and writes the same tensors each time; on a GPU, a CUDA graph.

    Attributes:
        unread: int64 [batch, 1], the token to read; a step leaves its own there.
        finished: bool [batch], which rows have finished.
        all_finished: bool scalar, whether all have.
        eos: int64 [ids], the end-of-sequence ids.
        tokens: int64 [batch, length], the prompt and all tokens so far.
        read: int64 scalar, how many of them the model has read: the cache's own count.
        graph: the ``torch.cuda.CUDAGraph``; None on a CPU.
    """

    def __init__(self, prepared, model, input_ids, eos):
        self.model = ref(model)  # which must be free to go: what is kept for it goes with it
        self.cache, self.compiled_step = prepared.cache, prepared.compiled_step
        batch, length = input_ids.shape[0], prepared.cache.layers[0].max_cache_len
        self.eos = eos.clone()
        self.unread = eos.new_zeros((batch, 1))
        self.finished = eos.new_zeros(batch, dtype=torch.bool)
        self.all_finished = eos.new_zeros((), dtype=torch.bool)
        self.tokens = eos.new_zeros((batch, length))
        self.graph = None
        if prepared.device.type == "cuda":
            self.graph = self._capture(prepared.streams[0], input_ids)

    @property
    def read(self):
        return self.cache.layers[0].cumulative_length

    def begin(self, results):
        """Take over what ``decode_step`` returned for the prompt."""
        self._keep(*results)

    def replay(self):
        """Run one step: on a GPU, launch the graph on the current stream."""
        if self.graph is None:
            self.run()
        else:
            self.graph.replay()

    def run(self):
        """Run one step as it is captured."""
        state = self.unread, self.cache, self.finished, self.eos
        self._keep(*self.compiled_step(self.model(), *state))

    def result(self, input_ids, generated):
        """Return the prompt and the first ``generated`` new tokens, a new tensor."""
        return self.tokens[:, : input_ids.shape[1] + generated].clone()

    def _keep(self, token, finished, all_finished):
        """Put a step's outputs where the next step and the host look for them."""
        self.unread.copy_(token)
        self.finished.copy_(finished)
        self.all_finished.copy_(all_finished)
        self.tokens.index_copy_(1, self.read[None], token)

    def _capture(self, stream, input_ids):
        """Return the step as a graph, captured on ``stream``; the cache is empty afterwards."""
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            # The cache is allocated when it is first written to.
            decode_step(self.model(), input_ids[:, :1], self.cache, self.finished, self.eos)
            for _ in range(WARM_UP):
                self._rewind()
                self.run()
            self._rewind()
        # A graph that can be put into another one: see ``while_graph``.
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        # cuBLAS keeps scratch memory for each stream, and torch lets go of it whenever it captures a
        # graph itself. Ours must lie in this graph's own memory: begin and end without any.
        torch._C._cuda_clearCublasWorkspaces()
        try:
            # Other threads may go on calling CUDA.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.run()
        finally:
            torch._C._cuda_clearCublasWorkspaces()
        graph.instantiate()
        current.wait_stream(stream)
        self.cache.reset()
        return graph

    def _rewind(self):
        """Have the next step read position 0 of a cache that is not empty."""
        for layer in self.cache.layers:
            layer.cumulative_length.zero_()
