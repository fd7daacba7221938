"""Cross-entropy of a linear layer without ever holding all its logits (n, V): rows in chunks.

A vocabulary's logits are the largest array of a language model, V / h times the hidden states; the
idea of working through them in chunks, with the gradients made at once, is Liger-Kernel's (Hsu et
al. 2024). A chunk's logits are made by a product, become softmax - one_hot in place and go into the
gradients by two more products. Backward scales these. That is exact for the hidden states' rows
under any cotangents of the losses; the weight's gradient is a sum over rows, so forward is told
which cotangents to `expect` up to one factor (1 for all by default; 0 for rows left out), and for
any others backward makes it anew: two products more.

The ladder, beside the products: the formula has all logits at once, in memory. In chunks, one text
for the CPU and for the GPU, the logits of a chunk are read twice and written twice; the products
are those of BLAS or of Triton, and the losses are cross_entropy's loop or tile program.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from . import arrays as xp
from . import cross_entropy
from .dispatch import formula
from .half_precision import cast, is_half, wide
from .matmul import matmul

LEAST = 512  # rows of a chunk: fewer would make poor products


class Saved(NamedTuple):
    """What backward needs besides forward's arguments."""

    dhidden: xp.ndarray  # (n, h), for cotangents of 1
    dweight: xp.ndarray  # (V, h), for those expected
    expect: xp.ndarray | None  # (n,)


# The formula


@formula
def forward(
    hidden: xp.ndarray, weight: xp.ndarray, target: xp.ndarray, expect: xp.ndarray | None = None
) -> tuple[xp.ndarray, Saved]:
    """hidden (n, h), weight (V, h), target (n,) in [0, V) -> losses (n,), and for backward.

    Temporary memory, if a chunk has r rows (`chunk_rows`): logits (r, V), products as large, and a
    chunk's hidden states; V · h more in float32 if the weight has 16 bits.
    """
    logits = xp.matmul(wide(hidden), wide(weight).T)  # (n, V)
    losses = cross_entropy.gradient_.formula(logits, target)
    dhidden = _rounded(xp.matmul(logits, wide(weight)), hidden)
    dweight = xp.matmul(logits.T, wide(_scaled(hidden, expect)))
    return losses, Saved(dhidden, _rounded(dweight, weight), expect)


@formula
def backward(
    g: xp.ndarray, saved: Saved, hidden: xp.ndarray, weight: xp.ndarray, target: xp.ndarray
) -> tuple[xp.ndarray, xp.ndarray]:
    """g (n,) -> the cotangents of hidden (n, h) and of weight (V, h).

    g () is the cotangent of the sum of the losses, each times what was expected of it.
    """
    if not g.ndim:
        g = xp.broadcast_to(g, len(hidden)) if saved.expect is None else g * saved.expect
    return _scaled(saved.dhidden, g), forward.formula(hidden, weight, target, g)[1].dweight


# Chunks, whose products and losses are the versions of other kernels


@forward.version("triton")
@forward.version("numba", dtypes=None)
def _forward_in_chunks(hidden, weight, target, expect=None):
    losses = xp.empty_like(wide(hidden[:0]), shape=len(hidden))
    dhidden, total = xp.empty_like(hidden, order="C"), _zeros(weight)
    for rows, logits in _chunks(hidden, weight):
        losses[rows] = cross_entropy.gradient_(logits, target[rows])
        matmul(logits, weight, out=dhidden[rows])
        _add(total, logits, _scaled(hidden[rows], None if expect is None else expect[rows]))
    return losses, Saved(dhidden, _rounded(total, weight), expect)


@backward.version("triton")
@backward.version("numba", dtypes=None)
def _backward_in_chunks(g, saved, hidden, weight, target):
    if not g.ndim:
        rows = xp.broadcast_to(g, len(hidden)) if saved.expect is None else saved.expect * g
        return _scaled(saved.dhidden, rows), _rounded(wide(saved.dweight) * wide(g), weight)
    dhidden, factor = _scaled(saved.dhidden, g), _factor(g, saved.expect)
    if factor is not None:
        return dhidden, _rounded(wide(saved.dweight) * factor, weight)
    total = _zeros(weight)
    for rows, logits in _chunks(hidden, weight):
        cross_entropy.gradient_(logits, target[rows])
        _add(total, logits, _scaled(hidden[rows], g[rows]))
    return dhidden, _rounded(total, weight)


def chunk_rows(n: int, h: int, v: int) -> int:
    """Rows of a chunk: as many as make its logits as large as all hidden states, at least LEAST."""
    return min(n, max(LEAST, -(-n * h // max(v, 1))))


def _chunks(hidden: xp.ndarray, weight: xp.ndarray) -> Iterator[tuple[slice, xp.ndarray]]:
    """Slices of rows and their logits, which the next chunk overwrites."""
    (n, h), v = hidden.shape, len(weight)
    step = chunk_rows(n, h, v)
    buffer = xp.empty_like(hidden, order="C", shape=(step, v))
    for start in range(0, n, max(step, 1)):
        rows = slice(start, min(start + step, n))
        logits = buffer[: rows.stop - start]
        yield rows, matmul(hidden[rows], weight.T, out=logits)


def _zeros(weight: xp.ndarray) -> xp.ndarray:
    return xp.zeros_like(weight, xp.float32 if is_half(weight) else weight.dtype, "C")


def _add(total: xp.ndarray, d: xp.ndarray, hidden: xp.ndarray) -> None:
    """total += dᵀ hidden: (V, h), (r, V), (r, h), in pieces of total no larger than d."""
    step = max(1, d.size // max(hidden.shape[1], 1))
    for start in range(0, len(total), step):
        part = total[start : start + step]
        part += matmul(d[:, start : start + step].T, hidden, out=xp.empty_like(part))


def _scaled(hidden: xp.ndarray, factors: xp.ndarray | None) -> xp.ndarray:
    if factors is None:
        return hidden
    x = wide(hidden)
    return _rounded(x * wide(factors).astype(x.dtype)[:, None], hidden)


def _rounded(x: xp.ndarray, like: xp.ndarray) -> xp.ndarray:
    return x if x.dtype == like.dtype else cast(x, like.dtype)


def _factor(g: xp.ndarray, expect: xp.ndarray | None) -> xp.ndarray | None:
    """The number by which g is what was expected, if there is one; on a GPU that is not asked."""
    if not g.size:
        return g.sum()
    if xp.on_gpu(g):  # to know it would be to wait for it
        return None
    expect = xp.ones_like(g) if expect is None else expect.astype(g.dtype)
    at = xp.abs(expect).argmax()
    factor = g[at] / xp.where(expect[at] == 0, 1, expect[at])
    slack = 4 * xp.finfo(g.dtype).eps * xp.abs(g)
    return factor if bool((xp.abs(expect * factor - g) <= slack).all()) else None
