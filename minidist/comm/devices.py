"""Messages from and to a GPU's memory: by way of the host, or as they are to a CUDA-aware MPI."""

from __future__ import annotations

from ..kernels import arrays as np


def outgoing(array: np.ndarray, aware: bool) -> np.ndarray:
    """A contiguous buffer with the array's value, for a transport to read at once."""
    if not np.on_gpu(array):
        return np.ascontiguousarray(array)
    if not aware:
        return np.ascontiguousarray(array).get()  # waits for the stream
    return _settled(np.ascontiguousarray(array))


def incoming(out: np.ndarray, aware: bool) -> np.ndarray:
    """A contiguous buffer for a transport to fill: `out` itself where that may be."""
    if np.on_gpu(out) and aware:
        return _settled(out if out.flags.c_contiguous else np.empty_like(out, order="C"))
    if np.on_gpu(out) or not out.flags.c_contiguous:
        return np.empty(out.shape, out.dtype)
    return out


def fill(out: np.ndarray, message: np.ndarray) -> None:
    """`out` becomes the message, of as many numbers, wherever both are."""
    message = message.reshape(out.shape)
    if np.on_gpu(out) == np.on_gpu(message):
        np.copyto(out, message)
    elif np.on_gpu(out):
        out.set(message)
    else:
        out[...] = message.get()


def _settled(array: np.ndarray) -> np.ndarray:
    # MPI knows nothing of streams: a kernel that still writes the buffer would go unnoticed.
    np.gpu().cuda.get_current_stream().synchronize()
    return array
