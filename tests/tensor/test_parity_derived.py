"""What is made of other operations, and other spellings, beside PyTorch's: values and errors."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.cases import numbers
from support.parity import compare, dtype_name, error_of, torch

import minidist as md
from minidist.nn import functional

OURS = SimpleNamespace(**vars(md) | {"F": functional})
THEIRS = SimpleNamespace(**vars(torch) | {"F": torch.nn.functional})
X, Y, CUBE, ROW = numbers((2, 3), 0), numbers((2, 3), 1), numbers((2, 3, 4), 2), numbers((3,), 3)
INT = np.array([[3, -3, 0], [-1, 2, 3]])
INF = np.array([np.inf, np.nan, 1.0, -np.inf])

CASES = {
    "cumprod with zeros": (lambda m, x: m.cumprod(x.round(), axis=1), X),
    "cumprod ints": (lambda m, i: m.cumprod(i, 1), INT),
    "median of all": (lambda m, x: x.median(), X),
    "median indices": (lambda m, x: x.median(1, keepdim=True).indices, X),
    "unique, inverse": (lambda m, i: m.unique(i, return_inverse=True)[1], INT),
    "unique rows": (lambda m, i: m.unique(i % 2, dim=0), INT),
    "bincount": (lambda m, i: m.bincount(i[0].abs(), minlength=6), INT),
    "bincount weights": (lambda m, i: m.bincount(i[0].abs(), m.tensor([0.5, 1.0, 2.0])), INT),
    "count_nonzero": (lambda m, i: m.count_nonzero(i, (0, 1)) + i.count_nonzero(1), INT),
    "isclose inf": (lambda m, x: m.isclose(x, x), INF),
    "isclose nan": (lambda m, x: m.isclose(x, x, equal_nan=True), INF),
    "var_mean": (lambda m, x: sum(m.var_mean(x, 1, keepdim=True)), X),
    "std_mean": (lambda m, x: sum(m.std_mean(x, correction=0)), X),
    "movedim of two": (lambda m, x: m.moveaxis(x, (0, 1), (2, 0)), CUBE),
    "unflatten -1": (lambda m, x: x.unflatten(-1, (2, -1)), CUBE),
    "narrow negative": (lambda m, x: x.narrow(2, -2, 2), CUBE),
    "repeat_interleave": (lambda m, x: x.repeat_interleave(m.tensor([1, 0, 2]), dim=1), CUBE),
    "diag and back": (lambda m, x: m.diag(m.diag(x, 1)), CUBE[0]),
    "meshgrid": (lambda m, x: m.meshgrid([x, x[:2]], indexing="xy")[0], ROW),
    "hstack 0-d": (lambda m, x: m.hstack([x[0], x[1]]), ROW),
    "scatter a number": (lambda m, x: x.scatter(1, m.tensor([[0], [2]]), 5.0), X),
    "scatter_": (lambda m, x: (x * 1).scatter_(1, m.tensor([[0], [2]]), value=7), X),
    "scatter 0-d": (lambda m, x: x[0].scatter(0, m.tensor([0]), x[1:2]), ROW),
    "index_add_": (lambda m, x: m.zeros(2, 3).double().index_add_(0, m.tensor([1, 1]), x), X),
    "lerp_": (lambda m, x, y: (x * 1).lerp_(y, 0.25), X, Y),
    "normalize": (lambda m, x: m.F.normalize(x, p=1) + m.F.normalize(x, dim=0), X),
    "normalize 0": (lambda m, x: m.F.normalize(x * 0), X),
    "cosine_similarity": (lambda m, x, y: m.F.cosine_similarity(x[:1], y), X, Y),
    "where": (lambda m, x, y: x.where(y > 0, y), X, Y),
    "as others": (lambda m, x, y: x.view_as(y) + x.reshape_as(y) + y[0].expand_as(x), X, Y),
    "type_as": (lambda m, x, i: i.type_as(x), X, INT),
    "ravel": (lambda m, x: x.T.ravel(), X),
    "new": (lambda m, x: x.new_zeros(2) + x.new_ones((2,)) + x.new_full((2,), 3), X),
    "new dtype": (lambda m, x: x.new_ones(2, dtype=m.int64), X),
    "as_tuple": (lambda m, x: x[(x > 0).nonzero(as_tuple=True)], X),
    "axis": (lambda m, x: x.sum(axis=0) + m.mean(x, axis=(0, 1)) + x.max(axis=0).values, X),
    "keepdims": (lambda m, x: x.sum(axis=0, keepdims=True) * x.softmax(axis=1), X),
    "concat": (lambda m, x: m.concat([x, x], dim=1) + m.concatenate((x, x), 1), X),
    "words": (lambda m, x, y: m.multiply(x, y) + x.subtract(y).divide(y).negative(), X, Y),
    "comparisons": (lambda m, x, y: x.greater(y) | x.less_equal(0) & x.not_equal(y), X, Y),
    "keywords": (lambda m, x: m.reshape(x, shape=(3, 2)).permute(dims=(1, 0)).flip(dims=(0,)), X),
    "in": (lambda m, i: m.tensor([3 in i, 7 in i]), INT),
    "plus": (lambda m, x: +x * 1, X),
    "an index": (lambda m, x: x[[0, 1][m.tensor(1)] : 3], ROW),
    "in place": (lambda m, i: _all_at_once(i > 0, i < 3), INT),
}


def _all_at_once(a, b):
    a &= b
    a |= ~b
    a ^= b
    return a.logical_not_()


@pytest.mark.parametrize("name", CASES)
def test_it_is_as_in_pytorch(name):
    function, *arrays = CASES[name]
    compare(lambda *x: function(OURS, *x), lambda *x: function(THEIRS, *x), arrays)


WRONG = {
    "isclose": lambda m, x: m.isclose(x, x.double()),
    "lerp": lambda m, x: x.lerp(x.double(), 0.5),
    "median dim": lambda m, x: x.median(2),
    "cumprod dim": lambda m, x: m.tensor(1.0).cumprod(1),
    "movedim": lambda m, x: x.movedim(0, 2),
    "movedim twice": lambda m, x: x.movedim((0, 0), (0, 1)),
    "unflatten": lambda m, x: x.unflatten(1, (2, 2)),
    "narrow": lambda m, x: x.narrow(1, 2, 2),
    "narrow start": lambda m, x: x.narrow(1, -5, 1),
    "narrow length": lambda m, x: x.narrow(1, 0, -1),
    "select": lambda m, x: x.select(1, 3),
    "repeat_interleave": lambda m, x: x.repeat_interleave(m.tensor([1, 2]), dim=1),
    "diag": lambda m, x: m.diag(x[None]),
    "hstack": lambda m, x: m.hstack([x, x[0]]),
    "meshgrid": lambda m, x: m.meshgrid(x[0], x[0].double(), indexing="ij"),
    "scatter": lambda m, x: x.scatter(1, m.tensor([[3]]), 1.0),
    "scatter rank": lambda m, x: x.scatter(1, m.tensor([0]), 1.0),
    "scatter dtype": lambda m, x: x.scatter(1, m.tensor([[0]]), x.double()),
    "index_add": lambda m, x: x.index_add(0, m.tensor([2]), x[:1]),
    "index_add count": lambda m, x: x.index_add(0, m.tensor([0]), x),
    "index_add width": lambda m, x: x.index_add(0, m.tensor([0, 1]), x[:, :2]),
    "index_add matrix": lambda m, x: x.index_add(0, m.tensor([[0]]), x[:1]),
    "mv": lambda m, x: m.mv(x, m.ones(2)),
    "mv of vectors": lambda m, x: m.mv(x[0], x[0]),
    "addmm": lambda m, x: m.addmm(x, x, x),
    "addmm bias": lambda m, x: m.addmm(m.ones(4), x, x.T),
    "bincount": lambda m, x: m.bincount(m.tensor([-1])),
    "bernoulli": lambda m, x: m.bernoulli(m.tensor([1.5])),
    "multinomial": lambda m, x: m.multinomial(m.tensor([0.5, 0.5]), 3),
    "multinomial of nothing": lambda m, x: m.multinomial(m.tensor([0.0, 0.0]), 1),
    "multinomial negative": lambda m, x: m.multinomial(m.tensor([-1.0, 2.0]), 1),
    "multinomial of ints": lambda m, x: m.multinomial(m.tensor([1, 2]), 1),
    "device": lambda m, x: m.device("nowhere"),
    "to nowhere": lambda m, x: x.to("cuda:9q"),
    "index": lambda m, x: [1, 2][x[0, 0]],
    "deepcopy": lambda m, x: __import__("copy").deepcopy(x.requires_grad_() * 2),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_of_pytorchs_class(name):
    theirs = error_of(lambda: WRONG[name](THEIRS, torch.ones(2, 3)))
    assert error_of(lambda: WRONG[name](OURS, md.ones(2, 3))) is theirs is not None


CREATED = {
    "arange keywords": lambda m: m.arange(start=1, end=6, step=2),
    "arange end": lambda m: m.arange(end=3),
    "arange of a tensor": lambda m: m.arange(m.tensor(3)),
    "size": lambda m: m.zeros(size=(2, 1)) + m.randn(size=(2, 1)) * 0,
    "device": lambda m: m.ones(2, device="cpu") + m.zeros(2, device=m.device("cpu")),
    "like": lambda m: m.zeros_like(m.ones(2), device="cpu"),
    "randint": lambda m: m.randint(high=1, size=(2,)),
    "normal": lambda m: m.normal(2.0, 0.0, (2, 2)),
    "float64 in a list": lambda m: m.tensor([np.float64(1), 2.0]),
    "arrays in a list": lambda m: m.tensor(np.ones((1, 2)).tolist() and [np.float32(1)]),
    "long": lambda m: m.zeros(2, dtype=m.long) + m.ones(2, dtype=m.int),
    "bool": lambda m: m.zeros(2, dtype=m.bool),
    "double": lambda m: m.ones(2, dtype=m.double) + m.ones(2, dtype=m.half),
    "bytes": lambda m: m.ones(2).byte() + m.ones(2).char() + m.ones(2).short(),
    "constants": lambda m: m.tensor([m.pi, m.e, m.inf]),
    "finfo": lambda m: m.tensor([float(m.finfo(m.float32).max), float(m.iinfo(m.int16).max)]),
    "to": lambda m: m.ones(2).to("cpu", m.float64).to(m.ones(1, dtype=m.int64)),
    "to by name": lambda m: m.ones(2).to(device="cpu", dtype=m.float64).cpu(),
    "type": lambda m: m.ones(2).type(m.int32),
    "fill": lambda m: m.empty(2).uniform_(3.0, 3.0) + m.empty(2).normal_(1.0, 0.0),
}


@pytest.mark.parametrize("name", CREATED)
def test_creation(name):
    ours, theirs = CREATED[name](md), CREATED[name](torch)
    assert ours.dtype.name == dtype_name(theirs.dtype) and ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-6)


def test_what_a_tensor_tells():
    for m in (md, torch):
        x = m.ones(2, 3)
        assert (x.dim(), x.nelement(), x.element_size(), x.nbytes) == (2, 6, 4, 24)
        assert x.is_contiguous() and not x.T.is_contiguous()
        assert x.is_floating_point() and not m.is_floating_point(x.long())
        assert str(x.device) == "cpu" == x.device.type and x.to(x.device) is x
        assert repr(x.device) == "device(type='cpu')"
        assert m.is_tensor(x) and not m.is_tensor(1) and m.numel(x) == 6
        assert x.shape == m.Size([2, 3]) and x.view(m.Size((3, 2))).shape == (3, 2)


def test_backward_of_several():
    for m in (md, torch):
        x = m.ones(2, requires_grad=True)
        m.autograd.backward([(x * 3).sum(), x * x], [None, m.tensor([1.0, 0.5])])
        assert x.grad.tolist() == [5, 4]


def test_numbers_of_numpys():
    for m in (md, torch):
        x, i = m.ones(2), m.tensor([1, 2])
        for y in (np.float64(2) * x, x * np.float32(2), np.int64(3) - i, i + np.int64(3)):
            assert y.dtype == (x if y.is_floating_point() else i).dtype
        assert (x > np.float64(0.5)).tolist() == [True, True]
