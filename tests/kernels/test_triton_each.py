"""Kernels of one element at a time: tile program ≡ loop, to the bit in float32; ≡ the formula.

All of them are found, not listed: a new one is tested without a line here.
"""

import importlib
import inspect
import math
import pkgutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import each_triton, elementary, functions, pointwise
from minidist.kernels.dispatch import using
from minidist.kernels.each import each, parameters
from minidist.kernels.each_triton import BLOCK, kernel_of, translated
from minidist.kernels.half_precision import BFLOAT16, FLOAT16, wide
from minidist.kernels.loops import helper
from support.cases import LAYOUTS, SEEDS, laid_out, numbers
from support.tritons import poisoned, traffic

from minidist import kernels as package


def found() -> dict[str, each]:
    """Every kernel of one element at a time, by module and name."""
    modules = (
        importlib.import_module(f"{package.__name__}.{m.name}")
        for m in pkgutil.iter_modules(package.__path__)
    )
    return {
        f"{value.__module__.rpartition('.')[2]}.{value.__name__}": value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, each)
    }


KERNELS = found()
every = pytest.mark.parametrize("name", KERNELS)
OPTIONS = {"low": -0.7, "high": 1.3, "threshold": 2.5}  # other numbers are 0.7
SHAPES = [(), (0,), (1,), (5, 0), (3, 341), (BLOCK,), (5, 410)]
BOUND = {
    "float32": 3e-6,
    "float64": 1e-13,
}  # of the formula in float64, beside numbers of at least 1
ENDS = [
    0.0, 1e-45, 1e-38, 1.2e-38, 5.8e-8, 1e-8, 0.5, 0.625, 1, 3, 17, 22, 44.4, 88.8, 104, 3e38,
    np.inf, np.nan,
]  # fmt: skip


def of_numbers(kernel: each) -> list[float]:
    return [OPTIONS.get(name, 0.7) for name in parameters(kernel.helper)[kernel.arrays :]]


def draw(kernel: each, shape, dtype, seed=0) -> list[np.ndarray]:
    return [numbers(shape, seed + i, dtype) for i in range(kernel.arrays)]


def at_the_ends(kernel: each, dtype) -> list[np.ndarray]:
    """Every pair of the numbers where functions change or end, on both sides; any numbers beside.

    Those that are no numbers of float16 become infinite or 0.
    """
    with np.errstate(all="ignore"):
        ends = np.array([sign * x for x in ENDS for sign in (1, -1)]).astype(dtype)
    if kernel.arrays == 1:
        return [ends]
    a, b = np.meshgrid(ends, ends)
    return [a, b, np.roll(a, 5, 0)][: kernel.arrays]


def run(kernel: each, arrays, by) -> tuple[np.ndarray, np.ndarray]:
    """By the loop, of 16 bits in float32 and rounded once; and by the tile program."""
    with using("numba"), np.errstate(all="ignore"):
        ours = kernel(*map(wide, arrays), *by).astype(arrays[-1].dtype)
    with using("triton"), poisoned():
        return ours, kernel(*arrays, *by)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the bit, but for what kind of NaN there is."""
    assert a.dtype == b.dtype and a.shape == b.shape
    a, b = wide(a), wide(b)
    signs = np.signbit(a) == np.signbit(b)
    return bool(((np.isnan(a) & np.isnan(b)) | ((a == b) & signs)).all())


def check(name: str, arrays) -> None:
    ours, tritons = run(KERNELS[name], arrays, of_numbers(KERNELS[name]))
    if tritons.dtype == np.float64:
        np.testing.assert_allclose(tritons, ours, rtol=1e-13, atol=1e-14)
    elif tritons.dtype == BFLOAT16:  # the interpreter rounds ties up
        np.testing.assert_allclose(wide(tritons), wide(ours), rtol=2**-7)
    else:
        assert same(ours, tritons)


@every
@pytest.mark.parametrize("dtype", [np.dtype("float32"), FLOAT16, np.dtype("float64")], ids=str)
def test_the_ends_of_every_kernel(name, dtype):
    """NaN, infinities, -0, subnormal numbers, and where polynomials meet."""
    check(name, at_the_ends(KERNELS[name], dtype))


@given(
    name=st.sampled_from([*KERNELS]),
    shape=st.sampled_from(SHAPES),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from([np.dtype("float32"), np.dtype("float64"), FLOAT16, BFLOAT16]),
    seed=SEEDS,
)
@settings(max_examples=150)
def test_triton_is_the_loop(name, shape, layout, dtype, seed):
    check(name, [laid_out(x, layout) for x in draw(KERNELS[name], shape, dtype, seed)])


@every
@pytest.mark.parametrize("dtype", BOUND)
def test_triton_is_the_formula_in_float64(name, dtype):
    kernel = KERNELS[name]
    arrays, by = draw(kernel, (300,), np.dtype(dtype)), of_numbers(kernel)
    assert off(kernel, arrays, by) <= BOUND[dtype]


def off(kernel: each, arrays, by) -> float:
    """The largest difference from the formula in float64, beside numbers of at least 1."""
    with using("triton"), poisoned():
        y = kernel(*arrays, *by)
    with np.errstate(invalid="ignore"):  # log of negative numbers
        wanted = kernel.formula(*(a.astype(np.float64) for a in arrays), *by)
    assert np.array_equal(np.isnan(y), np.isnan(wanted))
    return np.nanmax(np.abs(y - wanted) / np.maximum(1, np.abs(wanted)))


@every
def test_bytes_moved(name):
    """Every array is read once, the result is written once."""
    bytes_are_moved(name, "float32", BLOCK + 1)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("n", [0, 1, 1500])
def test_bytes_moved_of_other_sizes(n, dtype):
    bytes_are_moved("pointwise.silu_slope", dtype, n)


def bytes_are_moved(name: str, dtype: str, n: int) -> None:
    kernel = KERNELS[name]
    arrays = draw(kernel, (n,), np.dtype(dtype))
    with traffic() as count, using("triton"):
        y = kernel(*arrays, *of_numbers(kernel))
    read = sum(a.nbytes for a in arrays)
    assert dict(count) == ({"load": read, "store": y.nbytes} if n else {})


# float64: what takes the place of the C library


@pytest.mark.parametrize("name", ["log1p", "expm1", "tanh"])
def test_float64_is_the_c_library_s(name):
    """To 4 units in the last place, over all exponents."""
    sizes = np.concatenate([10.0 ** np.arange(-320, 309), np.linspace(0, 3, 1000), [709, 710]])
    x = np.concatenate([sizes, -sizes, [np.nan, np.inf, -np.inf]])
    with using("triton"):
        y = getattr(functions, name)(x)
    with np.errstate(all="ignore"):
        wanted = getattr(np, name)(x)
    np.testing.assert_allclose(y, wanted, rtol=4 * 2**-53, atol=0)
    assert np.array_equal(np.signbit(y[x == 0]), np.signbit(x[x == 0]))


# What is given


def test_numbers_may_be_of_any_kind():
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    with using("triton"):
        wanted = pointwise.elu(x, 2.0)
        for alpha in (2, np.float32(2), np.int64(2)):
            assert np.array_equal(pointwise.elu(x, alpha), wanted)


def test_float64_has_all_digits_of_a_number():
    x = np.full(3, 1.0)
    with using("triton"):
        assert np.array_equal(pointwise.leaky_relu(-x, 0.1), np.full(3, -0.1))


def test_integers_are_refused_and_complex_numbers_take_the_formula():
    with using("triton"):
        with pytest.raises(NotImplementedError, match="silu of int64: convert with"):
            pointwise.silu(np.array([1]))
        assert np.array_equal(functions.exp(np.array([0j])), [1])


def test_arrays_of_different_shapes_are_refused():
    with using("triton"), pytest.raises(ValueError, match=r"of shapes \(3,\) and \(4,\)"):
        pointwise.relu_slope(np.ones(3), np.ones(4))


# The translation


def test_the_text_is_what_the_docstring_says():
    for kind in ("@helper()\n", "    def sigmoid(x):\n        e = exp(-tl.abs(x))"):
        assert kind in each_triton.__doc__
    text = inspect.getsource(translated(elementary.sigmoid, False).function)
    assert all(line.strip() in each_triton.__doc__ for line in text.splitlines())
    text = inspect.getsource(translated(elementary.sigmoid, True).function)
    assert "tl.exp(" in text and "div_rn" not in text


def test_the_text_of_a_kernel():
    text = inspect.getsource(kernel_of(pointwise.elu.helper, "elu", False).function)
    assert text == (
        "def elu_kernel(x_ptr, alpha: tl.float64, out_ptr, size, BLOCK: tl.constexpr):\n"
        "    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)\n"
        "    x = tl.load(x_ptr + at, at < size).to(tl.float32)\n"
        "    alpha = tl.full([], alpha, tl.float32)\n"
        "    out = elu_of(x, alpha)\n"
        "    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), at < size)\n"
    )


LIMIT, NAN, COUNT = math.inf, math.nan, 3


@helper()
def two_numbers(x):
    """Numbers with no array beside them, several results, names of numbers, several targets."""
    third = 0.1
    low, high = pair(x, 0.3)
    third = third if low < LIMIT else NAN
    return (0.1 if x > 0.0 else 0.3) * third + low - high


@helper()
def pair(x, step):
    return x - step, x + step


@each
def odd(x):
    return np.where(x > 0, 0.1, 0.3) * 0.1 - 0.6


odd.of(two_numbers)


def test_numbers_alone_have_the_dtype_of_the_arrays():
    """Triton would take them for float32, and 0.1 is another number there."""
    x = np.array([-1.0, 0, 2])
    with using("triton"):
        np.testing.assert_allclose(odd(x), odd.formula(x), rtol=1e-15)
        assert np.isnan(odd(np.array([np.nan, np.inf]))).all()


def of_a_loop(x):
    for _ in range(3):
        x = x + 1.0
    return x


def of_an_integer(x):
    return 2 * x


def of_a_global_integer(x):
    return COUNT * x


def of_a_power(x):
    return x**2.0


def of_the_library(x):
    return math.exp(x)


def of_a_plain_function(x):
    return of_a_power(x)


def of_two_conditions(x):
    return x if x > 0.0 and x < 1.0 else 0.0


def of_a_chain(x):
    return x if 0.0 < x < 1.0 else 0.0


def of_a_branch(x):
    if x > 0.0:
        return x
    return 0.0


def of_an_augmented_assignment(x):
    x += 1.0
    return x


def of_another(x):
    return refused(x)


refused = helper()(of_an_integer)


@pytest.mark.parametrize(
    "function, words",
    [
        (of_a_loop, "for _ in range"), (of_an_integer, "'2'"), (of_a_global_integer, "'COUNT'"),
        (of_a_power, r"'\*\*'|Pow"), (of_the_library, r"math.exp\(x\)"),
        (of_a_plain_function, r"of_a_power\(x\)"), (of_two_conditions, "x > 0.0 and x < 1.0"),
        (of_a_chain, "0.0 < x < 1.0"), (of_a_branch, "if x > 0.0"),
        (of_an_augmented_assignment, r"x \+= 1.0"), (of_another, "of_an_integer.*'2'"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(function, words):
    """By its file, line and name, before anything runs."""
    with pytest.raises(NotImplementedError, match=f"test_triton_each.py:.*({words}).* is nothing"):
        translated(helper()(function), False)


def test_a_function_of_float64_that_triton_lacks_is_refused():
    sine = helper(double=math.sin)(pair.function)
    with pytest.raises(NotImplementedError, match=r"pair of float64: Triton's text has no .*sin"):
        translated(sine, True)


# The controls: what the assertions above must refuse


def test_all_kernels_are_found():
    assert len(KERNELS) >= 34 and KERNELS["pointwise.silu"] is pointwise.silu


def test_float32_fails_the_bound_of_float64():
    exact = {"relu", "relu_slope", "hard_tanh_slope"}
    for name, kernel in KERNELS.items():
        arrays = draw(kernel, (300,), np.dtype("float32"))
        rounded = off(kernel, arrays, of_numbers(kernel)) > BOUND["float64"]
        assert rounded or kernel.__name__ in exact, name


def test_a_single_bit_is_seen():
    x = np.array([1.0, np.nan], np.float32)
    assert same(x, x.copy()) and not same(x, np.nextafter(x, 2))
    assert not same(np.zeros(1), -np.zeros(1)) and not same(x, x[::-1])


def test_another_polynomial_is_seen(monkeypatch):
    """erf, in whose text one coefficient differs in its last digits."""
    text = inspect.getsource(elementary.erf.function).replace("0.10276905569172663", "0.102769")
    monkeypatch.setattr(each_triton.inspect, "getsource", lambda function: text)
    other = each_triton.Translation(elementary.erf, False).function()
    monkeypatch.undo()
    kernel = kernel_of(elementary.erf, "erf", False)
    monkeypatch.setitem(kernel.function.__globals__, "erf", other)
    monkeypatch.setattr(kernel, "_compiled", None)
    with pytest.raises(AssertionError):
        check("functions.erf", draw(functions.erf, (100,), np.dtype("float32")))


def test_an_element_that_no_program_writes_is_seen(monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return kernel[(grid[0] - 1,)]

    kernel = kernel_of(pointwise.silu.helper, "silu", False)
    monkeypatch.setattr("minidist.kernels.each.kernel_of", lambda *_: LastProgramMissing())
    with pytest.raises(AssertionError):
        check("pointwise.silu", draw(pointwise.silu, (BLOCK + 1,), np.dtype("float32")))


@pytest.mark.parametrize("version", ["naive", "numba", "triton"])
def test_16_bits_are_computed_in_32(version):
    """Rounded once: with every operation rounded, silu is off by more than its last digit."""
    x = np.linspace(-5, 5, 500).astype(np.float16)
    rounded = pointwise.silu.formula(x.astype(np.float64)).astype(np.float16)
    with using(version):
        assert np.array_equal(pointwise.silu(x), rounded)
        assert pointwise.silu(x.astype(BFLOAT16)).dtype == BFLOAT16
    assert not np.array_equal(pointwise.silu.function(x), rounded)
