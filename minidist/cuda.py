"""The GPU, through CuPy, which is loaded when it is first asked for."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from .kernels import arrays

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


def memory_allocated() -> int:
    """Bytes in arrays on the GPU in use."""
    return cupy().get_default_memory_pool().used_bytes()


def memory_reserved() -> int:
    """Bytes that CuPy holds there, in arrays or for reuse."""
    return cupy().get_default_memory_pool().total_bytes()
