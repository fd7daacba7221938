"""Convolution: columns by tile programs ≡ loops ≡ formulas; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import conv, pool
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import BFLOAT16
from minidist.kernels.windows import Windows
from support.cases import LAYOUTS, SEEDS, laid_out, numbers
from support.tritons import both, traffic

SIZE = 5, 7
WINDOWS = [
    Windows((1, 1)),
    Windows((3, 3), (1, 1), ((1, 1), (1, 1))),
    Windows((3, 2), (2, 3), ((0, 1), (1, 0)), (2, 1)),
    Windows((1, 3), (2, 1), ((2, 0), (3, 1)), (1, 2)),
    Windows((2, 2), (3, 4)),  # with gaps, and a rest
    Windows((1, 7)),
]
BOUND = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-13}


def inputs(win, n=2, groups=1, dtype="float64", seed=0, layout="C"):
    """x (n, 2 · groups, 5, 7), a weight for 3 · groups channels, a bias, and g."""
    x = numbers((n, 2 * groups, *SIZE), seed, dtype)
    weight = numbers((3 * groups, 2, *win.kernel), seed + 1, dtype)
    bias, g = numbers(3 * groups, seed + 2, dtype), numbers((n, 3 * groups, *win.grid(SIZE)), seed)
    return [laid_out(a, layout) for a in (x, weight, bias, g.astype(dtype))]


def results(x, weight, bias, g, win, groups):
    """y, dx and dw."""
    return (
        conv.forward(x, weight, bias, win, groups),
        conv.backward_input(g, weight, SIZE, win, groups),
        conv.backward_weight(g, x, weight.shape, win, groups),
    )


def differences(found, arrays, *by):
    """From the formulas in float64, beside their largest number or 1."""
    with using("naive"):
        wanted = results(*(None if a is None else a.astype("float64") for a in arrays), *by)
    assert all(a.shape == b.shape and a.dtype == arrays[0].dtype for a, b in zip(found, wanted))
    return [
        np.abs(a - b).max(initial=0) / max(1, np.abs(b).max(initial=0))
        for a, b in zip(found, wanted)
    ]


def check(arrays, *by):
    for found in both(results, *arrays, *by):
        assert max(differences(found, arrays, *by)) <= BOUND[arrays[0].dtype.name]


@pytest.mark.parametrize("dtype", BOUND)
@given(
    win=st.sampled_from(WINDOWS),
    n=st.integers(0, 3),
    groups=st.integers(1, 2),
    seed=SEEDS,
    layout=st.sampled_from(LAYOUTS),
    biased=st.booleans(),
    most=st.sampled_from([1, 300, 2**20]),
)
@settings(max_examples=6)  # fmt: skip
def test_triton_is_the_loop_is_the_formula(dtype, win, n, groups, seed, layout, biased, most):
    """One image at a time, some, or all of them."""
    arrays = inputs(win, n, groups, dtype, seed, layout)
    arrays[2] = arrays[2] if biased else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "COLUMNS_THERE", most)
        check(arrays, win, groups)


def test_blocks_of_many_programs():
    x, weight, bias, _ = inputs(WINDOWS[1])
    x = numbers((2, 2, 20, 30), 0)
    for function, *args in (
        (conv.forward, x, weight, bias, WINDOWS[1]),
        (conv.backward_input, numbers((2, 3, 20, 30), 1), weight, (20, 30), WINDOWS[1]),
        (conv.backward_weight, numbers((2, 3, 20, 30), 1), x, weight.shape, WINDOWS[1]),
    ):
        wanted = function.formula(*args)
        np.testing.assert_allclose(both(function, *args)[1], wanted, rtol=1e-12, atol=1e-12)


def test_fewer_windows_than_there_are():
    x, weight, bias, _ = inputs(WINDOWS[1])
    args = x, weight, bias, WINDOWS[1], 1, (2, 3)
    y = both(conv.forward, *args)[1]
    np.testing.assert_allclose(y, conv.forward.formula(*args), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_reach_their_windows_alone(value):
    win = WINDOWS[2]
    x, weight, bias, g = inputs(win)
    x[0, 1, 2, 3] = g[0, 2, 0, 1] = value
    with using("naive"):
        wanted = results(x, weight, bias, g, win, 1)
    for a, b in zip(both(results, x, weight, bias, g, win, 1)[1], wanted):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_columns_of_bfloat16():
    """Columns are copies; on the way back they are summed in float32."""
    win = WINDOWS[1]
    x = inputs(win)[0].astype(BFLOAT16)
    ((_, seen),) = conv._columns_triton(x, win, SIZE)
    ((_, wanted),) = conv._columns_triton(x.astype("float32"), win, SIZE)
    np.testing.assert_array_equal(seen.astype("float32"), wanted)


def test_integers_are_the_formula():
    x, weight = np.ones((1, 2, *SIZE), "int64"), np.ones((3, 2, 1, 1), "int64")
    for y in both(conv.forward, x, weight, None, WINDOWS[0]):
        assert y.dtype == x.dtype and (y == 2).all()


@pytest.mark.parametrize("win", WINDOWS)
def test_bytes_moved(win):
    """A number of x is loaded for each window that holds it, the columns are stored once; back,
    what the windows hold of the plane is loaded, and dx stored once."""
    x, weight, bias, g = inputs(win)
    each = (np.full((1, *g.shape[2:]), k) for k in range(win.kernel[0] * win.kernel[1]))
    ones = np.ones((1, 1, *g.shape[2:]))
    held = sum(pool.max_backward.formula(ones, which, (1, 1, *SIZE), win).sum() for which in each)
    columns = g.size // 3 * weight[0].size * 8
    with using("triton"), traffic() as forward:
        conv.forward(x, weight, bias, win)
    assert dict(forward) == {"load": 2 * 2 * 8 * held, "store": columns}
    with using("triton"), traffic() as backward:
        dx = conv.backward_input(g, weight, SIZE, win)
    assert dict(backward) == {"load": 2 * 2 * 8 * held, "store": dx.nbytes}


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    arrays, by = inputs(WINDOWS[1], dtype="float32"), (WINDOWS[1], 1)
    found = both(results, *arrays, *by)[1]
    assert min(differences(found, arrays, *by)) > 100 * BOUND["float64"]


@pytest.mark.parametrize("name, at", [("_unroll_kernel", {0, 2}), ("_roll_back_kernel", {1})])
def test_a_block_that_no_program_writes_is_seen(name, at, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1, *grid[1:])]

    whole = getattr(conv, name)
    monkeypatch.setattr(conv, name, LastProgramMissing())
    arrays, by = inputs(WINDOWS[1], n=40), (WINDOWS[1], 1)
    wrong = differences(both(results, *arrays, *by)[1], arrays, *by)
    assert {k for k, error in enumerate(wrong) if not error <= BOUND["float64"]} == at
