"""Products of matrices in pieces that BLAS multiplies as they lie.

A GEMM first packs its operands, which pays only for large ones. OpenBLAS has AVX-512 kernels that
leave this out, and takes them for products of up to 100³ multiplications: on one thread they are
an eighth faster than its GEMM, for a few dozen rows a quarter.
"""

import functools
from typing import Any

import numpy as np

MULTIPLICATIONS = 100**3
DEPTH = 2048  # no more products are added up to one number
COLUMNS = 64  # of a piece: four registers of float32
ARCHITECTURES = {"SkylakeX", "Cooperlake", "SapphireRapids"}


@functools.cache
def _libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


def unpacked() -> bool:
    """Whether pieces are faster: with more threads BLAS shares out whole products alone."""
    libraries = _libraries()
    return bool(libraries) and all(
        lib.num_threads == 1 and getattr(lib, "architecture", "") in ARCHITECTURES
        for lib in libraries
    )


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """a (..., m, k) @ b (..., k, n) of the same leading sizes, into out (..., m, n)."""
    (*lead, m, k), n = a.shape, b.shape[-1]
    if out is None:
        out = np.empty_like(a, shape=(*lead, m, n))
    width = min(n, COLUMNS)
    height = min(m, MULTIPLICATIONS // max(1, k * width))
    straight = a.strides[-1] == b.strides[-1] == a.itemsize
    small = m * k * n <= MULTIPLICATIONS or height < 4 or k > DEPTH
    if small or not straight or not unpacked():
        return np.matmul(a, b, out=out)
    return _in_pieces(a, b, out, height if height == m else height // 4 * 4, width)


def _in_pieces(a, b, out, height, width):
    """Pieces (height, width) of out, and what is left below and to the right of them."""
    (*lead, m, k), n = a.shape, b.shape[-1]
    down, across = m // height, n // width
    rows, columns = down * height, across * width
    np.matmul(
        a[..., :rows, :].reshape(*lead, down, 1, height, k),
        b[..., :columns].reshape(*lead, 1, k, across, width).swapaxes(-3, -2),
        out=out[..., :rows, :columns].reshape(*lead, down, height, across, width).swapaxes(-3, -2),
    )
    if rows < m:
        product(a[..., rows:, :], b[..., :columns], out[..., rows:, :columns])
    if columns < n:
        product(a, b[..., columns:], out[..., columns:])
    return out


def lines(n: int) -> int:
    """n elements or more, an odd number of cache lines of float32.

    Rows a power of two apart push each other out of the cache.
    """
    return (-(-n // 16) | 1) * 16


def turned(a: np.ndarray) -> np.ndarray:
    """a (..., m, n) -> a copy of its transpose (..., n, m), its rows at odd distances."""
    *lead, m, n = a.shape
    between = np.empty_like(a, shape=(*lead, m, lines(n)))[..., :n]
    between[...] = a
    turned = np.empty_like(a, shape=(*lead, n, lines(m)))[..., :m]
    turned[...] = between.swapaxes(-1, -2)
    return turned
