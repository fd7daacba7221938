"""Messages from and to a GPU's memory: by way of the host, or as they are to a CUDA-aware MPI."""

from __future__ import annotations

from ..kernels import arrays as xp


def outgoing(array: xp.ndarray, aware: bool) -> xp.ndarray:
    """A contiguous buffer with the array's value, for a transport to read at once."""
    if not xp.on_gpu(array):
        return xp.ascontiguousarray(array)
    if not aware:
        return xp.ascontiguousarray(array).get()  # waits for the stream
    return _settled(xp.ascontiguousarray(array))


def incoming(out: xp.ndarray, aware: bool) -> xp.ndarray:
    """A contiguous buffer for a transport to fill: `out` itself where that may be."""
    if xp.on_gpu(out) and aware:
        return _settled(out if out.flags.c_contiguous else xp.empty_like(out, order="C"))
    if xp.on_gpu(out) or not out.flags.c_contiguous:
        return xp.empty(out.shape, out.dtype)
    return out


def fill(out: xp.ndarray, message: xp.ndarray) -> None:
    """`out` becomes the message, of as many numbers, wherever both are."""
    message = message.reshape(out.shape)
    if xp.on_gpu(out) == xp.on_gpu(message):
        xp.copyto(out, message)
    elif xp.on_gpu(out):
        out.set(message)
    else:
        out[...] = message.get()


def _settled(array: xp.ndarray) -> xp.ndarray:
    # MPI knows nothing of streams: a kernel that still writes the buffer would go unnoticed.
    xp.gpu().cuda.get_current_stream().synchronize()
    return array
