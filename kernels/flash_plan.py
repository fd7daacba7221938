"""How flash attention is cut for a GPU: tiles by kernel and size of heads, arrays as operands."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from . import arrays as xp
from .launch import next_power_of_2, pointer
from .matmul_plan import has_tma, widens

LOG2E = math.log2(math.e)
SERVED = ("float32", "float16", "bfloat16")
WIDEST = 256  # head


class Tile(NamedTuple):
    """BM queries by BN keys."""

    BM: int
    BN: int
    num_warps: int
    num_stages: int  # tiles in flight of what a program goes along


# By kind, kernel, and size of heads (smaller ones use the next). What stays in registers decides:
# scores, their slopes, sums, and 64-bit addresses unless TMA loads.
# box, 16 bits by TMA (Hopper): 128 queries at a time read k and v seldom enough for L2; of small
# heads two programs of four warps fit an SM, one makes exponentials while the other multiplies.
# dk and dv are two tiles of sums, so that fewer queries meet the keys at once; of the widest heads
# they would spill, and go as half do. half, 16 bits by addresses (Ampere, odd strides): at most
# 100 KiB of shared memory up to 128 numbers a head, as smaller GPUs have. masked: the same, with
# room for a tile of the mask. single, float32 on the ordinary cores: small tiles, or they spill.
TILES = {
    "box": {
        "forward": {64: Tile(128, 64, 4, 3), 128: Tile(128, 128, 8, 2), 256: Tile(128, 64, 8, 2)},
        "keys": {64: Tile(64, 128, 8, 3), 128: Tile(64, 128, 8, 2)},
        "queries": {128: Tile(128, 64, 8, 3), 256: Tile(64, 64, 8, 2)},
    },
    "half": {
        "forward": {64: Tile(128, 64, 4, 3), 128: Tile(128, 32, 8, 3), 256: Tile(64, 32, 8, 2)},
        "keys": {32: Tile(64, 64, 4, 3), 64: Tile(32, 128, 8, 3), 128: Tile(32, 64, 8, 3),
                 256: Tile(32, 32, 8, 2)},
        "queries": {32: Tile(64, 64, 4, 3), 64: Tile(128, 64, 8, 2), 128: Tile(64, 64, 8, 2),
                    256: Tile(64, 32, 8, 2)},
    },
    "masked": {
        "forward": {64: Tile(64, 64, 4, 3), 128: Tile(128, 32, 8, 3), 256: Tile(64, 32, 8, 2)},
        "keys": {64: Tile(16, 64, 4, 2), 128: Tile(32, 64, 8, 2), 256: Tile(32, 32, 8, 2)},
        "queries": {32: Tile(64, 64, 4, 3), 64: Tile(128, 64, 8, 2), 128: Tile(64, 64, 8, 2),
                    256: Tile(64, 32, 8, 2)},
    },
    "single": {
        "forward": {64: Tile(64, 32, 8, 2), 128: Tile(32, 32, 8, 1), 256: Tile(16, 32, 8, 1)},
        "keys": {64: Tile(32, 32, 8, 3), 256: Tile(16, 32, 8, 1)},
        "queries": {64: Tile(32, 32, 8, 2), 128: Tile(32, 16, 8, 2), 256: Tile(32, 16, 8, 1)},
    },
}  # fmt: skip


def choose(kernel: str, width: int, kind: str) -> tuple[str, Tile]:
    """The kind of tile, and the tile, for heads of `width` numbers."""
    fits = [tile for most, tile in TILES[kind][kernel].items() if width <= most]
    return (kind, fits[0]) if fits else choose(kernel, width, "half")


def kind_of(boxes: list[xp.ndarray], mask: xp.ndarray | None) -> str:
    """For arrays that a program goes along, which TMA may load."""
    if boxes[0].itemsize > 2:
        return "single"
    if mask is not None:
        return "masked"
    return "box" if has_tma(boxes[0]) and all(map(_boxed, boxes)) else "half"


def _boxed(x: xp.ndarray) -> bool:
    """Whether 16 bytes divide address and strides, as TMA wants it."""
    steps = [stride for n, stride in zip(x.shape[:3], x.strides) if n > 1]
    even = all(step > 0 and step % 16 == 0 for step in steps)
    return x.size > 0 and even and pointer(x).data_ptr() % 16 == 0


def served(q: xp.ndarray, v: xp.ndarray) -> bool:
    return q.dtype.name in SERVED and 0 < max(q.shape[3], v.shape[3]) <= WIDEST


def width(n: int) -> int:
    """Numbers of a head as a tile has them: a power of 2, at least the 16 of an instruction."""
    return max(16, next_power_of_2(n))


# Operands


def rows(x: xp.ndarray) -> xp.ndarray:
    """x itself if its rows are contiguous, else a copy."""
    return x if _in_rows(x) else x.copy("C")


def room(x: xp.ndarray) -> xp.ndarray:
    """Where a kernel may write what belongs into x: x itself if its rows are contiguous."""
    return x if _in_rows(x) else xp.empty_like(x, order="C")


def _in_rows(x: xp.ndarray) -> bool:
    return x.strides[-1] == x.itemsize or x.shape[-1] == 1


def settle(homes: list[xp.ndarray], targets: list[xp.ndarray]) -> None:
    for home, target in zip(homes, targets):
        if home is not target:
            target[...] = home


def strides(*arrays: xp.ndarray | None) -> list[int]:
    """The strides of batch, head and row of each array, in numbers."""
    found = [(0, 0, 0) if x is None else x.strides[:3] for x in arrays]
    return [
        step // x.itemsize if x is not None else 0 for x, of in zip(arrays, found) for step in of
    ]


def operand(x: xp.ndarray, kind: str, count: int, wide: int) -> Any:
    """What a program goes along: for TMA a descriptor of boxes of `count` rows, `wide` numbers."""
    if kind != "box":
        return x
    import triton.language as language
    from triton.tools.tensor_descriptor import TensorDescriptor

    base = pointer(x)
    base.dtype = getattr(language, x.dtype.name)
    steps = [8 if n == 1 else step // x.itemsize for n, step in zip(x.shape[:3], x.strides)]
    return TensorDescriptor(base, list(x.shape), [*steps, 1], [1, 1, count, wide])


def constants(q: xp.ndarray, v: xp.ndarray, causal: bool, kind: str, tile: Tile) -> dict[str, Any]:
    """Those that all kernels have, and how they are compiled."""
    d, e = q.shape[3], v.shape[3]
    return {
        "CAUSAL": causal, "PRECISION": "ieee", "WIDEN": widens(q), "BOXED": kind == "box",
        "D": d, "E": e, "BD": width(d), "BE": width(e), "BM": tile.BM, "BN": tile.BN,
        "num_warps": tile.num_warps, "num_stages": tile.num_stages,
    }  # fmt: skip
