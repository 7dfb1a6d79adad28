"""A loop that the GPU runs by itself: a captured step as the body of a WHILE node of a CUDA graph.

A graph may have conditional nodes (CUDA 12.4 and later). The body of a WHILE node is repeated for as
long as a number on the device, its handle, is not 0; a kernel sets it. Ours is a kernel of one block,
``keep_going``, once before the loop and once behind every step::

    keep_going -> WHILE (handle): captured step -> keep_going

It also tells the host how far the loop is, through pinned memory, which both can read and write while
the graph runs: the token of each row first, then how many there are.

``cudaGraphSetConditional`` stands in NVIDIA's device runtime, a library that torch brings along, so the kernel is compiled by
NVRTC and linked by nvJitLink; no CUDA toolkit is needed. (From 2.14 on, torch can capture such a node from
``torch.while_loop``. This works with every torch that the package takes, and tells the host.)

On a CPU, and under torch's profiler, which sees no single step of one launch, the host runs the loop: it
replays the captured step and asks after each.
"""

import ctypes
import functools
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from weakref import finalize

import torch
import torch.autograd.profiler as torch_profiler

OLDEST_DRIVER = 12040  # as CUDA writes 12.4
KERNEL = rb"""
typedef unsigned long long cudaGraphConditionalHandle;
extern "C" __device__ void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned value);

extern "C" __global__ void keep_going(
    cudaGraphConditionalHandle handle, const long long *read, const long long *last,
    const bool *all_finished, const long long *unread, long long rows,
    long long *streamed, long long *made)
{
    // The model has read tokens 0 to *read - 1; `unread` holds the one after them.
    if (made) {
        for (long long row = threadIdx.x; row < rows; row += blockDim.x)
            streamed[*read * rows + row] = unread[row];
        __threadfence_system();  // whoever sees the count sees the tokens
        __syncthreads();
        if (threadIdx.x == 0) *(volatile long long *)made = *read + 1;
    }
    if (threadIdx.x == 0) cudaGraphSetConditional(handle, *read < *last && !*all_finished);
}
"""
THREADS = 128


def while_graph(prepared, captured, tells=True):
    """Return the ``WhileGraph`` of a captured step, made at the first call.

    It is kept in ``prepared.while_graphs``, goes when that goes, and with its step.

    Args:
        prepared: the ``Prepared`` that a loop got lent.
        captured: its ``CapturedStep``.
        tells: whether the device tells the host of every token while it runs.

    Raises:
        RuntimeError: there is no such node here, or no compiler for its kernel; the message says why
            and what to do.
    """
    kept = vars(prepared).setdefault("while_graphs", {})
    if tells not in kept:
        kept[tells] = WhileGraph(captured, tells)
    return kept[tells]


class WhileGraph:
    """A captured step that repeats itself until all rows have finished, or enough tokens are made.

    Attributes:
        streamed: int64 [length, batch] in pinned memory: the new tokens by position, while they are
            made (with ``tells``).
        made: int64 scalar in pinned memory: how many tokens there are, the prompt's among them.
    """

    def __init__(self, captured, tells=True):
        self.captured, self.tells = captured, tells
        self.on_gpu = captured.graph is not None
        rows, length = captured.tokens.shape
        self.last = torch.zeros_like(captured.eos[0])
        self.over = torch.get_device_module(captured.eos.device).Event()
        self.streamed = torch.zeros((length, rows), dtype=torch.int64, device="cpu")
        self.made = torch.zeros((), dtype=torch.int64, device="cpu")
        if self.on_gpu:
            self.streamed, self.made = self.streamed.pin_memory(), self.made.pin_memory()
            self.executable = self._build()

    def launch(self, prompt, most, asks=True):
        """Start the loop behind what the current stream has been given.

        Args:
            prompt: how many tokens there were to begin with.
            most: how many new tokens to make at most.
            asks: whether a row can finish at all.
        """
        self.prompt, self.most, self.asks = prompt, most, asks
        # torch's profiler sees the kernels of a step only in a launch of its own.
        self.step_by_step = not self.on_gpu or torch_profiler._is_profiler_enabled
        if not self.step_by_step:
            self.made.zero_()
            self.last.fill_(prompt + most - 1)
            stream = torch.cuda.current_stream()
            _done(_cuda().driver.cuGraphLaunch(self.executable, stream.cuda_stream))
            self.over.record(stream)

    def goes_on(self, generated):
        """Return whether there is a token after the first ``generated`` new ones; wait until that is known.

        The host looks at pinned memory over and over: it does not wait for the device.
        """
        if self.step_by_step:
            if generated == self.most or (self.asks and self.captured.all_finished.item()):
                return False
            self.captured.replay()
            return True
        wanted = self.prompt + generated + 1
        while self.made.item() < wanted:
            if self.over.query():  # an error of the device is raised here
                return self.made.item() >= wanted
        return True

    def wait(self):
        """Wait until the loop is over; for one that tells nothing."""
        if self.step_by_step:
            made = 1
            while self.goes_on(made):
                made += 1
        else:
            self.over.synchronize()

    def _build(self):
        """Return the graph, ready to be launched."""
        cuda, step = _cuda(), self.captured
        driver = cuda.driver
        check_driver(_done(driver.cuDriverGetVersion()))
        kernel = _keep_going(torch.cuda.current_device())
        context = _done(driver.cuCtxGetCurrent())
        graph = _done(driver.cuGraphCreate(0))
        try:
            handle = _done(driver.cuGraphConditionalHandleCreate(graph, context, 0, 0))
            tensors = step.read, self.last, step.all_finished, step.unread
            told = (self.streamed.data_ptr(), self.made.data_ptr()) if self.tells else (0, 0)
            decide = _launch_of(
                kernel, int(handle), *(x.data_ptr() for x in tensors), len(step.unread), *told
            )
            first = _done(driver.cuGraphAddKernelNode(graph, [], 0, decide))
            loop = driver.CUgraphNodeParams()
            loop.type = driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_CONDITIONAL
            loop.conditional.handle = handle
            loop.conditional.type = driver.CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_WHILE
            loop.conditional.size = 1
            loop.conditional.ctx = context
            edges = [None] if cuda.major >= 13 else []  # since CUDA 13 an edge may have data
            _done(driver.cuGraphAddNode(graph, [first], *edges, 1, loop))
            body = loop.conditional.phGraph_out[0]
            captured = driver.CUgraph(step.graph.raw_cuda_graph())
            node = _done(driver.cuGraphAddChildGraphNode(body, [], 0, captured))
            _done(driver.cuGraphAddKernelNode(body, [node], 1, decide))
            executable = _done(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)
        finalize(self, driver.cuGraphExecDestroy, executable).atexit = False
        return executable


def _launch_of(kernel, *arguments):
    """Return a launch of ``kernel``, one block, with 64-bit ``arguments``, as a graph's node."""
    launch = _cuda().driver.CUDA_KERNEL_NODE_PARAMS()
    launch.func = kernel
    launch.gridDimX = launch.gridDimY = launch.gridDimZ = 1
    launch.blockDimX, launch.blockDimY, launch.blockDimZ = THREADS, 1, 1
    launch.kernelParams = arguments, (ctypes.c_uint64,) * len(arguments)
    return launch


@functools.cache
def _keep_going(device):
    """Return the kernel ``keep_going``, compiled for the GPU with this number and loaded there."""
    driver = _cuda().driver
    binary = compiled("sm_{}{}".format(*torch.cuda.get_device_capability(device)))
    library = _done(driver.cuLibraryLoadData(binary, [], [], 0, [], [], 0))
    kernel = _done(driver.cuLibraryGetKernel(library, b"keep_going"))
    return _done(driver.cuKernelGetFunction(kernel))


def compiled(architecture):
    """Return ``keep_going`` as a binary for an architecture, such as "sm_90"; it needs no GPU."""
    nvrtc, linker = _cuda().nvrtc, _cuda().nvjitlink
    program = _done(nvrtc.nvrtcCreateProgram(KERNEL, b"keep_going.cu", 0, [], []))
    options = f"--gpu-architecture={architecture}", "--relocatable-device-code=true"
    _done(nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options]))
    code = bytes(_done(nvrtc.nvrtcGetCUBINSize(program)))
    _done(nvrtc.nvrtcGetCUBIN(program, code))
    nvrtc.nvrtcDestroyProgram(program)
    link = linker.create(1, [f"-arch={architecture}"])
    linker.add_data(link, linker.InputType.CUBIN, code, len(code), "keep_going")
    linker.add_file(link, linker.InputType.LIBRARY, str(_device_runtime()))
    linker.complete(link)
    binary = bytearray(linker.get_linked_cubin_size(link))
    linker.get_linked_cubin(link, binary)
    linker.destroy(link)
    return bytes(binary)


@functools.cache
def _cuda():
    """Return the modules of ``cuda.bindings`` that are needed, which a CUDA build of torch brings along."""
    try:
        from cuda.bindings import __version__, driver, nvjitlink, nvrtc
    except ImportError as error:
        raise RuntimeError(
            f"The rung 'device_loop' builds its graph with cuda-bindings, which cannot be imported here ({error}): "
            "install it (pip install cuda-bindings), or use the rung 'captured_graph'."
        ) from error
    return SimpleNamespace(
        driver=driver, nvrtc=nvrtc, nvjitlink=nvjitlink, major=int(__version__.partition(".")[0])
    )


def check_driver(version):
    """Refuse a driver that does not know conditional nodes; ``version`` as CUDA writes it."""
    if version < OLDEST_DRIVER:
        raise RuntimeError(
            f"The rung 'device_loop' needs a driver for CUDA 12.4 or later, and this one is for CUDA "
            f"{version // 1000}.{version % 1000 // 10}: use a newer driver, or the rung 'captured_graph'."
        )


def _device_runtime():
    """Return the path of NVIDIA's device runtime, from the wheels that torch asks for, or a toolkit."""
    spec = find_spec("nvidia")
    folders = [Path(folder) for folder in spec.submodule_search_locations] if spec else []
    found = [path for folder in folders for path in folder.glob("*/lib/libcudadevrt.a")]
    toolkit = Path("/usr/local/cuda")
    found += toolkit.glob("lib*/libcudadevrt.a")
    if not found:
        raise RuntimeError(
            "The rung 'device_loop' needs libcudadevrt.a, which comes with NVIDIA's CUDA runtime, and there is none "
            "here: install it (pip install nvidia-cuda-runtime), or use the rung 'captured_graph'."
        )
    return found[0]


def _done(results):
    """Return what a call of CUDA returned besides its status; raise where that is an error."""
    status, *values = results
    if status:
        name = getattr(status, "name", status)
        reason = "out of memory" if "OUT_OF_MEMORY" in str(name) else "not possible here"
        raise RuntimeError(
            f"The rung 'device_loop' could not build or launch its graph, {reason}: CUDA says {name}. Use the rung "
            "'captured_graph'."
        )
    return values[0] if values else None
