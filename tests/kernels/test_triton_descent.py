"""SGD, Adagrad, RMSprop, Lion in Triton ≡ the loop ≡ the formula in float64; bytes moved."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import descent
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import BFLOAT16
from support.cases import SEEDS
from support.tritons import traffic

SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "nesterov": False, "weight_decay": 0.2,
       "first": False}  # fmt: skip
ADAGRAD = {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.2}
RMSPROP = {"lr": 0.1, "alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9}
LION = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1}
# the step, its memories (s: positive, a square; _: not there), options, arrays read and written
STEPS = {
    "SGD": (descent.sgd_, "_", SGD, 2, 1),
    "SGD, momentum": (descent.sgd_, "m", SGD, 3, 2),
    "SGD, first": (descent.sgd_, "m", {**SGD, "first": True}, 2, 2),
    "Nesterov": (descent.sgd_, "m", {**SGD, "nesterov": True, "weight_decay": 0}, 3, 2),
    "Adagrad": (descent.adagrad_, "s", ADAGRAD, 3, 2),
    "Adagrad, no decay": (descent.adagrad_, "s", {**ADAGRAD, "weight_decay": 0}, 3, 2),
    "RMSprop": (descent.rmsprop_, "s__", RMSPROP, 3, 2),
    "RMSprop, momentum": (descent.rmsprop_, "s_m", {**RMSPROP, "weight_decay": 0}, 4, 3),
    "RMSprop, centred": (descent.rmsprop_, "smm", RMSPROP, 5, 4),
    "Lion": (descent.lion_, "m", LION, 3, 2),
}
EACH = pytest.mark.parametrize("name", STEPS)
SHAPES = [(), (0,), (1,), (3, 341), (1024,), (5, 410)]
BOUND = {"float32": 2e-6, "float64": 1e-14}


def inputs(name, shape, dtype="float32", gradient=None, seed=0):
    """p, g, and the memories, None where there is none."""
    rng = np.random.default_rng(seed)
    p, g = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    memory = {"s": lambda: rng.uniform(2, 6, shape), "m": lambda: rng.uniform(-1, 1, shape)}
    kept = [np.asarray(memory[k](), dtype) if k in memory else None for k in STEPS[name][1]]
    return [p, g.astype(gradient or dtype), *kept]


def stepped(name, version, arrays, **changes):
    """The arrays after a step, copies; without those that are not there, and without g."""
    step, _, options, *_ = STEPS[name]
    p, g, *kept = (a if a is None else a.copy() for a in arrays)
    with using(version), np.errstate(invalid="ignore"):
        step(p, g, *kept, **{**options, **changes})
    assert g.tobytes() == arrays[1].tobytes(), "the gradient is never written to"
    return [a for a in (p, *kept) if a is not None]


def differences(name, version, arrays):
    """From the formula in float64, beside numbers of at least 1."""
    wide = [a if a is None else a.astype("float64") for a in arrays]
    wanted, found = stepped(name, "naive", wide), stepped(name, version, arrays)
    assert all(a.dtype == arrays[0].dtype for a in found)
    return max(
        (np.abs(a - w) / np.maximum(1, np.abs(w))).max(initial=0) for a, w in zip(found, wanted)
    )


@EACH
@pytest.mark.parametrize(
    "dtype, gradient",
    [("float32", "float32"), ("float32", "float16"), ("float32", BFLOAT16), ("float64", "float64")],
)
@given(shape=st.sampled_from(SHAPES), seed=SEEDS)
@settings(max_examples=8)
def test_triton_is_the_loop_is_the_formula(name, dtype, gradient, shape, seed):
    arrays = inputs(name, shape, dtype, gradient, seed)
    for version in ("numba", "triton"):
        assert differences(name, version, arrays) <= BOUND[dtype]


@EACH
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_stay_with_their_element(name, bad):
    """In any array; Lion takes no step where the sign is that of NaN."""
    arrays = inputs(name, (67,))
    clean = stepped(name, "triton", arrays)
    for k in (k for k, a in enumerate(arrays) if a is not None):
        spoilt = [a if a is None else a.copy() for a in arrays]
        spoilt[k][[3, 66]] = bad
        found, wanted = (stepped(name, version, spoilt) for version in ("triton", "naive"))
        for a, b, c in zip(found, wanted, clean, strict=True):
            np.testing.assert_allclose(a[[3, 66]], b[[3, 66]], rtol=BOUND["float32"])
            rest = np.delete(np.arange(67), [3, 66])
            assert a[rest].tobytes() == c[rest].tobytes()


def test_lion_has_no_sign_for_nan_and_for_zero():
    p, g, m = (np.float32(a) for a in ([1, 1, 1, 1], [np.nan, 0, 1, -1], [0, 0, 0, 0]))
    found, _ = stepped("Lion", "triton", [p, g, m], weight_decay=0, lr=0.5)
    assert found.tolist() == [1, 1, 0.5, 1.5]


@EACH
@pytest.mark.parametrize("gradient", ["float32", "float16"])
@pytest.mark.parametrize("n", [0, 1, 1500])
def test_bytes_moved(name, gradient, n):
    """Every array is read once, and all but g are written once: 3nb to 9nb, as the header says."""
    with traffic() as count:
        stepped(name, "triton", inputs(name, n, gradient=gradient))
    *_, read, written = STEPS[name]
    loads = 4 * n * (read - 1) + n * np.dtype(gradient).itemsize
    assert dict(count) == ({"load": loads, "store": 4 * n * written} if n else {})


@EACH
def test_float64_and_parameters_of_16_bits_run_elsewhere(name):
    for dtype, version in (("float64", "numba"), ("float16", "naive")):
        arrays = inputs(name, (40,), dtype)
        with traffic() as count:
            found = stepped(name, "triton", arrays)
        assert not count
        for a, b in zip(found, stepped(name, version, arrays), strict=True):
            assert a.tobytes() == b.tobytes()


@EACH
def test_strides_are_refused(name):
    arrays = [a if a is None else np.asfortranarray(a) for a in inputs(name, (4, 6))]
    with pytest.raises(AssertionError):
        STEPS[name][0].versions["triton"](*arrays, **STEPS[name][2])


# The controls: what the assertions above must refuse


@EACH
def test_float32_fails_the_bound_of_float64(name):
    assert differences(name, "triton", inputs(name, 1000)) > 100 * BOUND["float64"]


@pytest.mark.parametrize("name, other", [
    ("SGD, momentum", {"nesterov": True}), ("SGD, momentum", {"first": True}),
    ("SGD", {"weight_decay": 0}), ("Adagrad", {"weight_decay": 0}),
    ("RMSprop", {"weight_decay": 0}), ("Lion", {"beta1": 0.1}),
])  # fmt: skip
def test_another_form_is_seen(name, other):
    arrays = inputs(name, 100)
    one, two = stepped(name, "triton", arrays)[0], stepped(name, "triton", arrays, **other)[0]
    assert np.abs(one - two).max() > 1e-3


@pytest.mark.parametrize("kernel, name", [
    ("_sgd_kernel", "SGD"), ("_adagrad_kernel", "Adagrad"), ("_rmsprop_kernel", "RMSprop"),
    ("_lion_kernel", "Lion"),
])  # fmt: skip
def test_an_element_that_no_program_updates_is_seen(kernel, name, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1,)]

    whole = getattr(descent, kernel)
    monkeypatch.setattr(descent, kernel, LastProgramMissing())
    assert differences(name, "triton", inputs(name, 1025)) > 1e-3
