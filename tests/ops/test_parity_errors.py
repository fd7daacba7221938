"""What is an error here is one in PyTorch, of the same class."""

import pytest
from support.parity import error_of, torch

import minidist as md
from minidist.nn import functional

WRONG = {
    "matmul": lambda m, x: x @ x,
    "matmul 0-d": lambda m, x: x @ m.tensor(1.0),
    "matmul batches": lambda m, x: m.ones(2, 2, 3) @ m.ones(3, 3, 2),
    "matmul dtypes": lambda m, x: x @ m.ones(3, 2, dtype=m.float64),
    "add": lambda m, x: x + m.ones(4),
    "add None": lambda m, x: x + None,
    "add a word": lambda m, x: x + "a",
    "int ** -1": lambda m, x: m.tensor([2]) ** -1,
    "index": lambda m, x: x[2],
    "negative index": lambda m, x: x[-3],
    "indices": lambda m, x: x[0, 0, 0],
    "list index": lambda m, x: x[[0, 2]],
    "mask": lambda m, x: x[m.tensor([True])],
    "float index": lambda m, x: x[1.0],
    "index of 0-d": lambda m, x: m.tensor(1.0)[0],
    "item": lambda m, x: x.item(),
    "bool": lambda m, x: bool(x),
    "len": lambda m, x: len(m.tensor(1.0)),
    "iter": lambda m, x: list(m.tensor(1.0)),
    "size": lambda m, x: x.size(2),
    "reshape": lambda m, x: x.reshape(4),
    "reshape twice -1": lambda m, x: x.reshape(-1, -1),
    "reshape -2": lambda m, x: x.reshape(-2, 3),
    "permute": lambda m, x: x.permute(0, 2),
    "permute once": lambda m, x: x.permute(0),
    "permute twice": lambda m, x: x.permute(0, 0),
    "transpose": lambda m, x: x.transpose(0, 2),
    "squeeze": lambda m, x: x.squeeze(2),
    "unsqueeze": lambda m, x: x.unsqueeze(4),
    "flatten": lambda m, x: x.flatten(2),
    "flatten back": lambda m, x: x.flatten(1, 0),
    "expand": lambda m, x: x.expand(4, 3),
    "expand new": lambda m, x: x.expand(-1, 2, 3),
    "expand less": lambda m, x: x.expand(3),
    "sum": lambda m, x: x.sum(2),
    "sum twice": lambda m, x: x.sum((0, 0)),
    "mean of ints": lambda m, x: m.tensor([1]).mean(),
    "amax of nothing": lambda m, x: m.ones(0, 3).amax(0),
    "softmax": lambda m, x: x.softmax(2),
    "cat": lambda m, x: m.cat([x, m.ones(2)]),
    "cat sizes": lambda m, x: m.cat([x, m.ones(2, 4)]),
    "cat nothing": lambda m, x: m.cat([]),
    "cat 0-d": lambda m, x: m.cat([m.tensor(1.0)]),
    "cat dim": lambda m, x: m.cat([x, x], 2),
    "ragged": lambda m, x: m.tensor([[1, 2], [3]]),
    "words": lambda m, x: m.tensor("a"),
    "int grad": lambda m, x: m.tensor([1], requires_grad=True),
    "backward": lambda m, x: x.backward(),
    "backward of many": lambda m, x: (x.requires_grad_() * 2).backward(),
    "backward shape": lambda m, x: (x.requires_grad_() * 2).backward(m.ones(2)),
    "numpy": lambda m, x: x.requires_grad_().numpy(),
    "not a leaf": lambda m, x: (x.requires_grad_() * 2).requires_grad_(False),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_of_pytorchs_class(name):
    theirs = error_of(lambda: WRONG[name](torch, torch.ones(2, 3)))
    ours = error_of(lambda: WRONG[name](md, md.ones(2, 3)))
    assert ours is theirs is not None


FUNCTIONAL_WRONG = {
    "linear": lambda f, m: f.linear(m.ones(2, 3), m.ones(2, 2)),
    "linear bias": lambda f, m: f.linear(m.ones(2, 3), m.ones(4, 3), m.ones(2)),
    "layer_norm": lambda f, m: f.layer_norm(m.ones(2, 3), (2,)),
    "layer_norm weight": lambda f, m: f.layer_norm(m.ones(2, 3), (3,), m.ones(2)),
    "embedding": lambda f, m: f.embedding(m.tensor([4]), m.ones(4, 3)),
    "embedding floats": lambda f, m: f.embedding(m.tensor([1.0]), m.ones(4, 3)),
    "embedding table": lambda f, m: f.embedding(m.tensor([1]), m.ones(4)),
    "cross_entropy class": lambda f, m: f.cross_entropy(m.ones(2, 3), m.tensor([0, 3])),
    "cross_entropy reduction": lambda f, m: f.cross_entropy(
        m.ones(2, 3), m.tensor([0, 1]), reduction="max"),
    "dropout": lambda f, m: f.dropout(m.ones(2), 1.5),
    "attention": lambda f, m: f.scaled_dot_product_attention(
        m.ones(1, 1, 2, 3), m.ones(1, 1, 2, 4), m.ones(1, 1, 2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONAL_WRONG)
def test_errors_of_functions_are_of_pytorchs_class(name):
    theirs = error_of(lambda: FUNCTIONAL_WRONG[name](torch.nn.functional, torch))
    assert error_of(lambda: FUNCTIONAL_WRONG[name](functional, md)) is theirs is not None
