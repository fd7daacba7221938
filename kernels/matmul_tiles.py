"""What kernels of products do with a tile of c: find its place, finish it, and store it."""

from __future__ import annotations

from typing import Any

from .launch import triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

GROUP = 8  # rows of tiles that are worked through together: their share of a stays in L2


@triton_kernel
def place(tile, m, n, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """The tile's matrix, first row and first column; GROUP rows of tiles go column by column."""
    down, across = tl.cdiv(m, BM), tl.cdiv(n, BN)
    batch, tile = tile // (down * across), tile % (down * across)
    first = tile // (GROUP * across) * GROUP
    height = tl.minimum(down - first, GROUP)
    tile = tile % (GROUP * across)
    return batch, (first + tile % height) * BM, tile // height * BN


@triton_kernel
def halves(x, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Left and right."""
    return tl.split(tl.permute(x.reshape(HIGH, 2, WIDE // 2), (0, 2, 1)))


@triton_kernel
def parted(x, HIGH: tl.constexpr, WIDE: tl.constexpr, PARTS: tl.constexpr):
    """In 1, 2 or 4 parts side by side: what is finished part by part takes fewer registers."""
    if PARTS == 1:  # elif and else: Triton would go on after a return
        return (x,)
    elif PARTS == 2:  # noqa: RET505
        return halves(x, HIGH, WIDE)
    else:
        left, right = halves(x, HIGH, WIDE)
        a, b = halves(left, HIGH, WIDE // 2)
        c, d = halves(right, HIGH, WIDE // 2)
        return a, b, c, d


@triton_kernel
def activate(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu":
        x = tl.maximum(x, 0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "silu":
        x = x * tl.sigmoid(x)
    elif ACTIVATION == "gelu":
        x = 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        x = x * tl.sigmoid(1.5957691216057308 * x * (1 + 0.044715 * x * x))  # x (1 + tanh u) / 2
    return x


@triton_kernel
def put(
    x, ptr, step, ld, batch, row, col, m, n,
    HIGH: tl.constexpr, WIDE: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Stores the tile x of matrix `batch` at (row, col); VECTOR elements of a row go together."""
    step, ld = step // VECTOR * VECTOR, ld // VECTOR * VECTOR  # a hint: they are multiples already
    n = n // VECTOR * VECTOR
    i, j = row + tl.arange(0, HIGH), col + tl.arange(0, WIDE)
    at = batch.to(tl.int64) * step + i[:, None].to(tl.int64) * ld + j[None, :]
    tl.store(ptr + at, x.to(ptr.dtype.element_ty), mask=(i[:, None] < m) & (j[None, :] < n))


@triton_kernel
def biased(x, bias_ptr, col, n, WIDE: tl.constexpr):
    if bias_ptr is not None:
        j = tl.minimum(col + tl.arange(0, WIDE), n - 1)  # what is past the end is not stored
        x += tl.load(bias_ptr + j).to(tl.float32)[None, :]
    return x
