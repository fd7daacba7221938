"""The 16-bit floating-point numbers, float16 and bfloat16, and their way to float32 and back.

NumPy has no bfloat16 of its own: `ml_dtypes` adds the dtype, so an array says what its numbers are,
`astype` converts them, and an assignment rounds them to the nearest, ties to even. Its arithmetic
is slow, and a sum of 8-bit numbers is coarse. So whole operations compute in float32 (see wide).

The ladder: the formula is `astype`; the loop and the tile program do the same in registers. Each
reads and writes every number once, 6 bytes between 16 and 32 bits.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes

from . import arrays as xp
from .dispatch import formula
from .launch import triton_kernel
from .loops import F, Half, Instruction, Out, OutHalf, loop

tl: Any = None  # Triton's language, once a kernel is launched

BFLOAT16 = xp.dtype(ml_dtypes.bfloat16)
FLOAT16, FLOAT32 = xp.dtype(xp.float16), xp.dtype(xp.float32)
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
    return cast(x, dtype)


@formula
def cast(x: xp.ndarray, dtype: xp.dtype) -> xp.ndarray:
    """A copy of another dtype; rounded to the nearest, ties to even."""
    return x.astype(dtype)


# The loop: float32 to float16 and back. NumPy converts float16 number by number (3 ms a million,
# where the loop takes 0.2); from and to bfloat16 ml_dtypes is as fast as a loop.


@Instruction
def float16_bits(builder, x: F) -> Half:
    """The bits of x rounded to float16: sign, 5 bits of exponent, 10 of mantissa."""
    ints, _ = words()
    x = _as_float32(builder, x)
    bits = builder.bitcast(x, ints)
    sign = builder.and_(bits, ints(-0x80000000))
    size = builder.xor(bits, sign)
    # usual numbers: move the exponent, and add half of the last digit kept (a tie goes to even)
    odd = builder.and_(builder.lshr(size, ints(13)), ints(1))
    moved = builder.add(size, ints(((15 - 127) << 23) + 0xFFF))
    usual = builder.lshr(builder.add(moved, odd), ints(13))
    # numbers below 2⁻¹⁴: adding 0.5 makes the processor round at the last digit of float16
    half = ints(126 << 23)
    small = builder.fadd(builder.bitcast(size, x.type), builder.bitcast(half, x.type))
    small = builder.sub(builder.bitcast(small, ints), half)
    rounded = builder.select(builder.icmp_signed("<", size, ints(113 << 23)), small, usual)
    nan = builder.icmp_signed(">", size, ints(0x7F800000))
    large = builder.select(nan, ints(0x7E00), ints(0x7C00))
    rounded = builder.select(builder.icmp_signed(">=", size, ints(0x47800000)), large, rounded)
    return builder.trunc(builder.or_(rounded, builder.lshr(sign, ints(16))), words()[1])


@Instruction
def float16_value(builder, bits: Half, like: F) -> F:
    """The number with the bits of a float16, in the dtype of `like`."""
    ints, _ = words()
    single = _as_float32(builder, like).type
    word = builder.zext(bits, ints)
    size = builder.shl(builder.and_(word, ints(0x7FFF)), ints(13))
    value = builder.fmul(builder.bitcast(size, single), single(2.0**112))
    whole = builder.bitcast(value, ints)  # inf and NaN: all bits of the exponent are 1
    no_number = builder.icmp_signed(">=", size, ints(0x0F800000))
    whole = builder.select(no_number, builder.or_(whole, ints(0x7F800000)), whole)
    sign = builder.shl(builder.and_(word, ints(0x8000)), ints(16))
    value = builder.bitcast(builder.or_(whole, sign), single)
    return value if like.type == single else builder.fpext(value, like.type)


def words():
    """LLVM's integers of 32 and of 16 bits."""
    from llvmlite import ir

    return ir.IntType(32), ir.IntType(16)


def _as_float32(builder, x):
    from llvmlite import ir

    return x if x.type == ir.FloatType() else builder.fptrunc(x, ir.FloatType())


@loop
def to_float16(x: F[::1], y: OutHalf[::1]):
    for i in range(len(x)):
        y[i] = float16_bits(x[i])


@loop
def from_float16(x: Half[::1], y: Out[::1]):
    for i in range(len(x)):
        y[i] = float16_value(x[i], 0.0)


@cast.version("numba", dtypes=(FLOAT32, FLOAT16))
def _cast_loop(x, dtype):
    if {x.dtype, xp.dtype(dtype)} != {FLOAT32, FLOAT16}:
        return x.astype(dtype)
    x, y = xp.ascontiguousarray(x), xp.empty_like(x, dtype, order="C")
    if dtype == FLOAT16:
        to_float16(x.reshape(-1), y.reshape(-1).view(xp.uint16))
    else:
        from_float16(x.reshape(-1).view(xp.uint16), y.reshape(-1))
    return y


# Sums of 16-bit numbers: added as float32 and rounded once, in one pass


@Instruction
def bfloat16_bits(builder, x: F) -> Half:
    """The bits of x rounded to bfloat16: the upper half of a float32."""
    ints, half = words()
    bits = builder.bitcast(_as_float32(builder, x), ints)
    odd = builder.and_(builder.lshr(bits, ints(16)), ints(1))
    rounded = builder.add(builder.add(bits, ints(0x7FFF)), odd)  # a tie goes to even
    size = builder.and_(bits, ints(0x7FFFFFFF))
    nan = builder.icmp_signed(">", size, ints(0x7F800000))
    return builder.trunc(builder.select(nan, ints(0x7FC0), builder.lshr(rounded, ints(16))), half)


@Instruction
def bfloat16_value(builder, bits: Half, like: F) -> F:
    """The number with the bits of a bfloat16, in the dtype of `like`."""
    ints, _ = words()
    single = _as_float32(builder, like).type
    value = builder.bitcast(builder.shl(builder.zext(bits, ints), ints(16)), single)
    return value if like.type == single else builder.fpext(value, like.type)


@loop
def add_bfloat16(x: Half[::1], y: OutHalf[::1], zero: F[::1]):
    # zero (1,): its dtype is that of the sums
    for i in range(len(x)):
        y[i] = bfloat16_bits(bfloat16_value(x[i], zero[0]) + bfloat16_value(y[i], zero[0]))


@loop
def add_float16(x: Half[::1], y: OutHalf[::1], zero: F[::1]):
    for i in range(len(x)):
        y[i] = float16_bits(float16_value(x[i], zero[0]) + float16_value(y[i], zero[0]))


@formula
def add(a: xp.ndarray, b: xp.ndarray, out: xp.ndarray | None = None) -> xp.ndarray:
    """a + b of 16-bit numbers of one shape; `out` may be one of them."""
    return xp.add(a, b, out=out)


@add.version("numba", dtypes=(BFLOAT16, FLOAT16))
def _add_loop(a, b, out=None):
    mine = out if out is a or out is b else b.copy(order="C")
    theirs = b if mine is a else a  # a + b = b + a, to the bit
    if a.shape != b.shape or a.dtype != b.dtype or not mine.flags.c_contiguous:
        return xp.add(a, b, out=out)
    run = add_float16 if mine.dtype == FLOAT16 else add_bfloat16
    x, y = (xp.ascontiguousarray(z).reshape(-1).view(xp.uint16) for z in (theirs, mine))
    run(x, y, xp.zeros(1, FLOAT32))
    if out is None or out is mine:
        return mine
    xp.copyto(out, mine)
    return out


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
