"""C = activation(A B + bias), each operand in either order: a layer forward and backward.

The ladder: naive, product, bias and activation each stream C through memory; in NumPy, bias and
activation pass over tiles of C, a block of rows after its product; in Triton, a program keeps one
tile of C in registers, adds products of tiles along k and finishes it there.
Memory traffic: tiles of BM × BN read k (m n / BN + n m / BM) elements, from L2 where the programs
that run together (GROUP rows of tiles) share them; C is written once, and its value before the
activation once more if it is kept. Separate passes would read and write C for each.

A linear layer is y = matmul(x, Wᵀ, b), dx = matmul(g, W), dW = matmul(gᵀ, x), db = column_sums(g):
transposed views are passed as they are, no operand is copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import arrays as xp
from . import gelu, matmul_tma, pointwise
from . import matmul_plan as plan
from .dispatch import dispatched
from .erf import erf
from .half_precision import wide
from .launch import next_power_of_2, triton_kernel
from .matmul_tiles import GROUP, activate, biased, parted, place, put
from .tiles import ELEMENTS, row_tiles

tl: Any = None  # Triton's language, once a kernel is launched

SERVED = ("float32", "float16", "bfloat16")  # by Triton's version
ROWS = 2048  # of a, at a time: each block packs all of b anew, for 5 to 9 percent if of 256 rows
Array = xp.ndarray


@dispatched
def matmul(
    a: Array, b: Array, bias: Array | None = None, activation: str | None = None,
    out: Array | None = None, pre: Array | None = None, precision: str = "ieee",
) -> Array:  # fmt: skip
    """activation(a @ b + bias): a (..., m, k), b (k, n) or (..., k, n), bias (n,) -> (..., m, n).

    activation: relu, gelu (exact), gelu_tanh or silu. `pre` receives a @ b + bias, which backward
    through an activation needs. float16 and bfloat16 are summed in float32.
    `precision` is for float32 on a GPU: ieee, tf32 or tf32x3 (three products: nearly ieee).
    Temporary memory: two tiles of ELEMENTS; for 16 bits three, and b and ROWS rows of a and of
    a @ b in float32.
    """
    out, formula = plan.output(a, b, out), _formula(activation, FORMULAS)
    b, bias = wide(b), None if bias is None else wide(bias)
    with xp.errstate(over="ignore"):  # silu's exp(-x), and numbers that are infinite in 16 bits
        if out.ndim == 2:
            _in_blocks(a, b, bias, formula, out, pre)
            return out
        x, w, y, z = plan.stacked(a, b, out, pre)
        for i in range(len(x)):
            _in_blocks(x[i], w[i], bias, formula, y[i], None if z is None else z[i])
    return out


@matmul.version("naive")
def naive(
    a: Array, b: Array, bias: Array | None = None, activation: str | None = None,
    out: Array | None = None, pre: Array | None = None, precision: str = "ieee",
) -> Array:  # fmt: skip
    """The formula, one temporary an operation."""
    out, z = plan.output(a, b, out), wide(a) @ wide(b) + (0 if bias is None else wide(bias))
    formula = _formula(activation, NAIVE)
    if pre is not None:
        pre[...] = z
    out[...] = formula(z) if formula else z
    return out


def column_sums(g: Array) -> Array:
    """(m, n) -> (n,): a row of ones times g."""
    ones = xp.full_like(g, 1, shape=(1, len(g)), order="C")
    return matmul(ones, g)[0]


NAIVE: dict[str, Callable] = {
    "relu": lambda z: xp.maximum(z, 0),
    "gelu": gelu.naive,
    "gelu_tanh": lambda z: gelu.naive(z, "tanh"),
    "silu": lambda z: z / (1 + xp.exp(-z)),
}


def _gelu(x, out):
    erf(x, out=out, scale=math.sqrt(0.5))
    out += 1
    out *= x
    out *= 0.5


def _gelu_tanh(x, out):
    xp.multiply(x, x, out=out)
    out *= gelu.C * gelu.K
    out += gelu.C
    out *= x
    xp.tanh(out, out=out)
    out += 1
    out *= x
    out *= 0.5


FORMULAS: dict[str, Callable] = {
    "relu": pointwise.relu, "gelu": _gelu, "gelu_tanh": _gelu_tanh, "silu": pointwise.silu,
}  # fmt: skip


def _formula(activation: str | None, formulas: dict[str, Callable]) -> Callable | None:
    if activation is not None and activation not in formulas:
        raise ValueError(f"activation {activation!r}: want None or one of {', '.join(formulas)}")
    return None if activation is None else formulas[activation]


def _in_blocks(a, b, bias, formula, out, pre):
    """a (m, k), b (k, n) and bias, wide -> out (m, n), a block of rows at a time."""
    for start in range(0, len(a), ROWS):
        rows = slice(start, start + ROWS)
        _block(wide(a[rows]), b, bias, formula, out[rows], None if pre is None else pre[rows])


def _block(a, b, bias, formula, out, pre):
    in_place = out.dtype == a.dtype == b.dtype
    z = xp.matmul(a, b, out=out if in_place else None)
    if formula or pre is not None or not in_place:
        _finish(z, bias, formula, out, pre)
    elif bias is not None:
        for tile in row_tiles(len(z), z.shape[1], ELEMENTS):
            z[tile] += bias


def _finish(z: Array, bias: Array | None, formula: Callable | None, out: Array, pre: Array | None):
    """z (m, n), which may be out itself, to out, by way of pre."""
    for rows in row_tiles(len(z), z.shape[1], ELEMENTS):
        x = z[rows].copy() if bias is None else z[rows] + bias
        if pre is not None:
            pre[rows] = x
        if formula is None:
            out[rows] = x
        elif out.dtype == x.dtype:
            formula(x, out=out[rows])
        else:
            y = xp.empty_like(x)
            formula(x, out=y)
            out[rows] = y


# The same on a GPU: a tile of c a program (16 bits on Hopper: matmul_tma)


@triton_kernel
def _matmul_kernel(
    a_ptr, a_step, lda, b_ptr, b_step, ldb, bias_ptr, c_ptr, c_step, ldc, pre_ptr, pre_step, ldp,
    m, n, k, A_T: tl.constexpr, B_T: tl.constexpr, A_VECTOR: tl.constexpr, B_VECTOR: tl.constexpr,
    C_VECTOR: tl.constexpr, K_VECTOR: tl.constexpr, EVEN_K: tl.constexpr,
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """Rows and columns past c's end wrap around to the tile's first, so that only k is masked."""
    lda, a_step = lda // A_VECTOR * A_VECTOR, a_step // A_VECTOR * A_VECTOR  # a hint: they are
    ldb, b_step = ldb // B_VECTOR * B_VECTOR, b_step // B_VECTOR * B_VECTOR  # multiples already
    k = k // K_VECTOR * K_VECTOR
    batch, row, col = place(tl.program_id(0), m, n, BM, BN, GROUP)
    i = tl.arange(0, BM) % tl.minimum(m - row, BM)
    j = tl.arange(0, BN) % tl.minimum(n - col, BN)
    if A_T and A_VECTOR > 1:
        i = tl.max_contiguous(tl.multiple_of(i, A_VECTOR), A_VECTOR)
    if not B_T and B_VECTOR > 1:
        j = tl.max_contiguous(tl.multiple_of(j, B_VECTOR), B_VECTOR)
    i, j, step = i.to(tl.int64), j.to(tl.int64), tl.arange(0, BK).to(tl.int64)
    a_ptr += batch.to(tl.int64) * a_step + row.to(tl.int64) * (1 if A_T else lda)
    b_ptr += batch.to(tl.int64) * b_step + col.to(tl.int64) * (ldb if B_T else 1)
    a_at = i[:, None] + step[None, :] * lda if A_T else i[:, None] * lda + step[None, :]
    b_at = step[:, None] + j[None, :] * ldb if B_T else step[:, None] * ldb + j[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for done in range(0, k, BK):
        if EVEN_K:
            a, b = tl.load(a_ptr + a_at), tl.load(b_ptr + b_at)
        else:
            inside = step < k - done
            a = tl.load(a_ptr + a_at, mask=inside[None, :], other=0.0)
            b = tl.load(b_ptr + b_at, mask=inside[:, None], other=0.0)
        if WIDEN:
            a, b = a.to(tl.float32), b.to(tl.float32)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
        a_ptr += BK * (lda if A_T else 1)
        b_ptr += BK * (1 if B_T else ldb)
    parts = parted(acc, BM, BN, PARTS)
    for part in tl.static_range(PARTS):
        at = col + part * (BN // PARTS)
        z = biased(parts[part], bias_ptr, at, n, BN // PARTS)
        if pre_ptr is not None:
            put(z, pre_ptr, pre_step, ldp, batch, row, at, m, n, BM, BN // PARTS, C_VECTOR)
        z = activate(z, ACTIVATION)
        put(z, c_ptr, c_step, ldc, batch, row, at, m, n, BM, BN // PARTS, C_VECTOR)


@triton_kernel
def _sum_kernel(
    slices_ptr, bias_ptr, c_ptr, ldc, pre_ptr, ldp, slices, n, size,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """c (m, n) from slices (slices, m, n), contiguous, of `size` numbers each."""
    row, blocks = tl.program_id(0) // tl.cdiv(n, BLOCK), tl.program_id(0) % tl.cdiv(n, BLOCK)
    row, j = row.to(tl.int64), blocks * BLOCK + tl.arange(0, BLOCK)
    z = tl.zeros((BLOCK,), tl.float32)
    for _ in range(slices):
        z += tl.load(slices_ptr + row * n + j, mask=j < n, other=0.0)
        slices_ptr += size
    if bias_ptr is not None:
        z += tl.load(bias_ptr + j, mask=j < n, other=0.0).to(tl.float32)
    if pre_ptr is not None:
        tl.store(pre_ptr + row * ldp + j, z.to(pre_ptr.dtype.element_ty), mask=j < n)
    z = activate(z, ACTIVATION)
    tl.store(c_ptr + row * ldc + j, z.to(c_ptr.dtype.element_ty), mask=j < n)


@matmul.version("triton")
def _matmul_triton(a, b, bias=None, activation=None, out=None, pre=None, precision="ieee"):
    if a.dtype != b.dtype or a.dtype.name not in SERVED:
        return matmul.plain(a)(a, b, bias, activation, out, pre)
    _formula(activation, FORMULAS)
    out = plan.output(a, b, out)
    x, w, *targets = plan.stacked(a, b, out, pre)
    if out.size:
        boxed = plan.has_tma(a)
        operands = plan.operand(x, boxed * w.shape[2]), plan.operand(w, boxed * x.shape[1])
        homes = [t if t is None else plan.target(t, boxed) for t in targets]
        _launch(*operands, bias, activation, homes[0], homes[1], precision)
        for home, target in zip(homes, targets):
            if home and home.array is not target:
                target[...] = home.array
    return out


def _launch(a, b, bias, activation, out, pre, precision):
    """By the kernel, and in the tiles, that suit the shape and the machine."""
    kind, tile, slices, sms = plan.plan(a, b, out, pre, precision)
    if slices > 1:
        _launch_slices(a, b, bias, activation, out, pre, precision, slices)
    elif kind == "tma":
        matmul_tma.launch(a, b, bias, activation, out, pre, tile, sms)
    else:
        launch(a, b, bias, activation, out, pre, tile, precision)


def _launch_slices(a, b, bias, activation, out, pre, precision, slices):
    """Products of slices of k are a stack of products, whose sum is c."""
    (_, m, k), n = a.array.shape, b.array.shape[2]
    x = a.array.reshape(m, slices, k // slices).swapaxes(0, 1)
    w = b.array.reshape(slices, k // slices, n)
    sums = plan.target(xp.empty_like(x, xp.float32, "C", shape=(slices, m, n)), boxed=False)
    _launch(plan.operand(x, 0), plan.operand(w, 0), None, None, sums, None, precision)
    block = min(1024, next_power_of_2(n))
    _sum_kernel[(m * -(-n // block),)](
        sums.array, bias, out.array, out.ld,
        None if pre is None else pre.array, 0 if pre is None else pre.ld,
        slices, n, m * n, ACTIVATION=activation, BLOCK=block,
    )  # fmt: skip


def launch(a, b, bias, activation, out, pre, tile, precision):
    """Operands and targets as plan makes them, of any strides."""
    (batches, m, k), n = a.array.shape, b.array.shape[2]
    kept = (None, 0, 0) if pre is None else (pre.array, pre.step, pre.ld)
    _matmul_kernel[(batches * -(-m // tile.BM) * -(-n // tile.BN),)](
        a.array, a.step, a.ld, b.array, b.step, b.ld,
        bias, out.array, out.step, out.ld, *kept, m, n, k,
        A_T=a.transposed, B_T=b.transposed, A_VECTOR=a.vector, B_VECTOR=b.vector,
        C_VECTOR=min(o.vector for o in (out, pre) if o), K_VECTOR=math.gcd(k, 8),
        EVEN_K=k % tile.BK == 0, ACTIVATION=activation, PRECISION=precision,
        WIDEN=plan.widens(a.array), BM=tile.BM, BN=tile.BN, BK=tile.BK, GROUP=GROUP,
        PARTS=tile.parts, num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
