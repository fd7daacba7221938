"""The 16-bit floating-point numbers, float16 and bfloat16, and their way to float32 and back.

NumPy has no bfloat16 of its own: `ml_dtypes` adds the dtype, so an array says what its numbers are,
`astype` converts them, and an assignment rounds them to the nearest, ties to even. Its arithmetic
is slow, and a sum of 8-bit numbers is coarse. So whole operations compute in float32 (see wide).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes

from . import arrays as xp
from .dispatch import dispatched
from .launch import triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

BFLOAT16 = xp.dtype(ml_dtypes.bfloat16)
BLOCK = 1024


def is_half(x: Any) -> bool:
    """Whether it is an array of float16 or bfloat16 numbers."""
    return isinstance(x, xp.ndarray) and x.dtype.char in "eE"


def is_floating(x: xp.ndarray) -> bool:
    """Whether it holds floating-point (or complex) numbers; bfloat16's kind is "V"."""
    return x.dtype.kind in "fc" or x.dtype == BFLOAT16


def wide(x: xp.ndarray) -> xp.ndarray:
    """float32 of float16 and bfloat16 numbers; any others as they are."""
    return as_dtype(x, xp.dtype(xp.float32)) if is_half(x) else x


def sum_dtype(dtype: xp.dtype) -> xp.dtype:
    """The dtype for long sums and for optimizer states: float32 for bfloat16, which has 8 bits."""
    return xp.dtype(xp.float32) if dtype == BFLOAT16 else dtype


def summable(x: xp.ndarray) -> xp.ndarray:
    """x itself, or in the dtype that its sums are kept in."""
    return as_dtype(x, sum_dtype(x.dtype))


def as_dtype(x: xp.ndarray, dtype: xp.dtype) -> xp.ndarray:
    """x itself if it is of that dtype, else a copy that is."""
    if x.dtype == dtype:
        return x
    return cast(x, dtype) if xp.on_gpu(x) else x.astype(dtype)  # NumPy: one version


@dispatched
def cast(x: xp.ndarray, dtype: xp.dtype) -> xp.ndarray:
    """A copy of another dtype."""
    return x.astype(dtype)


cast.version("naive")(cast.versions["numba"])


@triton_kernel
def _cast_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, at < n)
    tl.store(y_ptr + at, x.to(tl.float32).to(y_ptr.dtype.element_ty), at < n)


@cast.version("triton")
def _cast_triton(x, dtype):
    served = x.dtype.kind in "fu" or x.dtype == BFLOAT16
    if BFLOAT16 not in (x.dtype, dtype) or x.dtype == dtype or not served:
        return cast.plain(x)(x, dtype)
    x = xp.asarray(x, order="C")
    y = xp.empty_like(x, dtype)
    _cast_kernel[(-(-x.size // BLOCK),)](x, y, x.size, BLOCK=BLOCK)
    return y
