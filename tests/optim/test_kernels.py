"""The optimisers' kernels: tiled ≡ naive ≡ float64, the same bits whatever the size of a tile."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import adamw, descent, newton_schulz
from minidist.kernels import vector_norm as norms
from support.cases import LAYOUTS, SEEDS, laid_out, numbers, tiny_tiles

BOUNDS = {"float32": 3e-6, "float64": 1e-14}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)

SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0,
       "first": False}  # fmt: skip
RMSPROP = {"lr": 0.1, "alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9}
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-4, "weight_decay": 0.1, "step": 3}
# fast, naive, how many memories, options
KERNELS = {
    "SGD": (descent.sgd_, descent.naive_sgd, 1, SGD),
    "SGD, first": (descent.sgd_, descent.naive_sgd, 1, {**SGD, "first": True, "dampening": 0.5}),
    "SGD, dampened": (
        descent.sgd_, descent.naive_sgd, 1, {**SGD, "dampening": 0.3, "weight_decay": 0.2}),
    "Nesterov": (
        descent.sgd_, descent.naive_sgd, 1, {**SGD, "nesterov": True, "weight_decay": 0.2}),
    "Adagrad": (descent.adagrad_, descent.naive_adagrad, 1,
                {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.2}),
    "RMSprop": (descent.rmsprop_, descent.naive_rmsprop, 3, RMSPROP),
    "Lion": (descent.lion_, descent.naive_lion, 1,
             {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1}),
    "Adam": (adamw.step_, adamw.naive, 2, {**ADAM, "decoupled": False}),
    "AdamW": (adamw.step_, adamw.naive, 2, ADAM),
}  # fmt: skip
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def arrays(memories: int, shape, seed: int, dtype: str) -> list[np.ndarray]:
    """p, g and memories; the first memory is positive, and large beside the others' squares."""
    found = [numbers(shape, seed + i, dtype) for i in range(2 + memories)]
    found[2] = np.abs(found[2]) + (4 if memories == 3 else 0)
    if memories == 2:
        found[3] = np.abs(found[3])
    return found


def off(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0)))


@each_kernel
@DTYPES
@given(n=st.integers(0, 40), tile=st.integers(1, 20), seed=SEEDS)
@settings(max_examples=15)
def test_tiled_is_naive_is_float64(kernel, dtype, n, tile, seed):
    fast, naive, memories, options = KERNELS[kernel]
    given_ = arrays(memories, (n, 2), seed, dtype)
    p, g, *memory = (a.copy() for a in given_)
    with tiny_tiles(tile):
        fast(p, g, *memory, **options)
    assert g.tobytes() == given_[1].tobytes()
    wide = naive(*(a.astype("float64") for a in given_), **options)
    for got, one, two in zip((p, *memory), naive(*given_, **options), wide, strict=True):
        assert got.dtype == dtype
        assert off(got, one) < BOUNDS[dtype] and off(got, two) < BOUNDS[dtype]


@each_kernel
def test_the_tile_does_not_change_a_bit(kernel):
    fast, _, memories, options = KERNELS[kernel]
    one, two = arrays(memories, (1001,), 0, "float32"), arrays(memories, (1001,), 0, "float32")
    fast(*one, **options)
    with tiny_tiles(16):
        fast(*two, **options)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, two))


@each_kernel
def test_a_wrong_number_is_seen(kernel):
    fast, naive, memories, options = KERNELS[kernel]
    given_ = arrays(memories, (20,), 0, "float64")
    wrong = naive(*given_, **{**options, "lr": options["lr"] * (1 + 1e-12)})
    fast(*given_, **options)
    assert off(given_[0], wrong[0]) > BOUNDS["float64"]


@each_kernel
def test_memory_that_could_not_be_written_to_is_refused(kernel):
    fast, _, memories, options = KERNELS[kernel]
    x = np.ones((4, 4))
    with pytest.raises(AssertionError, match="C-contiguous"):
        fast(x.T[::2], *[x[:2]] * (1 + memories), **options)


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
def test_sums_of_blocks_and_the_largest_number(dtype, n, layout, seed):
    x = laid_out(numbers((n, 3), seed, dtype), layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norms, "BLOCK", 7)
        sums, wanted = norms.block_squares(x), norms.block_squares.formula(x)
    assert sums.dtype == wanted.dtype == "float64" and sums.shape == wanted.shape
    np.testing.assert_allclose(sums, wanted, rtol=1e-15)
    top = norms.largest(x)
    assert top.dtype == dtype and top == norms.largest.formula(x) == np.abs(x).max(initial=0)


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
    x = np.ones(5, "float32")
    with pytest.raises(TypeError, match="sums is float32, want float64"):
        norms.block_square_sums(x, 4, np.empty(2, "float32"))
    norms.block_square_sums(x, 4, sums := np.empty(2))
    assert sums.tolist() == [4, 1]
