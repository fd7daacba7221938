"""How a product is cut: shapes, what operands look like to a GPU's kernels, and tiles by shape."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from . import arrays as xp
from .arrays import on_gpu
from .launch import interpreted, pointer

PADS = 128  # rows that share an operand repay copying it to where TMA can read it
INTERPRETED = (90, 2)  # what NumPy arrays are taken to lie on
START, SUM = 1500, 3000  # nanoseconds to fill a tile's stages and empty them; to launch a sum


# Shapes


def output(a: xp.ndarray, b: xp.ndarray, out: xp.ndarray | None) -> xp.ndarray:
    """Where a (..., m, k) times b (k, n) or (..., k, n) is written: out, if it has that shape."""
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: {a.shape} by {b.shape}: want (…, m, k) by (k, n) or (…, k, n)")
    batch = xp.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if b.ndim > 2 else a.shape[:-2]
    shape = (*batch, a.shape[-2], b.shape[-1])
    if out is None:  # order: that of a transposed a would make out's columns contiguous
        return xp.empty_like(a, xp.result_type(a, b), "C", shape=shape)
    if out.shape != shape:
        raise ValueError(f"matmul: {a.shape} by {b.shape} into {out.shape}: want {shape}")
    return out


def stacked(a: xp.ndarray, b: xp.ndarray, *outs: xp.ndarray | None) -> list:
    """Views (batches, rows, cols) of all: if b is one matrix, of one batch with all of a's rows."""
    if b.ndim == 2:
        a = a.reshape(1, math.prod(a.shape[:-1]), a.shape[-1])
        return [a, b[None], *(_stack(o, 1) for o in outs)]
    batch = xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    whole = [xp.broadcast_to(x, batch + x.shape[-2:]) for x in (a, b)]
    count = math.prod(batch)
    return [*(x.reshape(count, *x.shape[-2:]) for x in whole), *(_stack(o, count) for o in outs)]


def _stack(out: xp.ndarray | None, batches: int) -> xp.ndarray | None:
    if out is None:
        return None
    shape = batches, math.prod(out.shape[:-1]) // max(batches, 1), out.shape[-1]
    return out.reshape(shape, copy=False)  # what is written to a copy would be lost


# Operands


class Operand(NamedTuple):
    """A stack (batches, rows, cols) as kernels take it: one axis contiguous, the other by `ld`."""

    array: xp.ndarray
    transposed: bool  # the rows are contiguous
    ld: int
    step: int  # from a matrix to the next
    tma: bool  # 16 bytes divide the address and all strides
    vector: int  # elements that are loaded, and masked, together


def operand(x: xp.ndarray, reuse: int) -> Operand:
    """x (batches, rows, cols) itself if its rows or its columns are contiguous, else a copy.

    A copy too if TMA, which is there, cannot read it (16 bits, odd strides), and enough rows or
    columns of the other operand are multiplied with it: `reuse`, 0 if there is no TMA.
    """
    (_, rows, cols), (_, row, col) = x.shape, (stride // x.itemsize for stride in x.strides)
    plain = (col == 1 and cols > 1) or (cols == 1 and row != 1)
    if not (plain or row == 1 or rows == 1) and x.size:
        return operand(x.copy(), reuse)
    found = _described(x, not plain)
    if found.tma or x.itemsize != 2 or reuse < PADS:
        return found
    return _described(_padded(x) if plain else _padded(x.swapaxes(1, 2)).swapaxes(1, 2), not plain)


def target(x: xp.ndarray, boxed: bool) -> Operand:
    """x (batches, rows, cols) itself if its rows are contiguous and TMA, if wanted, can write it;
    else room for it."""
    if x.strides[2] == x.itemsize or x.shape[2] == 1:
        found = _described(x, transposed=False)
        if found.tma or not boxed:
            return found
    return _described(_room(x), transposed=False)


def _described(x: xp.ndarray, transposed: bool) -> Operand:
    (batches, *sides), vector = x.shape, 16 // x.itemsize
    step, *strides = (stride // x.itemsize for stride in x.strides)
    lines, width = sides[::-1] if transposed else sides
    ld = strides[transposed] if lines > 1 else _up(width, vector)  # it is arbitrary for one line
    step = step if batches > 1 else ld * lines
    even = ld % vector == 0 and step % vector == 0
    tma = even and min(ld, step) > 0 and pointer(x).data_ptr() % 16 == 0
    return Operand(x, transposed, ld, step, tma, vector if even and width % vector == 0 else 1)


def _padded(x: xp.ndarray) -> xp.ndarray:
    room = _room(x)
    room[...] = x
    return room


def _room(x: xp.ndarray) -> xp.ndarray:
    """Of x's shape, with rows that start at multiples of 16 bytes."""
    batches, rows, cols = x.shape
    whole = (batches, rows, _up(cols, 16 // x.itemsize))
    return xp.empty_like(x, order="C", shape=whole)[..., :cols]


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def widens(x: xp.ndarray) -> bool:
    """Whether tiles must be float32: the interpreter multiplies bfloat16's bits as integers."""
    return x.dtype.name == "bfloat16" and interpreted()


# Tiles


class Tile(NamedTuple):
    """A program's share of c, BM × BN, in steps of BK."""

    BM: int
    BN: int
    BK: int
    num_warps: int
    num_stages: int  # steps of a and b in flight
    parts: int  # in which c's tile is finished
    together: int  # programs that fit an SM
    rate: float  # products a nanosecond an SM, estimated: a tile's worth beside the others'


# tma, 16 bits on sm_90: c's tile takes 128 registers a thread, 256 columns are the widest wgmma,
# and four stages of 48 KiB leave room for half of c's tile on its way out; two programs of
# 128 × 128 hide each other's start and end. mma, 16 bits elsewhere: two programs of four warps an
# SM, one computes while the other waits. odd: numbers are loaded one at a time, which takes
# registers. ieee runs on the ordinary cores, in 128 registers so that 16 warps fit. tf32x3 keeps
# three parts of each operand in registers: small tiles, or they spill.
TILES = {
    "tma": (
        Tile(128, 256, 64, 8, 4, 2, 1, 2600), Tile(128, 128, 64, 4, 3, 2, 2, 2300),
        Tile(64, 128, 64, 4, 4, 2, 2, 1700), Tile(64, 64, 64, 4, 4, 1, 3, 1100),
    ),
    "mma": (
        Tile(128, 128, 32, 4, 4, 4, 2, 1150), Tile(64, 128, 32, 4, 4, 1, 3, 900),
        Tile(64, 64, 32, 4, 4, 1, 4, 700),
    ),
    "odd": (Tile(64, 64, 32, 4, 3, 1, 3, 200),),
    "tf32": (Tile(128, 128, 32, 8, 3, 1, 1, 600), Tile(64, 64, 32, 4, 4, 1, 3, 400)),
    "tf32x3": (Tile(64, 64, 32, 4, 3, 1, 3, 200),),
    "ieee": (Tile(128, 64, 16, 8, 3, 1, 2, 150), Tile(64, 64, 16, 4, 3, 1, 4, 120)),
}  # fmt: skip


def has_tma(a: xp.ndarray) -> bool:
    """Whether products of such numbers, on such a machine, go by TMA if strides allow it."""
    return a.itemsize == 2 and 90 <= machine(a)[0] < 110


def plan(
    a: Operand, b: Operand, out: Operand, pre: Operand | None, precision: str
) -> tuple[str, Tile, int, int]:
    """Kind of tile, tile, slices of k, and SMs, for a (batches, m, k) and b (batches, k, n)."""
    (batches, m, k), n = a.array.shape, b.array.shape[2]
    every = [a, b, out] if pre is None else [a, b, out, pre]
    kind = precision
    if a.array.itemsize == 2:
        alike = pre is None or pre.array.dtype == out.array.dtype  # they leave by the same memory
        boxed = k and alike and all(x.tma for x in every) and has_tma(a.array)
        kind = "tma" if boxed else "odd" if min(x.vector for x in every) == 1 else "mma"
    if kind not in TILES:
        raise ValueError(f"precision {precision!r}: want ieee, tf32 or tf32x3")
    sms = machine(a.array)[1]
    return kind, *choose(kind, batches, m, n, k, sms), sms


@functools.lru_cache(maxsize=1024)
def choose(kind: str, batches: int, m: int, n: int, k: int, sms: int) -> tuple[Tile, int]:
    """The tile, and the number of slices of k, that should take least time on so many SMs."""
    splits = [s for s in (1, 2, 4, 8, 16) if s == 1 or (batches == 1 and k % (64 * s) == 0)]
    return min(
        ((tile, s) for tile in TILES[kind] for s in splits),
        key=lambda choice: _nanoseconds(choice[0], choice[1], batches, m, n, k, sms),
    )


def _nanoseconds(tile: Tile, splits: int, batches: int, m: int, n: int, k: int, sms: int) -> float:
    tiles = batches * splits * math.ceil(m / tile.BM) * math.ceil(n / tile.BN)
    one = START + tile.BM * tile.BN * _up(math.ceil(k / splits), tile.BK) / tile.rate
    back = SUM + splits * m * n * 8 / (sms * 10) if splits > 1 else 0  # 10 bytes a ns an SM
    return math.ceil(tiles / sms) * one + back


def machine(array: Any) -> tuple[int, int]:
    """Compute capability, and number of SMs, of the GPU that the array is on."""
    return _gpu(array.device.id) if on_gpu(array) else INTERPRETED


@functools.cache
def _gpu(index: int) -> tuple[int, int]:
    import cupy

    device = cupy.cuda.Device(index)
    return int(device.compute_capability), device.attributes["MultiProcessorCount"]
