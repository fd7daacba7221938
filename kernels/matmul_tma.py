"""Products of 16 bits on Hopper: tiles filled by the tensor memory accelerator, for wgmma.

One thread asks for a box of a matrix by a descriptor, made by the host from address, shape and
strides; what lies outside the matrix arrives as zeros, and is not stored.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .launch import pointer, triton_kernel
from .matmul_plan import Operand, Tile, widens
from .matmul_tiles import GROUP, activate, biased, parted, place

tl: Any = None  # Triton's language, once a kernel is launched

SHARED = 227 << 10  # bytes of an SM's shared memory


@triton_kernel
def _matmul_tma_kernel(
    a, b, bias_ptr, c, pre, batches, m, n, k,
    A_T: tl.constexpr, B_T: tl.constexpr, ACTIVATION: tl.constexpr, WIDEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """Programs stay for several tiles. The two loops are one (flatten): the next tile's first
    loads are under way while this one is finished, in PARTS, as its way out takes shared memory.
    """
    WIDE: tl.constexpr = BN // PARTS
    tiles = batches * tl.cdiv(m, BM) * tl.cdiv(n, BN)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
        batch, row, col = place(tile, m, n, BM, BN, GROUP)
        acc = tl.zeros((BM, BN), tl.float32)
        for done in range(0, k, BK):
            if A_T:
                x = a.load([batch, done, row]).reshape(BK, BM).T
            else:
                x = a.load([batch, row, done]).reshape(BM, BK)
            if B_T:
                y = b.load([batch, col, done]).reshape(BN, BK).T
            else:
                y = b.load([batch, done, col]).reshape(BK, BN)
            if WIDEN:
                x, y = x.to(tl.float32), y.to(tl.float32)
            acc = tl.dot(x, y, acc)
        parts = parted(acc, BM, BN, PARTS)
        for part in tl.static_range(PARTS):
            at = col + part * WIDE
            z = biased(parts[part], bias_ptr, at, n, WIDE)
            if pre is not None:
                pre.store([batch, row, at], z.to(pre.dtype).reshape(1, BM, WIDE))
            z = activate(z, ACTIVATION)
            c.store([batch, row, at], z.to(c.dtype).reshape(1, BM, WIDE))


def launch(
    a: Operand, b: Operand, bias: xp.ndarray | None, activation: str | None,
    out: Operand, pre: Operand | None, tile: Tile, sms: int,
) -> None:  # fmt: skip
    """a (batches, m, k), b (batches, k, n) -> out, and pre, all of them fit for TMA."""
    (batches, m, k), n = a.array.shape, b.array.shape[2]
    programs = min(batches * -(-m // tile.BM) * -(-n // tile.BN), sms * tile.together)
    _matmul_tma_kernel[(programs,)](
        _descriptor(a, tile.BM, tile.BK), _descriptor(b, tile.BK, tile.BN), bias,
        _descriptor(out, tile.BM, tile.BN // tile.parts),
        pre and _descriptor(pre, tile.BM, tile.BN // tile.parts), batches, m, n, k,
        A_T=a.transposed, B_T=b.transposed, ACTIVATION=activation, WIDEN=widens(a.array),
        BM=tile.BM, BN=tile.BN, BK=tile.BK, GROUP=GROUP, PARTS=tile.parts,
        num_warps=tile.num_warps, num_stages=stages(tile, out.array.itemsize),
    )  # fmt: skip


def stages(tile: Tile, itemsize: int) -> int:
    """How many steps of a and b fit beside a part of c, `itemsize` bytes a number, on its way."""
    leaving = tile.BM * tile.BN // tile.parts * itemsize
    room = SHARED // tile.together - 1200 - leaving  # the system takes 1 KiB, barriers some bytes
    return max(2, min(tile.num_stages, room // ((tile.BM + tile.BN) * tile.BK * 2)))


def _descriptor(x: Operand, rows: int, cols: int) -> Any:
    """Of boxes of (rows, cols) in x; of (cols, rows) if its rows are contiguous."""
    import triton.language as language
    from triton.tools.tensor_descriptor import TensorDescriptor

    (batches, *sides), box = x.array.shape, [rows, cols]
    if x.transposed:
        sides, box = sides[::-1], box[::-1]
    base = pointer(x.array)
    base.dtype = getattr(language, x.array.dtype.name)
    return TensorDescriptor(base, [batches, *sides], [x.step, x.ld, 1], [1, *box])
