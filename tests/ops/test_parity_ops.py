"""Operations and Tensor methods beside PyTorch's: values, gradients, dtypes, errors."""

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import LAYOUTS, SEEDS, arrays, broadcast_shapes, laid_out, numbers, shapes
from support.parity import compare, dtype_name, error_of, torch

import minidist as md
from minidist import Tensor, ops

F = torch.nn.functional
BOTH = pytest.mark.parametrize("dtype", ["float64", "float32"])

UNARY = {
    "neg": (operator.neg, operator.neg),
    "exp": (ops.exp, torch.exp),
    "tanh": (ops.tanh, torch.tanh),
    "relu": (ops.relu, torch.relu),
    "clone": (ops.clone, torch.clone),
    "gelu": (ops.gelu, F.gelu),
    "gelu tanh": (lambda x: ops.gelu(x, approximate="tanh"),
                  lambda x: F.gelu(x, approximate="tanh")),
    "log of abs": (lambda x: (x * x).log(), lambda x: (x * x).log()),
    "sqrt": (lambda x: (x * x).sqrt(), lambda x: (x * x).sqrt()),
    "cast": (lambda x: x.float() * 2, lambda x: x.float() * 2),
    "numbers": (lambda x: (2 - x) * 3 / 4 + 1 / x, lambda x: (2 - x) * 3 / 4 + 1 / x),
    "powers": (lambda x: x**2 + x**-1 + x**3 + x**0, lambda x: x**2 + x**-1 + x**3 + x**0),
    "of a number": (lambda x: 2**x, lambda x: 2**x),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", UNARY)
@given(x=arrays())
@settings(max_examples=8)
def test_unary(name, dtype, x):
    compare(*UNARY[name], [x], dtype)


@BOTH
@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow"])
@given(shapes=broadcast_shapes(), seed=SEEDS)
@settings(max_examples=12)
def test_binary(name, dtype, shapes, seed):
    op = getattr(operator, name)
    a, b = (np.abs(numbers(s, seed + i)) for i, s in enumerate(shapes))
    compare(op, op, [a, b], dtype)


def test_powers_at_zero():
    zero = np.array([0.0, 0.0, 0.0])
    for b in (0, 1, 2, 0.0):
        compare(lambda x, b=b: x**b, lambda x, b=b: x**b, [zero])
    compare(operator.pow, operator.pow, [zero, np.array([0.0, 1.0, 2.0])])


# Dtypes where they meet

OPERANDS = {
    "int64": np.array([2, 3]),
    "int32": np.array([2, 3], "int32"),
    "uint8": np.array([2, 3], "uint8"),
    "bool": np.array([True, True]),
    "float32": np.array([2.0, 3.0], "float32"),
    "float64": np.array([2.0, 3.0]),
    "float16": np.array([2.0, 3.0], "float16"),
    "0-d int64": np.array(2),
    "0-d float32": np.array(2.0, "float32"),
    "0-d float64": np.array(2.0),
    "0-d bool": np.array(True),
    "int": 2,
    "float": 2.5,
    "True": True,
    "np.float64": np.float64(2.5),
}


@pytest.mark.parametrize("name", ["add", "mul", "truediv"])
@pytest.mark.parametrize("left", OPERANDS)
def test_dtypes_of_results(name, left):
    op = getattr(operator, name)
    for right, b in OPERANDS.items():
        a = OPERANDS[left]
        if not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray):
            continue
        ours = op(*(Tensor(x) if isinstance(x, np.ndarray) else x for x in (a, b)))
        theirs = op(*(torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in (a, b)))
        assert ours.dtype.name == dtype_name(theirs.dtype), f"{left} {name} {right}"


@pytest.mark.parametrize(
    "data",
    [1.5, 1, True, [1, 2.5], [], [True], [[1], [2]], np.ones(2), np.float64(1), np.arange(2)],
)
def test_dtypes_of_creation(data):
    assert md.tensor(data).dtype.name == dtype_name(torch.tensor(data).dtype)
    assert list(md.tensor(data).shape) == list(torch.tensor(data).shape)


@pytest.mark.parametrize("name", ["int64", "int32", "uint8", "bool", "float16", "float32"])
def test_dtypes_of_reductions(name):
    a = OPERANDS[name]
    for method in ("sum", "amax", "mean"):
        ours, theirs = getattr(Tensor(a), method), getattr(torch.from_numpy(a), method)
        assert error_of(ours) == error_of(theirs)
        if error_of(ours) is None:
            assert ours().dtype.name == dtype_name(theirs().dtype)


# Reductions


@BOTH
@given(data=st.data(), shape=shapes(min_side=1, max_dims=4), keepdim=st.booleans(), seed=SEEDS)
@settings(max_examples=30)
def test_reductions(dtype, data, shape, keepdim, seed):
    n = max(len(shape), 1)
    dim = data.draw(st.none() | st.integers(-n, n - 1) | st.lists(
        st.integers(0, n - 1), unique=True, max_size=len(shape)).map(tuple))  # fmt: skip
    x = numbers(shape, seed).round(1)  # with equal maxima
    for name in ("sum", "mean", "amax"):
        if name == "amax" and dim is None:
            dim = ()
        f = lambda x, name=name, dim=dim: getattr(x, name)(dim, keepdim)
        compare(f, f, [x], dtype)


@BOTH
@given(data=st.data(), x=arrays())
@settings(max_examples=20)
def test_softmax(dtype, data, x):
    n = max(x.ndim, 1)
    dim = data.draw(st.integers(-n, n - 1))
    compare(lambda x: x.softmax(dim), lambda x: x.softmax(dim), [x], dtype)
    compare(lambda x: ops.softmax(x, dim=dim), lambda x: F.softmax(x, dim=dim), [x * 50], dtype)


# Shapes: the same text for both

METHODS = {
    "reshape": lambda x: x.reshape(4, 3),
    "reshape -1": lambda x: x.reshape((-1, 2, 3)),
    "view": lambda x: x.view(-1),
    "view of ()": lambda x: x[0, 0, 0].view(()),
    "flatten": lambda x: x.flatten(),
    "flatten some": lambda x: x.flatten(1, 2),
    "flatten negative": lambda x: x.flatten(-2),
    "flatten 0-d": lambda x: x[0, 0, 0].flatten(),
    "permute": lambda x: x.permute(2, 0, 1),
    "permute negative": lambda x: x.permute((-1, 0, -2)),
    "transpose": lambda x: x.transpose(-1, 0),
    "T": lambda x: x[0].T,
    "squeeze": lambda x: x[:1].squeeze(),
    "squeeze one": lambda x: x[:, :1].squeeze(1),
    "squeeze none": lambda x: x.squeeze(1),
    "squeeze several": lambda x: x[:1, :, :1].squeeze((0, 2)),
    "unsqueeze": lambda x: x.unsqueeze(1).unsqueeze(-1),
    "expand": lambda x: x[:1].expand(3, -1, 3) + x[:, :, :1].expand(5, 2, 2, 3)[:3, 0],
    "a row": lambda x: x[1],
    "an element": lambda x: x[-1, 0, 2],
    "slices": lambda x: x[:, ::2, 1:],
    "ellipsis": lambda x: x[..., 1],
    "None": lambda x: x[None, :, None, 0],
    "a list": lambda x: x[[1, 0, 1]],
    "lists": lambda x: x[[1, 0], [0, 1]],
    "a list inside": lambda x: x[:, [1, 0, 1], :2],
    "iteration": lambda x: sum(row * i for i, row in enumerate(x)),
    "matmul": lambda x: x @ x.transpose(1, 2),
    "matmul of vectors": lambda x: x[0, 0] @ x[1, 1],
    "matrix and vector": lambda x: x[0] @ x[0, 1],
    "vector and matrices": lambda x: x[0, :, 0] @ x,
    "broadcast matmul": lambda x: x[:, None] @ x.transpose(1, 2),
    "mean of a slice": lambda x: x[1:].mean((0, 2), keepdim=True),
}


@BOTH
@pytest.mark.parametrize("name", METHODS)
def test_methods(name, dtype):
    compare(METHODS[name], METHODS[name], [numbers((2, 2, 3), 0)], dtype)


def test_indexing_by_tensors_and_masks():
    x, rows = numbers((3, 4), 0), np.array([[2, 0], [2, 2]])
    compare(lambda x, i: x[i], lambda x, i: x[i], [x, rows])
    compare(lambda x, i: x[i, i + 1], lambda x, i: x[i, i + 1], [x, rows])
    compare(lambda x, m: x[m], lambda x, m: x[m], [x, x > 0])
    compare(lambda x, m: x[:, m], lambda x, m: x[:, m], [x, np.array([True, False, True, True])])
    compare(lambda x: x[x > 0] * 2, lambda x: x[x > 0] * 2, [x])


@BOTH
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cat(dim, dtype):
    parts = [numbers((2, 3), i) for i in range(3)]
    compare(lambda *p: md.cat(p, dim), lambda *p: torch.cat(p, dim), parts, dtype)
    compare(lambda *p: md.cat([p[0], p[0]], dim=dim), lambda *p: torch.cat([p[0], p[0]], dim=dim),
            parts, dtype)  # fmt: skip


# Fused operations


@BOTH
@given(lead=st.lists(st.integers(0, 3), max_size=2), sizes=st.tuples(*[st.integers(1, 5)] * 2),
       bias=st.booleans(), layout=st.sampled_from(LAYOUTS), seed=SEEDS)  # fmt: skip
@settings(max_examples=20)
def test_linear(dtype, lead, sizes, bias, layout, seed):
    into, out = sizes
    inputs = [laid_out(numbers((*lead, into), seed), layout), numbers((out, into), seed + 1)]
    compare(ops.linear, F.linear, inputs + [numbers((out,), seed + 2)] * bias, dtype)


@BOTH
@given(lead=st.lists(st.integers(1, 3), max_size=2), seed=SEEDS,
       shape=st.lists(st.integers(2, 4), min_size=1, max_size=2))  # fmt: skip
@settings(max_examples=20)
def test_layer_norm(dtype, lead, shape, seed):
    x, w, b = (numbers(s, seed + i) for i, s in enumerate((lead + shape, shape, shape)))
    compare(lambda *a: ops.layer_norm(a[0], shape, *a[1:], 0.1),
            lambda *a: F.layer_norm(a[0], shape, *a[1:], 0.1), [x, w, b], dtype)  # fmt: skip
    compare(lambda x: ops.layer_norm(x, shape, eps=0.1),
            lambda x: F.layer_norm(x, shape, eps=0.1), [x], dtype)  # fmt: skip
    compare(lambda x, w: ops.layer_norm(x, shape, w, eps=0.1),
            lambda x, w: F.layer_norm(x, shape, w, eps=0.1), [x, w], dtype)  # fmt: skip


@BOTH
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_embedding(shape, dtype):
    index = np.random.default_rng(0).integers(0, 4, shape)
    compare(ops.embedding, F.embedding, [index, numbers((4, 3), 0)], dtype)


@BOTH
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@given(n=st.integers(1, 5), classes=st.integers(1, 5), seed=SEEDS)
@settings(max_examples=10)
def test_cross_entropy(dtype, reduction, n, classes, seed):
    target = np.random.default_rng(seed).integers(0, classes, n)
    compare(lambda x, t: ops.cross_entropy(x, t, reduction=reduction),
            lambda x, t: F.cross_entropy(x, t, reduction=reduction),
            [numbers((n, classes), seed) * 3, target], dtype)  # fmt: skip


@BOTH
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("s, t", [(5, 5), (70, 70), (3, 6), (6, 3), (1, 1)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention(s, t, causal, scale, dtype):
    q, k, v = (numbers((2, 3, n, 4), i) for i, n in enumerate((s, t, t)))
    compare(lambda *x: ops.scaled_dot_product_attention(*x, is_causal=causal, scale=scale),
            lambda *x: F.scaled_dot_product_attention(*x, is_causal=causal, scale=scale),
            [q, k, v], dtype)  # fmt: skip


def test_dropout_off_and_full():
    x = numbers((3, 4), 0)
    compare(lambda x: ops.dropout(x, 0.3, False), lambda x: F.dropout(x, 0.3, False), [x])
    compare(lambda x: ops.dropout(x, 0.0) * 2, lambda x: F.dropout(x, 0.0) * 2, [x])
    compare(lambda x: ops.dropout(x, 1.0), lambda x: F.dropout(x, 1.0), [x])
