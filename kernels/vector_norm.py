"""The norm of many arrays, taken as one long vector.

In NumPy block by block, summed exactly. In Triton a program adds the squares of a block, and the
sums of all blocks of all arrays are added in float64: the arrays are read once, and no number
leaves the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .halves import wide
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

    The blocks of an array are summed in float64, exactly: no rounding grows with the size. Of
    arrays on a GPU it is an array there, without dimensions.
    Temporary memory: three BLOCKs in float64.
    """
    return _norm(p, *arrays)


def squares(arrays: Iterable[xp.ndarray]) -> list[float]:
    """A few numbers whose exact sum is that of all squares, block by block as vector_norm's.

    So ranks that have some arrays each can add up theirs, and get the bits of one that has all.
    """
    arrays = list(arrays)
    if any(map(xp.on_gpu, arrays)):
        return [float(vector_norm(arrays, 2.0)) ** 2]
    return exact(float(xp.dot(b, b)) for b in _blocks(arrays))


def exact(numbers: Iterable[float]) -> list[float]:
    """TERMS numbers that have the exact sum of others: it rounded, then what that left, …

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
        return math.sqrt(math.fsum(float(xp.dot(b, b)) for b in blocks))
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
