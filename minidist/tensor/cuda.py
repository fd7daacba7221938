"""The GPU, through CuPy, which is loaded when it is first asked for; and its graphs.

A CUDA graph is a whole training step captured once and launched as one. Python runs `step()` once
inside `with cuda.graph(g)`, and the GPU does nothing; `g.replay()` then does all that was launched,
from and into the same memory. So what changes from step to step must be on the GPU: batches copied
into the same tensors (x.copy_), and what optim.AdamW(capturable=True) counts.

Not run on a GPU yet; from CuPy 14.2's text and messages: while a stream is captured CuPy refuses
copies to and from the host (also md.zeros(…, device="cuda"), which are made there, and md.cat, for
the addresses), waiting, and all of cuBLAS (so products of float64; ours of 16 and 32 bits are
Triton's, and pass). It captures in CUDA's relaxed mode, in which its memory pool may call
cudaMalloc. Its sorts are Thrust's, which it tells not to wait, but nobody promises that they can be
captured: an embedding's gradient goes without.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from ..absent import explain as _explain
from ..kernels import arrays
from ..kernels.capture import capturing

INSTALL = "pip install cupy-cuda13x (or cupy-cuda12x), as the driver's CUDA version is"


def missing() -> str | None:
    """What there lacks to compute on a GPU, in words; None if nothing does."""
    try:
        module = importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy cannot be imported ({error}): {INSTALL}"
    try:
        count = module.cuda.runtime.getDeviceCount()
    except Exception as error:  # CUDARuntimeError: no driver, or one that is too old
        return f"CuPy {module.__version__} finds no CUDA device ({error}): is a driver installed?"
    return None if count else f"CuPy {module.__version__} finds no CUDA device"


def is_available() -> bool:
    return missing() is None


def device_count() -> int:
    """How many GPUs there are."""
    return cupy().cuda.runtime.getDeviceCount() if is_available() else 0


def cupy() -> Any:
    """The module cupy, and from now on everything computes on its arrays too.

    Raises RuntimeError with what is missing where there is no GPU.
    """
    module = arrays.gpu()
    if module is None:
        reason = missing()
        if reason is not None:
            raise RuntimeError(f"device 'cuda': {reason}")
        module = importlib.import_module("cupy")
        arrays.enable(module)
    return module


def using(index: int | None) -> Any:
    """Inside its block, that GPU is the one in use; None: the one that is."""
    if index is None:
        cupy()
        return contextlib.nullcontext()
    if not 0 <= index < device_count():
        cupy()
        raise RuntimeError(f"device 'cuda:{index}': there are {device_count()}, from 0")
    return cupy().cuda.Device(index)


def set_device(index: int) -> None:
    """The GPU that 'cuda' means in this process from now on."""
    using(index).use()


def current_device() -> int:
    return cupy().cuda.Device().id


def synchronize() -> None:
    """Wait until the GPU has done all that it was given."""
    cupy().cuda.Device().synchronize()


def is_current_stream_capturing() -> bool:
    """Whether what is launched now is captured in a CUDAGraph, and not done."""
    return capturing()


def memory_allocated() -> int:
    """Bytes in arrays on the GPU in use."""
    return cupy().get_default_memory_pool().used_bytes()


def memory_reserved() -> int:
    """Bytes that CuPy holds there, in arrays or for reuse."""
    return cupy().get_default_memory_pool().total_bytes()


# A whole step as one launch


class CUDAGraph:
    """What was captured, as torch.cuda.CUDAGraph; it keeps the memory that the step works in."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._memory: Any = None  # results of replays are in it, and nobody else's arrays

    def replay(self) -> None:
        """All that was captured, on the current stream; returns before it is done."""
        if self._graph is None:
            raise RuntimeError(
                "CUDAGraph.replay: nothing was captured: first `with cuda.graph(g): step()`"
            )
        self._graph.launch()

    def reset(self) -> None:
        """Let go of what was captured, and of its memory."""
        self._graph = self._memory = None


@contextlib.contextmanager
def graph(cuda_graph: CUDAGraph) -> Iterator[None]:
    """torch.cuda.graph: what is launched inside is not done, but captured in the CUDAGraph.

    Run the step a few times before: kernels are compiled, and optimisers make their state, at the
    first one. Drop the gradients then (zero_grad()), so that backward makes them in the graph's
    own memory; all else that the step reads or writes must be kept as long as the graph.
    """
    gpu = cupy()
    if capturing():
        raise RuntimeError("cuda.graph inside cuda.graph: capture the whole step in one block")
    if cuda_graph._graph is not None:
        raise RuntimeError("cuda.graph: this CUDAGraph has a step already: make another, or reset")
    memory, stream = gpu.cuda.MemoryPool(), gpu.cuda.Stream(non_blocking=True)
    synchronize()
    with stream, gpu.cuda.using_allocator(memory.malloc):
        stream.begin_capture()
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # what was refused may have ended it already
                stream.end_capture()
            raise
        cuda_graph._graph = stream.end_capture()
    cuda_graph._memory = memory, stream
    synchronize()


_explain(__name__)  # names that PyTorch has and minidist not
