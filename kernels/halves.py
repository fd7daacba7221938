"""Numbers of 16 bits in float32 and back: float16, and bfloat16, which uint16 arrays hold.

NumPy and CuPy have no bfloat16: the upper half of a float32. It is rounded to the nearest, of two
to the even one. In NumPy that is integer arithmetic; in Triton a load, a conversion and a store.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .launch import triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

BFLOAT16 = xp.dtype(xp.uint16)
ONE = {BFLOAT16: 0x3F80}  # 1 as bfloat16
BLOCK = 1024


def is_half(x: Any) -> bool:
    """Whether it is an array of float16 or bfloat16 numbers."""
    return isinstance(x, xp.ndarray) and x.dtype.char in "eH"


def is_floating(x: xp.ndarray) -> bool:
    """Whether it holds floating-point (or complex) numbers."""
    return x.dtype.kind in "fc" or x.dtype == BFLOAT16


def name_of(dtype: xp.dtype) -> str:
    """'float32', 'bfloat16', …"""
    return "bfloat16" if dtype == BFLOAT16 else dtype.name


def wide(x: xp.ndarray) -> xp.ndarray:
    """float32 of float16 and bfloat16 numbers; any others as they are."""
    return cast(x, xp.dtype(xp.float32)) if is_half(x) else x


def held(dtype: xp.dtype) -> xp.dtype:
    """The dtype in which sums of such numbers are kept: float32 for bfloat16."""
    return xp.dtype(xp.float32) if dtype == BFLOAT16 else dtype


def store(x: xp.ndarray, out: xp.ndarray) -> None:
    """x into out, rounded to the nearest number that out can hold."""
    if out.dtype != BFLOAT16:
        out[...] = x
        return
    x = x.astype(xp.float32, copy=False)
    bits = xp.asarray(x, order="C").view(xp.uint32)
    rounded = (bits + xp.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    out[...] = xp.where(xp.isnan(x), xp.uint32(0x7FC0), rounded)


def summable(x: xp.ndarray) -> xp.ndarray:
    """x itself, or in the dtype that its sums are kept in."""
    return as_dtype(x, held(x.dtype))


def added(a: xp.ndarray, b: xp.ndarray, out: xp.ndarray | None) -> xp.ndarray:
    """a + b, into out if it is given."""
    if a.dtype != BFLOAT16:
        return xp.asarray(xp.add(a, b, out=out))
    total = cast(wide(a) + wide(b), BFLOAT16)
    if out is None:
        return total
    out[...] = total
    return out


def as_dtype(x: xp.ndarray, dtype: xp.dtype) -> xp.ndarray:
    """x itself if it is of that dtype, else a copy that is."""
    return x if x.dtype == dtype else cast(x, dtype)


@dispatched
def cast(x: xp.ndarray, dtype: xp.dtype) -> xp.ndarray:
    """A copy of another dtype; to or from bfloat16 by way of float32."""
    if x.dtype == BFLOAT16 != dtype:
        bits = xp.left_shift(x, xp.uint32(16), dtype=xp.uint32, casting="unsafe")
        return xp.asarray(bits).view(xp.float32).astype(dtype, copy=False)
    if dtype != BFLOAT16 or x.dtype == dtype:
        return x.astype(dtype)
    out = xp.empty_like(x, dtype)
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
    x = xp.asarray(x, order="C")
    y = xp.empty_like(x, dtype)
    _cast_kernel[(-(-x.size // BLOCK),)](x, y, x.size, BLOCK=BLOCK)
    return y
