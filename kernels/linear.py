"""y = x Wᵀ + b and its cotangents.

The ladder:

- formula: the product goes to memory, and is read and written again when the bias is added.
- loop: BLAS multiplies ROWS rows at a time, and the bias is added while they are in the cache. For
  few rows BLAS is faster when the output's units are its rows.
- tile program: matmul's, which adds the bias before a tile is written.
"""

from __future__ import annotations

from . import arrays as xp
from .dispatch import formula
from .elementary import ROWS as SUMMED
from .half_precision import is_half
from .loops import F, Out, loop
from .matmul import column_sums, matmul
from .product import MULTIPLICATIONS, product, turned

ROWS = 256
FEW = 64  # rows up to which the output's units serve a GEMM better as its rows


# The formula


@formula
def forward(x: xp.ndarray, weight: xp.ndarray, bias: xp.ndarray | None) -> xp.ndarray:
    """x (n, in), weight (out, in), bias (out,) -> (n, out)."""
    y = xp.matmul(x, weight.T)
    return y if bias is None else y + bias


@formula
def backward_input(g: xp.ndarray, weight: xp.ndarray) -> xp.ndarray:
    """(n, out) -> (n, in)."""
    return xp.matmul(g, weight)


@formula
def backward_weight(g: xp.ndarray, x: xp.ndarray) -> xp.ndarray:
    """(n, out), (n, in) -> (out, in)."""
    return xp.matmul(g.T, x)


@formula
def backward_bias(g: xp.ndarray) -> xp.ndarray:
    """(n, out) -> (out,)."""
    return g.sum(0)


@formula
def multiply(a: xp.ndarray, b: xp.ndarray) -> xp.ndarray:
    """(..., m, k) @ (..., k, n), leading sizes broadcast: there is nothing to fuse."""
    return xp.matmul(a, b)


# On the CPU: BLAS in blocks, of arrays of every dtype


@forward.version("numba", dtypes=None)
def _forward_blocks(x, weight, bias):
    """Temporary memory: none, but for 2 to FEW rows an array like the result."""
    y = xp.empty((len(x), len(weight)), xp.result_type(x, weight))
    if _few(x, weight):
        return xp.add(xp.matmul(weight, x.T).T, 0 if bias is None else bias, out=y)
    if bias is None:
        return xp.matmul(x, weight.T, out=y)
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        xp.matmul(x[rows], weight.T, out=y[rows])
        y[rows] += bias
    return y


@backward_input.version("numba", dtypes=None)
def _backward_input_blocks(g, weight):
    return product(g, weight)


@backward_weight.version("numba", dtypes=None)
def _backward_weight_blocks(g, x):
    """Temporary memory: none, but for 2 to FEW rows two like g."""
    return product(turned(g), x) if _few(g, x) else xp.matmul(g.T, x)


def _few(x: xp.ndarray, other: xp.ndarray) -> bool:
    return 1 < len(x) <= FEW and len(x) * other.size > MULTIPLICATIONS


# The loop: sums of columns


@loop
def sums_of_columns(g: F[:, ::1], part: Out[::1], total: Out[::1]):
    # part (out,): the sum of up to SUMMED rows, so that the rounding error grows with
    # n / SUMMED + SUMMED; that of NumPy's sum grows with n
    n, units = g.shape
    total[:] = 0.0
    for start in range(0, n, SUMMED):
        part[:] = 0.0
        for i in range(start, min(start + SUMMED, n)):
            for j in range(units):
                part[j] += g[i, j]
        for j in range(units):
            total[j] += part[j]


@backward_bias.version("numba")
def _backward_bias_loop(g):
    part, total = (xp.empty_like(g, shape=g.shape[1]) for _ in range(2))
    sums_of_columns(g, part, total)
    return total


# The tile program


@forward.version("triton")
def _forward_triton(x, weight, bias):
    return matmul(x, weight.T, bias)


@backward_input.version("triton")
def _backward_input_triton(g, weight):
    return matmul(g, weight)


@backward_weight.version("triton")
def _backward_weight_triton(g, x):
    return matmul(g.T, x)


@backward_bias.version("triton")
def _backward_bias_triton(g):
    return column_sums(g) if is_half(g) else g.sum(0)


@multiply.version("triton")
def _multiply_triton(a, b):
    return matmul(a, b)
