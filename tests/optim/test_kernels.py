"""The optimisers' kernels: loop ≡ formula ≡ float64, and an element's step is its own business."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import adamw, descent, newton_schulz
from minidist.kernels import vector_norm as norms
from minidist.kernels.dispatch import using
from support.cases import LAYOUTS, SEEDS, laid_out, numbers

BOUNDS = {"float32": 3e-6, "float64": 1e-14}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)

SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0,
       "first": False}  # fmt: skip
RMSPROP = {"lr": 0.1, "alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9}
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-4, "weight_decay": 0.1, "step": 3}


def plain_sgd(p, g, b, **options):
    descent.sgd_(p, g, None, **options)


def rmsprop(p, g, v, b, **options):
    descent.rmsprop_(p, g, v, None, b, **options)


def rmsprop_without_momentum(p, g, v, a, **options):
    descent.rmsprop_(p, g, v, a, None, **options)


def amsgrad(p, g, m, v, highest, **options):
    adamw.step_(p, g, m, v, **options, highest=highest)


# the step, how many memories, options
KERNELS = {
    "SGD": (plain_sgd, 1, {**SGD, "momentum": 0.0}),
    "SGD, momentum": (descent.sgd_, 1, SGD),
    "SGD, first": (descent.sgd_, 1, {**SGD, "first": True, "dampening": 0.5}),
    "SGD, dampened": (descent.sgd_, 1, {**SGD, "dampening": 0.3, "weight_decay": 0.2}),
    "Nesterov": (descent.sgd_, 1, {**SGD, "nesterov": True, "weight_decay": 0.2}),
    "Adagrad": (descent.adagrad_, 1, {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.2}),
    "RMSprop": (rmsprop, 2, RMSPROP),
    "RMSprop, centred": (descent.rmsprop_, 3, RMSPROP),
    "RMSprop, centred, plain": (rmsprop_without_momentum, 2, {**RMSPROP, "weight_decay": 0.0}),
    "Lion": (descent.lion_, 1, {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1}),
    "Adam": (adamw.step_, 2, {**ADAM, "decoupled": False}),
    "Adam, no decay": (adamw.step_, 2, {**ADAM, "decoupled": False, "weight_decay": 0.0}),
    "AdamW": (adamw.step_, 2, ADAM),
    "AMSGrad": (amsgrad, 3, ADAM),
}
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def arrays(kernel: str, shape, seed: int, dtype: str) -> list[np.ndarray]:
    """p, g and memories; means of squares are positive, and large beside the other squares."""
    found = [numbers(shape, seed + i, dtype) for i in range(2 + KERNELS[kernel][1])]
    squares = {"RMSprop": [2], "Adagrad": [2], "Adam": [3], "AdamW": [3], "AMSGrad": [3, 4]}
    for i in squares.get(kernel.partition(",")[0], ()):
        found[i] = np.asarray(np.abs(found[i]) + (4 if "RMSprop" in kernel else 0), dtype)
    return found


def stepped(kernel, version, given_, **changes):
    """p, g and memories after a step, copies."""
    step, _, options = KERNELS[kernel]
    found = [a.copy() for a in given_]
    with using(version), np.errstate(invalid="ignore", over="ignore"):
        step(*found, **{**options, **changes})
    return found


def off(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0)))


@each_kernel
@DTYPES
@given(shape=st.sampled_from([(), (0,), (1,), (7,), (3, 11), (5, 41)]), seed=SEEDS)
@settings(max_examples=15)
def test_the_loop_is_the_formula_is_float64(kernel, dtype, shape, seed):
    given_ = arrays(kernel, shape, seed, dtype)
    found = stepped(kernel, "numba", given_)
    assert found[1].tobytes() == given_[1].tobytes(), "the gradient is never written to"
    formula = stepped(kernel, "naive", given_)
    wide = stepped(kernel, "naive", [a.astype("float64") for a in given_])
    for got, one, two in zip(found, formula, wide, strict=True):
        assert got.dtype == one.dtype == dtype and got.shape == shape
        assert off(got, one) < BOUNDS[dtype] and off(got, two) < BOUNDS[dtype]


@each_kernel
@DTYPES
@given(n=st.integers(1, 70), cuts=st.lists(st.integers(0, 70), max_size=4), seed=SEEDS)
@settings(max_examples=15)
def test_where_an_element_stands_does_not_change_a_bit(kernel, dtype, n, cuts, seed):
    """The shards of ZeRO are cut anywhere; a vector of a processor ends somewhere else then."""
    given_ = arrays(kernel, (n,), seed, dtype)
    whole = stepped(kernel, "numba", given_)
    edges = sorted({0, n, *(c for c in cuts if c < n)})
    parts = [stepped(kernel, "numba", [a[i:j] for a in given_]) for i, j in pairwise(edges)]
    for k, a in enumerate(whole):
        assert a.tobytes() == np.concatenate([part[k] for part in parts]).tobytes()


@each_kernel
@DTYPES
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_stay_with_their_element(kernel, dtype, bad):
    """In any array; every other element has the bits that it has without them."""
    given_ = arrays(kernel, (67,), 0, dtype)
    clean = stepped(kernel, "numba", given_)
    for k in range(len(given_)):
        spoilt = [a.copy() for a in given_]
        spoilt[k][[3, 66]] = bad  # in a vector, and behind the last
        found, formula = stepped(kernel, "numba", spoilt), stepped(kernel, "naive", spoilt)
        for a, b, c in zip(found, formula, clean):
            np.testing.assert_allclose(a[[3, 66]], b[[3, 66]], rtol=BOUNDS[dtype])
            rest = np.delete(np.arange(67), [3, 66])
            assert a[rest].tobytes() == c[rest].tobytes()
        lost = kernel == "SGD" and k == 2  # a buffer that this step does not have
        lost |= kernel == "SGD, first" and k == 2  # or that it fills
        lost |= kernel == "AMSGrad" and k == 4 and bad == -math.inf  # v is larger
        assert lost or not all(np.isfinite(a[3]) for a in found)


@each_kernel
def test_a_wrong_number_is_seen(kernel):
    given_ = arrays(kernel, (20,), 0, "float64")
    wrong = stepped(kernel, "naive", given_, lr=KERNELS[kernel][2]["lr"] * (1 + 1e-12))
    assert off(stepped(kernel, "numba", given_)[0], wrong[0]) > BOUNDS["float64"]


@each_kernel
def test_float32_fails_the_bound_of_float64(kernel):
    given_ = arrays(kernel, (100,), 0, "float32")
    wide = stepped(kernel, "naive", [a.astype("float64") for a in given_])
    assert off(stepped(kernel, "numba", given_)[0], wide[0]) > 100 * BOUNDS["float64"]


@each_kernel
@pytest.mark.parametrize("gradient", ["float16", "bfloat16"])
@pytest.mark.parametrize("piece", [7, 1 << 16])
def test_a_gradient_of_16_bits_is_converted(kernel, gradient, piece, monkeypatch):
    monkeypatch.setattr(descent, "PIECE", piece)
    given_ = arrays(kernel, (40,), 0, "float32")
    given_[1] = given_[1].astype(gradient)
    found = stepped(kernel, "numba", given_)
    given_[1] = given_[1].astype("float32")
    wanted = stepped(kernel, "numba", given_)
    for k in (0, *range(2, len(found))):
        assert found[k].tobytes() == wanted[k].tobytes()


@each_kernel
@pytest.mark.parametrize("which", range(4))
def test_memory_that_could_not_be_written_to_is_refused(kernel, which):
    given_ = arrays(kernel, (4, 4), 0, "float64")
    if which >= len(given_) or (kernel == "SGD" and which == 2):
        return
    given_[which] = given_[which].T
    step, _, options = KERNELS[kernel]
    with using("numba"), pytest.raises(AssertionError, match="C-contiguous"):
        step(*given_, **options)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k != "SGD"])
def test_a_memory_of_another_dtype_is_refused(kernel):
    given_ = arrays(kernel, (4,), 0, "float64")
    given_[2] = given_[2].astype("float32")
    step, _, options = KERNELS[kernel]
    with using("numba"), pytest.raises(TypeError, match="is float32, want float64"):
        step(*given_, **options)


# Orthogonalisation

JORDAN = (3.4445, -4.7750, 2.0315)


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), steps=st.integers(0, 6), seed=SEEDS)
@settings(max_examples=40)
def test_products_do_to_singular_values_what_the_polynomial_does(rows, columns, steps, seed):
    g = np.random.default_rng(seed).standard_normal((rows, columns))
    y = newton_schulz.orthogonalized(g, JORDAN, steps, 1e-7)
    np.testing.assert_allclose(y, newton_schulz.naive(g, JORDAN, steps, 1e-7), atol=1e-11)
    assert y.shape == g.shape


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 1)])
def test_what_comes_out_is_nearly_orthogonal(shape):
    g = np.random.default_rng(0).standard_normal(shape).astype("float32")
    before = g.copy()
    sigma = np.linalg.svd(newton_schulz.orthogonalized(g, JORDAN, 5, 1e-7), compute_uv=False)
    assert sigma.min() > 0.6 and sigma.max() < 1.3
    assert g.tobytes() == before.tobytes()
    one = np.linalg.svd(newton_schulz.orthogonalized(g, JORDAN, 1, 1e-7), compute_uv=False)
    assert one.min() < 0.6 or shape[1] == 1, "one step is not enough"


def test_a_gradient_of_zeros_stays():
    y = newton_schulz.orthogonalized(np.zeros((2, 3)), JORDAN, 5, 1e-7)
    np.testing.assert_array_equal(y, 0)


# Norms


@DTYPES
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4), seed=SEEDS,
       p=st.sampled_from([0.5, 1, 1.5, 2, 3, math.inf]))  # fmt: skip
@settings(max_examples=40)
def test_the_norm_of_many_arrays_is_that_of_one_vector(dtype, sizes, seed, p):
    parts = [numbers((n,), seed + i, dtype) for i, n in enumerate(sizes)]
    expected = norms._norm.formula(p, *parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norms, "BLOCK", 7)
        found = norms.vector_norm(parts, p)
    assert found == pytest.approx(expected, rel={"float32": 1e-6, "float64": 1e-14}[dtype])


@DTYPES
@given(n=st.integers(0, 60), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=20)
def test_sums_of_squares_are_exact_and_the_largest_number(dtype, n, layout, seed):
    """Two numbers whose exact sum is that of the squares; float64's squares are rounded each."""
    x = laid_out(numbers((n, 3), seed, dtype) * 10.0 ** (seed % 9), layout).astype(dtype)
    terms, wanted = norms.square_sum(x), norms.square_sum.formula(x)
    exact = sum((Fraction(float(v * v)) for v in x.reshape(-1).astype(float)), Fraction(0))
    for found in (terms, wanted):
        assert abs(sum(map(Fraction, found)) - exact) <= exact * Fraction(2) ** -95
    top = norms.largest(x)
    assert top.dtype == dtype and top == norms.largest.formula(x) == np.abs(x).max(initial=0)


@given(n=st.integers(0, 300), cut=st.integers(0, 300), seed=SEEDS)
@settings(max_examples=30)
def test_the_bits_of_the_norm_do_not_depend_on_where_an_array_is_cut(n, cut, seed):
    """As ZeRO cuts them; sums in float64 without what rounding lost would fail."""
    x = numbers((n,), seed, "float32") * np.float32(10.0 ** (seed % 7 - 3))
    parts = [x[:cut], x[cut:]]
    assert math.fsum(norms.squares(parts)) == math.fsum(norms.squares([x]))
    assert norms.vector_norm(parts, 2.0) == norms.vector_norm([x], 2.0)


def test_a_sum_without_what_rounding_lost_depends_on_the_cut(monkeypatch):
    whole = norms.square_sum
    monkeypatch.setattr(norms, "square_sum", lambda x: [whole(x)[0], 0.0])
    sums = set()
    for seed in range(20):
        x = numbers((300,), seed, "float32")
        sums |= {(seed, math.fsum(norms.squares([x[:k], x[k:]]))) for k in (0, 100)}
    assert len(sums) > 20


@DTYPES
def test_the_bits_of_the_norm_do_not_depend_on_which_rank_has_an_array(dtype):
    sizes = [norms.BLOCK * 2 + 3, 5, 1, 0, 40_000, norms.BLOCK]
    parts = [numbers((n,), i, dtype) * 10.0**i for i, n in enumerate(sizes)]
    parts = [a.astype(dtype) for a in parts]
    whole = math.fsum(norms.squares(parts))
    for cut in range(len(parts) + 1):
        shares = norms.squares(parts[cut:]), norms.squares(parts[:cut])
        terms = norms.exact([t for share in shares for t in share])
        assert math.fsum(terms) == whole
        sums = [math.fsum(share) for share in shares]
        if cut == 1:
            assert sum(sums) == pytest.approx(whole, rel=1e-15)
    assert math.sqrt(whole) == norms.vector_norm(parts[::-1], 2.0)


@pytest.mark.parametrize("p", [1, 2, 3, math.inf])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_hides_nothing(p, bad):
    x = np.ones(50_000, "float32")
    x[40_000] = bad
    assert norms.vector_norm([x, np.ones(3)], p) in (math.inf,) or math.isnan(bad)
    assert math.isnan(norms.vector_norm([x, np.ones(3)], p)) == math.isnan(bad)
    assert math.isnan(norms.vector_norm([np.ones(3), x], p)) == math.isnan(bad)


def test_sums_of_squares_go_to_float64_only():
    x, lanes = np.ones(5, "float32"), np.empty((2, 4))
    with pytest.raises(TypeError, match="sums is float32, want float64"):
        norms.add_squares(x, lanes, np.empty(2, "float32"))
    norms.add_squares(x, lanes, sums := np.empty(2))
    assert sums.tolist() == [5, 0]
