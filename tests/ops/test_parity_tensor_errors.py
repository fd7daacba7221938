"""Creation beside PyTorch's, and what is an error there and here."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from support.parity import dtype_name, error_of, torch

import minidist as md
from minidist.nn import functional

OURS = SimpleNamespace(**vars(md) | {"pad": functional.pad, "one_hot": functional.one_hot})
F = torch.nn.functional
THEIRS = SimpleNamespace(**vars(torch) | {"pad": F.pad, "one_hot": F.one_hot})

CREATED = {
    "eye": lambda m: m.eye(3),
    "eye wide": lambda m: m.eye(2, 3, dtype=m.int64),
    "eye of nothing": lambda m: m.eye(0),
    "linspace": lambda m: m.linspace(0, 1, 5),
    "linspace back": lambda m: m.linspace(2, -1.5, 4, dtype=m.float64),
    "linspace of one": lambda m: m.linspace(3, 4, 1),
    "linspace of none": lambda m: m.linspace(3, 4, 0),
    "linspace of ints": lambda m: m.linspace(0, 10, 4, dtype=m.int64),
    "arange": lambda m: m.arange(2, 10, 3),
    "arange back": lambda m: m.arange(3, 0, -1),
    "arange of floats": lambda m: m.arange(0.0, 1, 0.1),
    "arange of nothing": lambda m: m.arange(3, 3),
    "arange dtype": lambda m: m.arange(3, dtype=m.float64),
    "full": lambda m: m.full((2, 1), True),
    "full of NumPy's": lambda m: m.full((2,), np.float64(3)),
    "full of a tensor": lambda m: m.full((2,), m.tensor(3)),
    "full_like": lambda m: m.full_like(m.ones(2, dtype=m.int64), 2.5),
    "full_like dtype": lambda m: m.full_like(m.ones(2), 2, dtype=m.int32),
    "zeros_like": lambda m: m.zeros_like(m.ones(2, 3), dtype=m.int64),
    "ones_like": lambda m: m.ones_like(m.tensor([True, False])),
    "from_numpy": lambda m: m.from_numpy(np.arange(3.0)),
    "as_tensor": lambda m: m.as_tensor([1, 2.5]),
    "as_tensor dtype": lambda m: m.as_tensor(m.ones(2), dtype=m.float64),
    "shape of empty": lambda m: m.empty(2, 0),
    "randint shape": lambda m: m.randint(5, (2, 3)) * 0,
    "randint low": lambda m: m.randint(3, 4, (2,), dtype=m.float32),
    "randperm sorted": lambda m: m.randperm(6).sort()[0],
    "rand_like": lambda m: m.rand_like(m.ones(2, dtype=m.float64)) * 0,
    "randn_like": lambda m: m.randn_like(m.ones(3), dtype=m.float64) * 0,
    "casts": lambda m: m.tensor([0.0, 2.5]).int() + m.tensor([0.0, 2.0]).bool(),
    "half": lambda m: m.ones(2).half(),
}


@pytest.mark.parametrize("name", CREATED)
def test_creation(name):
    ours, theirs = CREATED[name](md), CREATED[name](torch)
    assert ours.dtype.name == dtype_name(theirs.dtype) and ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-6)


# Errors: of PyTorch's class

WRONG = {
    "int // 0": lambda m, x: m.tensor([1]) // 0,
    "int % 0": lambda m, x: m.tensor([1]) % m.tensor([0]),
    "-bool": lambda m, x: -m.tensor([True]),
    "bool - bool": lambda m, x: m.tensor([True]) - m.tensor([True]),
    "~float": lambda m, x: ~x,
    "float & float": lambda m, x: x & x,
    "int | 1.0": lambda m, x: m.tensor([1]) | 1.0,
    "< None": lambda m, x: x < None,
    "clamp": lambda m, x: x.clamp(),
    "where by ints": lambda m, x: m.where(m.tensor([1]), x, x),
    "allclose dtypes": lambda m, x: m.allclose(x, x.double()),
    "allclose shapes": lambda m, x: m.allclose(x, m.ones(4)),
    "masked_fill by ints": lambda m, x: x.masked_fill(m.tensor([1, 0, 1]), 0.0),
    "masked_fill of many": lambda m, x: x.masked_fill(x > 0, m.ones(3)),
    "maximum shapes": lambda m, x: m.maximum(x, m.ones(4)),
    "var of ints": lambda m, x: m.tensor([1]).var(),
    "norm of ints": lambda m, x: m.tensor([1]).norm(),
    "max of nothing": lambda m, x: m.ones(0, 3).max(),
    "max of no rows": lambda m, x: m.ones(0, 3).max(0),
    "argmax of nothing": lambda m, x: m.ones(0).argmax(),
    "argmax of no rows": lambda m, x: m.ones(0, 3).argmax(0),
    "argmax of bools": lambda m, x: m.tensor([True]).argmax(),
    "amin of nothing": lambda m, x: m.ones(0).amin(),
    "norm inf of nothing": lambda m, x: m.ones(0).norm(math.inf),
    "max dim": lambda m, x: x.max(2),
    "cumsum dim": lambda m, x: x.cumsum(2),
    "prod dim": lambda m, x: x.prod(2),
    "sort dim": lambda m, x: x.sort(2),
    "topk": lambda m, x: x.topk(4),
    "topk negative": lambda m, x: x.topk(-1),
    "logsumexp": lambda m, x: x.logsumexp(),
    "repeat": lambda m, x: x.repeat(2),
    "repeat negative": lambda m, x: x.repeat(-1, 2),
    "flip twice": lambda m, x: x.flip(0, 0),
    "flip dim": lambda m, x: x.flip(2),
    "roll": lambda m, x: x.roll((1, 2), 0),
    "roll dim": lambda m, x: x.roll(1, 2),
    "pad odd": lambda m, x: m.pad(x, (1,)),
    "pad long": lambda m, x: m.pad(x, (1,) * 6),
    "pad too much": lambda m, x: m.pad(x, (-4, 0)),
    "pad mode": lambda m, x: m.pad(x, (1, 1), mode="mirror"),
    "stack": lambda m, x: m.stack([x, x[0]]),
    "stack nothing": lambda m, x: m.stack([]),
    "stack dim": lambda m, x: m.stack([x, x], 3),
    "split": lambda m, x: x.split([1, 1], 1),
    "split by 0": lambda m, x: x.split(0),
    "split by -1": lambda m, x: x.split(-1),
    "split 0-d": lambda m, x: m.tensor(1.0).split(1),
    "chunk by 0": lambda m, x: x.chunk(0),
    "unbind 0-d": lambda m, x: m.tensor(1.0).unbind(),
    "tril": lambda m, x: x[0].tril(),
    "diagonal": lambda m, x: x.diagonal(0, 1, 1),
    "diagonal dim": lambda m, x: x[0].diagonal(),
    "t": lambda m, x: x[None].t(),
    "gather": lambda m, x: x.gather(1, m.tensor([[3]])),
    "gather negative": lambda m, x: x.gather(1, m.tensor([[-1]])),
    "gather rank": lambda m, x: x.gather(1, m.tensor([0])),
    "gather wide": lambda m, x: x.gather(1, m.tensor([[0], [0], [0]])),
    "gather by floats": lambda m, x: x.gather(1, m.tensor([[0.0]])),
    "scatter_add dtypes": lambda m, x: x.scatter_add(0, m.tensor([[0]]), x.double()),
    "scatter_add sizes": lambda m, x: x.scatter_add(0, m.tensor([[0, 0]]), m.ones(1, 1)),
    "index_select": lambda m, x: x.index_select(0, m.tensor([2])),
    "index_select negative": lambda m, x: x.index_select(0, m.tensor([-1])),
    "index_select matrix": lambda m, x: x.index_select(0, m.tensor([[0]])),
    "index_select by floats": lambda m, x: x.index_select(0, m.tensor([0.0])),
    "masked_select": lambda m, x: x.masked_select(m.tensor([1])),
    "one_hot": lambda m, x: m.one_hot(m.tensor([2]), 2),
    "one_hot negative": lambda m, x: m.one_hot(m.tensor([-1])),
    "one_hot of floats": lambda m, x: m.one_hot(x),
    "one_hot of nothing": lambda m, x: m.one_hot(m.ones(0).long()),
    "index by floats": lambda m, x: x[m.tensor([1.0])],
    "lists that do not meet": lambda m, x: x[[0, 1], [0, 1, 2]],
    "mm": lambda m, x: m.mm(x, x),
    "mm of a vector": lambda m, x: m.mm(x, x[0]),
    "bmm": lambda m, x: m.bmm(x[None], m.ones(2, 3, 1)),
    "dot": lambda m, x: m.dot(x[0], m.ones(2)),
    "dot of matrices": lambda m, x: m.dot(x, x),
    "outer": lambda m, x: m.outer(x, x),
    "einsum sizes": lambda m, x: m.einsum("ij,jk", x, x),
    "einsum operands": lambda m, x: m.einsum("ij,jk", x),
    "einsum letters": lambda m, x: m.einsum("i", x),
    "einsum output": lambda m, x: m.einsum("ij->k", x),
    "einsum output twice": lambda m, x: m.einsum("ij->ii", x),
    "einsum diagonal": lambda m, x: m.einsum("ii", x),
    "einsum sign": lambda m, x: m.einsum("i?->i", x),
    "einsum ellipses": lambda m, x: m.einsum("...i...", x),
    "einsum dtypes": lambda m, x: m.einsum("ij,ij->", x, x.double()),
    "arange step": lambda m, x: m.arange(0, 1, 0),
    "arange sign": lambda m, x: m.arange(3, 1),
    "linspace": lambda m, x: m.linspace(0, 1, -1),
    "eye": lambda m, x: m.eye(-1),
    "zeros": lambda m, x: m.zeros(-1),
    "zeros of a float": lambda m, x: m.zeros(2.0),
    "randint": lambda m, x: m.randint(5, 5, (2,)),
    "rand of ints": lambda m, x: m.rand(2, dtype=m.int64),
    "randn_like ints": lambda m, x: m.randn_like(m.tensor([1])),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_of_pytorchs_class(name):
    theirs = error_of(lambda: WRONG[name](THEIRS, torch.ones(2, 3)))
    assert error_of(lambda: WRONG[name](OURS, md.ones(2, 3))) is theirs is not None
