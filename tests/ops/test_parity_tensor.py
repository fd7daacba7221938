"""Every tensor operation beside PyTorch's, the same text for both: values, gradients, dtypes."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from support.cases import numbers
from support.parity import compare, torch

import minidist as md
from minidist.nn import functional

OURS = SimpleNamespace(**vars(md) | {"pad": functional.pad, "one_hot": functional.one_hot})
F = torch.nn.functional
THEIRS = SimpleNamespace(**vars(torch) | {"pad": F.pad, "one_hot": F.one_hot})

X = numbers((2, 3, 4), 0)
Y = numbers((2, 3, 4), 1)
ROW = numbers((4,), 2)
POSITIVE = np.abs(X)
SMALL = X / 2.5  # in (-0.8, 0.8)
TIES = X.round()  # 0 and equal elements among them
ZERO, NONE, ONE = np.zeros((2, 3)), np.zeros((0, 3)), np.array(1.5)
SQUARE, LONG = numbers((3, 3), 3), numbers((7,), 4)
COUNTS = np.array([[1, 1]])
INT, BOOL = np.array([[3, -3, 0], [-1, 2, 5]]), np.array([[True, False, True]] * 2)
FIRST, ROWS = np.array([[[0], [2], [1]]]), np.array([1, 0, 1])
ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0])
SPREAD = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 7.3, -7.3])


def weighted(parts):
    """A number from several outputs, so that each has another gradient."""
    return sum((part * (i + 1)).sum() for i, part in enumerate(parts))


UNARY = {
    "X": (X, "atan erf sin cos tan sinh cosh tanh exp expm1 abs neg square reciprocal relu"),
    "SMALL": (SMALL, "asin acos log1p"),
    "POSITIVE": (POSITIVE, "log log2 log10 sqrt rsqrt"),
    "SPREAD": (SPREAD, "floor ceil trunc round sign"),
    "ODD": (ODD, "isnan isinf isfinite logical_not"),
    "NONE": (NONE, "exp sin abs floor isnan sum prod square"),
    "ONE": (ONE, "exp sin abs floor isnan sum prod mean max argmax amax norm"),
    "COUNTS": (COUNTS, "exp sin tanh sqrt erf reciprocal rsqrt log2 asin"),
    "INT": (
        INT,
        "abs neg square floor ceil round sign sum prod max min argmax argmin any all isnan "
        "logical_not bitwise_not",
    ),
    "BOOL": (BOOL, "exp sin sqrt logical_not bitwise_not any all sum prod isfinite"),
}
CASES = {
    # Of two arguments
    "add alpha": (lambda m, x, y: m.add(x, y, alpha=3), X, ROW),
    "sub alpha": (lambda m, x, y: x.sub(y, alpha=0.5), X, ROW),
    "floor_divide": (lambda m, x: x.detach() // -0.3 + 2 // x.detach(), SPREAD),
    "remainder": (lambda m, x, y: x % y, X * 5, ROW),
    "remainder of numbers": (lambda m, x: x % 0.7 + x % -0.7, SPREAD),
    "int // and %": (lambda m, i: i // 2 * 100 + i % 2 * 10 + i % -3 + 7 // (i * 2 + 1), INT),
    "int // tensor": (lambda m, i, j: i // j * 10 + i % j, INT, np.array([2, -2, 3])),
    "float and int": (lambda m, x, i: x * i + i / 2 + i // 2.0 + x**i, SQUARE[:2], INT),
    "maximum": (lambda m, x, y: m.maximum(x, y), TIES, TIES[::-1, ::-1].copy()),
    "minimum": (lambda m, x, y: m.minimum(x, y), TIES, TIES[::-1, ::-1].copy()),
    "maximum broadcasts": (lambda m, x, y: m.maximum(x, y) - m.minimum(y, x), X, ROW),
    "max of two": (lambda m, x, y: m.max(x, y) - x.min(y), X, Y),
    "clamp": (lambda m, x: x.clamp(-0.5, 1) * x.clamp(min=0) * m.clamp(x, max=0.5), X),
    "clamp at the bounds": (lambda m, x: x.clamp(-1, 1), TIES),
    "clamp by tensors": (lambda m, x, a, b: m.clamp(x, a, b), X, -np.abs(ROW), np.abs(ROW)),
    "clamp crossed": (lambda m, x: x.clamp(1, -1), X),
    "clamp ints": (lambda m, i: i.clamp(-2, 2), INT),
    "clamp ints by a float": (lambda m, i: i.clamp(0.5), INT),
    "atan2": (lambda m, x, y: m.atan2(x, y), X, ROW),
    "where": (lambda m, x, y: m.where(x > 0, x, y), X, ROW),
    "where a number": (lambda m, x: m.where(x > 0, x, 0) + m.where(x > 1, 2.0, x), X),
    "where numbers": (lambda m, x: m.where(x > 0, 1.0, 2.0), X),
    "where ints": (lambda m, x: m.where(x > 0, 1, 2), X),
    "where grows": (lambda m, c, x: m.where(c, x, 1), BOOL, np.array(2.0)),
    "round decimals": (lambda m, x: x.round(decimals=1), X),
    "masked_fill": (lambda m, x, c: x.masked_fill(c, -math.inf).exp(), SQUARE[:2], BOOL),
    "masked_fill tensor": (lambda m, x, y: x.masked_fill(x > 0, y), X, np.array(2.0)),
    "masked_fill int": (lambda m, i: i.masked_fill(i > 0, 2.7), INT),
    "masked_fill grows": (lambda m, x, c: x.masked_fill(c, 1.0), SQUARE[0], BOOL),
    "and or xor": (lambda m, b, c: ((b & c) | ~b) ^ c, BOOL, BOOL[:, ::-1].copy()),
    "bits": (lambda m, i: (i & 6) | (~i ^ 3), INT),
    "bits and bools": (lambda m, i, b: i & b | True, INT, BOOL),
    "logical": (
        lambda m, x, i: m.logical_and(x, i) | m.logical_or(i, x) ^ m.logical_xor(x, i), ZERO, INT,
    ),
    "of numbers": (lambda m, x: abs(-x) + 2**x + (True + x), POSITIVE),
    # Reductions
    "sum dtype": (lambda m, x: x.sum(1, dtype=m.float32), X),
    "mean dtype": (lambda m, i: i.mean(0, dtype=m.float64), INT),
    "mean of nothing": (lambda m, x: x.mean(0).isnan(), NONE),
    "var": (lambda m, x: x.var() + x.var(0) + m.var(x, (0, 2), keepdim=True), X),
    "var correction": (lambda m, x: x.var(1, correction=0) + x.var(1, correction=2), X),
    "var biased": (lambda m, x: x.var(unbiased=False) + x.var(0, False, True), X),
    "std": (lambda m, x: x.std() + m.std(x, -1, keepdim=True) + x.std((0, 1), correction=0), X),
    "std of equals": (lambda m, x: x.std(1), ZERO),
    "prod": (lambda m, x: x.prod() + x.prod(1) .sum() + m.prod(x, -1, keepdim=True), X),
    "prod with zeros": (lambda m, x: x.prod(1) + x.prod(0).sum(), TIES),
    "prod of two zeros": (lambda m, x: x.prod(1), ZERO),
    "prod of nothing": (lambda m, x: x.prod(0) + x.prod(1).sum() + x.prod(), NONE),
    "amin": (lambda m, x: x.amin(1) + x.amin((0, 1), True) + x.amax(), TIES),
    "amax of no dims": (lambda m, x: x.amax(()), TIES),
    "max": (lambda m, x: m.max(x) - x.min(), TIES),
    "max dim": (lambda m, x: x.max(1).values - x.min(1)[0], TIES),
    "max indices": (lambda m, x: x.max(-1, keepdim=True).indices + m.min(x, 2, True)[1], TIES),
    "max dim 0-d": (lambda m, x: x.max(0)[0] * x.min(-1, True)[0], ONE),
    "max of empty rows": (lambda m, x: x.max(1).values, NONE),
    "argmax": (lambda m, x: x.argmax(1) * 10 + m.argmin(x, 1), TIES),
    "argmax all": (lambda m, x: x.argmax() + x.argmin(keepdim=True), TIES),
    "argmax keepdim": (lambda m, x: x.argmax(-1, True), TIES),
    "argmax nan": (lambda m, x: x.argmax(), ODD),
    "any": (lambda m, x: x.any(1) ^ x.any((0, 1), True)[0] if x.ndim < 2 else x.any(1), ZERO),
    "any of several": (lambda m, x: x.any((0, 1)) & x.all((1, 2), keepdim=True), TIES),
    "all": (lambda m, x: m.all(x > -1, 1) | (x > 0).all(), X[0]),
    "any of no dims": (lambda m, x: x.any(dim=()), TIES),
    "any of bytes": (lambda m, x: x.any(), np.array([0, 2], "uint8")),
    "all of nothing": (lambda m, x: x.all(0), NONE),
    "norm": (lambda m, x: x.norm() + x.norm(dim=1) .sum() + m.norm(x, 2, (0, 2), True), X),
    "norm p": (lambda m, x: x.norm(3, 1) + x.norm(1, 1) + x.norm(0.5, 1) + x.norm(0, 1), X),
    "norm inf": (lambda m, x: x.norm(math.inf, 1) + x.norm(-math.inf, 1), TIES),
    "norm of zeros": (lambda m, x: x.norm() + x.norm(3) + x.norm(1), ZERO),
    "norm of nothing": (lambda m, x: x.norm() + x.norm(dim=0), NONE),
    "logsumexp": (lambda m, x: x.logsumexp(1) + m.logsumexp(x * 300, (0, 1), True)[0], X),
    "logsumexp int": (lambda m, i: i.logsumexp(0), INT),
    "logsumexp of nothing": (lambda m, x: x.logsumexp(0).exp(), NONE),
    "cumsum": (lambda m, x: x.cumsum(1) * m.cumsum(x, -1), X),
    "cumsum 0-d": (lambda m, x: x.cumsum(0), ONE),
    "cumsum int": (lambda m, i: i.int().cumsum(1), INT),
    "cumsum bool": (lambda m, i: i.cumsum(-1), BOOL),
    "sort": (lambda m, x: x.sort().values * m.sort(x, 1, descending=True)[0], X),
    "sort indices": (lambda m, x: m.sort(x, dim=1, stable=True).indices, TIES),
    "sort backwards": (lambda m, x: m.sort(x, dim=-1, descending=True, stable=True)[1], TIES),
    "sort 0-d": (lambda m, x: x.sort()[0] * x.topk(1)[0], ONE),
    "sort bools": (lambda m, x: x.sort(descending=True)[0], BOOL),
    "argsort": (lambda m, x: x.argsort() * 10 + m.argsort(x, 0, descending=True), X),
    "argsort nan": (lambda m, x: x.argsort(stable=True), ODD),
    "topk": (lambda m, x: x.topk(2).values + m.topk(x, 2, 2, largest=False)[0] ** 2, X),
    "topk indices": (lambda m, x: x.topk(2, 1)[1] * 10 + x.topk(2, 1, False).indices, X),
    "topk of all and none": (lambda m, x: x.topk(3, 1)[0].sum() + x.topk(0, 1)[0].sum(), X),
    # Shapes
    "mT": (lambda m, x: x.mT @ x, X),
    "t": (lambda m, x: x.t() * x, SQUARE),
    "swapaxes": (lambda m, x: x.swapaxes(0, 2), X),
    "contiguous": (lambda m, x: x.mT.contiguous() * 2, X),
    "repeat": (lambda m, x: x.repeat(2, 1, 3), X),
    "repeat more": (lambda m, x: x.repeat((2, 1, 2, 3)), X),
    "repeat none": (lambda m, x: x.repeat(0, 2, 1), X),
    "repeat 0-d": (lambda m, x: x.repeat(3) + x.repeat(2, 1), ONE),
    "repeat once": (lambda m, x: x.repeat(1, 1, 1), X),
    "flip": (lambda m, x: x.flip(0, -1) + m.flip(x, (1,)), X),
    "flip 0-d": (lambda m, x: x.flip(0), ONE),
    "roll": (lambda m, x: x.roll(1) + m.roll(x, (1, -2), (0, 2)) + x.roll(5, 1), X),
    "roll 0-d": (lambda m, x: x.roll(1), ONE),
    "pad": (lambda m, x: m.pad(x, (1, 2)), X),
    "pad more": (lambda m, x: m.pad(x, (0, 1, 2, 0, 1, 1), value=2.5), X),
    "pad and cut": (lambda m, x: m.pad(x, (-1, 1, 0, -2), "constant", 7), X),
    "pad cuts all": (lambda m, x: m.pad(x, (-1, -3)), X),
    "pad ints": (lambda m, i: m.pad(i, (1, 0)), INT),
    "pad nothing": (lambda m, x: m.pad(x, ()) + m.pad(x[:, :0], (2, 1)), SQUARE),
    "stack": (lambda m, x, y: m.stack([x, y, x], -1), X, Y),
    "stack 0-d": (lambda m, x: m.stack((x, x * 2)), ONE),
    "stack dtypes": (lambda m, x: m.stack([x, x.double()], 1), X),
    "split": (lambda m, x: weighted(x.split(3, 2)), X),
    "split by sizes": (lambda m, x: weighted(m.split(x, [1, 0, 3], dim=-1)), X),
    "split nothing": (lambda m, x: x.split(2)[0], NONE),
    "chunk": (lambda m, x: weighted(x.chunk(4)), LONG),
    "chunk second": (lambda m, x: m.chunk(x, 2, 1)[1], X),
    "chunk nothing": (lambda m, x: x.chunk(3)[2], NONE),
    "unbind": (lambda m, x: weighted(x.unbind(1)) + m.unbind(x)[1].sum(), X),
    "tril": (lambda m, x: x.tril() + m.tril(x, 1) * 2 + x.tril(-2), X),
    "triu": (lambda m, x: x.triu() + m.triu(x, diagonal=1) * 2 + x.triu(-1), X),
    "diagonal": (lambda m, x: x.diagonal() * 2, X),
    "diagonal off": (lambda m, x: x.diagonal(1, 2, 0) * x.diagonal(-1, 1, 2).sum(), X),
    "diagonal outside": (lambda m, x: m.diagonal(x, 7), X),
    # Indices
    "an int, then a list": (lambda m, x: x[0, :, [1, 2]], X),
    "a list, then an int": (lambda m, x: x[[1, 0], :, 1], X),
    "lists apart": (lambda m, x: x[[0, 1], :, [1, 2]], X),
    "None and lists": (lambda m, x: x[None, [0, 1], None, :, 0], X),
    "an ellipsis and a list": (lambda m, x: x[..., [1, 1, 3]] + x[1, ..., [0, 0, 2]], X),
    "a range and steps": (lambda m, x: x[:, range(2), ::3], X),
    "a 0-d index": (lambda m, x: x[m.tensor(1), :, [1, 2]] + x[m.tensor(-1), 0, m.tensor(2)], X),
    "an empty list": (lambda m, x: x[[]], X),
    "True and False": (lambda m, x: weighted([x[True], x[False], x[m.tensor(True)]]), X),
    "a mask and a list": (lambda m, x: x[1:, m.tensor([True, False, True]), [0, 1]], X),
    "a mask apart": (lambda m, x: x[m.tensor([True, False]), :, [0, 1]], X),
    "a mask of two dimensions": (lambda m, x: x[:, x[0] > 0], X),
    "a list of bools": (lambda m, x: x[[False, True]], X),
    "int32 and nested": (lambda m, x: x[m.tensor([[0, 1], [1, 1]]).int()], X),
    "gather": (lambda m, x, i: x.gather(2, i), X, FIRST),
    "gather twice": (lambda m, x, i: m.gather(x, 0, i), SQUARE, np.array([[0, 1], [0, 2]])),
    "gather 0-d": (lambda m, x, i: x.gather(0, i), ONE, np.array([0, 0])),
    "gather none": (lambda m, x, i: x.gather(0, i), SQUARE, np.zeros((0, 3), int)),
    "scatter_add": (
        lambda m, x, y, i: x.scatter_add(1, i, y), SQUARE, X[0, :2, :3].copy(),
        np.array([[0, 0, 2], [1, 1, 1]])),
    "index_select": (lambda m, x, i: x.index_select(1, i) + m.index_select(x, -2, i), X, ROWS),
    "index_select 0-d": (lambda m, x, i: x.index_select(0, i), ONE, np.array([0])),
    "masked_select": (lambda m, x, y: m.masked_select(x, y > 0), X, ROW),
    "nonzero": (lambda m, i: i.nonzero() * 10, INT),
    "one_hot": (lambda m, i: m.one_hot(i, 5) + m.one_hot(i * 2, num_classes=-1)[..., :1], INT % 3),
    # Products
    "mm": (lambda m, x: m.mm(x, x) @ x[0], SQUARE),
    "bmm": (lambda m, x: x.bmm(x.mT), X),
    "many rows": (lambda m, x, y: (x[None] @ y).sum(0) + x @ y, X, numbers((4, 2), 5)),
    "dot and outer": (lambda m, x: x.dot(x) * m.outer(x, x[:3]), LONG),
    "matmul of ints": (lambda m, i: i @ i.T, INT),
}  # fmt: skip
for _name, (_x, _operations) in UNARY.items():
    for _op in _operations.split():
        CASES[f"{_op} of {_name}"] = (
            lambda m, x, op=_op: getattr(m, op)(x),
            _x,
        )


@pytest.mark.parametrize("name", CASES)
def test_it_is_as_in_pytorch(name):
    function, *arrays = CASES[name]
    floats_from_integers = name.endswith((" COUNTS", " BOOL", "int"))
    with np.errstate(invalid="ignore"):
        compare(
            lambda *x: function(OURS, *x), lambda *x: function(THEIRS, *x), arrays,
            "float32" if floats_from_integers else "float64",
        )  # fmt: skip


# What leaves the gradient alone, or is not a tensor


def test_answers_that_are_python_values():
    for m in (md, torch):
        a, b = m.tensor([1.0, 2.0]), m.tensor([1.0, 2.000001])
        assert m.allclose(a, b) is True and a.allclose(b, rtol=0, atol=1e-9) is False
        assert m.equal(a, a.clone()) is True and a.equal(b) is False
        assert m.equal(a, m.tensor([1.0])) is False
        assert (a == None) is False and (a != "a") is True  # noqa: E711
        values, indices = m.max(a, 0)
        assert values.item() == 2 and indices.item() == 1


def test_tuples_are_as_long_as_in_pytorch():
    for n in range(9):
        x, y = md.arange(n), torch.arange(n)
        for k in range(1, 5):
            for name in ("split", "chunk"):
                ours, theirs = (getattr(t, name)(k) for t in (x, y))
                assert [t.tolist() for t in ours] == [t.tolist() for t in theirs], (n, k, name)
