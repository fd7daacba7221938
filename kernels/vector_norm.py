"""The norm of many arrays, taken as one long vector.

NumPy works block by block: it converts a block to float64 (the square of a float32 number is exact
there), adds the squares, and adds the sums of the blocks exactly. In Triton each program adds the
squares of a block, and the sums of all blocks of all arrays are added in float64: the arrays are
read once, and no number leaves the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .half_precision import wide
from .launch import triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 1 << 14
TERMS = 4  # enough for any squares of float32: 212 bits
PROGRAM = 4096  # elements a program: 8 a thread of 4 warps, four times


def naive(arrays: Iterable[xp.ndarray], p: float) -> float:
    """One vector in float64, and its norm."""
    parts = [xp.abs(wide(a).reshape(-1)) for a in arrays if a.size]
    if not parts:
        return 0.0
    x = xp.concatenate(parts).astype(xp.float64)
    with xp.errstate(over="ignore"):
        return float(x.max() if p == math.inf else (x**p).sum() ** (1 / p))


def vector_norm(arrays: Iterable[xp.ndarray], p: float) -> Any:
    """(Σ |x|ᵖ)^(1/p), p > 0; for p = inf the largest |x|.

    No rounding error grows with the size of the arrays. On the CPU every sum is taken in float64,
    and the sums of blocks are added exactly: for p = 2 the relative error is below BLOCK · 2⁻⁵³ =
    2·10⁻¹², in whatever order a processor's dot product adds the numbers of one block. (A dot
    product in float32 would be wrong by 4·10⁻⁶ with OpenBLAS's kernels for AVX2.) On a GPU the
    squares of float32 numbers are added in float32 within a block of PROGRAM numbers only; the
    result is an array without dimensions, and stays on the GPU.
    Temporary memory: one BLOCK in float64 for p = 2, otherwise three.
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
    return exact(map(_square, _blocks(arrays)))


def _square(block: xp.ndarray) -> float:
    """Σ x² of a block. In float32 the sum's error would depend on the processor's dot product."""
    double = block.astype(xp.float64, copy=False)
    return float(xp.dot(double, double))


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


def _blocks(arrays: Iterable[xp.ndarray]) -> Iterator[xp.ndarray]:
    flat = (wide(a).reshape(-1) for a in arrays)
    return (a[i : i + BLOCK] for a in flat for i in range(0, a.size, BLOCK))


@dispatched
def _norm(p: float, *arrays: xp.ndarray) -> float:
    blocks = _blocks(arrays)
    if p == math.inf:
        return float(xp.max([xp.abs(b).max() for b in blocks], initial=0))  # max() may drop a nan
    if p == 2:
        return math.sqrt(math.fsum(map(_square, blocks)))
    with xp.errstate(over="ignore"):
        return math.fsum(float((xp.abs(b).astype(float) ** p).sum()) for b in blocks) ** (1 / p)


@_norm.version("naive")
def _norm_naive(p, *arrays):
    return naive(arrays, p)


# The same on a GPU: the result stays there, an array without dimensions


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
