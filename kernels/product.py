"""Products of matrices in pieces that BLAS multiplies as they lie.

A GEMM first packs its operands, which pays only for large ones. OpenBLAS has AVX-512 kernels that
leave this out, and takes them for products of up to 100³ multiplications: on one thread they are
an eighth faster than its GEMM, for a few dozen rows a quarter. They load 64 bytes of b at a time:
where these lie across two cache lines, an Intel core is a third slower than with its GEMM.
"""

import functools
import math
import platform
from pathlib import Path
from typing import Any

from . import arrays as xp
from . import blas

MULTIPLICATIONS = 100**3
DEPTH = 1024  # of a piece: deeper products are added up
COLUMNS = 64  # of a piece: four registers of float32
LINE = 64  # bytes of a cache line
FEW = 16  # rows of a, up to which pieces are faster however b lies
ARCHITECTURES = {"SkylakeX", "Cooperlake", "SapphireRapids"}


@functools.cache
def _libraries() -> list[Any]:
    """The BLAS libraries, if all of them have such kernels."""
    from threadpoolctl import ThreadpoolController  # at the first call, not at import

    blas.settle()  # before threads are counted
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    known = all(getattr(lib, "architecture", "") in ARCHITECTURES for lib in found)
    return found if known else []


def unpacked() -> bool:
    """Whether pieces are faster: with more threads BLAS shares out whole products alone."""
    libraries = _libraries()
    return bool(libraries) and all(lib.get_num_threads() == 1 for lib in libraries)


@functools.cache
def _is_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "GenuineIntel" in platform.processor()


def product(
    a: xp.ndarray, b: xp.ndarray, out: xp.ndarray | None = None, lined: bool = False
) -> xp.ndarray:
    """a (..., m, k) @ b (..., k, n) of the same leading sizes, into out (..., m, n).

    lined: b starts on a cache line, as what `on_lines` makes does. Where it lies by chance is not
    asked, for sums are of other bits in pieces: the same sizes always have the same.
    Temporary memory: none, but for k over DEPTH an array like out.
    """
    (*lead, m, k), n = a.shape, b.shape[-1]
    if out is None:
        out = xp.empty_like(a, shape=(*lead, m, n))
    straight = not xp.on_gpu(a) and a.strides[-1] == b.strides[-1] == a.itemsize
    large = m * k * n > MULTIPLICATIONS and m >= 4
    if straight and large and unpacked() and (m <= FEW or _loads_well(b, lined)):
        return _in_layers(a, b, out) if k > DEPTH else _in_pieces(a, b, out)
    return xp.matmul(a, b, out=out)


def _loads_well(b: xp.ndarray, lined: bool) -> bool:
    return not _is_intel() or (lined and b.strides[-2] % LINE == 0)


def _in_layers(a: xp.ndarray, b: xp.ndarray, out: xp.ndarray) -> xp.ndarray:
    """The sum of products of DEPTH columns of a with as many rows of b."""
    product(a[..., :DEPTH], b[..., :DEPTH, :], out, lined=True)
    part = xp.empty_like(out)
    for start in range(DEPTH, a.shape[-1], DEPTH):
        layer = slice(start, start + DEPTH)
        out += product(a[..., layer], b[..., layer, :], part, lined=True)
    return out


def _in_pieces(a: xp.ndarray, b: xp.ndarray, out: xp.ndarray) -> xp.ndarray:
    """Pieces of out as one product of stacks, and what is left below and to the right of them."""
    (*lead, m, k), n = a.shape, b.shape[-1]
    height, width = _piece(m, k, n)
    down, across = m // height, n // width
    rows, columns = down * height, across * width
    if rows < m:
        product(a[..., rows:, :], b, out[..., rows:, :], lined=True)
        _in_pieces(a[..., :rows, :], b, out[..., :rows, :])
    elif columns < n:
        product(a, b[..., columns:], out[..., columns:], lined=True)
        _in_pieces(a, b[..., :columns], out[..., :columns])
    else:
        xp.matmul(
            a.reshape(*lead, down, 1, height, k),
            b.reshape(*lead, 1, k, across, width).swapaxes(-3, -2),
            out=out.reshape(*lead, down, height, across, width).swapaxes(-3, -2),
        )
    return out


@functools.cache
def _piece(m: int, k: int, n: int) -> tuple[int, int]:
    """Its sizes: all m rows, or a multiple of 4 that leaves few of them over; COLUMNS."""
    width = min(n, COLUMNS)
    most = MULTIPLICATIONS // (k * width)
    if m <= most:
        return m, width
    most = most // 4 * 4
    return next((h for h in range(most, most // 2, -4) if m % h == 0), most), width


def lines(n: int) -> int:
    """n elements or more, an odd number of cache lines of float32.

    Rows a power of two apart push each other out of the cache.
    """
    return (-(-n // 16) | 1) * 16


def on_lines(like: xp.ndarray, *shape: int) -> xp.ndarray:
    """An empty array of the kind of `like` that starts on a cache line."""
    if xp.on_gpu(like):
        return xp.empty_like(like, shape=shape)
    n = math.prod(shape)
    whole = xp.empty_like(like, shape=n + LINE // like.itemsize)
    start = -whole.__array_interface__["data"][0] % LINE // like.itemsize
    return whole[start : start + n].reshape(shape)


def turned(a: xp.ndarray) -> xp.ndarray:
    """a (..., m, n) -> a copy of its transpose (..., n, m), on lines, rows at odd distances."""
    *lead, m, n = a.shape
    between = xp.empty_like(a, shape=(*lead, m, lines(n)))[..., :n]
    between[...] = a
    turned = on_lines(a, *lead, n, lines(m))[..., :m]
    turned[...] = between.swapaxes(-1, -2)
    return turned
