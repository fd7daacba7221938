"""Buffers of messages: contiguous, and on the host unless MPI can read a GPU's memory."""

from __future__ import annotations

from typing import Any

from ..kernels import arrays as xp


def send_buffer(array: Any, cuda_aware: bool) -> xp.ndarray:
    """A contiguous buffer with the array's values, which a transport may read at once."""
    # The bytes of a strided array do not lie side by side: MPI would send the wrong ones.
    contiguous: Any = xp.ascontiguousarray(array)
    if not xp.on_gpu(array):
        return contiguous
    if not cuda_aware:
        return contiguous.get()  # waits for the stream
    return _synchronized(contiguous)


def receive_buffer(out: xp.ndarray, cuda_aware: bool) -> xp.ndarray:
    """A contiguous buffer for a transport to fill: `out` itself if possible."""
    if xp.on_gpu(out) and cuda_aware:
        return _synchronized(out if out.flags.c_contiguous else xp.empty_like(out, order="C"))
    if xp.on_gpu(out) or not out.flags.c_contiguous:
        return xp.empty(out.shape, out.dtype)
    return out


def fill(out: Any, message: Any) -> None:
    """Copy a message into `out`, which has as many numbers; each may be on the host or the GPU."""
    message = message.reshape(out.shape)
    if xp.on_gpu(out) == xp.on_gpu(message):
        xp.copyto(out, message)
    elif xp.on_gpu(out):
        out.set(message)
    else:
        out[...] = message.get()


def _synchronized(array: xp.ndarray) -> xp.ndarray:
    # MPI knows nothing of streams: it would send a buffer that a kernel has not yet written.
    xp.gpu().cuda.get_current_stream().synchronize()
    return array
