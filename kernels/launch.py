"""Triton kernels on arrays of NumPy or CuPy: loaded at the first launch, no PyTorch needed.

A kernel's text stands in its family's file under `@triton_kernel`, with `tl = None` above it: the
language is put in its place when the kernel is first launched, so that importing minidist loads
no Triton. On CuPy arrays it runs on CuPy's current stream. On NumPy arrays it runs in Triton's
interpreter, which must be asked for before Triton is loaded: TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from typing import Any

from . import arrays as xp
from .arrays import on_gpu


class Kernel:
    """A function in Triton's language: kernel[grid](arrays and numbers, constants by name)."""

    def __init__(self, function: Callable[..., None]):
        self.function = function
        self._compiled: Any = None

    def compiled(self) -> Any:
        """The function as triton.jit makes it, with other kernels that it calls."""
        if self._compiled is None:
            import triton

            _follow_cupy(triton)
            f = self.function
            scope = {**f.__globals__, "tl": triton.language}
            for name in f.__code__.co_names:
                if isinstance(scope.get(name), Kernel):
                    scope[name] = scope[name].compiled()
            copy = types.FunctionType(f.__code__, scope, f.__name__, f.__defaults__)
            copy.__annotations__, copy.__module__ = f.__annotations__, f.__module__
            copy.__qualname__ = f.__qualname__
            self._compiled = triton.jit(copy)
        return self._compiled

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **constants: Any) -> None:
            _want_interpreter(args)
            if all(grid):
                self.compiled()[grid](*map(pointer, args), **constants)

        return launch

    def __call__(self, *args: Any, **constants: Any) -> Any:
        """In a kernel's text another one is called; from Python each is launched on a grid."""
        raise TypeError(f"{self.function.__name__}: launch it on a grid, kernel[grid](...)")


triton_kernel = Kernel


def next_power_of_2(n: int) -> int:
    """The least one that is not under n, as sizes of blocks must be: 1 for 0."""
    return 1 << max(n - 1, 0).bit_length()


def blocks(rows: int, columns: int, size: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid that covers (rows, columns) with blocks of `size` numbers, and their shape.

    Programs count rows and columns in 32 bits.
    """
    assert max(rows, columns) < 2**31 - size, f"too many for 32 bits: {rows, columns}"
    wide = min(size, next_power_of_2(columns))
    tall = size // wide
    return (-(-rows // tall), -(-columns // wide)), {"ROWS": tall, "COLUMNS": wide}


def real(*arrays: Any) -> bool:
    """Whether all hold floating-point numbers of 16, 32 or 64 bits."""
    return all(a.dtype.name in ("float16", "bfloat16", "float32", "float64") for a in arrays)


def contiguous(array: Any) -> Any:
    """The array, copied if its numbers do not lie one after the other; None stays None."""
    return array if array is None or array.flags.c_contiguous else array.copy()


def pointer(value: Any) -> Any:
    """The argument that Triton takes for an array; NumPy's scalars become Python's numbers.

    The interpreter would take a NumPy scalar too, a launch on a GPU would not.
    """
    if isinstance(value, xp.ndarray):
        return Pointer(value)
    return value.item() if isinstance(value, xp.generic) else value


class Pointer:
    """An array as Triton wants to see it: an address and a dtype.

    The other methods are those by which the interpreter copies arguments there and back; the
    memory is the host's own, so nothing is copied.
    """

    def __init__(self, array: Any):
        self.array, self.dtype = array, array.dtype.name

    def data_ptr(self) -> int:
        if on_gpu(self.array):
            return self.array.data.ptr
        return self.array.__array_interface__["data"][0]

    def untyped_storage(self) -> Pointer:
        return self

    def cpu(self) -> Pointer:
        return self

    def copy_(self, other: Pointer) -> None:
        assert other.array is self.array

    def new_empty(self, size: int, device: str) -> Pointer:
        return self

    def set_(self, *storage_offset_size_stride: Any) -> None:
        pass

    def storage_offset(self) -> int:
        return 0

    def size(self) -> tuple[int, ...]:
        return self.array.shape

    stride = size


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, whose products take no bfloat16."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _want_interpreter(args: tuple) -> None:
    arrays = (getattr(a, "array", a) for a in args)  # also what stands in a Pointer
    on_host = any(isinstance(a, xp.ndarray) and not on_gpu(a) for a in arrays)
    if on_host and not interpreted():
        raise RuntimeError(
            "a Triton kernel on NumPy arrays runs in Triton's interpreter: set TRITON_INTERPRET=1 "
            "before Triton is loaded, or MINIDIST_KERNELS=numba, or move the arrays to a GPU"
        )


def _follow_cupy(triton: Any) -> None:
    """Launch on CuPy's current stream (Triton alone would take the device's default stream)."""
    cupy = sys.modules.get("cupy")
    if cupy is not None and not interpreted() and cupy.cuda.is_available():
        active = triton.runtime.driver.active
        active.get_current_stream = lambda device: cupy.cuda.get_current_stream().ptr
        active.get_current_device = lambda: cupy.cuda.Device().id
