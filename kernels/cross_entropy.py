"""Softmax cross-entropy fused with the gradient of its logits, a tile of rows at a time.

The ladder: naive, each operation streams (n, V) arrays through memory. In NumPy, forward keeps the
exponentials and their sums, so backward is one pass, needs no second exponential, and the logits
themselves may be freed. In Triton a second exponential costs less than writing the first: forward
reads the logits once, a block at a time with the maximum and the sum so far (Milakov & Gimelshein
2018), and keeps these two numbers a row; backward reads the logits again and writes their
cotangent, 3 n V elements in all. `gradient_` does both where the logits are needed no more.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .half_precision import wide
from .launch import contiguous, next_power_of_2, triton_kernel
from .tiles import row_tiles, spreading

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 4096  # logits a program at a time: 16 a thread of 8 warps, two loads of 16 bytes of float16

LEAST = 1e-30  # a smaller exponential may have lost digits, or all of them: in float16 far sooner

NEAR = 16.0  # rows whose maxima lie this close may share one shift: e¹⁶ costs no digits
SMALL = 20.0  # a first row's maximum of at most this size: worth trying without a shift
RANGE = 1e-10, 1e10  # sums in which no digit is lost, though summands below 1e-38 are 0


def shift(x: xp.ndarray, out: xp.ndarray) -> None:
    """out = x minus a maximum, so that exp(out) cannot overflow; x (n, v) is one tile.

    A number for the whole tile where its rows are alike, for a number a row costs twice as much
    (in float16, which ends at e⁻¹⁷, a number a row all the same).
    """
    top = x.max(1, keepdims=True, initial=-xp.inf)
    highest = top.max(initial=-xp.inf)
    near = x.itemsize > 2 and xp.isfinite(highest) and top.min(initial=xp.inf) >= highest - NEAR
    xp.subtract(x, highest if near else top, out=out)


def exponentials(x: xp.ndarray, out: xp.ndarray) -> xp.ndarray:
    """out = exp(x - a number a row), x (n, v) one tile; returns the sums of its rows (n,).

    Two passes where that number may be 0, which the sums tell: four with the maxima taken off.
    """
    if x.itemsize > 2 and abs(x[0].max(initial=-xp.inf)) <= SMALL:
        with xp.errstate(over="ignore", invalid="ignore"):
            sums = _sums(xp.exp(x, out=out))
        if RANGE[0] <= sums.min() and sums.max() <= RANGE[1]:
            return sums
    shift(x, out)
    return _sums(xp.exp(out, out=out))


def _sums(x: xp.ndarray) -> xp.ndarray:
    return xp.matmul(x, xp.ones_like(x, shape=x.shape[1]))


def naive(logits: xp.ndarray, target: xp.ndarray) -> xp.ndarray:
    """The formula: log-sum-exp minus the target's logit."""
    top = logits.max(1, keepdims=True)
    lse = xp.log(xp.exp(logits - top).sum(1)) + top[:, 0]
    return lse - logits[xp.arange(len(target)), target]


@dispatched
def forward(logits: xp.ndarray, target: xp.ndarray) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:
    """logits (n, V), target (n,) in [0, V) -> losses (n,); exponentials (n, V), their sums (n,).

    The loss is log(sum / the target's exponential), whatever was taken off all logits of a row.
    Temporary memory: a few numbers a row, and the rows whose exponentials lost their digits.
    """
    n, v = logits.shape
    e, total = xp.empty_like(logits), xp.empty_like(logits, shape=n)
    for rows in row_tiles(n, v):
        total[rows] = exponentials(logits[rows], e[rows])
    picked = e[xp.arange(n), target].astype(float)  # the ratio may lie outside float32
    lost = ~(picked >= max(LEAST, float(xp.finfo(logits.dtype).tiny)))
    picked[lost] = 1
    loss = xp.log(total / picked).astype(logits.dtype)
    if lost.any():
        loss[lost] = naive(logits[lost], target[lost])
    return loss, e, total


@dispatched
def backward(g: xp.ndarray, e: xp.ndarray, total: xp.ndarray, target: xp.ndarray) -> xp.ndarray:
    """Cotangent of the logits: (softmax - one_hot(target)) · g, with g (n,); 0 where g is 0.

    Temporary memory: a few numbers a row.
    """
    dlogits = xp.empty_like(e)
    with spreading(e.shape[1]):
        for rows in row_tiles(*e.shape):
            xp.multiply(e[rows], (g[rows] / total[rows])[:, None], out=dlogits[rows])
    zero_ignored(dlogits, g)
    dlogits[xp.arange(len(target)), target] -= g
    return dlogits


def zero_ignored(dlogits: xp.ndarray, g: xp.ndarray) -> None:
    """Zero the rows whose cotangent g (n,) is 0: 0 · softmax is NaN if the row holds inf or NaN."""
    if xp.on_gpu(g) or not g.all():
        dlogits[g == 0] = 0


@dispatched
def gradient_(logits: xp.ndarray, target: xp.ndarray) -> xp.ndarray:
    """Losses (n,); logits (n, V), contiguous, become softmax - one_hot(target).

    Temporary memory is two tiles of ROW_ELEMENTS, or rows, besides a few numbers a row; for 16
    bits, whose exponentials lose too much, it is three in float32.
    """
    losses = xp.empty_like(wide(logits[:0]), shape=len(logits))
    for rows in row_tiles(*logits.shape):
        x = logits[rows]
        losses[rows], e, total = forward.versions["numba"](wide(x), target[rows])
        with spreading(x.shape[1]):
            p = xp.multiply(e, (1 / total)[:, None], out=x if x.dtype == e.dtype else e)
        if p is not x:
            x[...] = p
        x[xp.arange(len(x)), target[rows]] -= 1
    return losses


@forward.version("naive")
def _forward_naive(logits, target):
    e = xp.exp(logits - logits.max(1, keepdims=True))
    return naive(logits, target), e, e.sum(1)


@backward.version("naive")
def _backward_naive(g, e, total, target):
    d = (e / total[:, None] - one_hot(target, xp.ones_like(g), e.shape[1])) * g[:, None]
    return xp.where(g[:, None] == 0, 0, d)


@gradient_.version("naive")
def _gradient_naive(logits, target):
    losses, e, total = _forward_naive(logits, target)
    logits[...] = _backward_naive(xp.ones_like(losses), e, total, target)
    return losses


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
    if not xp.on_gpu(keep) and keep.any() and xp.outside(target, count):
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
    q = one_hot(target, xp.full_like(weight, 1 - part, shape=len(target)), len(weight))
    q += part / len(weight)
    q *= weight
    q[~keep] = 0
    return q


def soft_naive(logits: xp.ndarray, q: xp.ndarray) -> xp.ndarray:
    """Against weights q (n, V) of all classes: Σ q · -log softmax."""
    e = xp.exp(logits - logits.max(1, keepdims=True))
    return -(q * xp.log(e / e.sum(1, keepdims=True))).sum(1)


def soft_forward(logits: xp.ndarray, q: xp.ndarray) -> tuple[xp.ndarray, xp.ndarray]:
    """logits and q (n, V) -> losses (n,), and for backward (n, 2): maxima, Σ exp(x - maximum).

    The two are not added up to log-sum-exp: beside a large maximum the logarithm loses its digits.
    """
    n, v = logits.shape
    loss, sums = xp.empty_like(logits, shape=n), xp.empty_like(logits, shape=(n, 2))
    for rows in row_tiles(n, v):
        top = sums[rows, :1] = xp.highest(logits[rows], 1, True)
        t = logits[rows] - top
        total = sums[rows, 1:] = xp.exp(t).sum(1, keepdims=True)
        loss[rows] = xp.einsum("nv,nv->n", q[rows], xp.subtract(xp.log(total), t, out=t))
    return loss, sums


def soft_backward(g: xp.ndarray, logits: xp.ndarray, q: xp.ndarray, sums: xp.ndarray) -> xp.ndarray:
    """Cotangent of the logits: (softmax · Σ q - q) · g, with g (n,)."""
    dlogits = xp.empty_like(logits)
    for rows in row_tiles(*logits.shape):
        dt = xp.subtract(logits[rows], sums[rows, :1], out=dlogits[rows])
        xp.exp(dt, out=dt)
        dt *= q[rows].sum(1, keepdims=True) / sums[rows, 1:]
        dt -= q[rows]
        dt *= g[rows, None]
    zero_ignored(dlogits, g)
    return dlogits


def soft_backward_target(g: xp.ndarray, logits: xp.ndarray, sums: xp.ndarray) -> xp.ndarray:
    """Cotangent of q: -log softmax · g."""
    return (xp.log(sums[:, 1:]) - (logits - sums[:, :1])) * g[:, None]


# The same on a GPU: some rows a program, or one if it is wide


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
    return losses, x, sums


@backward.version("triton")
def _backward_triton(g, x, sums, target):
    dx, (down, across, constants) = xp.empty_like(x), cut(x)
    g, target = contiguous(g), contiguous(target)
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
