"""Activations at their kinks, far out, of integers and in 16 bits, beside PyTorch's."""

import numpy as np
import pytest
from support.cases import numbers
from support.parity import compare, error_of, to_torch, torch

import minidist as md
from minidist import Tensor
from minidist.nn import functional as F

theirs = torch.nn.functional
FAR = np.array([-1e4, -100, -20, -4, -3, -1, -1e-3, 0, 0.5, 1, 3, 5, 6, 7, 30, 1e3, 1e4])
NAMES = ("hardswish", "hardtanh", "mish", "relu6", "selu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_at_kinks_and_far_out(name, dtype):
    """Numbers at which a formula changes, and so large that exp overflows."""
    for sign in (1, -1):
        x = Tensor((FAR * sign).astype(dtype), requires_grad=True)
        t = to_torch(x.data).requires_grad_()
        y, z = getattr(F, name)(x), getattr(theirs, name)(t)
        y.sum().backward(), z.sum().backward()
        for ours, wanted in ((y.data, z.detach()), (x.grad.data, t.grad)):
            # numbers below the least normal one have few digits
            rtol, atol = 2e-5 if dtype == "float32" else 1e-12, np.finfo(dtype).tiny
            np.testing.assert_allclose(ours, wanted.numpy(), rtol, atol)


@pytest.mark.parametrize("name", ["hardswish", "hardtanh", "relu6"])
def test_nan_is_pytorchs(name):
    x = Tensor(np.array([np.nan, 1.0]), requires_grad=True)
    t = to_torch(x.data).requires_grad_()
    getattr(F, name)(x).sum().backward()
    getattr(theirs, name)(t).sum().backward()
    np.testing.assert_allclose(x.grad.data, t.grad.numpy(), rtol=1e-14)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", ["hardswish", "hardtanh", "relu6"])
def test_no_cotangent_passes_where_it_is_flat(name):
    """Not even an infinite one, which times 0 would be NaN."""
    x = Tensor(np.array([-7.0, -4.0]), requires_grad=True)
    getattr(F, name)(x).backward(md.tensor([np.inf, np.nan], dtype="float64"))
    assert x.grad.tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool"])
@pytest.mark.parametrize("name", [*NAMES, "glu"])
def test_of_integers(name, kind):
    x = np.array([1, 0, 9, 2]).astype(kind)
    wanted = error_of(lambda: getattr(theirs, name)(to_torch(x)))
    assert error_of(lambda: getattr(F, name)(Tensor(x))) is wanted
    if wanted is None:
        y = getattr(F, name)(Tensor(x))
        assert y.tolist() == getattr(theirs, name)(to_torch(x)).tolist() and y.dtype == kind


def test_other_ends_and_halves_along_any_dimension():
    x = numbers((2, 4, 6), 0)
    for low, high in ((-0.3, 0.7), (0.5, 0.5), (-9, 9)):
        compare(lambda x, e=(low, high): F.hardtanh(x, *e),
                lambda x, e=(low, high): theirs.hardtanh(x, *e), [x])  # fmt: skip
    for dim in (-1, 0, 1):
        compare(lambda x, d=dim: F.glu(x, d), lambda x, d=dim: theirs.glu(x, d), [x])
    for error, words, call in (
        (ValueError, "min_val 2 is above max_val 1", lambda: F.hardtanh(md.ones(2), 2, 1)),
        (RuntimeError, r"glu along -1 of \(2, 3\): want an even", lambda: F.glu(md.ones(2, 3))),
        (RuntimeError, "0-d tensor: want at least one dimension", lambda: F.glu(md.tensor(1.0))),
        (IndexError, "dim 3", lambda: F.glu(md.ones(2), 3)),
    ):
        with pytest.raises(error, match=words):
            call()


HALVES = {
    **{name: lambda f, x, name=name: getattr(f, name)(x) for name in (*NAMES, "glu")},
    "smooth_l1_loss": lambda f, x: f.smooth_l1_loss(x, x.flip(0), reduction="none", beta=0.3),
    "reflect": lambda f, x: f.pad(x, (2, 3), "reflect"),
    "nearest": lambda f, x: f.interpolate(x, 9),
    "linear": lambda f, x: f.interpolate(x, 9, mode="linear"),
    "bilinear": lambda f, x: f.interpolate(x[None], (3, 11), mode="bilinear"),
    "dropout2d": lambda f, x: f.dropout2d(x[None], 1.0),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", HALVES)
def test_16_bits_are_rounded_as_pytorchs(name, dtype):
    """As PyTorch's, whose `linear`, smooth_l1_loss and gradients round more than once."""
    x = (numbers((2, 4, 6), 1) * 2).astype("f4")
    ours = Tensor(x).to(dtype).requires_grad_()
    other = to_torch(x).to(getattr(torch, dtype)).requires_grad_()
    y, z = HALVES[name](F, ours), HALVES[name](theirs, other)
    y.sum().backward(), z.sum().backward()
    assert y.dtype.name == ours.grad.dtype.name == dtype
    eps = 2.0**-10 if dtype == "float16" else 2.0**-7
    for a, b in ((y, z), (ours.grad, other.grad)):
        np.testing.assert_allclose(a.float().data, b.detach().float().numpy(), eps, 2 * eps)
