"""What shares memory: a write through the result reaches the tensor where it does in PyTorch.

NumPy hands out a copy of a single element, so a write into `x[1, 1]` was once lost.
"""

import numpy as np
import pytest
from support.parity import compare, torch

import minidist as md

SHAPES = [(2, 3), (3,), (1, 1), ()]
DTYPES = ["float32", "int64", "bfloat16", "bool"]
RESULTS = {
    # Of a single element or of all
    "[1, 1]": lambda m, x: x[1, 1],
    "[0, 0]": lambda m, x: x[0, 0],
    "[-1]": lambda m, x: x[-1],
    "[0][0]": lambda m, x: x[0][0],
    "[...]": lambda m, x: x[...],
    "[()]": lambda m, x: x[()],
    "[0, ..., 0]": lambda m, x: x[0, ..., 0],
    "[None]": lambda m, x: x[None],
    "[a tensor, 0]": lambda m, x: x[m.tensor(0), 0],
    "[a mask]": lambda m, x: x[x == x],
    "iteration": lambda m, x: list(x)[-1],
    "unbind": lambda m, x: x.unbind(-1)[0],
    "select": lambda m, x: x.select(-1, 0),
    "narrow": lambda m, x: x.narrow(0, 0, 1),
    "split": lambda m, x: x.split(1)[0],
    "diagonal": lambda m, x: x.diagonal(),
    "of a diagonal": lambda m, x: x.diagonal()[0],
    "of a view": lambda m, x: x.view(-1)[0],
    "of a transpose": lambda m, x: x.transpose(0, -1)[0, -1],
    "view(())": lambda m, x: x.view(()),
    "detach": lambda m, x: x.detach(),
    "of what is detached": lambda m, x: x.detach()[0],
    "expand": lambda m, x: x.expand(x.shape),
    "expand, a new dimension": lambda m, x: x.expand((1, *x.shape))[0],
    "meshgrid": lambda m, x: m.meshgrid(x.view(-1), indexing="ij")[0],
    "contiguous": lambda m, x: x.contiguous(),
    "to its dtype": lambda m, x: x.to(x.dtype),
    # Copies
    "diag": lambda m, x: x.diag(),
    "clone": lambda m, x: x.clone(),
    "tile": lambda m, x: x.tile((1,)),
    "repeat": lambda m, x: x.repeat((3,) + (1,) * x.ndim),
    "sign": lambda m, x: x.sign(),
    "gather": lambda m, x: x.gather(0, m.zeros_like(x).long()),
    "sort": lambda m, x: x.sort()[0],
    "topk": lambda m, x: x.float().topk(1)[0],
    "max over dim": lambda m, x: x.max(0)[0],
    "amax": lambda m, x: x.amax(0),
    "sum of": lambda m, x: x.sum(-1),
    "cumsum": lambda m, x: x.cumsum(0),
    "maximum with itself": lambda m, x: m.maximum(x, x),
    "where": lambda m, x: m.where(x == x, x, x),
    "masked_fill": lambda m, x: x.masked_fill(x != x, 0),
    "einsum": lambda m, x: m.einsum("...->...", x),
    "tensor": lambda m, x: x.clone().detach(),
}


def after_a_write(m, result, shape, dtype):
    """x after a 1 is written into the result of x; None if there is none."""
    x = m.tensor(np.arange(2, 2 + np.prod(shape, dtype=int), dtype="f4").reshape(shape))
    x = x.to(getattr(m, dtype)) if dtype != "bool" else x < 0
    try:
        result(m, x).fill_(1)
    except (RuntimeError, IndexError, TypeError, NotImplementedError):
        return None
    return x.float().tolist()


@pytest.mark.parametrize("name", RESULTS)
def test_a_write_reaches_what_it_reaches_in_pytorch(name):
    for shape in SHAPES:
        for dtype in DTYPES:
            ours, theirs = (after_a_write(m, RESULTS[name], shape, dtype) for m in (md, torch))
            assert theirs is None or ours == theirs, f"{shape}, {dtype}: {ours}, want {theirs}"


def doubled(parts):
    for part in parts:
        part.mul_(2)


WRITES = {  # y = x·1 of shape (2, 2), t = Σ x
    "fill_ of an element": lambda m, y, t: y[1, 1].fill_(7.0),
    "mul_ by another": lambda m, y, t: y[1, 1].mul_(y[0, 1].clone()),
    "copy_ of a tensor": lambda m, y, t: y[0, 1].copy_(t),
    "of a view": lambda m, y, t: y[1][0].mul_(t),
    "of select": lambda m, y, t: doubled([y.view(-1).select(0, i) for i in (1, 3)]),
    "of a diagonal": lambda m, y, t: y.diagonal()[1].sub_(t),
    "of a view that is older": lambda m, y, t: (lambda row: y[0, 0].mul_(row.sum()))(y[1]),
    "of a sum": lambda m, y, t: t.mul_(3),
    "of a view of a sum": lambda m, y, t: t[...].mul_(y[0, 0]),
    "of a sum, by index": lambda m, y, t: t[()].mul_(y[0, 0]),
    "of a sum as a vector": lambda m, y, t: t.view(1)[0].add_(y[1, 0]),
}


@pytest.mark.parametrize("name", WRITES)
def test_gradients_through_a_write_into_an_element(name):
    def program(m):
        def run(x):
            y, t = x * 1, x.sum()
            WRITES[name](m, y, t)
            return y * y * t

        return run

    compare(program(md), program(torch), [np.array([[1.0, 2.0], [3.0, 4.0]])])


def test_an_element_of_a_leaf_is_a_view_of_it():
    x = md.ones(2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="view of a leaf"):
        x[1, 1].fill_(7)
    with md.no_grad():
        x[1, 1].fill_(7)
    assert x.tolist() == [[1, 1], [1, 7]]


def test_a_write_into_an_element_that_backward_needs_is_refused():
    y = md.ones(2, 2, requires_grad=True) * 1
    z = y.square()
    y[0, 0].fill_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        z.sum().backward()


def test_from_numpy_of_a_number_would_share_nothing():
    with pytest.raises(TypeError, match=r"from_numpy.*float32"):
        md.from_numpy(np.ones(3, "f4")[0])
