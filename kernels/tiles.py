"""Cutting work into tiles: pieces small enough that all passes over one stay in cache."""

import contextlib
from collections.abc import Iterator

from . import arrays as xp

ELEMENTS = 1 << 16  # of one array: 256 KiB in float32, so four arrays fit a 1 MiB L2
ROW_ELEMENTS = 1 << 18  # of whole rows, 1 MiB in float32: what is done a row needs many rows to
# pay for a call, and L3 feeds long streams as fast
BROAD = 512  # numbers in a row, from which rows are worth a call each


def flat_tiles(*arrays: xp.ndarray, elements: int = ELEMENTS) -> Iterator[tuple[xp.ndarray, ...]]:
    """Matching pieces of contiguous arrays of equal size, as flat views."""
    flat = [_flat(a) for a in arrays]
    elements = max(flat[0].size, 1) if xp.on_gpu(flat[0]) else elements  # a GPU wants them whole
    for start in range(0, flat[0].size, elements):
        yield tuple(a[start : start + elements] for a in flat)


def row_tiles(rows: int, width: int, elements: int = ROW_ELEMENTS) -> Iterator[slice]:
    """Slices of whole rows, about `elements` elements each."""
    step = max(1, elements // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


@contextlib.contextmanager
def spreading(width: int) -> Iterator[None]:
    """Inside, a tile times a number a row, or times one row, costs half; width is the row's.

    If a row is shorter than NumPy's buffer of 8192 elements, what is spread is first copied into
    it. A smaller buffer leaves that copy out, for one call of the inner loop a row. A pass that
    changes the dtype needs the buffer: there should be none inside.
    """
    with xp.errstate():  # it brings back the size too
        if width >= BROAD:
            xp.setbufsize(16)
        yield


def added(factors: xp.ndarray, parts: xp.ndarray, out: xp.ndarray) -> None:
    """out[i] = Σ_k factors[i, k] · parts[k, i]: factors (n, k), k > 1, parts (k, n, h), out (n, h).

    A product of a row and a (k, h) matrix for each i: one pass, where NumPy's own products of rows
    and numbers take two passes a part.
    """
    xp.matmul(factors[:, None], parts.swapaxes(0, 1), out=out[:, None])


def without(gone: xp.ndarray, g: xp.ndarray, out: xp.ndarray) -> None:
    """out = g with zeros where `gone` (bools, which are overwritten) is true.

    It masks the bits, because a product of 0 and inf would be NaN.
    """
    bits, stays = f"i{out.itemsize}", gone.view(xp.int8)
    stays -= 1  # all bits are 1 where g stays
    xp.bitwise_and(stays, g.view(bits), out=out.view(bits))


def zeroed(g: xp.ndarray, gone: xp.ndarray) -> xp.ndarray:
    """g with zeros where `gone` is true; twice as fast as where(gone, 0, g)."""
    out = xp.empty_like(g)
    without(gone, g, out)
    return out


def _flat(array: xp.ndarray) -> xp.ndarray:
    # reshape of anything else would be a copy: what is written to it would be lost
    assert array.flags.c_contiguous, (
        f"a tile needs C-contiguous memory, not strides {array.strides}"
    )
    return array.reshape(-1)
