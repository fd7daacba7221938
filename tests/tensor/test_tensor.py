"""Tensor: dtypes, creation, and the ways in and out."""

import operator
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import broadcast_shapes, numbers

import minidist as md
from minidist import Tensor, ops

X = numbers((2, 3), 0)

# Dtypes


@pytest.mark.parametrize(
    "data, dtype",
    [
        (1.5, "float32"), (1, "int64"), (True, "bool"), ([1, 2.5], "float32"), ([], "float32"),
        ([True, False], "bool"), ([[1], [2]], "int64"), (np.ones(2), "float64"),
        (np.float64(1), "float64"), (np.ones(2, "float16"), "float16"),
        (np.arange(2, dtype="int32"), "int32"), (np.array(1.0), "float64"),
    ],
)  # fmt: skip
def test_the_dtype_of_what_is_given(data, dtype):
    assert md.tensor(data).dtype.name == Tensor(data).dtype.name == dtype
    assert md.tensor(data, dtype="float64").dtype == md.float64


def test_unknown_dtypes_are_named():
    for make in (lambda: md.tensor("a"), lambda: md.tensor([1j]), lambda: md.ones(1, dtype="f")):
        with pytest.raises(TypeError, match="choose one of float16, float32, float64"):
            make()
    with pytest.raises(TypeError, match=r"'mps' is not a device \(cpu, cuda\) or a dtype"):
        md.ones(1).to("mps")


MEETINGS = {
    "int * float number": (lambda: md.tensor([1]) * 2.5, "float32"),
    "int / int": (lambda: md.tensor([1]) / md.tensor([2]), "float32"),
    "int / number": (lambda: md.tensor([1]) / 2, "float32"),
    "exp of int": (lambda: ops.exp(md.tensor([1])), "float32"),
    "int * float32": (lambda: md.tensor([1]) * md.tensor([1.0]), "float32"),
    "float32 * float64": (lambda: md.tensor([1.0]) * np.ones(1), "float64"),
    "float32 * 0-d float64": (lambda: md.tensor([1.0]) * Tensor(np.array(2.0)), "float32"),
    "0-d float32 * float64": (lambda: md.tensor(1.0) * Tensor(np.ones(1)), "float64"),
    "int * 0-d float64": (lambda: md.tensor([1]) * Tensor(np.array(2.0)), "float64"),
    "float32 * NumPy's float64": (lambda: md.tensor([1.0]) * np.float64(2), "float32"),
    "NumPy's float64 * float32": (lambda: np.float64(2) * md.tensor([1.0]), "float32"),
    "bool * int": (lambda: md.tensor([True]) * md.tensor([2]), "int64"),
    "float32 * bool": (lambda: md.tensor([1.0]) * md.tensor([True]), "float32"),
    "int32 * number": (lambda: Tensor(np.ones(1, "int32")) * 2, "int32"),
    "int32 * int64": (lambda: Tensor(np.ones(1, "int32")) * md.tensor([2]), "int64"),
    "float16 * float number": (lambda: md.tensor([1.0], "float16") * 2.0, "float16"),
    "int - float": (lambda: 1.5 - md.tensor([1]), "float32"),
    "int ** int": (lambda: md.tensor([3]) ** 2, "int64"),
    "2 ** float": (lambda: 2 ** md.tensor([3.0]), "float32"),
    "array + tensor": (lambda: np.ones(1, "float32") + md.tensor([3.0]), "float32"),
    "-int": (lambda: -md.tensor([3]), "int64"),
    "sum of bool": (lambda: md.tensor([True]).sum(), "int64"),
    "mean of float16": (lambda: md.ones(2, dtype="float16").mean(), "float16"),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_dtypes_meet_as_in_pytorch(name):
    make, dtype = MEETINGS[name]
    assert isinstance(make(), Tensor) and make().dtype.name == dtype


@given(shapes=broadcast_shapes(), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_operators_are_numpys_on_float64(shapes, seed):
    a, b = (np.abs(numbers(s, seed + i)) for i, s in enumerate(shapes))
    for name in ["add", "sub", "mul", "truediv", "pow", "eq", "ne", "lt", "le", "gt", "ge"]:
        op = getattr(operator, name)
        y = op(Tensor(a), Tensor(b))
        np.testing.assert_array_equal(y.data, op(a, b))
        assert y.dtype == op(a, b).dtype


def test_operands_that_are_no_numbers():
    for other in (None, "a", [1.0], object()):
        with pytest.raises(TypeError):
            md.ones(2) + other
    with pytest.raises(RuntimeError, match=r"add: shapes \(2,\) and \(3,\) do not broadcast"):
        md.ones(2) + md.ones(3)
    with pytest.raises(RuntimeError, match="pow: integers to the negative integer power -1"):
        md.tensor([2]) ** -1


def test_comparisons_are_elementwise_and_hash_is_identity():
    x, y = md.tensor([1.0, 2.0]), md.tensor([1.0, 3.0])
    assert (x == y).tolist() == [True, False] and (x != 2).tolist() == [True, False]
    assert (x < 2).tolist() == [True, False] and not (x == y).requires_grad
    assert {x: "x", y: "y"}[x] == "x" and len({x, y, x}) == 2
    assert (x == None) is False  # noqa: E711


# Creation


def test_creation():
    assert md.zeros(2, 3).shape == md.zeros((2, 3)).shape == md.zeros([2, 3]).shape == (2, 3)
    assert md.ones(2).tolist() == [1, 1] and md.ones(()).shape == ()
    assert md.full((2,), 3).dtype == md.int64 and md.full((2,), 3.0).dtype == md.float32
    assert md.full(2, 7).tolist() == [7, 7] and md.full((2,), 3, dtype="float16").dtype == "float16"
    x = md.ones(2, 3, dtype="float64", requires_grad=True)
    assert md.zeros_like(x).shape == (2, 3) and md.ones_like(x).dtype == md.float64
    assert x.requires_grad and not md.zeros_like(x).requires_grad
    assert md.arange(3).dtype == md.int64 and md.arange(1, 2, 0.5).dtype == md.float32
    assert md.arange(1, 7, 2).tolist() == [1, 3, 5]
    assert md.randn(2, 3).dtype == md.rand(2).dtype == md.float32
    assert md.rand(1000).data.min() >= 0 and md.rand(1000).data.max() < 1


def test_tensor_copies_and_the_class_shares():
    array = np.zeros(2)
    shared, copied = Tensor(array), md.tensor(array)
    array += 1
    assert shared.tolist() == [1, 1] and copied.tolist() == [0, 0]
    assert Tensor(shared).data is array and not np.shares_memory(md.tensor(shared).data, array)


# What it is, and ways out


def test_what_it_says_of_itself():
    x = Tensor(X)
    assert (x.shape, x.ndim, x.size(), x.size(-1), x.numel()) == ((2, 3), 2, (2, 3), 3, 6)
    assert len(x) == 2 and [row.shape for row in x] == [(3,), (3,)]
    assert x.is_leaf and x.grad_fn is None
    y = x.requires_grad_() * 2
    assert not y.is_leaf and "mul" in repr(y.grad_fn) and x.is_leaf
    assert repr(md.tensor([1.5, 2.0])) == "tensor([1.5000, 2.0000])"
    assert repr(x).endswith(", requires_grad=True)") and repr(y).endswith(", grad_fn=<mul>)")


def test_ways_out():
    x = md.tensor(2.5)
    assert (x.item(), float(x), int(x), bool(x), f"{x:.2f}") == (2.5, 2.5, 2, True, "2.50")
    assert f"{md.tensor([1])}" == repr(md.tensor([1]))
    assert md.tensor([[1, 2]]).tolist() == [[1, 2]]
    assert np.asarray(Tensor(X)).tolist() == X.tolist() and Tensor(X).numpy() is X
    assert np.array(Tensor(X), dtype="float32").dtype == "float32"
    assert not np.shares_memory(np.array(Tensor(X)), X)
    assert md.ones(1, 1).item() == 1 and bool(md.tensor([0])) is False


def test_ways_out_that_are_closed():
    many, none = md.ones(2), md.ones(0)
    for t in (many, none):
        for way in (bool, float, int, Tensor.item):
            with pytest.raises(RuntimeError, match="one element"):
                way(t)
    for way in (len, list):
        with pytest.raises(TypeError, match="0-d"):
            way(md.tensor(1.0))
    with pytest.raises(RuntimeError, match=r"t.detach\(\).numpy\(\)"):
        md.ones(1, requires_grad=True).numpy()
    with pytest.raises(RuntimeError, match="requires grad"):
        np.asarray(md.ones(1, requires_grad=True))
    with pytest.raises(IndexError):
        many.size(1)


def test_conversions():
    x = md.tensor([1.5])
    assert x.double().dtype == md.float64 and x.long().dtype == md.int64
    assert x.double().float().dtype == md.float32
    for dtype in ("float64", np.float64, np.dtype("float64"), md.float64):
        assert x.to(dtype).dtype == md.float64
    with pytest.raises(TypeError, match="'complex64' is not a device"):
        x.to("complex64")


def test_nothing_here_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        md.ones(2, 3).softmax(1).log().exp().sqrt().mean()
