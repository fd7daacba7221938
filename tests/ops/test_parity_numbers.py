"""Numbers beside tensors, empty sizes and tensors without dimensions, as PyTorch takes them."""

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


def test_folders_are_there_without_an_import_by_name(monkeypatch):
    for name in ("nn", "optim", "comm"):
        monkeypatch.delattr(md, name, raising=False)  # as if nothing had imported it
        assert getattr(md, name) is sys.modules[f"minidist.{name}"]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = md.nonsense
