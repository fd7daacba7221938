"""The norm of many arrays, taken as one long vector.

The ladder for p = 2, n numbers of b bytes in all:

- formula: all arrays copied into one of float64, and its squares: it moves (5b + 32)n bytes.
- loop: an array after the other is read once, nb bytes. Its numbers are converted to float64 in
  registers (the square of a float32 number is exact there) and added, together with what the
  rounding of each addition lost. The sums of all arrays are added exactly.
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

BLOCK = 1 << 14  # numbers at a time, for other p than 2 and inf
LANES = 32
TERMS = 4  # enough for any squares of float32: 212 bits
PROGRAM = 4096  # elements a program: 8 a thread of 4 warps, four times


def vector_norm(arrays: Iterable[xp.ndarray], p: float) -> Any:
    """(Σ |x|ᵖ)^(1/p), p > 0; for p = inf the largest |x|.

    No rounding error grows with the size of the arrays. On the CPU for p = 2 the squares are added
    in float64 with what each addition lost, so the sum is exact before it is rounded once, and its
    bits do not depend on the order: not on how the numbers are spread over arrays or ranks. On a
    GPU the squares of float32 numbers are added in float32 within a block of PROGRAM numbers only;
    the result is an array without dimensions, and stays on the GPU.
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
    return exact(_square_sums(arrays))


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


def _square_sums(arrays: Iterable[xp.ndarray]) -> list[float]:
    return [total for a in arrays for total in square_sum(wide(a))]


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
def square_sum(x: xp.ndarray) -> list[float]:
    """Two numbers whose sum is Σ x² to 100 bits: the sum in float64, and what its rounding lost."""
    with xp.errstate(over="ignore"):
        return exact(xp.square(x.reshape(-1).astype(xp.float64)).tolist())[:2]


@formula
def largest(x: xp.ndarray) -> xp.ndarray:
    """The largest |x|, as an array of one number; NaN if there is one."""
    return xp.abs(x).max(initial=0).reshape(1)


# The loop


@helper()
def two_sum(a, b):
    """a + b, and exactly what its rounding lost (Knuth, The Art of Computer Programming, 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@loop
def add_squares(x: F[::1], lanes: OutDouble[:, ::1], sums: OutDouble[::1]):
    # lanes (2, LANES): sums of every LANES-th square, so that vector instructions serve, and what
    # their rounding lost; sums (2,): the same of all together
    lanes[:] = 0.0
    width = lanes.shape[1]
    whole = len(x) // width * width
    for i in range(0, whole, width):
        part = x[i : i + width]
        for j in range(width):
            number = numpy.float64(part[j])  # its square is exact, if it is a float32
            lanes[0, j], lost = two_sum(lanes[0, j], number * number)
            lanes[1, j] += lost
    for i in range(whole, len(x)):
        number = numpy.float64(x[i])
        lanes[0, i - whole], lost = two_sum(lanes[0, i - whole], number * number)
        lanes[1, i - whole] += lost
    total, rest = lanes[0, 0], lanes[1, 0]
    for j in range(1, width):
        total, lost = two_sum(total, lanes[0, j])
        rest += lost + lanes[1, j]
    sums[0], sums[1] = total, rest


@loop
def largest_number(x: F[::1], top: Out[::1]):
    # As integers: a comparison of floats is not vectorised, because NaN has no place in their order
    highest = ordered(0.0)
    for i in range(len(x)):
        highest = max(highest, ordered(abs(x[i])))
    top[0] = unordered(highest)


@square_sum.version("numba")
def _square_sum_loop(x):
    sums = numpy.empty(2)
    add_squares(x.reshape(-1), numpy.empty((2, LANES)), sums)
    total, rest = sums.tolist()
    return [total, rest if math.isfinite(total) else 0.0]


@largest.version("numba")
def _largest_loop(x):
    top = xp.empty_like(x, shape=1)
    largest_number(x.reshape(-1), top)
    return top


@_norm.version("numba", dtypes=None)
def _norm_loop(p, *arrays):
    if p == 2:
        return math.sqrt(math.fsum(_square_sums(arrays)))
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
