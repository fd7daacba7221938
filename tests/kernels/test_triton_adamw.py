"""Adam's step in Triton ≡ the loop ≡ the formula in float64: results, bytes moved, memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import adamw, descent
from minidist.kernels.dispatch import using
from support.cases import SEEDS
from support.peak import peak
from support.tritons import traffic

HYPER = {"step": 3, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-5, "weight_decay": 0.1}
FORMS = pytest.mark.parametrize("decoupled", [True, False])
AMSGRAD = pytest.mark.parametrize("amsgrad", [True, False])
SHAPES = [(), (0,), (1,), (3, 341), (1024,), (5, 410)]
BOUND = {"float32": 2e-6, "float64": 1e-14}


def inputs(shape, dtype="float32", gradient=None, amsgrad=False, seed=0):
    """p, g, m, v and, with AMSGrad, the largest v so far."""
    rng = np.random.default_rng(seed)
    p, g, m = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(3))
    memory = [np.asarray(rng.uniform(0.01, 2, shape), dtype) for _ in range(1 + amsgrad)]
    return [p, g.astype(gradient or dtype), m, *memory]


def stepped(version, arrays, **options):
    """The arrays after a step, copies."""
    p, g, m, v, *highest = (a.copy() for a in arrays)
    with using(version):
        adamw.step_(p, g, m, v, **HYPER, **options, highest=highest[0] if highest else None)
    np.testing.assert_array_equal(g, arrays[1])
    return [p, m, v, *highest]


def differences(version, arrays, **options):
    """From the formula in float64, beside numbers of at least 1."""
    wanted = stepped("naive", [a.astype("float64") for a in arrays], **options)
    found = stepped(version, arrays, **options)
    assert all(a.dtype == arrays[0].dtype for a in found)
    return max(
        (np.abs(a - w) / np.maximum(1, np.abs(w))).max(initial=0) for a, w in zip(found, wanted)
    )


@FORMS
@AMSGRAD
@pytest.mark.parametrize(
    "dtype, gradient",
    [("float32", "float32"), ("float32", "float16"), ("float64", "float64")],
)
@given(shape=st.sampled_from(SHAPES), seed=SEEDS)
@settings(max_examples=10)
def test_triton_is_the_loop_is_the_formula(dtype, gradient, decoupled, amsgrad, shape, seed):
    arrays = inputs(shape, dtype, gradient, amsgrad, seed)
    for version in ("numba", "triton"):
        assert differences(version, arrays, decoupled=decoupled) <= BOUND[dtype]


@pytest.mark.parametrize("version", ["numba", "triton"])
def test_squares_of_a_gradient_of_16_bits(version):
    """They pass float16's largest number, and its smallest."""
    arrays = inputs(4, gradient="float16")
    arrays[1][:] = 6e4, 300, 1e-4, 0
    assert differences(version, arrays) <= BOUND["float32"]


@FORMS
@pytest.mark.parametrize("gradient", ["float32", "float16"])
@pytest.mark.parametrize("n", [0, 1, 1024, 1500])
def test_bytes_moved(decoupled, gradient, n):
    """p, g, m and v are read once, p, m and v are written once."""
    with traffic() as count:
        stepped("triton", inputs(n, gradient=gradient), decoupled=decoupled)
    read = 3 * 4 * n + n * np.dtype(gradient).itemsize
    assert dict(count) == ({"load": read, "store": 3 * 4 * n} if n else {})


def test_bytes_moved_by_amsgrad():
    """The largest v is read and written besides."""
    with traffic() as count:
        stepped("triton", inputs(1500, amsgrad=True))
    assert dict(count) == {"load": 5 * 4 * 1500, "store": 4 * 4 * 1500}


@pytest.mark.parametrize("gradient", ["float32", "float16"])
def test_temporary_memory(gradient):
    """None; or two pieces of the gradient in 32 bits."""
    arrays = inputs(8 * descent.PIECE, gradient=gradient)
    adamw.step_(*inputs(1), **HYPER)  # compiled before
    used = peak(lambda: adamw.step_(*arrays, **HYPER))
    assert used < (8 * descent.PIECE if gradient == "float16" else 0) + (1 << 14)


@pytest.mark.parametrize("version", ["numba", "triton"])
def test_strides_are_refused(version):
    p, *rest = inputs((4, 6))
    with using(version), pytest.raises(AssertionError):
        adamw.step_(p[:, ::2], *(a[:, :3] for a in rest), **HYPER)


# The controls: what the assertions above must refuse


@pytest.mark.parametrize("version", ["numba", "triton"])
def test_float32_fails_the_bound_of_float64(version):
    assert differences(version, inputs(1000)) > 100 * BOUND["float64"]


def test_the_other_form_is_seen():
    arrays = inputs(100)
    one, other = (stepped("triton", arrays, decoupled=d)[0] for d in (True, False))
    assert np.abs(one - other).max() > 1e-3


def test_an_element_that_no_program_updates_is_seen(monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return kernel[(grid[0] - 1,)]

    kernel = adamw._adam_kernel
    monkeypatch.setattr(adamw, "_adam_kernel", LastProgramMissing())
    assert differences("triton", inputs(1025)) > 1e-3
