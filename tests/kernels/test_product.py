"""Products in pieces equal whole ones, whatever is left over; so do linear layers of few rows."""

import numpy as np
import pytest
from minidist.kernels import linear
from minidist.kernels import product as kernel
from support.cases import numbers

SIZES = [(4, 300, 900), (70, 200, 75), (33, 1030, 66), (130, 2100, 5), (3, 700, 700), (150, 90, 90)]


@pytest.fixture(params=[True, False])
def unpacked(request, monkeypatch):
    monkeypatch.setattr(kernel, "unpacked", lambda: request.param)
    monkeypatch.setattr(kernel, "_is_intel", lambda: False)
    return request.param


def whole(m, k, n, lead=()):
    """Small integers: sums of their products are exact in any order."""
    a, b = (np.rint(numbers((*lead, *s), i) * 3) for i, s in enumerate(((m, k), (k, n))))
    return a, b, np.einsum("...ij,...jk->...ik", a, b)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products(size, dtype, unpacked):
    a, b, expected = whole(*size)
    a, b = a.astype(dtype), b.astype(dtype)
    y = kernel.product(a, b)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    out = np.zeros((size[0], size[2] + 3), dtype)
    assert np.shares_memory(kernel.product(a, b, out[:, 1:-2]), out)
    np.testing.assert_array_equal(out[:, 1:-2], expected)
    assert not out[:, 0].any() and not out[:, -2:].any()


@pytest.mark.parametrize("lead", [(3,), (2, 3), (0,)])
def test_stacks_of_products(lead, unpacked):
    a, b, expected = whole(37, 301, 99, lead)
    np.testing.assert_array_equal(kernel.product(a, b), expected)
    one = np.broadcast_to(a[..., :1, :], a.shape)
    np.testing.assert_array_equal(kernel.product(one, b), one @ b)


@pytest.mark.parametrize("turn", ["left", "right", "both"])
def test_products_of_transposed_views(turn, unpacked):
    a, b, expected = whole(70, 200, 75)
    a = a if turn == "right" else a.T.copy().T
    b = b if turn == "left" else b.T.copy().T
    np.testing.assert_array_equal(kernel.product(a, b), expected)


@pytest.mark.parametrize("size", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1)])
def test_products_of_little(size, unpacked):
    a, b = np.ones(size[:2]), np.ones(size[1:])
    np.testing.assert_array_equal(kernel.product(a, b), a @ b)


@pytest.mark.parametrize("m", [1, 15, 64, 1000])
@pytest.mark.parametrize("k", [1, 200, 1024])
@pytest.mark.parametrize("n", [1, 63, 64, 500])
def test_a_piece_is_small_and_part_of_the_whole(m, k, n):
    height, width = kernel._piece(m, k, n)
    assert 1 <= height <= m and 1 <= width <= n
    assert height * k * width <= kernel.MULTIPLICATIONS
    assert height == m or height % 4 == 0


def test_the_test_sees_a_forgotten_rest(monkeypatch):
    """The control: pieces alone, without what is left over, pass no check."""
    monkeypatch.setattr(kernel, "unpacked", lambda: True)
    monkeypatch.setattr(kernel, "_is_intel", lambda: False)
    monkeypatch.setattr(kernel, "_in_layers", lambda a, b, out: kernel._in_pieces(
        a[..., : kernel.DEPTH], b[..., : kernel.DEPTH, :], out))  # fmt: skip
    a, b, expected = whole(33, 1030, 66)
    assert (kernel.product(a, b) != expected).any()


def test_which_library_has_kernels_for_small_products(monkeypatch):
    class Library:
        architecture = "SkylakeX"
        get_num_threads = staticmethod(lambda: 1)

    for libraries, expected in (([Library()], True), ([], False)):
        monkeypatch.setattr(kernel, "_libraries", lambda found=libraries: found)
        assert kernel.unpacked() is expected
    Library.get_num_threads = staticmethod(lambda: 2)
    monkeypatch.setattr(kernel, "_libraries", lambda: [Library()])
    assert not kernel.unpacked()


@pytest.mark.parametrize("is_intel", [True, False])
@pytest.mark.parametrize("m, n, lined", [(70, 80, True), (70, 80, False), (16, 80, False),
                                         (70, 75, True)])  # fmt: skip
def test_when_pieces_are_taken(m, n, lined, is_intel, monkeypatch):
    """On an Intel core for few rows, or where every row of b starts on a cache line."""
    seen, pieces = [], kernel._in_pieces
    monkeypatch.setattr(kernel, "unpacked", lambda: True)
    monkeypatch.setattr(kernel, "_is_intel", lambda: is_intel)
    monkeypatch.setattr(kernel, "_in_pieces", lambda a, b, out: seen.append(1) or pieces(a, b, out))
    a, b, expected = whole(m, 1000, n)
    np.testing.assert_array_equal(kernel.product(a, b, lined=lined), expected)
    assert bool(seen) is (not is_intel or m == 16 or (lined and n == 80))


@pytest.mark.parametrize("shape", [(5,), (3, 40), (0, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_lines(shape, dtype):
    for _ in range(5):
        a = kernel.on_lines(np.ones(1, dtype), *shape)
        assert (a.shape, a.dtype) == (shape, dtype)
        assert a.ctypes.data % 64 == 0 or not a.size
        a[...] = 1  # all of it is there


@pytest.mark.parametrize("shape", [(1, 5), (3, 40), (2, 3, 33), (4, 0), (0, 4)])
def test_turned(shape):
    a = numbers(shape, 0)
    y = kernel.turned(a)
    assert y.ctypes.data % 64 == 0 or not a.size
    np.testing.assert_array_equal(y, a.swapaxes(-1, -2))
    assert not a.size or y.strides[-1] == y.itemsize
    assert not np.shares_memory(a, y)


@pytest.mark.parametrize("n", [1, 2, 7, 70])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_of_few_rows(n, bias, monkeypatch, unpacked):
    monkeypatch.setattr(linear, "MULTIPLICATIONS", 0)
    x, w, b, g = (numbers(s, i) for i, s in enumerate([(n, 5), (3, 5), (3,), (n, 3)]))
    y = linear.forward(x, w, b if bias else None)
    np.testing.assert_allclose(y, x @ w.T + (b if bias else 0), rtol=1e-13, atol=1e-14)
    assert y.flags.c_contiguous
    np.testing.assert_allclose(linear.backward_input(g, w), g @ w, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(linear.backward_weight(g, x), g.T @ x, rtol=1e-13, atol=1e-14)
