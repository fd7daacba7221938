"""A number that a dtype cannot hold is refused, as by PyTorch, and never cast to another number."""

import math
import operator

import numpy as np
import pytest
from support.parity import torch

import minidist as md
from minidist.nn import functional as F

INF = math.inf
NUMBERS = [INF, -INF, math.nan, 1.5, -1.9, 127.5, 300, -1, -129, -300, 2**31, 3e9, 1e20, True]
FLOATS = [1e39, -7e4, 1e10]
DTYPES = ["int64", "int32", "uint8", "int8", "bool"]
FIRST = [True, False]


def written(x, write, *args):
    """x after write(x, …), which returns nothing."""
    write(x, *args)
    return x


def functional(m):
    return F if m is md else torch.nn.functional


MAKERS = {  # of a number and a dtype
    "tensor": lambda m, n, d: m.tensor([[0, n]], dtype=d),
    "tensor of a number": lambda m, n, d: m.tensor(n, dtype=d),
    "tensor of NumPy's number": lambda m, n, d: m.tensor([np.array(n)[()] * 1], dtype=d),
    "as_tensor": lambda m, n, d: m.as_tensor([n], dtype=d),
    "full": lambda m, n, d: m.full((1,), n, dtype=d),
    "full of a tensor": lambda m, n, d: m.full((1,), m.tensor(n), dtype=d),
    "full_like": lambda m, n, d: m.full_like(m.ones(1, dtype=d), n),
    "new_full": lambda m, n, d: m.ones(1, dtype=d).new_full((1,), n),
    "fill_": lambda m, n, d: m.ones(1, dtype=d).fill_(n),
    "setitem": lambda m, n, d: written(m.ones(2, dtype=d), operator.setitem, 0, n),
    "setitem of a mask": lambda m, n, d: written(
        m.ones(2, dtype=d), operator.setitem, m.tensor(FIRST), n
    ),
    "masked_fill": lambda m, n, d: m.ones(2, dtype=d).masked_fill(m.tensor(FIRST), n),
    "masked_fill_": lambda m, n, d: m.ones(2, dtype=d).masked_fill_(m.tensor(FIRST), n),
    "masked_fill of a tensor": lambda m, n, d: m.ones(2, dtype=d).masked_fill(
        m.tensor(FIRST), m.tensor(n, dtype=m.float64 if type(n) is float else None)
    ),
    "masked_fill_ of a tensor": lambda m, n, d: m.ones(2, dtype=d).masked_fill_(
        m.tensor(FIRST), m.tensor(n)
    ),
    "scatter": lambda m, n, d: m.ones(2, dtype=d).scatter(0, m.tensor([0]), n),
    "where": lambda m, n, d: m.where(m.tensor(FIRST), m.ones(2, dtype=d), n),
    "where, the other way": lambda m, n, d: m.where(m.tensor(FIRST), n, m.ones(2, dtype=d)),
    "pad": lambda m, n, d: functional(m).pad(m.ones(2, dtype=d), (0, 1), value=n),
}
IN_FLOATS = ["masked_fill", "masked_fill_", "masked_fill of a tensor", "scatter", "pad"]


def outcome(m, name, number, dtype):
    try:
        y = MAKERS[name](m, number, getattr(m, dtype))
    except (RuntimeError, ValueError, OverflowError) as error:
        return type(error) if m is torch else "refused" * ("does not fit into" in str(error))
    return str(y.dtype).removeprefix("torch."), y.double().tolist()


@pytest.mark.parametrize("name", MAKERS)
def test_a_number_that_does_not_fit_is_refused(name):
    cases = [(n, d) for n in NUMBERS for d in DTYPES]
    if name == "pad":  # PyTorch's pad alone refuses what wraps around in unsigned integers
        cases = [(n, d) for n, d in cases if (n, d) not in ((-1, "uint8"), (-129, "uint8"))]
    if name in IN_FLOATS:
        cases += [(n, d) for n in (*NUMBERS, *FLOATS) for d in ("float16", "bfloat16", "float32")]
    for number, dtype in cases:
        ours, theirs = (outcome(m, name, number, dtype) for m in (md, torch))
        same = repr(ours) == repr(theirs)  # NaN is NaN
        assert same or (ours == "refused" and isinstance(theirs, type)), (number, dtype, ours)


REFUSED = {
    "linspace": lambda m: m.linspace(0, 300, 3, dtype=m.uint8),
    "linspace to infinity": lambda m: m.linspace(0, INF, 3, dtype=m.int64),
    "linspace of float16": lambda m: m.linspace(0, 1e5, 3, dtype=m.float16),
    "randint above": lambda m: m.randint(0, 300, (3,), dtype=m.uint8),
    "randint below": lambda m: m.randint(-1, 3, (3,), dtype=m.uint8),
    "randperm": lambda m: m.randperm(300, dtype=m.uint8),
    "uniform_ of integers": lambda m: m.ones(2).long().uniform_(),
    "normal_ of integers": lambda m: m.ones(2).long().normal_(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_drawn_or_counted_fits_too(name):
    for m in (md, torch):
        with pytest.raises((RuntimeError, NotImplementedError)):
            REFUSED[name](m)


def test_what_fits_is_drawn():
    assert md.randint(0, 256, (5,), dtype="uint8").dtype == md.uint8
    assert sorted(md.randperm(256, dtype="uint8").tolist()) == list(range(256))
    assert md.randperm(0, dtype="uint8").shape == (0,)


def test_a_cast_of_a_tensor_is_not_checked():
    """As in PyTorch: to look at all numbers would cost too much."""
    x = md.tensor([300.0, 1.0])
    assert x.to("uint8").tolist()[1] == 1 and md.tensor(np.array([300]), dtype="uint8").item() == 44
