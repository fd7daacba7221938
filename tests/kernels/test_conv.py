"""Convolution and pooling kernels: loop ≡ formula ≡ float64, whatever the size of a tile."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from minidist.kernels import conv, pool, winograd
from minidist.kernels.windows import Windows, windows
from support.cases import LAYOUTS, SEEDS, laid_out, numbers
from support.tritons import poisoned

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
    assert close(y, conv.forward.formula(*wide[:3], win, groups), dtype)
    value = float((conv.forward.formula(*wide[:2], None, win, groups) * wide[3]).sum())
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
    assert close(straight, conv._by_patches(g, weight, x.shape[2:], win, groups), "float64")


def test_a_kernel_that_is_not_turned_round_is_killed(monkeypatch):
    weight = numbers((2, 2, 3, 3), 1)
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    g = numbers((1, 2, 5, 5), 2)
    monkeypatch.setattr(conv, "_turned_round", lambda w, groups: w.swapaxes(0, 1))
    wrong = conv.backward_input(g, weight, (5, 5), win)
    assert not close(wrong, conv._by_patches(g, weight, (5, 5), win, 1), "float64")


@given(win_size=geometries(), n=st.integers(0, 3), c=st.integers(1, 2), columns=TILES)
@settings(max_examples=40)
def test_tiles_cover_every_output_once(win_size, n, c, columns):
    win, size = win_size
    count = win.grid(size)
    seen = np.zeros((n, *count), int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "COLUMNS", columns)
        for (image, images, row, rows), part in conv._columns(np.ones((n, c, *size)), win, count):
            seen[image : image + images, row : row + rows] += 1
            assert part.shape == (c * win.kernel[0] * win.kernel[1], images, rows, count[1])
            one_row = c * win.kernel[0] * win.kernel[1] * count[1]
            assert part.size <= max(columns, one_row) * 2
    assert (seen == 1).all()


def check_against_naive(x, weight, bias, win, groups, dtype):
    y = conv.forward(x, weight, bias, win, groups)
    g = numbers(y.shape, 7, dtype)
    dx, dw, _ = backwards(x, weight, g, win, groups)
    wide = [a.astype("float64") for a in (x, weight, bias, g)]
    assert close(y, conv.forward.formula(*wide[:3], win, groups), dtype)
    expected = conv.backward_input.formula(wide[3], wide[1], x.shape[2:], win, groups)
    assert close(dx, expected, dtype)
    expected = conv.backward_weight.formula(wide[3], wide[0], weight.shape, win, groups)
    assert close(dw, expected, dtype)


@DTYPES
@given(data=st.data(), tiles=st.integers(1, 30))
@settings(max_examples=60)
def test_winograd(dtype, data, tiles):
    """3 x 3 by sums of tiles: sizes even and odd, some blocks of tiles."""
    x, weight, bias, win, groups = data.draw(convolutions(dtype))
    pads = [p if n + sum(p) >= 4 else (2, 2) for p, n in zip(win.padding, x.shape[2:])]
    win = Windows((3, 3), padding=(pads[0], pads[1]))
    weight = numbers((*weight.shape[:2], 3, 3), 1, dtype)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CHANNELS", 1), ("LEAST", 1), ("TILES", tiles)):
            patch.setattr(winograd, name, value)
        assert winograd.suits(win, (1, 1), win.grid(x.shape[2:]))
        check_against_naive(x, weight, bias, win, groups, dtype)


@pytest.mark.parametrize("c, o, size", [(16, 16, (8, 16)), (64, 64, (12, 12)), (24, 17, (9, 33))])
def test_winograd_where_it_is_used(c, o, size):
    """Of usual sizes, and in float32 no worse than the products that it leaves out."""
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    x, weight, bias = numbers((2, c, *size), 0), numbers((o, c, 3, 3), 1), numbers((o,), 2)
    assert winograd.suits(win, (c, o), size)
    check_against_naive(x, weight, bias, win, 1, "float64")
    exact, error = conv.forward.formula(x, weight, bias, win), []
    for suits in (winograd.suits, lambda *geometry: False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(winograd, "suits", suits)
            y = conv.forward(*(a.astype("float32") for a in (x, weight, bias)), win)
        error.append(np.sqrt(np.square(y - exact).mean()))
    assert error[0] <= 2 * error[1]


def test_winograd_with_a_wrong_sum_is_killed(monkeypatch):
    sums = winograd._sums
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    x, weight = numbers((1, 16, 8, 8), 0), numbers((16, 16, 3, 3), 1)
    monkeypatch.setattr(winograd, "_sums", lambda a: sums(a)[[0, 2, 1, 3]])
    y = conv.forward(x, weight, None, win)
    assert not close(y, conv.forward.formula(x, weight, None, win), "float64")


def test_integers_are_exact():
    """The loops are for floats: Winograd's halves would be cut off."""
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    x, weight = np.arange(1024).reshape(1, 16, 8, 8) % 5, np.arange(2304).reshape(16, 16, 3, 3) % 3
    np.testing.assert_array_equal(
        conv.forward(x, weight, None, win), conv.forward.formula(x, weight, None, win)
    )


def spoiled(array, seed):
    """A copy in which a few numbers are NaN or infinite."""
    array, rng = array.copy(), np.random.default_rng(seed)
    if array.size:
        array.flat[rng.integers(0, array.size, 2)] = rng.choice([np.nan, np.inf, -np.inf], 2)
    return array


def alike(ours, formula):
    """NaN and infinities in the same places, and numbers close."""
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(formula))
    np.testing.assert_allclose(ours, formula, rtol=1e-10, atol=1e-10)


@given(data=st.data(), columns=TILES, seed=SEEDS)
@settings(max_examples=60)
def test_nan_and_infinity_come_out_where_the_formula_has_them(data, columns, seed):
    """In memory that holds other numbers before; by patches, for sums of tiles spread them."""
    x, weight, bias, win, groups = data.draw(convolutions("float64"))
    x, size = spoiled(x, seed), x.shape[2:]
    g = spoiled(numbers((len(x), len(weight), *win.grid(size)), 3), seed + 1)
    with np.errstate(invalid="ignore"), poisoned(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "COLUMNS", columns)
        for kernel, *arguments in (
            (conv.forward, x, weight, bias, win, groups),
            (conv.backward_weight, g, x, weight.shape, win, groups),
            (conv.backward_bias, g),
        ):
            alike(kernel(*arguments), kernel.formula(*arguments))
        ours = conv._by_patches(g, weight, size, win, groups)
        alike(ours, conv.backward_input.formula(g, weight, size, win, groups))


# Pooling


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(win_size=geometries(0), p=st.integers(0, 3), seed=SEEDS, ceil=st.booleans(),
       four=st.booleans(), layout=st.sampled_from(LAYOUTS))  # fmt: skip
@settings(max_examples=60)
def test_loops_of_pooling_are_the_formulas(dtype, win_size, p, seed, ceil, four, layout):
    """NaN, infinities and equal numbers too, in memory that holds other numbers before."""
    win, size = (Windows((2, 2), (2, 2)), (5, 4)) if four else win_size
    pads = tuple((r // 2,) * 2 for r in win.reach())
    win = win if four else win._replace(padding=pads)
    x = laid_out(spoiled(numbers((p, 2, *size), seed).round(1), seed).astype(dtype), layout)
    count = win.grid(size, ceil)
    with poisoned(), np.errstate(invalid="ignore"):  # inf - inf
        y, which = pool.max_forward(x, win, count)
        expected, places = pool.max_forward.formula(x, win, count)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(which, places)
        assert y.dtype == dtype and which.dtype == places.dtype == "uint8"
        g = laid_out(spoiled(numbers(y.shape, seed + 1), seed).astype(dtype), layout)
        dx = pool.max_backward(g, which, x.shape, win)
        formula = pool.max_backward.formula(g, which, x.shape, win)
        np.testing.assert_allclose(dx, formula, rtol=1e-5, atol=1e-5)
        pads = tuple((k // 2 * (not four),) * 2 for k in win.kernel)
        near = win._replace(dilation=(1, 1), padding=pads)
        by = (near, ceil, False, None, np.dtype(dtype))
        down, across = (pool.sliding(n, axis, *by) for axis, n in enumerate(size))
        y, expected = pool.mean(x, down, across), pool.mean.formula(x, down, across)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        g = y[..., ::1]
        dx, expected = (mean(g, down.T, across.T) for mean in (pool.mean, pool.mean.formula))
        np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-5)


def test_windows_of_more_than_256_places():
    x, win = numbers((2, 1, 20, 20), 0), Windows((17, 17), (3, 3))
    y, which = pool.max_forward(x, win, (2, 2))
    assert which.dtype == "uint16"
    np.testing.assert_array_equal(y[:, 0], by_pixels(x[:, 0], win, (2, 2), np.max, -np.inf))
    dx = pool.max_backward(np.ones_like(y), which, x.shape, win)
    assert dx.sum() == y.size


def by_pixels(x, win, size, reduce, fill):
    """One output pixel at a time: x (p, h, w) -> (p, *size)."""
    (sh, sw), (dh, dw), (rh, rw) = win.stride, win.dilation, win.reach()
    whole, y = pool._padded(x, win, size, fill), np.empty((len(x), *size), x.dtype)
    for i, j in np.ndindex(*size):
        window = whole[:, i * sh : i * sh + rh : dh, j * sw : j * sw + rw : dw]
        y[:, i, j] = reduce(window, (1, 2))
    return y


@given(win_size=geometries(0), p=st.integers(0, 3), seed=SEEDS,
       pads=st.tuples(st.integers(0, 1), st.integers(0, 1)), ceil=st.booleans())  # fmt: skip
@settings(max_examples=60)
def test_max_pooling(win_size, p, seed, pads, ceil):
    win, size = win_size
    pads = tuple((min(a, r // 2),) * 2 for a, r in zip(pads, win.reach()))
    win, x = win._replace(padding=pads), numbers((p, 1, *size), seed)
    count = win.grid(size, ceil)
    y, which = pool.max_forward(x, win, count)
    dx = pool.max_backward(numbers(y.shape, seed + 1), which, x.shape, win)
    flat = x.reshape(p, *size)
    np.testing.assert_array_equal(y[:, 0], by_pixels(flat, win, count, np.max, -np.inf))
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
    naive = by_pixels(x.reshape(-1, *size), win, count, np.mean, 0)
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
    assert windows("conv1d", 1, 4, 1, "same").padding == ((0, 0), (1, 2))
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
