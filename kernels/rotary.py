"""Rotary position embedding (Su et al. 2021, RoFormer, 3.2.2): pairs of features turned by angles.

Two layouts of the pairs are in use: interleaved (0, 1), (2, 3), …, as in the paper, and half-split
(0, d/2), (1, d/2 + 1), …, as in GPT-NeoX and Llama checkpoints. An interleaved pair lies in memory
as a complex number does, and turning it is one complex product. A rotation's adjoint is its
inverse: backward turns back, by the conjugate.

The ladder: naive, pair after pair by cosine and sine, each a walk through memory with strides; in
NumPy, interleaved pairs in one pass, halves in four over tiles that stay in cache; in Triton, one
pass, in which several heads are turned by one load of their angles. Memory traffic: x is read
and y written once; the table of angles, half as many complex numbers as x has features, is read
once for GROUP heads that share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .launch import contiguous, next_power_of_2, triton_kernel
from .tiles import ELEMENTS

tl: Any = None  # Triton's language, once a kernel is launched

TILE = 2048  # features of x a program turns at a time: 16 a thread
GROUP = 4  # heads that a program turns by one load of their angles


def angles(positions: xp.ndarray, d: int, base: float) -> xp.ndarray:
    """position · base^(-2i/d) for i = 0 .. d/2 - 1: (...) -> (..., d/2), in float64."""
    with xp.beside(positions):
        return positions[..., None] * base ** (-xp.arange(0, d, 2) / d)


@dispatched
def rotate(x: xp.ndarray, turn: xp.ndarray, interleaved: bool) -> xp.ndarray:
    """x (..., s, d), turn = exp(i · angles) that broadcasts to (..., s, d/2) -> (..., s, d).

    turn is complex64, but complex128 for x in float64. Temporary memory: for halves, a tile of
    ELEMENTS and twice the table; for float16, x and y in float32 too.
    """
    if x.dtype == xp.float16:
        return rotate.versions["numba"](x.astype(xp.float32), turn, interleaved).astype(x.dtype)
    y = xp.empty_like(x, order="C")
    if interleaved:
        x = x if x.strides[-1] == x.itemsize else xp.ascontiguousarray(x)
        xp.multiply(x.view(turn.dtype), turn, out=y.view(turn.dtype))
    else:
        cos, sin = (xp.broadcast_to(table, x.shape) for table in _wide(turn))
        for tile in _tiles(x.shape):
            _rotate_halves(x[tile], cos[tile], sin[tile], y[tile])
    return y


@dispatched
def backward(g: xp.ndarray, turn: xp.ndarray, interleaved: bool) -> xp.ndarray:
    """The rotation back: g (..., s, d) -> (..., s, d)."""
    return rotate.versions["numba"](g, turn.conj(), interleaved)


def naive(x: xp.ndarray, angles: xp.ndarray, interleaved: bool) -> xp.ndarray:
    """The formula, pair by pair: x (..., s, d), angles (..., s, d/2)."""
    return _by_pairs(x, xp.cos(angles), xp.sin(angles), interleaved)


@rotate.version("naive")
def _rotate_naive(x, turn, interleaved):
    return _by_pairs(x, turn.real, turn.imag, interleaved)


@backward.version("naive")
def _backward_naive(g, turn, interleaved):
    return _by_pairs(g, turn.real, -turn.imag, interleaved)


def _by_pairs(x, cos, sin, interleaved):
    half, y = x.shape[-1] // 2, xp.empty_like(x)
    for i in range(half):
        j, k = (2 * i, 2 * i + 1) if interleaved else (i, half + i)
        y[..., j] = x[..., j] * cos[..., i] - x[..., k] * sin[..., i]
        y[..., k] = x[..., j] * sin[..., i] + x[..., k] * cos[..., i]
    return y


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple]:
    """Indices of pieces of about ELEMENTS elements: runs along one axis, single along those left
    of it; rows stay whole."""
    width = math.prod(shape[1:])
    if len(shape) == 1 or shape[0] * width <= ELEMENTS:
        yield ()
    elif width <= ELEMENTS:
        step = ELEMENTS // width
        yield from ((slice(i, i + step),) for i in range(0, shape[0], step))
    else:
        yield from ((i, *rest) for i in range(shape[0]) for rest in _tiles(shape[1:]))


def _wide(turn: xp.ndarray) -> tuple[xp.ndarray, xp.ndarray]:
    """(cos, cos) and (-sin, sin), as wide as x: what is as long as x is fast to multiply by."""
    cos, sin = turn.real, turn.imag
    return xp.concatenate((cos, cos), -1), xp.concatenate((-sin, sin), -1)


def _rotate_halves(x, cos, sin, y):
    """x · (cos, cos) + (x's halves exchanged) · (-sin, sin)."""
    half = x.shape[-1] // 2
    exchanged = xp.empty_like(y)
    exchanged[..., :half], exchanged[..., half:] = x[..., half:], x[..., :half]
    exchanged *= sin
    xp.multiply(x, cos, out=y)
    y += exchanged


# The same on a GPU: some rows of the table a program, and several heads that are turned by them


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
