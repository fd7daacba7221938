"""Numbers of 16 bits in float32 and back: float16, and bfloat16, which uint16 arrays hold.

NumPy and CuPy have no bfloat16: the upper half of a float32. It is rounded to the nearest, of two
to the even one. In NumPy that is integer arithmetic; in Triton a load, a conversion and a store.
"""

from __future__ import annotations

from typing import Any

from . import arrays as np
from .dispatch import dispatched
from .launch import triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

BFLOAT16 = np.dtype(np.uint16)
ONE = {BFLOAT16: 0x3F80}  # 1 as bfloat16
BLOCK = 1024


def is_half(x: Any) -> bool:
    """Whether it is an array of float16 or bfloat16 numbers."""
    return isinstance(x, np.ndarray) and x.dtype.char in "eH"


def wide(x: np.ndarray) -> np.ndarray:
    """float32 of float16 and bfloat16 numbers; any others as they are."""
    return cast(x, np.dtype(np.float32)) if is_half(x) else x


def held(dtype: np.dtype) -> np.dtype:
    """The dtype in which sums of such numbers are kept: float32 for bfloat16."""
    return np.dtype(np.float32) if dtype == BFLOAT16 else dtype


def store(x: np.ndarray, out: np.ndarray) -> None:
    """x into out, rounded to the nearest number that out can hold."""
    if out.dtype != BFLOAT16:
        out[...] = x
        return
    x = x.astype(np.float32, copy=False)
    bits = np.asarray(x, order="C").view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    out[...] = np.where(np.isnan(x), np.uint32(0x7FC0), rounded)


def summable(x: np.ndarray) -> np.ndarray:
    """x itself, or in the dtype that its sums are kept in."""
    return as_dtype(x, held(x.dtype))


def added(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """a + b, into out if it is given."""
    if a.dtype != BFLOAT16:
        return np.asarray(np.add(a, b, out=out))
    total = cast(wide(a) + wide(b), BFLOAT16)
    if out is None:
        return total
    out[...] = total
    return out


def as_dtype(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """x itself if it is of that dtype, else a copy that is."""
    return x if x.dtype == dtype else cast(x, dtype)


@dispatched
def cast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A copy of another dtype; to or from bfloat16 by way of float32."""
    if x.dtype == BFLOAT16 != dtype:
        bits = np.left_shift(x, np.uint32(16), dtype=np.uint32, casting="unsafe")
        return np.asarray(bits).view(np.float32).astype(dtype, copy=False)
    if dtype != BFLOAT16 or x.dtype == dtype:
        return x.astype(dtype)
    out = np.empty_like(x, dtype)
    store(x, out)
    return out


cast.version("naive")(cast.versions["numpy"])


@triton_kernel
def _cast_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, at < n)
    tl.store(y_ptr + at, x.to(tl.float32).to(y_ptr.dtype.element_ty), at < n)


@cast.version("triton")
def _cast_triton(x, dtype):
    if BFLOAT16 not in (x.dtype, dtype) or x.dtype == dtype or x.dtype.kind not in "fu":
        return cast.plain(x)(x, dtype)
    x = np.asarray(x, order="C")
    y = np.empty_like(x, dtype)
    _cast_kernel[(-(-x.size // BLOCK),)](x, y, x.size, BLOCK=BLOCK)
    return y
