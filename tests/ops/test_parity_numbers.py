"""Numbers beside tensors, empty sizes and tensors without dimensions, as PyTorch takes them."""

import inspect
import itertools
import sys

import numpy as np
import pytest
from support.parity import dtype_name, torch

import minidist as md
from minidist.nn import functional as F

FUNCTIONS = {md: F, torch: torch.nn.functional}


def small(m, *values, dtype="uint8"):
    return m.tensor(list(values), dtype=getattr(m, dtype))


# Name: a tensor, or several, by module m and its functional f
TAKEN = {
    "int32 | wide": lambda m, f: small(m, 1, dtype="int32") | 0xFFFFFFFF,
    "int32 & wide": lambda m, f: small(m, -1, dtype="int32") & 0xFFFFFFFF,
    "int64 | wide": lambda m, f: m.tensor([1]) | 2**63,
    "int32 + wide": lambda m, f: small(m, 1, dtype="int32") + 2**40,
    "uint8 * -3": lambda m, f: small(m, 1, 2) * -3,
    "uint8 + 300": lambda m, f: small(m, 1, 2) + 300,
    "300 - uint8": lambda m, f: 300 - small(m, 1, 2),
    "uint8 // -1": lambda m, f: small(m, 1, 255) // -1,
    "uint8 % -3": lambda m, f: small(m, 7, 255) % -3,
    "uint8 == -1": lambda m, f: small(m, 1, 255) == -1,
    "300 ** uint8": lambda m, f: 300 ** small(m, 2),
    "uint8 += 300": lambda m, f: small(m, 1).add_(300),
    "2 ** negatives": lambda m, f: 2 ** m.tensor([-1, 0, 3]),
    "-1 ** negatives": lambda m, f: (-1) ** m.tensor([-1, -2, 3]),
    "negatives ** negatives": lambda m, f: m.tensor([1, 2, -1, -1]) ** m.tensor([-1, -1, -3, -4]),
    "uint8 - 3 uint8": lambda m, f: small(m, 1, 2).add(small(m, 1, 2), alpha=-3),
    "uint8 - 3·5": lambda m, f: small(m, 1, 2).add(5, alpha=-3),
    "uint8 addcmul": lambda m, f: small(m, 1, 2).addcmul(small(m, 1, 2), small(m, 1, 2), value=-1),
    "uint8 addmm": lambda m, f: small(m, 1).addmm(*[small(m, 2).reshape(1, 1)] * 2, alpha=-1),
    "uint8 tensordot": lambda m, f: m.tensordot(
        small(m, 1).reshape(1, 1), small(m, 1, 2).reshape(2, 1), dims=([0, 1], [0, 1])
    ),
    "negative indices": lambda m, f: m.take_along_dim(m.ones(2, 3) * 2, m.tensor([[-1], [0]]), 1),
    "max_pool, padded": lambda m, f: f.max_pool2d(m.arange(-9, -1).reshape(1, 2, 4), 3, 2, 1),
    "zeros_like by name": lambda m, f: m.zeros_like(input=m.ones(2, dtype=m.float64)),
    "unique NaNs": lambda m, f: m.unique(m.tensor([np.nan, 1.0, np.nan, 1.0])),
    "squeeze()": lambda m, f: m.zeros(1, 2, 1).squeeze(()),
    "nonzero of 5": lambda m, f: m.tensor(5).nonzero(as_tuple=True),
    "nonzero of 0": lambda m, f: m.tensor(0).nonzero(as_tuple=True),
    "nonzero of True": lambda m, f: m.nonzero(m.tensor(True), as_tuple=True),
    "median of nothing": lambda m, f: m.zeros(0).median(),
    "std_mean axis": lambda m, f: m.std_mean(m.ones(2, 3), axis=1),
    "var_mean axis": lambda m, f: m.var_mean(m.ones(2, 3), axis=1, keepdims=True),
    "count_nonzero axis": lambda m, f: m.count_nonzero(m.ones(2, 3), axis=1),
    "cat of (0,)": lambda m, f: m.cat([m.zeros(0), m.ones(2, 3)], -1),
    "cat, last": lambda m, f: m.cat([m.ones(2, 3), m.zeros(0), m.ones(1, 3)]),
    "cat, dtype": lambda m, f: m.cat([m.zeros(0, dtype=m.float64), m.ones(2, 3)]),
    "hstack of (0,)": lambda m, f: m.hstack([m.zeros(0), m.ones(2, 3)]),
    "kl_div of a number": lambda m, f: f.kl_div(
        m.tensor(0.5), m.tensor(0.5), reduction="batchmean"
    ),
    "einsum of sublists": lambda m, f: m.einsum(m.ones(2, 3), [0, 1], m.ones(3, 4), [1, 2], [0, 2]),
    "sublists, no output": lambda m, f: m.einsum(m.ones(2, 3), [51, 26]),
    "sublists, ellipsis": lambda m, f: m.einsum(
        m.ones(5, 2, 3), [..., 0, 1], m.ones(5, 3, 4), [..., 1, 2], [..., 0, 2]
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken_as_in_pytorch(name):
    ours, theirs = (TAKEN[name](m, FUNCTIONS[m]) for m in (md, torch))
    if not isinstance(ours, tuple):
        ours, theirs = (ours,), (theirs,)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype.name == dtype_name(b.dtype) and a.shape == tuple(b.shape)
        np.testing.assert_allclose(a.data, b.numpy(), rtol=1e-6)


# Errors, and what they say to do
SAYS = {
    "view": (lambda x: x.view(md.int32), TypeError, r"\.to\(dtype\) converts"),
    "cat": (lambda x: md.cat([x, None]), TypeError, "element 1 is a NoneType"),
    "narrow": (lambda x: md.tensor(1.0).narrow(0, 0, 1), RuntimeError, "0-d tensor"),
    "hstack": (lambda x: md.hstack([]), RuntimeError, "give one or more"),
    "exp": (lambda x: md.exp(2.0), TypeError, r"md\.tensor\(2\.0\) makes one"),
    "matmul": (lambda x: md.matmul(x, 2.0), TypeError, "matmul: argument 1 is 2.0: want a Tensor"),
    "where": (lambda x: md.where(None, x, x), TypeError, "where: argument 0 is None"),
    "mse_loss": (lambda x: F.mse_loss(x, [1.0]), TypeError, r"mse_loss: argument 1 is \[1.0\]"),
    "option": (lambda x: md.isclose(x, other=1), TypeError, "isclose: argument other is 1"),
    "zeros_like": (lambda x: md.zeros_like(2.0), TypeError, "zeros_like of 2.0: want a Tensor"),
    "cat of a number": (lambda x: md.cat(2.0), TypeError, "takes a list or tuple of tensors"),
    "dim": (lambda x: md.softmax(x, "a"), TypeError, "dim 'a': want a whole number from -2 to 1"),
    "dim 0.5": (lambda x: x.sum(0.5), TypeError, "dim 0.5: want a whole number"),
    "complex": (lambda x: x.masked_fill(x > 2, 1j), TypeError, "want a number that float32 holds"),
    "full": (lambda x: md.full((2,), 1e6, dtype="float16"), RuntimeError, "not fit into float16"),
    "fill_": (lambda x: x.half().fill_(1e6), RuntimeError, "does not fit into float16"),
    "lerp": (lambda x: md.lerp(x.long(), x.long(), 0.5), RuntimeError, "convert with .float()"),
    "steps": (lambda x: md.linspace(0, 1, 3.0), TypeError, "3.0 steps: want a whole number"),
    "seed": (lambda x: md.manual_seed("a"), TypeError, "'a': want a whole number"),
    "half a seed": (lambda x: md.manual_seed(0.5), ValueError, "0.5: want a whole number"),
    "meshgrid": (lambda x: md.meshgrid(x, indexing="no"), RuntimeError, "want 'ij' or 'xy'"),
    "probabilities": (
        lambda x: F.cross_entropy(x, x, ignore_index=1),
        RuntimeError,
        "give class numbers",
    ),
}


@pytest.mark.parametrize("name", SAYS)
def test_errors_teach(name):
    call, error, text = SAYS[name]
    with pytest.raises(error, match=text):
        call(md.ones(2, 3))


def test_no_function_meets_a_stranger_with_a_bare_attribute_error():
    bare = []
    for name, function in [*vars(md.ops).items(), *vars(F).items(), *vars(md).items()]:
        if name[0] == "_" or name == "manual_seed" or not inspect.isfunction(function):
            continue
        parameters = inspect.signature(function).parameters.values()
        needed = sum(p.default is p.empty for p in parameters)
        for i, stranger in itertools.product(range(needed), (2.0, None, [1.0], np.ones(2))):
            given = [stranger if j == i else md.ones(2, 2) for j in range(needed)]
            try:
                function(*given)
            except AttributeError as error:
                bare.append(f"{name}: {error}")
            except Exception:  # any other says what is wrong, or takes it
                continue
    assert not bare


def test_folders_are_there_without_an_import_by_name(monkeypatch):
    for name in ("nn", "optim", "comm"):
        monkeypatch.delattr(md, name, raising=False)  # as if nothing had imported it
        assert getattr(md, name) is sys.modules[f"minidist.{name}"]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = md.nonsense
