"""Rotary position embedding (Su et al. 2021, RoFormer, 3.2.2): pairs of features turned by angles.

Two layouts of the pairs are in use: interleaved (0, 1), (2, 3), …, as in the paper, and half-split
(0, d/2), (1, d/2 + 1), …, as in GPT-NeoX and Llama checkpoints. An interleaved pair lies in memory
as a complex number does, and turning it is one complex product. A rotation's adjoint is its
inverse: backward turns back, by the conjugate.

The ladder, x of n numbers of b bytes, the table of angles half as many complex numbers as x has
features:

- formula: whole arrays, an operation at a time: some 9nb bytes, half of them in strides.
- loop: one visit of each pair: x is read and y written, 2nb bytes. The angles of a row serve one
  head after another; they stay in the cache if they fit.
- tile program: the same bytes; GROUP heads are turned by one load of their angles.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import formula
from .launch import contiguous, next_power_of_2, triton_kernel
from .loops import F, Out, loop

tl: Any = None  # Triton's language, once a kernel is launched

TILE = 2048  # features of x a program turns at a time: 16 a thread
GROUP = 4  # heads that a program turns by one load of their angles


def angles(positions: xp.ndarray, d: int, base: float) -> xp.ndarray:
    """position · base^(-2i/d) for i = 0 .. d/2 - 1: (...) -> (..., d/2), in float64."""
    with xp.beside(positions):
        return positions[..., None] * base ** (-xp.arange(0, d, 2) / d)


# The formula


@formula
def rotate(x: xp.ndarray, turn: xp.ndarray, interleaved: bool) -> xp.ndarray:
    """x (..., s, d), turn = exp(i · angles) that broadcasts to (..., s, d/2) -> (..., s, d).

    turn is complex64, but complex128 for x in float64.
    """
    y = xp.empty_like(x, order="C")
    (a, b), (left, right) = _pairs(x, interleaved), _pairs(y, interleaved)
    left[...] = a * turn.real - b * turn.imag
    right[...] = a * turn.imag + b * turn.real
    return y


@formula
def backward(g: xp.ndarray, turn: xp.ndarray, interleaved: bool) -> xp.ndarray:
    """The rotation back: g (..., s, d) -> (..., s, d)."""
    return rotate.formula(g, turn.conj(), interleaved)


def _pairs(x, interleaved):
    """The first and the second number of each pair: two views (..., s, d/2)."""
    half = x.shape[-1] // 2
    return (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])


# The loop


@loop
def turned_rows(
    x: F[:, :, :, :, ::1], cos: F[:, :, ::1], sin: F[:, :, ::1], back: float, interleaved: bool,
    y: Out[:, :, :, :, ::1],
):  # fmt: skip
    # x and y (lead, outer, repeats, inner, d), cos and sin (outer, inner, d/2); back: -1 turns back
    lead, outer, repeats, inner, d = x.shape
    half = d // 2
    for m in range(lead):
        for o in range(outer):
            for r in range(repeats):
                for i in range(inner):
                    p, q, c, s = x[m, o, r, i], y[m, o, r, i], cos[o, i], sin[o, i]
                    if interleaved:
                        for j in range(half):
                            a, b = p[2 * j], p[2 * j + 1]
                            q[2 * j] = a * c[j] - b * s[j] * back
                            q[2 * j + 1] = a * s[j] * back + b * c[j]
                    else:
                        for j in range(half):
                            a, b = p[j], p[half + j]
                            q[j] = a * c[j] - b * s[j] * back
                            q[half + j] = a * s[j] * back + b * c[j]


@rotate.version("numba")
def _rotate_loop(x, turn, interleaved, back=1.0):
    """Temporary memory: cosines and sines apart, as large as the table."""
    x = xp.ascontiguousarray(x)
    y = xp.empty_like(x)
    if x.size:
        x, turn, sizes, _ = _laid_out(x, turn)
        table = sizes[1], sizes[3], -1
        cos, sin = (xp.ascontiguousarray(part).reshape(table) for part in (turn.real, turn.imag))
        x, into = x.reshape(*sizes, -1), y.reshape(*sizes, -1)
        turned_rows(x, cos, sin, back, interleaved, into)
    return y


@backward.version("numba")
def _backward_loop(g, turn, interleaved):
    return _rotate_loop(g, turn, interleaved, -1.0)


# The tile program: some rows of the table, and several heads that are turned by them


@triton_kernel
def _rotary_kernel(
    x_ptr, y_ptr, turn_ptr, rows, outer, repeats, inner, d,
    x_lead, x_outer, x_repeat, x_inner,
    INTERLEAVED: tl.constexpr, BACK: tl.constexpr, DOUBLE: tl.constexpr,
    ROWS: tl.constexpr, HALF: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """x (lead, outer, repeats, inner, d) of any strides but the last, which is 1, y without gaps,
    by turn (rows = outer·inner, d/2), its complex numbers two floats each."""
    half = d // 2
    number = tl.program_id(0).to(tl.int64)
    tiles = tl.cdiv(rows, ROWS)
    groups = tl.cdiv(repeats, GROUP)
    lead = number // tiles // groups
    first = number // tiles % groups * GROUP
    row = number % tiles * ROWS + tl.arange(0, ROWS)
    out, within = row * 0, row
    if outer != 1:
        out, within = row // inner, row % inner
    kind = tl.float64 if DOUBLE else tl.float32

    pair = tl.arange(0, HALF)[None, :]
    feature = tl.arange(0, 2 * HALF)[None, :]
    here = (row < rows)[:, None]
    turn = tl.load(turn_ptr + row[:, None] * d + feature, here & (feature < d))
    cos, sin = tl.split(tl.reshape(turn.to(kind), [ROWS, HALF, 2]))
    if BACK:
        sin = -sin
    for i in tl.static_range(GROUP):
        repeat = first + i + row * 0  # a block: in the interpreter a mask must not be a scalar
        at = lead * x_lead + out * x_outer + repeat * x_repeat + within * x_inner
        to = (((lead * outer + out) * repeats + repeat) * inner + within) * d
        x, y = x_ptr + at[:, None], y_ptr + to[:, None]
        inside = here & (repeat < repeats)[:, None]
        if INTERLEAVED:
            both = tl.load(x + feature, inside & (feature < d)).to(kind)
            a, b = tl.split(tl.reshape(both, [ROWS, HALF, 2]))
            turned = tl.join(a * cos - b * sin, a * sin + b * cos)
            turned = tl.reshape(turned, [ROWS, 2 * HALF]).to(y_ptr.dtype.element_ty)
            tl.store(y + feature, turned, inside & (feature < d))
        else:
            inside = inside & (pair < half)
            a = tl.load(x + pair, inside).to(kind)
            b = tl.load(x + half + pair, inside).to(kind)
            tl.store(y + pair, (a * cos - b * sin).to(y_ptr.dtype.element_ty), inside)
            tl.store(y + half + pair, (a * sin + b * cos).to(y_ptr.dtype.element_ty), inside)


@rotate.version("triton")
def _rotate_triton(x, turn, interleaved, back=False):
    y, d = xp.empty_like(x, order="C"), x.shape[-1]
    if not x.size:
        return y
    x, turn, sizes, strides = _laid_out(x, turn)
    lead, outer, repeats, inner = sizes
    rows, columns = outer * inner, next_power_of_2(d // 2)
    group = min(GROUP, next_power_of_2(repeats))
    tall = min(max(1, TILE // (2 * columns)), next_power_of_2(rows))
    programs = lead * -(-rows // tall) * -(-repeats // group)
    _rotary_kernel[(programs,)](
        x, y, turn.view(f"f{turn.itemsize // 2}"), rows, outer, repeats, inner, d, *strides,
        INTERLEAVED=interleaved, BACK=back, DOUBLE=x.dtype == xp.float64,
        ROWS=tall, HALF=columns, GROUP=group,
    )  # fmt: skip
    return y


@backward.version("triton")
def _backward_triton(g, turn, interleaved):
    return _rotate_triton(g, turn, interleaved, back=True)


def _laid_out(x, turn):
    """x and turn with the sizes and strides (lead, outer, repeats, inner) of x's rows: along lead
    and repeats rows share their angles. What has more axes than that is copied."""
    turn = contiguous(turn)
    if x.strides[-1] == x.itemsize and (found := _four_axes(x, turn)):
        return x, turn, *found
    x = contiguous(x)
    if found := _four_axes(x, turn):
        return x, turn, *found
    turn = xp.broadcast_to(turn, (*x.shape[:-1], turn.shape[-1])).copy()
    return x, turn, *_four_axes(x, turn)


def _four_axes(x, turn):
    """(sizes, strides in elements) of x's rows, or None if four axes are too few."""
    own = (1,) * (x.ndim - turn.ndim) + turn.shape[:-1]
    axes: list[list] = []  # [angles of its own?, size, stride], from the last
    for n, m, stride in zip(x.shape[-2::-1], own[::-1], x.strides[-2::-1]):
        if axes and axes[-1][0] == (m > 1) and stride == axes[-1][1] * axes[-1][2]:
            axes[-1][1] *= n
        elif n > 1:
            axes.append([m > 1, n, stride])
    found, place = [(1, 0)] * 4, 4
    for differs, n, stride in axes:
        place -= 1 if (place - 1) % 2 == differs else 2
        if place < 0 or stride % x.itemsize:
            return None
        found[place] = n, stride // x.itemsize
    return tuple(zip(*found))
