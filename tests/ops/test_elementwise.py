"""Elementwise operations: gradients by finite differences, broadcasting, dtypes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.cases import arrays, broadcast_shapes, numbers

import minidist as md
from minidist import ops
from minidist.testing import gradcheck

UNARY = {
    "neg": ops.neg,
    "exp": ops.exp,
    "tanh": ops.tanh,
    "relu": ops.relu,
    "clone": ops.clone,
    "square": lambda x: x**2,
    "cube": lambda x: ops.pow(x, 3),
    "inverse": lambda x: 1 / x,
    "minus": lambda x: 3 - x,
    "half": lambda x: x / 2,
    "power of two": lambda x: 2**x,
    "gelu": ops.gelu,
    "gelu tanh": lambda x: ops.gelu(x, "tanh"),
    "there and back": lambda x: ops.cast(x, "float64"),
    "clamp": lambda x: x.clamp(-1.05, 1.05),
    "at least": lambda x: x.clamp(min=0.1),
    "where": lambda x: ops.where(x > 0, x, 2.0) + ops.where(x > 1, 0.0, x),
    "masked_fill": lambda x: x.masked_fill(x > 0, 3.0),
    "asin": lambda x: ops.asin(x / 2.5),
    "acos": lambda x: ops.acos(x / 2.5),
    "of nothing": lambda x: x.isnan() * x + x.sign() * x + x.logical_not() * x,
}
UNARY |= {
    name: getattr(ops, name)
    for name in """abs atan cos cosh erf expm1 floor ceil reciprocal round sign sin sinh square
    trunc""".split()  # noqa: SIM905
}
UNARY["tan"] = lambda x: ops.tan(x / 2)  # away from its poles
POSITIVE = {"root": lambda x: x**0.5, "x^-1.5": lambda x: x**-1.5}
POSITIVE |= {
    name: getattr(ops, name) for name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt")
}
BINARY = {"add": ops.add, "sub": ops.sub, "mul": ops.mul, "div": ops.div, "atan2": ops.atan2,
          "maximum": ops.maximum, "minimum": ops.minimum,
          "where": lambda a, b: ops.where(a > 0, a * 2, b), "add alpha": lambda a, b: ops.add(
              a, b, alpha=3)}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
@given(x=arrays())
@settings(max_examples=12)
def test_gradients_of_one_argument(name, x):
    gradcheck(UNARY[name], [x])


@pytest.mark.parametrize("name", POSITIVE)
@given(x=arrays(positive=True))
@settings(max_examples=12)
def test_gradients_of_one_positive_argument(name, x):
    gradcheck(POSITIVE[name], [x])


@pytest.mark.parametrize("name", BINARY)
@given(data=st.data(), shapes=broadcast_shapes())
@settings(max_examples=25)
@example(data=None, shapes=((), (2, 3)))
@example(data=None, shapes=((1, 3), (2, 1)))
@example(data=None, shapes=((1, 3), (0, 1)))
def test_gradients_of_two_arguments_that_broadcast(name, data, shapes):
    a, b = (data.draw(arrays(s)) if data else numbers(s, i) for i, s in enumerate(shapes))
    gradcheck(BINARY[name], [a, b])


@given(data=st.data(), shapes=broadcast_shapes())
@settings(max_examples=25)
def test_gradients_of_a_power_of_tensors(data, shapes):
    a, b = data.draw(arrays(shapes[0], positive=True)), data.draw(arrays(shapes[1]))
    gradcheck(ops.pow, [a, b])


@given(data=st.data(), shapes=broadcast_shapes())
@settings(max_examples=25)
def test_gradients_of_a_remainder_and_of_clamping_by_tensors(data, shapes):
    a, b = data.draw(arrays(shapes[0])), data.draw(arrays(shapes[1], positive=True))
    quotient = np.divide(*np.broadcast_arrays(a, b))
    if np.abs(quotient - np.round(quotient)).min(initial=1) > 1e-4:  # else on a jump
        gradcheck(ops.remainder, [a, b])
    gradcheck(lambda a, b: a.clamp(-b - 0.013, b + 0.017), [a, b])


@given(x=arrays())
@settings(max_examples=10)
def test_one_tensor_on_both_sides(x):
    gradcheck(lambda x: x + x, [x])
    gradcheck(lambda x: x * x - x / x, [x])


def test_a_power_of_zero_has_the_slope_that_pytorch_gives():
    for exponent, slope in ((0, 0.0), (1, 1.0), (2, 0.0), (0.0, 0.0)):
        x = md.tensor(0.0, requires_grad=True)
        (x**exponent).backward()
        assert x.grad.item() == slope, f"0 ** {exponent}"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
def test_a_dtype_stays_forward_and_backward(name, dtype):
    function = (UNARY | POSITIVE)[name]
    x = md.tensor([[0.5, 1.0]], dtype=dtype, requires_grad=True)
    y = function(x)
    y.sum().backward()
    assert x.grad.dtype == x.dtype == (y.dtype if name != "there and back" else x.dtype)


@pytest.mark.parametrize("shape", [(), (1,), (2, 0)])
@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
def test_a_shape_stays(name, shape):
    assert (UNARY | POSITIVE)[name](md.ones(shape)).shape == shape


def test_gradients_of_two_dtypes_are_each_in_their_own():
    a = md.tensor([1.0, 2.0], requires_grad=True)
    b = md.tensor([3.0, 4.0], dtype="float64", requires_grad=True)
    y = a * b
    y.sum().backward()
    assert (y.dtype, a.grad.dtype, b.grad.dtype) == (md.float64, md.float32, md.float64)


def test_cast_carries_the_gradient_back_in_the_first_dtype():
    x = md.tensor([1.5, 2.5], requires_grad=True)
    x.double().sum().backward()
    assert x.grad.dtype == md.float32
    assert x.to("float32") is x, "nothing to convert"
    assert not x.long().requires_grad


def test_gelu_refuses_another_approximation():
    with pytest.raises(ValueError, match="'none' or 'tanh', not 'sigmoid'"):
        ops.gelu(md.ones(1), "sigmoid")


def test_gelu_far_out_is_the_identity_or_zero():
    x = md.tensor([1e15, -1e15, 30.0, -30.0], requires_grad=True)
    for approximate in ("none", "tanh"):
        x.grad = None
        with np.errstate(over="ignore"):  # x³
            y = ops.gelu(x, approximate)
            y.sum().backward()
        np.testing.assert_array_equal(np.abs(y.data), np.array([1e15, 0, 30, 0], "float32"))
        np.testing.assert_array_equal(x.grad.data, [1, 0, 1, 0])
