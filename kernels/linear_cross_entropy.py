"""Cross-entropy of a linear layer without ever holding all its logits (n, V): rows in chunks.

A vocabulary's logits are the largest array of a language model, V / h times the hidden states; the
idea of working through them in chunks, with the gradients made at once, is Liger-Kernel's (Hsu et
al. 2024). A chunk's logits are made by a product, become softmax - one_hot in place and go into the
gradients by two more products. Backward scales these. That is exact for the hidden states' rows
under any cotangents of the losses; the weight's gradient is a sum over rows, so forward is told
which cotangents to `expect` up to one factor (1 for all by default; 0 for rows left out), and for
any others backward makes it anew: two products more.

The ladder: naive, all logits at once; in chunks, the same text on two machines, whose products and
whose losses are NumPy's or Triton's. Memory traffic of a chunk beside its products': its logits
read twice and written once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from . import arrays as np
from . import cross_entropy
from .dispatch import dispatched
from .halves import cast, is_half, wide
from .matmul import matmul

LEAST = 512  # rows of a chunk: fewer would make poor products


class Saved(NamedTuple):
    """What backward needs besides forward's arguments."""

    dhidden: np.ndarray  # (n, h), for cotangents of 1
    dweight: np.ndarray  # (V, h), for those expected
    expect: np.ndarray | None  # (n,)


def naive(hidden: np.ndarray, weight: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The formula: all logits, then their losses."""
    return cross_entropy.naive(hidden @ weight.T, target)


@dispatched
def forward(
    hidden: np.ndarray, weight: np.ndarray, target: np.ndarray, expect: np.ndarray | None = None
) -> tuple[np.ndarray, Saved]:
    """hidden (n, h), weight (V, h), target (n,) in [0, V) -> losses (n,), and for backward.

    Temporary memory, of which `chunk_rows` gives r: logits (r, V), products as large, and a chunk's
    hidden states; V · h more in float32 if the weight has 16 bits.
    """
    losses = np.empty_like(wide(hidden[:0]), shape=len(hidden))
    dhidden, total = np.empty_like(hidden, order="C"), _zeros(weight)
    for rows, logits in _chunks(hidden, weight):
        losses[rows] = cross_entropy.gradient_(logits, target[rows])
        matmul(logits, weight, out=dhidden[rows])
        _add(total, logits, _scaled(hidden[rows], None if expect is None else expect[rows]))
    return losses, Saved(dhidden, _rounded(total, weight), expect)


@dispatched
def backward(
    g: np.ndarray, saved: Saved, hidden: np.ndarray, weight: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """g (n,) -> the cotangents of hidden (n, h) and of weight (V, h).

    g () is the cotangent of the sum of the losses, each times what was expected of it.
    """
    if not g.ndim:
        rows = np.broadcast_to(g, len(hidden)) if saved.expect is None else saved.expect * g
        return _scaled(saved.dhidden, rows), _rounded(wide(saved.dweight) * wide(g), weight)
    dhidden, factor = _scaled(saved.dhidden, g), _factor(g, saved.expect)
    if factor is not None:
        return dhidden, _rounded(wide(saved.dweight) * factor, weight)
    total = _zeros(weight)
    for rows, logits in _chunks(hidden, weight):
        cross_entropy.gradient_(logits, target[rows])
        _add(total, logits, _scaled(hidden[rows], g[rows]))
    return dhidden, _rounded(total, weight)


forward.version("triton")(forward.numpy)  # the products and the losses in it are Triton's then
backward.version("triton")(backward.numpy)


@forward.version("naive")
def _forward_naive(hidden, weight, target, expect=None):
    losses = naive(hidden, weight, target)
    return losses, Saved(np.zeros_like(hidden), np.zeros_like(weight), expect)


@backward.version("naive")
def _backward_naive(g, saved, hidden, weight, target):
    if not g.ndim:
        g = g * (np.ones_like(hidden[:, 0]) if saved.expect is None else saved.expect)
    logits = hidden @ weight.T
    e = np.exp(logits - logits.max(1, keepdims=True))
    d = e / e.sum(1, keepdims=True)
    d[np.arange(len(target)), target] -= 1
    d *= g[:, None]
    return d @ weight, d.T @ hidden


def chunk_rows(n: int, h: int, v: int) -> int:
    """Rows of a chunk: as many as make its logits as large as all hidden states, at least LEAST."""
    return min(n, max(LEAST, -(-n * h // max(v, 1))))


def _chunks(hidden: np.ndarray, weight: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of rows and their logits, which the next chunk overwrites."""
    (n, h), v = hidden.shape, len(weight)
    step = chunk_rows(n, h, v)
    buffer = np.empty_like(hidden, order="C", shape=(step, v))
    for start in range(0, n, max(step, 1)):
        rows = slice(start, min(start + step, n))
        logits = buffer[: rows.stop - start]
        yield rows, matmul(hidden[rows], weight.T, out=logits)


def _zeros(weight: np.ndarray) -> np.ndarray:
    return np.zeros_like(weight, np.float32 if is_half(weight) else weight.dtype, "C")


def _add(total: np.ndarray, d: np.ndarray, hidden: np.ndarray) -> None:
    """total += dᵀ hidden: (V, h), (r, V), (r, h), in pieces of total no larger than d."""
    step = max(1, d.size // max(hidden.shape[1], 1))
    for start in range(0, len(total), step):
        part = total[start : start + step]
        part += matmul(d[:, start : start + step].T, hidden, out=np.empty_like(part))


def _scaled(hidden: np.ndarray, factors: np.ndarray | None) -> np.ndarray:
    if factors is None:
        return hidden
    x = wide(hidden)
    return _rounded(x * wide(factors).astype(x.dtype)[:, None], hidden)


def _rounded(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    return x if x.dtype == like.dtype else cast(x, like.dtype)


def _factor(g: np.ndarray, expect: np.ndarray | None) -> np.ndarray | None:
    """The number by which g is what was expected, if there is one; on a GPU that is not asked."""
    if not g.size:
        return g.sum()
    if np.on_gpu(g):  # to know it would be to wait for it
        return None
    expect = np.ones_like(g) if expect is None else expect.astype(g.dtype)
    at = np.abs(expect).argmax()
    factor = g[at] / np.where(expect[at] == 0, 1, expect[at])
    slack = 4 * np.finfo(g.dtype).eps * np.abs(g)
    return factor if bool((np.abs(expect * factor - g) <= slack).all()) else None
