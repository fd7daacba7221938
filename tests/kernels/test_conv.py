"""Convolution and pooling kernels: tiled ≡ naive ≡ float64, whatever the size of a tile."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from minidist.kernels import conv, pool, winograd
from minidist.kernels.windows import Windows, windows
from support.cases import LAYOUTS, SEEDS, laid_out, numbers, tiny_tiles

BOUNDS = {"float32": 2e-5, "float64": 1e-12}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
TILES = st.sampled_from([1, 30, 200, 1 << 18])


def close(a: np.ndarray, b: np.ndarray, dtype: str) -> bool:
    assert a.shape == b.shape and a.dtype == dtype
    return bool(np.abs(a - b).max(initial=0) <= BOUNDS[dtype] * max(1, np.abs(b).max(initial=0)))


@st.composite
def geometries(draw, most_pad: int = 2) -> tuple[Windows, tuple[int, int]]:
    """Windows, uneven padding included, and a size of planes that at least one fits."""
    pad = st.integers(0, most_pad)
    pads = draw(st.tuples(st.tuples(pad, pad), st.tuples(pad, pad)))
    win = Windows(draw(PAIR), draw(PAIR), pads, draw(PAIR))
    size = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    assume(all(n + sum(p) >= r for n, p, r in zip(size, pads, win.reach())))
    return win, size


@st.composite
def convolutions(draw, dtype: str):
    """x, weight, bias, windows and groups."""
    win, size = draw(geometries())
    groups, n, c, o = (draw(st.integers(*ends)) for ends in ((1, 3), (0, 3), (1, 2), (1, 2)))
    seed, layout = draw(SEEDS), draw(st.sampled_from(LAYOUTS))
    x = laid_out(numbers((n, groups * c, *size), seed, dtype), layout)
    weight = laid_out(numbers((groups * o, c, *win.kernel), seed + 1, dtype), layout)
    return x, weight, numbers((groups * o,), seed + 2, dtype), win, groups


def backwards(x, weight, g, win, groups):
    return (
        conv.backward_input(g, weight, x.shape[2:], win, groups),
        conv.backward_weight(g, x, weight.shape, win, groups),
        conv.backward_bias(g),
    )


@DTYPES
@given(data=st.data(), columns=TILES)
@settings(max_examples=40)
def test_convolution_and_its_adjoints(dtype, data, columns):
    """Forward is naive; the backward of a bilinear map is its adjoint in each argument."""
    x, weight, bias, win, groups = data.draw(convolutions(dtype))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "COLUMNS", columns)
        y = conv.forward(x, weight, bias, win, groups)
        g = numbers(y.shape, 7, dtype)
        dx, dw, db = backwards(x, weight, g, win, groups)
    wide = [a.astype("float64") for a in (x, weight, bias, g)]
    assert close(y, conv.naive(*wide[:3], win, groups), dtype)
    value = float((conv.naive(*wide[:2], None, win, groups) * wide[3]).sum())
    scale = BOUNDS[dtype] * max(1.0, float(np.abs(wide[3]).sum()) * 4 * weight[0].size)
    for a, d in ((wide[0], dx), (wide[1], dw)):
        assert d.shape == a.shape and d.dtype == dtype
        assert abs(float((a * d).sum()) - value) <= scale
    assert close(db, wide[3].sum((0, 2, 3)), dtype)


@given(data=st.data())
@settings(max_examples=40)
def test_the_two_ways_back_to_the_input_agree(data):
    """With stride 1 the input's cotangent is a convolution; col2im must say the same."""
    x, weight, _, win, groups = data.draw(convolutions("float64"))
    win = win._replace(stride=(1, 1))
    g = numbers((len(x), len(weight), *win.grid(x.shape[2:])), 3)
    straight = conv.backward_input(g, weight, x.shape[2:], win, groups)
    assert close(straight, conv._scatter(g, weight, x.shape[2:], win, groups), "float64")


def test_a_kernel_that_is_not_turned_round_is_killed(monkeypatch):
    weight = numbers((2, 2, 3, 3), 1)
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    g = numbers((1, 2, 5, 5), 2)
    monkeypatch.setattr(conv, "_turned_round", lambda w, groups: w.swapaxes(0, 1))
    wrong = conv.backward_input(g, weight, (5, 5), win)
    assert not close(wrong, conv._scatter(g, weight, (5, 5), win, 1), "float64")


@given(win_size=geometries(), n=st.integers(0, 3), c=st.integers(1, 2), columns=TILES)
@settings(max_examples=40)
def test_tiles_cover_every_output_once(win_size, n, c, columns):
    win, size = win_size
    count = win.grid(size)
    seen = np.zeros((n, *count), int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "COLUMNS", columns)
        for images, rows, part in conv._columns(np.ones((n, c, *size)), win, count):
            seen[images, rows] += 1
            assert part.shape == (c, *win.kernel, *seen[images, rows].shape)
            one_row = c * win.kernel[0] * win.kernel[1] * count[1]
            assert part.size <= max(columns, one_row) * 2
    assert (seen == 1).all()


def check_against_naive(x, weight, bias, win, groups, dtype):
    y = conv.forward(x, weight, bias, win, groups)
    g = numbers(y.shape, 7, dtype)
    dx, dw, _ = backwards(x, weight, g, win, groups)
    wide = [a.astype("float64") for a in (x, weight, bias, g)]
    assert close(y, conv.naive(*wide[:3], win, groups), dtype)
    assert close(dx, conv._scatter(wide[3], wide[1], x.shape[2:], win, groups).astype(dtype), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "suits", lambda *geometry: False)
        expected = conv.backward_weight(wide[3], wide[0], weight.shape, win, groups)
    assert close(dw, expected.astype(dtype), dtype)


def test_winograd_of_planes_one_column_wide():
    """A plane's rows lie four elements apart there: NumPy 2.4.6's negative reads wrong ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("DEPTH", 1), ("LEAST", 1), ("COLUMNS", 1), ("PIXELS", (1, 1))):
            patch.setattr(winograd, name, value)
        win = Windows((3, 1), (1, 1), ((1, 2), (0, 0)), (1, 1))
        x, weight = numbers((1, 1, 2, 1), 0, "float32"), numbers((2, 1, 3, 1), 1, "float32")
        check_against_naive(x, weight, numbers((2,), 2, "float32"), win, 1, "float32")


@DTYPES
@given(data=st.data(), columns=TILES, most=st.sampled_from([1, 20, 1 << 10]))
@settings(max_examples=60)
def test_winograd(dtype, data, columns, most):
    """Three rows by sums of rows: heights even and odd, across any stride and dilation."""
    x, weight, bias, win, groups = data.draw(convolutions(dtype))
    pad = win.padding[0] if x.shape[2] + sum(win.padding[0]) >= 3 else (1, 1)
    win = Windows(
        (3, win.kernel[1]), (1, win.stride[1]), (pad, win.padding[1]), (1, win.dilation[1])
    )
    weight = numbers((*weight.shape[:2], *win.kernel), 1, dtype)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("DEPTH", 1),
            ("LEAST", 1),
            ("COLUMNS", columns),
            ("PIXELS", (1, most)),
        ):
            patch.setattr(winograd, name, value)
        assert winograd.suits(win, 1, (1, 1), x.dtype)
        check_against_naive(x, weight, bias, win, groups, dtype)


@DTYPES
@given(data=st.data(), columns=TILES, depth=st.sampled_from([1, 1 << 10]))
@settings(max_examples=30)
def test_both_products_for_the_weight(dtype, data, columns, depth):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "COLUMNS", columns)
        patch.setattr(conv, "DEPTH", depth)
        check_against_naive(*data.draw(convolutions(dtype)), dtype)


@pytest.mark.parametrize("c, o, size", [(16, 8, (8, 16)), (64, 64, (12, 12)), (24, 3, (9, 33))])
def test_winograd_where_it_is_used(c, o, size):
    """Of usual sizes, and in float32 no worse than the products that it leaves out."""
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    x, weight, bias = numbers((2, c, *size), 0), numbers((o, c, 3, 3), 1), numbers((o,), 2)
    assert winograd.suits(win, c, size, x.dtype)
    check_against_naive(x, weight, bias, win, 1, "float64")
    exact, error = conv.naive(x, weight, bias, win), []
    for suits in (winograd.suits, lambda *geometry: False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(winograd, "suits", suits)
            y = conv.forward(*(a.astype("float32") for a in (x, weight, bias)), win)
        error.append(np.sqrt(np.square(y - exact).mean()))
    assert error[0] <= 2 * error[1]


def test_winograd_with_a_wrong_sum_is_killed(monkeypatch):
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    x, weight = numbers((1, 16, 8, 8), 0), numbers((2, 16, 3, 3), 1)
    tiles = winograd._tiles
    monkeypatch.setattr(winograd, "_tiles", lambda *a: (
        (images, pairs, sums[[0, 2, 1, 3]]) for images, pairs, sums in tiles(*a)))  # fmt: skip
    y = conv.forward(x, weight, None, win)
    assert not close(y, conv.naive(x, weight, None, win), "float64")


def test_winograd_keeps_to_floats():
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    assert not winograd.suits(win, 64, (32, 32), np.dtype("int64"))
    assert not winograd.suits(win, 64, (32, 32), np.dtype("float16"))
    x, weight = np.arange(4 * 64).reshape(1, 4, 8, 8) % 5, np.arange(72).reshape(2, 4, 3, 3) % 3
    np.testing.assert_array_equal(
        conv.forward(x, weight, None, win), conv.naive(x, weight, None, win)
    )


# Pooling


@given(win_size=geometries(0), p=st.integers(0, 3), tile=st.integers(1, 60), seed=SEEDS,
       pads=st.tuples(st.integers(0, 1), st.integers(0, 1)), ceil=st.booleans())  # fmt: skip
@settings(max_examples=60)
def test_max_pooling(win_size, p, tile, seed, pads, ceil):
    win, size = win_size
    pads = tuple((min(a, r // 2),) * 2 for a, r in zip(pads, win.reach()))
    win, x = win._replace(padding=pads), numbers((p, 1, *size), seed)
    count = win.grid(size, ceil)
    with tiny_tiles(tile):
        y, which = pool.max_forward(x, win, count)
        dx = pool.max_backward(numbers(y.shape, seed + 1), which, x.shape, win)
    flat = x.reshape(p, *size)
    np.testing.assert_array_equal(y[:, 0], pool.naive(flat, win, count, np.max, -np.inf))
    expected = np.zeros_like(dx)
    for at in np.ndindex(y.shape):  # whatever was the largest gets it
        plane = np.argwhere(x[at[0], 0] == y[at])[0]
        expected[(at[0], 0, *plane)] += numbers(y.shape, seed + 1)[at]
    assert close(dx, expected, "float64")


@pytest.mark.parametrize("size", [(4, 6), (5, 6), (4, 7), (2, 3)])
@pytest.mark.parametrize("win", [
    Windows((2, 3), (2, 3)), Windows((2, 3), (3, 3)), Windows((2, 2), (2, 2), ((1, 1), (1, 1))),
])  # fmt: skip
def test_backward_of_max_pooling_fills_every_place(win, size, monkeypatch):
    """What no window chose gets 0: memory is not taken as it comes unless all of it is written."""
    x = numbers((2, 1, *size), 0)
    y, which = pool.max_forward(x, win, win.grid(size))
    g = np.ones_like(y)
    monkeypatch.setattr(np, "empty", lambda shape, dtype: np.full(shape, 7, dtype))
    dx = pool.max_backward(g, which, x.shape, win)
    assert dx.sum() == y.size and set(np.unique(dx)) <= {0, 1}


def test_of_equal_numbers_the_first_is_the_largest():
    y, which = pool.max_forward(np.zeros((1, 1, 4, 4)), Windows((2, 2), (2, 2)), (2, 2))
    dx = pool.max_backward(np.ones((1, 1, 2, 2)), which, (1, 1, 4, 4), Windows((2, 2), (2, 2)))
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(np.argwhere(dx[0, 0]), [[0, 0], [0, 2], [2, 0], [2, 2]])


def test_max_pooling_hands_on_nan():
    x = np.array([[[[np.nan, 1.0], [2.0, 3.0]]]])
    assert np.isnan(pool.max_forward(x, Windows((2, 2)), (1, 1))[0]).all()


@given(win_size=geometries(0), p=st.integers(0, 3), seed=SEEDS)
@settings(max_examples=40)
def test_mean_pooling_is_a_product_with_two_matrices(win_size, p, seed):
    win, size = win_size
    win, x = win._replace(dilation=(1, 1)), numbers((p, 2, *size), seed)
    count = win.grid(size)
    matrices = [pool.sliding(n, i, win, False, True, None, x.dtype) for i, n in enumerate(size)]
    y = pool.mean(x, *matrices)
    naive = pool.naive(x.reshape(-1, *size), win, count, np.mean, 0)
    assert close(y, naive.reshape(y.shape), "float64")


@pytest.mark.parametrize("n", [1, 5, 7])
@pytest.mark.parametrize("m", [1, 2, 5, 9])
def test_adaptive_windows_cover_everything_evenly(n, m):
    matrix = pool.adaptive(n, m, np.dtype("float64"))
    np.testing.assert_allclose(matrix.sum(1), 1)
    widths = (matrix > 0).sum(1)
    assert (matrix > 0).any(0).all() and widths.max() - widths.min() <= 1 + (n % m > 0)


# Windows


def test_windows_want_what_makes_sense():
    assert windows("conv2d", 2, 3, 1, "same").padding == ((1, 1), (1, 1))
    assert windows("conv1d", 1, 4, 1, "same").padding == ((1, 2), (0, 0))
    for arguments, words in (
        ((2, 0, 1), "kernel"),
        ((2, 3, 0), "at least 1"),
        ((2, 3, 1, -1), "padding at least 0"),
        ((2, 3, 2, "same"), "needs stride 1"),
        ((2, 3, 1, "more"), "'valid' or 'same'"),
        ((2, (1, 2, 3), 1), "one number or 2"),
    ):
        with pytest.raises(RuntimeError, match=words):
            windows("conv2d", *arguments)
