"""What random tests are made of: shapes, arrays in odd layouts, and tiny tiles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes
from minidist.kernels import attention, linear

SEEDS = st.integers(0, 2**32 - 1)
LAYOUTS = ("C", "F", "step", "reversed")


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 3):
    return array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def broadcast_shapes():
    """Pairs of shapes that broadcast: sizes of 1 and 0, and of different lengths."""
    found = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3)
    return found.map(lambda b: b.input_shapes)


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers under other strides."""
    if layout == "F":
        return np.asarray(array, order="F")
    if layout == "step":
        wide = np.full([2 * n for n in array.shape], np.nan, array.dtype)
        view = wide[(..., *[slice(None, None, 2)] * array.ndim)]
        view[...] = array
        return view
    if layout == "reversed" and array.ndim:
        return array[::-1].copy()[::-1]
    return array


def numbers(shape: tuple[int, ...], seed: int, dtype: str = "float64") -> np.ndarray:
    """Between 0.2 and 2 with either sign, so away from 0, where relu has its kink."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], shape)
    return np.asarray(signs * rng.uniform(0.2, 2.0, shape), dtype)


@st.composite
def arrays(draw, shape=None, positive: bool = False) -> np.ndarray:
    """A float64 array of a shape (or of any), in any layout."""
    shape = draw(shapes()) if shape is None else shape
    array = numbers(shape, draw(SEEDS))
    return laid_out(np.abs(array) if positive else array, draw(st.sampled_from(LAYOUTS)))


@st.composite
def distinct(draw, shape=None) -> np.ndarray:
    """No two entries near each other, so that a maximum stays where it is."""
    shape = draw(shapes(min_side=1)) if shape is None else shape
    rng = np.random.default_rng(draw(SEEDS))
    return np.asarray(rng.permutation(int(np.prod(shape))).reshape(shape) / 7.0)


@contextlib.contextmanager
def tiny_tiles(elements: int, queries: int = 64, rows: int = 256) -> Iterator[None]:
    """Inside, kernels cut their work so small that small arrays fill several tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "ELEMENTS", elements)
        for name in ("FEWEST", "MOST", "KEYS"):
            patch.setattr(attention, name, queries)
        patch.setattr(linear, "ROWS", rows)
        yield
