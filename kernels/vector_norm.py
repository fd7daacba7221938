"""The norm of many arrays, taken as one long vector.

The ladder for p = 2, n numbers of b bytes in all:

- formula: all arrays copied into one of float64, and its squares: it moves (5b + 32)n bytes.
- loop: an array after the other is read once, nb bytes. Its numbers are converted to float64 in
  registers (the square of a float32 number is exact there), the squares of a block are added, and
  the sums of the blocks of all arrays are added exactly.
- tile program: each program adds the squares of a block, and the sums of all blocks of all arrays
  are added in float64: nb bytes, and no number leaves the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy

from . import arrays as xp
from .dispatch import formula
from .elementary import ordered, unordered
from .half_precision import wide
from .launch import triton_kernel
from .loops import F, Out, OutDouble, helper, loop

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 1 << 14
TERMS = 4  # enough for any squares of float32: 212 bits
PROGRAM = 4096  # elements a program: 8 a thread of 4 warps, four times


def vector_norm(arrays: Iterable[xp.ndarray], p: float) -> Any:
    """(Σ |x|ᵖ)^(1/p), p > 0; for p = inf the largest |x|.

    No rounding error grows with the size of the arrays. On the CPU every sum is taken in float64,
    and the sums of blocks are added exactly: for p = 2 the relative error is below BLOCK · 2⁻⁵³ =
    2·10⁻¹², in whatever order the numbers of one block are added. On a GPU the squares of float32
    numbers are added in float32 within a block of PROGRAM numbers only; the result is an array
    without dimensions, and stays on the GPU.
    Temporary memory: none for p = 2 and p = inf, otherwise three BLOCKs in float64.
    """
    return _norm(p, *arrays)


def squares(arrays: Iterable[xp.ndarray]) -> list[float]:
    """The sum of all squares, as a few numbers whose exact sum it is.

    Ranks that have some arrays each send these numbers to each other. Their exact sum, and so the
    norm, has the same bits as on one process that has all arrays.
    """
    arrays = list(arrays)
    if any(map(xp.on_gpu, arrays)):
        return [float(vector_norm(arrays, 2.0)) ** 2]
    return exact(_sums_of_blocks(arrays))


def exact(numbers: Iterable[float]) -> list[float]:
    """TERMS numbers with the exact sum of `numbers`: the sum rounded, then its rounding error, …

    >>> exact([1.0, 1e-20])
    [1.0, 1e-20, 0.0, 0.0]
    """
    rest, terms = list(numbers), [0.0] * TERMS
    for i in range(TERMS):
        terms[i] = math.fsum(rest)
        if not math.isfinite(terms[i]):
            break
        rest.append(-terms[i])
    return terms


def _sums_of_blocks(arrays: Iterable[xp.ndarray]) -> list[float]:
    return [total for a in arrays for total in block_squares(wide(a)).tolist()]


# The formula


@formula
def _norm(p: float, *arrays: xp.ndarray) -> float:
    """One vector in float64, and its norm."""
    parts = [xp.abs(wide(a).reshape(-1)) for a in arrays if a.size]
    if not parts:
        return 0.0
    x = xp.concatenate(parts).astype(xp.float64)
    with xp.errstate(over="ignore"):
        return float(x.max() if p == math.inf else (x**p).sum() ** (1 / p))


@formula
def block_squares(x: xp.ndarray) -> xp.ndarray:
    """Σ x² of each BLOCK numbers, in float64."""
    squares = xp.square(x.reshape(-1).astype(xp.float64))
    return xp.add.reduceat(squares, xp.arange(0, x.size, BLOCK)) if x.size else squares


@formula
def largest(x: xp.ndarray) -> xp.ndarray:
    """The largest |x|, as an array of one number; NaN if there is one."""
    return xp.abs(x).max(initial=0).reshape(1)


# The loop


@helper(sums=True)
def sum_of_squares(x):
    """Σ x², in float64."""
    total = numpy.float64(0.0)
    for i in range(len(x)):
        number = numpy.float64(x[i])
        total += number * number
    return total


@loop
def block_square_sums(x: F[::1], size: int, sums: OutDouble[::1]):
    for k in range(len(sums)):
        sums[k] = sum_of_squares(x[k * size : (k + 1) * size])


@loop
def largest_number(x: F[::1], top: Out[::1]):
    # As integers: a comparison of floats is not vectorised, because NaN has no place in their order
    highest = ordered(0.0)
    for i in range(len(x)):
        highest = max(highest, ordered(abs(x[i])))
    top[0] = unordered(highest)


@block_squares.version("numba")
def _block_squares_loop(x):
    sums = numpy.empty(-(-x.size // BLOCK))
    block_square_sums(x.reshape(-1), BLOCK, sums)
    return sums


@largest.version("numba")
def _largest_loop(x):
    top = xp.empty_like(x, shape=1)
    largest_number(x.reshape(-1), top)
    return top


@_norm.version("numba", dtypes=None)
def _norm_loop(p, *arrays):
    if p == 2:
        return math.sqrt(math.fsum(_sums_of_blocks(arrays)))
    if p == math.inf:
        tops = [largest(wide(a)).item() for a in arrays if a.size]
        return float(xp.max(tops, initial=0.0))  # Python's max may drop a NaN
    flat = (wide(a).reshape(-1) for a in arrays)
    blocks = (a[i : i + BLOCK] for a in flat for i in range(0, a.size, BLOCK))
    with xp.errstate(over="ignore"):
        return math.fsum(float((xp.abs(b).astype(float) ** p).sum()) for b in blocks) ** (1 / p)


# The tile program: the result stays on the GPU, an array without dimensions


@triton_kernel
def _squares_kernel(x_ptr, sums_ptr, n, BLOCK: tl.constexpr):
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, at < n, other=0).to(tl.float32)
    tl.store(sums_ptr + block, tl.sum(x * x, 0))


@_norm.version("triton")
def _norm_triton(p, *arrays):
    dense = [xp.asarray(a, order="C") for a in arrays if a.size]
    if p != 2 or not dense or any(a.dtype == xp.float64 for a in dense):
        return _on_device(p, [xp.abs(wide(a)) for a in dense])
    counts = [-(-a.size // PROGRAM) for a in dense]
    sums, first = xp.empty_like(dense[0], xp.float32, shape=sum(counts)), 0
    for a, count in zip(dense, counts):
        _squares_kernel[(count,)](a, sums[first:], a.size, BLOCK=PROGRAM)
        first += count
    return xp.sqrt(sums.sum(dtype=xp.float64))


def _on_device(p, sizes):
    if p == math.inf:
        return xp.max(xp.stack([a.max() for a in sizes])) if sizes else 0.0
    parts = [(a**p).sum(dtype=xp.float64) for a in sizes]
    return xp.stack(parts).sum() ** (1 / p) if parts else 0.0
