"""C = activation(A B + bias), each operand in either order: a layer forward and backward.

The ladder:

- formula: product, bias and activation each stream C through memory.
- loop: BLAS multiplies a block of rows, then one pass over the block adds the bias and works out
  the activation.
- tile program: a program keeps one tile of C in registers, adds products of tiles along k and
  finishes it there. Tiles of BM × BN read k (m n / BN + n m / BM) elements, from L2 where the
  programs that run together (GROUP rows of tiles) share them; C is written once, and its value
  before the activation once more if it is kept.

A linear layer is y = matmul(x, Wᵀ, b), dx = matmul(g, W), dW = matmul(gᵀ, x), db = column_sums(g):
transposed views are passed as they are, no operand is copied.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from . import arrays as xp
from . import gelu, matmul_tma, pointwise
from . import matmul_plan as plan
from .dispatch import formula
from .each import loop_from
from .gelu import by_tanh as gelu_by_tanh
from .gelu import exact as gelu_exact
from .half_precision import wide
from .launch import next_power_of_2, triton_kernel
from .loops import FLOATS, Loop, available, helper
from .matmul_tiles import GROUP, activate, biased, parted, place, put

tl: Any = None  # Triton's language, once a kernel is launched

SERVED = ("float32", "float16", "bfloat16")  # by Triton's version
ROWS = 2048  # of a, at a time: each block packs all of b anew, for 5 to 9 percent if of 256 rows
Array = xp.ndarray


# The formula


FORMULAS: dict[str, Callable] = {
    "relu": pointwise.relu.formula,
    "gelu": lambda z: gelu.forward.formula(z)[0],
    "gelu_tanh": lambda z: gelu.forward.formula(z, "tanh")[0],
    "silu": pointwise.silu.formula,
}


@formula
def matmul(
    a: Array, b: Array, bias: Array | None = None, activation: str | None = None,
    out: Array | None = None, pre: Array | None = None, precision: str = "ieee",
) -> Array:  # fmt: skip
    """activation(a @ b + bias): a (..., m, k), b (k, n) or (..., k, n), bias (n,) -> (..., m, n).

    activation: relu, gelu (exact), gelu_tanh or silu. `pre` receives a @ b + bias, which backward
    through an activation needs. float16 and bfloat16 are summed in float32.
    `precision` is for float32 on a GPU: ieee, tf32 or tf32x3 (three products: nearly ieee).
    """
    _known(activation)
    out, z = plan.output(a, b, out), xp.matmul(wide(a), wide(b))
    z = z if bias is None else z + wide(bias)
    if pre is not None:
        pre[...] = z
    out[...] = FORMULAS[activation](z) if activation else z
    return out


def column_sums(g: Array) -> Array:
    """(m, n) -> (n,): a row of ones times g."""
    ones = xp.full_like(g, 1, shape=(1, len(g)), order="C")
    return matmul(ones, g)[0]


def _known(activation: str | None) -> None:
    if activation is not None and activation not in FORMULAS:
        raise ValueError(f"activation {activation!r}: want None or one of {', '.join(FORMULAS)}")


# The loop


@helper()
def same(z):
    return z


@helper()
def gelu_of(z):
    return gelu_exact(z)[0]


@helper()
def gelu_tanh_of(z):
    return gelu_by_tanh(z)[0]


HELPERS = {
    None: same, "relu": pointwise.relu_of, "gelu": gelu_of, "gelu_tanh": gelu_tanh_of,
    "silu": pointwise.silu_of,
}  # fmt: skip

IN_PLACE = """
def finish_{}(z: Out[:, ::1], bias: F[::1]):
    m, n = z.shape
    for i in range(m):
        for j in range(n):
            z[i, j] = f(z[i, j] + bias[j])
"""
KEPT = """
def keep_and_finish_{}(z: Out[:, ::1], bias: F[::1], y: Out[:, ::1]):
    m, n = z.shape
    for i in range(m):
        for j in range(n):
            z[i, j] += bias[j]
            y[i, j] = f(z[i, j])
"""


@functools.cache
def _finish(activation: str | None, text: str) -> Loop:
    f = HELPERS[activation]
    return loop_from(text.format(f.__name__), f)


@matmul.version("numba", dtypes=None)
def _matmul_loop(a, b, bias=None, activation=None, out=None, pre=None, precision="ieee"):
    """Temporary memory: none; for 16 bits, or if out or pre has gaps, ROWS rows of a and of the
    results, and b in float32."""
    _known(activation)
    out, w = plan.output(a, b, out), wide(b)
    if not available() or xp.result_type(wide(a[:0]), w) not in FLOATS:
        return matmul.formula(a, b, bias, activation, out, pre)
    stacks = plan.stacked(a, w, out, pre)
    for x, w, y, z in zip(*(len(stacks[0]) * [None] if s is None else s for s in stacks)):
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            _block(wide(x[rows]), w, bias, activation, y[rows], None if z is None else z[rows])
    return out


def _block(x, w, bias, activation, out, pre):
    """x (m, k), w (k, n), neither of 16 bits -> out (m, n); x w + bias goes to pre on the way."""
    dtype, home = xp.result_type(x, w), out if pre is None else pre
    fits = lambda target: target.dtype == dtype and target.flags.c_contiguous
    y = z = xp.matmul(x, w, out=home if fits(home) else None)
    if pre is not None or bias is not None or activation is not None:
        b = xp.zeros_like(z, shape=z.shape[1]) if bias is None else wide(bias).astype(dtype)
        if pre is None:
            _finish(activation, IN_PLACE)(z, b)
        else:
            y = out if fits(out) else xp.empty_like(z)
            _finish(activation, KEPT)(z, b, y)
    for result, target in ((z, home), (y, out)):
        if result is not target:
            target[...] = result


# The tile program: a tile of c in registers (16 bits on Hopper: matmul_tma)


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
    _known(activation)
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
