"""Softmax cross-entropy, fused with the gradient of its logits.

The ladder, n rows of V logits of b bytes:

- formula: whole arrays, an operation at a time. Forward moves 6nVb bytes (maximum, x - max, exp,
  sum), backward 13nVb, because the one-hot targets are an array of their own.
- loop: a row at a time, which stays in the cache between its passes. Forward reads the logits, nVb
  bytes, and writes none: it keeps the maximum and 1 / sum of the exponentials of each row.
  Backward reads the logits again and writes their cotangent, 2nVb bytes. A second exponential
  costs less than to write the first one and to read it again.
- tile program: a block of a row in registers, and the same bytes. Forward finds the maximum and the
  sum together (Milakov & Gimelshein 2018).

`gradient_` does both where the logits are needed no more, in 2nVb bytes. `part_forward` and
`part_backward` are for a rank that has some of the classes only.
"""

from __future__ import annotations

import math
from math import inf
from typing import Any

from . import arrays as xp
from .dispatch import formula
from .elementary import exp, row_max, row_sum
from .half_precision import as_dtype, wide
from .launch import contiguous, next_power_of_2, triton_kernel
from .loops import F, Int, Out, helper, loop

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 4096  # logits a program at a time: 16 a thread of 8 warps, two loads of 16 bytes of float16


# The formula


@formula
def forward(logits: xp.ndarray, target: xp.ndarray) -> tuple[xp.ndarray, xp.ndarray]:
    """logits (n, V), target (n,) in [0, V) -> losses (n,), and for backward sums (n, 2).

    Those are the maximum of each row and 1 / Σ exp(x - maximum). The loss of a row is
    log Σ exp(x) - x[target].
    """
    x = wide(logits)
    top = xp.highest(x, 1)
    total = xp.exp(x - top[:, None]).sum(1)
    loss = xp.log(total) + (top - xp.take_along_axis(x, target[:, None], 1)[:, 0])
    return as_dtype(loss, logits.dtype), xp.stack([top, 1 / total], 1)


@formula
def backward(g: xp.ndarray, logits: xp.ndarray, sums: xp.ndarray, target: xp.ndarray) -> xp.ndarray:
    """Cotangent of the logits: (softmax - one_hot(target)) · g, with g (n,); 0 where g is 0.

    0 · softmax would be NaN in a row that is ignored and holds inf or NaN.
    """
    x, each = wide(logits), wide(g)[:, None]
    d = xp.exp(x - sums[:, :1]) * sums[:, 1:]
    d -= one_hot(target, xp.ones_like(d, shape=len(d)), d.shape[1])
    return as_dtype(xp.where(each == 0, 0, d * each), logits.dtype)


@formula
def gradient_(logits: xp.ndarray, target: xp.ndarray) -> xp.ndarray:
    """Losses (n,); logits (n, V), contiguous, become softmax - one_hot(target).

    Temporary memory of the loop: none.
    """
    x = wide(logits)
    loss, sums = forward.formula(x, target)
    logits[...] = backward.formula(xp.ones_like(loss), x, sums, target)
    return loss


@formula
def soft_forward(logits: xp.ndarray, q: xp.ndarray) -> tuple[xp.ndarray, xp.ndarray]:
    """Against weights q (n, V) of all classes: losses Σ q · -log softmax (n,), and sums (n, 2)."""
    top = xp.highest(logits, 1, True)
    total = xp.exp(logits - top).sum(1, keepdims=True)
    loss = (q * (xp.log(total) - (logits - top))).sum(1)
    return loss, xp.concatenate([top, 1 / total], 1)


@formula
def soft_backward(g: xp.ndarray, logits: xp.ndarray, q: xp.ndarray, sums: xp.ndarray) -> xp.ndarray:
    """Cotangent of the logits: (softmax · Σ q - q) · g, with g (n,); 0 where g is 0."""
    d = xp.exp(logits - sums[:, :1]) * (sums[:, 1:] * q.sum(1, keepdims=True)) - q
    return xp.where(g[:, None] == 0, 0, d * g[:, None])


def soft_backward_target(g: xp.ndarray, logits: xp.ndarray, sums: xp.ndarray) -> xp.ndarray:
    """Cotangent of q: -log softmax · g.

    The sums are not added up to log-sum-exp: beside a large maximum the logarithm has no digits.
    """
    return -(xp.log(sums[:, 1:]) + (logits - sums[:, :1])) * g[:, None]


@formula
def part_forward(
    logits: xp.ndarray, target: xp.ndarray, columns: int
) -> tuple[xp.ndarray, xp.ndarray]:
    """A rank's part: logits (n, v), whose first `columns` count; target (n,), -1 if elsewhere.

    Returns the sums (n, 2) of these columns, as forward's, and (n, 2): the target's logit or 0,
    and Σ x.
    """
    x = logits[:, :columns]
    top = xp.highest(x, 1)
    e = xp.exp(x - xp.where(top == -xp.inf, 0, top)[:, None])  # -inf less -inf would be NaN
    picked = xp.where(target < 0, 0, x[xp.arange(len(x)), target] if columns else 0)
    with xp.errstate(divide="ignore"):  # nothing but -inf
        sums = xp.stack([top, 1 / e.sum(1)], 1)
    return sums, xp.stack([picked, x.sum(1)], 1)


@formula
def part_backward(
    g: xp.ndarray, logits: xp.ndarray, sums: xp.ndarray, target: xp.ndarray, columns: int,
    share: float, rest: float,
) -> xp.ndarray:  # fmt: skip
    """As backward, with the sums of all classes: (softmax - share - rest · one_hot) · g."""
    d = xp.zeros_like(logits)
    d[:, :columns] = xp.exp(logits[:, :columns] - sums[:, :1]) * sums[:, 1:] - share
    local = target >= 0
    d[local, target[local]] -= rest
    return xp.where(g[:, None] == 0, 0, d * g[:, None])


# The loop


@helper(sums=True)
def exp_sum(x, top):
    """Σ exp(x - top)."""
    total = 0.0
    for j in range(len(x)):
        total += exp(x[j] - top)
    return total


@loop
def loss_rows(
    x: F[:, ::1], target: Int[::1], columns: int, loss: Out[::1], sums: Out[:, ::1],
    part: Out[:, ::1],
):  # fmt: skip
    # x (n, v), whose first columns count; part (n, 2), or (0, 2) if x has all classes
    for i in range(len(x)):
        row = x[i, :columns]
        top = row_max(row)
        total = exp_sum(row, 0.0 if top == -inf else top)  # -inf less -inf would be NaN
        picked = x[i, target[i]] if target[i] >= 0 else 0.0
        loss[i] = math.log(total) + (top - picked)  # a small difference of large numbers
        sums[i, 0], sums[i, 1] = top, 1.0 / total
        if len(part) > 0:
            part[i, 0], part[i, 1] = picked, row_sum(row)


@loop
def loss_slope_rows(
    g: F[::1], x: F[:, ::1], sums: F[:, ::1], target: Int[::1], columns: int,
    share: float, rest: float, dx: Out[:, ::1],
):  # fmt: skip
    n, v = x.shape
    for i in range(n):
        slope, top, scale = g[i], sums[i, 0], sums[i, 1]
        if slope == 0.0:  # the exponentials may be NaN
            dx[i] = 0.0
            continue
        for j in range(columns):
            dx[i, j] = (exp(x[i, j] - top) * scale - share) * slope
        for j in range(columns, v):
            dx[i, j] = 0.0
        if target[i] >= 0:
            dx[i, target[i]] -= rest * slope


@loop
def gradient_rows(x: Out[:, ::1], target: Int[::1], loss: Out[::1]):
    n, v = x.shape
    for i in range(n):
        top, picked = row_max(x[i]), x[i, target[i]]
        for j in range(v):
            x[i, j] = exp(x[i, j] - top)
        total = row_sum(x[i])
        loss[i] = math.log(total) + (top - picked)
        scale = 1.0 / total
        for j in range(v):
            x[i, j] *= scale
        x[i, target[i]] -= 1.0


@helper()
def minus_log(x, top, log_total):
    """-log softmax. Outside of the sum below, which may be added up in another order."""
    return log_total - (x - top)


@helper(sums=True)
def soft_sum(x, q, top, log_total):
    """Σ q · -log softmax."""
    total = 0.0
    for j in range(len(x)):
        total += q[j] * minus_log(x[j], top, log_total)
    return total


@loop
def soft_rows(x: F[:, ::1], q: F[:, ::1], loss: Out[::1], sums: Out[:, ::1]):
    for i in range(len(x)):
        top = row_max(x[i])
        total = exp_sum(x[i], top)
        loss[i] = soft_sum(x[i], q[i], top, math.log(total))
        sums[i, 0], sums[i, 1] = top, 1.0 / total


@loop
def soft_slope_rows(
    g: F[::1], x: F[:, ::1], q: F[:, ::1], sums: F[:, ::1], dx: Out[:, ::1]
):  # fmt: skip
    n, v = x.shape
    for i in range(n):
        slope, top, scale = g[i], sums[i, 0], sums[i, 1] * row_sum(q[i])
        if slope == 0.0:
            dx[i] = 0.0
            continue
        for j in range(v):
            dx[i, j] = (exp(x[i, j] - top) * scale - q[i, j]) * slope


@forward.version("numba")
def _forward_loop(logits, target):
    n, v = logits.shape
    losses, *out = (xp.empty_like(logits, order="C", shape=s) for s in (n, (n, 2), (0, 2)))
    loss_rows(logits, _classes(target), v, losses, *out)
    return losses, out[0]


@backward.version("numba")
def _backward_loop(g, logits, sums, target):
    return _part_backward_loop(g, logits, sums, target, logits.shape[1], 0.0, 1.0)


@gradient_.version("numba")
def _gradient_loop(logits, target):
    losses = xp.empty_like(logits, order="C", shape=len(logits))
    gradient_rows(logits, _classes(target), losses)
    return losses


@soft_forward.version("numba")
def _soft_forward_loop(logits, q):
    n = len(logits)
    losses, sums = (xp.empty_like(logits, order="C", shape=s) for s in (n, (n, 2)))
    soft_rows(logits, q, losses, sums)
    return losses, sums


@soft_backward.version("numba")
def _soft_backward_loop(g, logits, q, sums):
    g, dlogits = xp.ascontiguousarray(g), xp.empty_like(logits, order="C")
    soft_slope_rows(g, logits, q, sums, dlogits)
    return dlogits


@part_forward.version("numba")
def _part_forward_loop(logits, target, columns):
    n = len(logits)
    loss, *out = (xp.empty_like(logits, order="C", shape=s) for s in (n, (n, 2), (n, 2)))
    loss_rows(logits, _classes(target), columns, loss, *out)
    return tuple(out)


@part_backward.version("numba")
def _part_backward_loop(g, logits, sums, target, columns, share, rest):
    g, dlogits = xp.ascontiguousarray(g), xp.empty_like(logits, order="C")
    loss_slope_rows(g, logits, sums, _classes(target), columns, share, rest, dlogits)
    return dlogits


def _classes(target):
    return xp.ascontiguousarray(target, xp.int64)


# Targets


def check(
    name: str, shape: tuple, target: xp.ndarray, weight: xp.ndarray | None, ignore_index: int
) -> tuple[xp.ndarray, xp.ndarray]:
    """Flat classes (0 where ignored) and True where they count, of logits (n, C, …) or (C,)."""
    want, count = (shape[:1] + shape[2:], shape[1]) if len(shape) > 1 else ((), (*shape, 0)[0])
    if target.shape != want or not shape:
        other_rows = len(shape) == 2 and target.ndim > 0 and len(target) != shape[0]
        kind = ValueError if other_rows else RuntimeError  # as PyTorch
        raise kind(f"{name}: input {shape} and target {target.shape}: want (n, C, …) and (n, …)")
    if target.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: targets are class numbers, not {target.dtype.name}")
    if weight is not None and weight.shape != (count,):
        raise RuntimeError(f"{name}: weight {weight.shape} for {count} classes: want one for each")
    target = target.reshape(-1)
    keep = target != ignore_index
    target = xp.where(keep, target, 0) if xp.on_gpu(keep) or not keep.all() else target
    if xp.outside(target, count) and keep.any():
        raise IndexError(
            f"{name}: targets from {target.min()} to {target.max()} for {count} classes"
        )
    return target, keep


def one_hot(target: xp.ndarray, values: xp.ndarray, classes: int) -> xp.ndarray:
    """values (n,) each at its target, zeros elsewhere: (n, classes)."""
    whole = xp.zeros_like(values, shape=(len(target), classes))
    with xp.beside(values):
        whole[xp.arange(len(target)), target] = values
    return whole


def smoothed(target: xp.ndarray, keep: xp.ndarray, weight: xp.ndarray, part: float) -> xp.ndarray:
    """One-hot targets times the weight (C,); the share `part` is spread over all classes."""
    q = xp.full_like(weight, part / len(weight), shape=(len(target), len(weight)))
    with xp.beside(weight):
        q[xp.arange(len(target)), target] += 1 - part
    q *= weight
    q[~keep] = 0
    return q


# The tile program: some rows a program, or one if it is wide


@triton_kernel
def _sums_of_rows(x_ptr, row, rows, v, target, kind: tl.constexpr, COLUMNS: tl.constexpr):
    """Maxima, sums of exp(x - maximum), targets' logits: (ROWS, 1) each, of the rows at `row`."""
    lane = tl.arange(0, COLUMNS)[None, :]
    top = tl.full(row.shape, float("-inf"), kind)
    total = tl.zeros([row.shape[0], COLUMNS], kind)  # added up across threads only at the end
    picked = tl.zeros([row.shape[0], COLUMNS], kind)
    for start in range(0, v, COLUMNS):
        column = start + lane
        inside = (row < rows) & (column < v)
        x = tl.load(x_ptr + row * v + column, inside, other=float("-inf")).to(kind)
        before, top = top, tl.maximum(top, tl.max(x, 1)[:, None])
        shift = tl.where(top == float("-inf"), 0.0, top)  # -inf less -inf would be NaN
        total = total * tl.exp(before - shift) + tl.exp(x - shift)
        picked = tl.where(column == target, x, picked)
    return top, tl.sum(total, 1)[:, None], tl.sum(picked, 1)[:, None]


@triton_kernel
def _put_gradients(x_ptr, out_ptr, row, column, rows, v, target, top, scale, g, kind: tl.constexpr):
    inside = (row < rows) & (column < v)
    x = tl.load(x_ptr + row * v + column, inside, other=float("-inf")).to(kind)
    d = (tl.exp(x - top) * scale - tl.where(column == target, 1.0, 0.0)) * g
    d = tl.where(g == 0, 0.0, d)  # an ignored row's softmax may be NaN
    tl.store(out_ptr + row * v + column, d.to(out_ptr.dtype.element_ty), inside)


@triton_kernel
def _loss_kernel(
    x_ptr, target_ptr, loss_ptr, sums_ptr, rows, v, IN_PLACE: tl.constexpr, DOUBLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """sums (n, 2) receives the maximum and 1 / Σ exp(x - maximum); in place, x the gradient."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    inside = row < rows
    target = tl.load(target_ptr + row, inside, other=0).to(tl.int32)
    top, total, picked = _sums_of_rows(x_ptr, row, rows, v, target, kind, COLUMNS)
    top, total = tl.where(inside, top, 0.0), tl.where(inside, total, 1.0)
    loss = tl.log(total) + (top - picked)  # a small difference of large numbers comes first
    tl.store(loss_ptr + row, loss.to(loss_ptr.dtype.element_ty), inside)
    if IN_PLACE:
        for start in range(0, v, COLUMNS):
            column = start + tl.arange(0, COLUMNS)[None, :]
            _put_gradients(x_ptr, x_ptr, row, column, rows, v, target, top, 1 / total, 1.0, kind)
    else:
        tl.store(sums_ptr + 2 * row, top, inside)
        tl.store(sums_ptr + 2 * row + 1, 1 / total, inside)


@triton_kernel
def _slope_kernel(
    g_ptr, x_ptr, sums_ptr, target_ptr, dx_ptr, rows, v, DOUBLE: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = row < rows
    target = tl.load(target_ptr + row, inside, other=0).to(tl.int32)
    top = tl.load(sums_ptr + 2 * row, inside, other=0)
    scale = tl.load(sums_ptr + 2 * row + 1, inside, other=0)
    g = tl.load(g_ptr + row, inside, other=0).to(kind)
    _put_gradients(x_ptr, dx_ptr, row, column, rows, v, target, top, scale, g, kind)


def cut(x: xp.ndarray) -> tuple[int, int, dict[str, Any]]:
    """Programs down and across logits x (n, V), and a kernel's constants."""
    n, v = x.shape
    broad = min(BLOCK, next_power_of_2(v))
    tall = min(BLOCK // broad, next_power_of_2(n))
    constants = {"DOUBLE": x.dtype == xp.float64, "ROWS": tall, "COLUMNS": broad, "num_warps": 8}
    return -(-n // tall), -(-v // broad), constants


@forward.version("triton")
def _forward_triton(logits, target):
    x, target = contiguous(logits), contiguous(target)
    kind = xp.float64 if x.dtype == xp.float64 else xp.float32
    losses, sums = xp.empty_like(x, shape=len(x)), xp.empty_like(x, kind, shape=(len(x), 2))
    down, _, constants = cut(x)
    _loss_kernel[(down,)](x, target, losses, sums, *x.shape, IN_PLACE=False, **constants)
    return losses, sums


@backward.version("triton")
def _backward_triton(g, logits, sums, target):
    g, x, target = contiguous(g), contiguous(logits), contiguous(target)
    dx, (down, across, constants) = xp.empty_like(x), cut(x)
    _slope_kernel[(down, across)](g, x, sums, target, dx, *x.shape, **constants)
    return dx


@gradient_.version("triton")
def _gradient_triton(logits, target):
    assert logits.flags.c_contiguous
    losses = xp.empty_like(wide(logits[:0]), shape=len(logits))
    down, _, constants = cut(logits)
    _loss_kernel[(down,)](
        logits, contiguous(target), losses, losses, *logits.shape, IN_PLACE=True, **constants
    )
    return losses
