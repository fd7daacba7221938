"""Values and dtypes of integers, bools and 16-bit floats, and of unusual options, as in PyTorch."""

import math

import numpy as np
import pytest
from support.parity import dtype_name, torch

import minidist as md
from minidist import nn
from minidist.nn import functional

OURS, THEIRS = (md, functional, nn), (torch, torch.nn.functional, torch.nn)
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def small(m, dtype):
    return m.tensor([[1, 2, 3], [4, 0, 2]]).to(getattr(m, dtype))


def real(m, dtype="float32"):
    return m.tensor([[1.0, 2, 3], [4, 0, 2], [-1, 0.5, 3], [2, 2, 1]]).to(getattr(m, dtype))


def square(m, dtype="int64"):
    return (m.arange(16).reshape(1, 1, 4, 4) - 6).to(getattr(m, dtype))


def gradient(m, function, values):
    x = m.tensor(values, requires_grad=True)
    function(x).sum().backward()
    return x.grad


POOLING = {
    "avg_pool2d": lambda m, F, nn: F.avg_pool2d(m.arange(16).reshape(1, 1, 4, 4), 2),
    "avg_pool2d of negative numbers": lambda m, F, nn: F.avg_pool2d(square(m), 2),
    "avg_pool2d, padded": lambda m, F, nn: F.avg_pool2d(square(m), 3, 2, 1),
    "avg_pool2d, padding not counted": lambda m, F, nn: F.avg_pool2d(
        square(m), 3, 2, 1, count_include_pad=False
    ),
    "avg_pool2d, a divisor": lambda m, F, nn: F.avg_pool2d(square(m), 2, divisor_override=-3),
    "avg_pool2d, ceil": lambda m, F, nn: F.avg_pool2d(square(m), 3, 2, ceil_mode=True),
    "avg_pool2d of large numbers": lambda m, F, nn: F.avg_pool2d(square(m) * 2**55 + 1, 2),
    "avg_pool1d": lambda m, F, nn: F.avg_pool1d(square(m)[0], 3),
    "avg_pool2d of int32": lambda m, F, nn: F.avg_pool2d(square(m, "int32"), 2),
    "avg_pool2d of bools": lambda m, F, nn: F.avg_pool2d(square(m) > 0, 2),
    "adaptive_avg_pool1d": lambda m, F, nn: F.adaptive_avg_pool1d(square(m)[0], 2),
    "adaptive_avg_pool2d": lambda m, F, nn: F.adaptive_avg_pool2d(square(m), 2),
    "batch_norm": lambda m, F, nn: F.batch_norm(small(m, "int64"), None, None, training=True),
    "dropout": lambda m, F, nn: F.dropout(small(m, "int64"), 0.5),
    "mse_loss": lambda m, F, nn: F.mse_loss(m.arange(3), m.arange(3) + 1),
    "huber_loss": lambda m, F, nn: F.huber_loss(m.arange(3), m.arange(3) + 3),
    "smooth_l1_loss": lambda m, F, nn: F.smooth_l1_loss(m.arange(3), m.arange(3) + 3),
    "kl_div": lambda m, F, nn: F.kl_div(m.arange(3), m.arange(3)),
    "nll_loss": lambda m, F, nn: F.nll_loss(small(m, "int64"), m.tensor([0, 1])),
}
SPREAD = {
    "var(False)": lambda m, F, nn: real(m).var(False),
    "std(True)": lambda m, F, nn: real(m).std(True),
    "var(x, False)": lambda m, F, nn: m.var(real(m), False),
    "var_mean(x, False)": lambda m, F, nn: m.var_mean(real(m), False),
    "std_mean(x, True)": lambda m, F, nn: m.std_mean(real(m), True),
    "var_mean(x, 1, False)": lambda m, F, nn: m.var_mean(real(m), 1, False),
    "std_mean(x, (0, 1), True, True)": lambda m, F, nn: m.std_mean(real(m), (0, 1), True, True),
    "std_mean, axis": lambda m, F, nn: m.std_mean(real(m), axis=1),
    "correction n": lambda m, F, nn: real(m).var(correction=12),
    "correction above n": lambda m, F, nn: real(m).std(0, correction=5),
    "correction n, of one row": lambda m, F, nn: m.var_mean(real(m), 1, correction=3, keepdim=True),
    "correction n, of float16": lambda m, F, nn: real(m, "float16").var(correction=12),
    "its gradient": lambda m, F, nn: gradient(m, lambda x: x.var(correction=3), [1.0, 2.0, 3.0]),
    "mean(True)": lambda m, F, nn: real(m).mean(True),
    "sum(False)": lambda m, F, nn: real(m).sum(False),
    "max(True)": lambda m, F, nn: real(m).max(True),
    "softmax(True)": lambda m, F, nn: real(m).softmax(True),
    "cumsum(True)": lambda m, F, nn: real(m).cumsum(True),
    "transpose(True, False)": lambda m, F, nn: real(m).transpose(True, False),
    "sum((True,))": lambda m, F, nn: real(m).sum((True,)),
}
X, Y = [[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0]], [[7.0, 9.0]]]
COSINES = {
    "along dim": lambda m, F, nn: F.cosine_similarity(m.tensor(X), m.tensor(Y), dim=1),
    "its gradient": lambda m, F, nn: gradient(
        m, lambda x: F.cosine_similarity(x, m.tensor(Y), dim=1), X
    ),
    "a vector on the right": lambda m, F, nn: F.cosine_similarity(real(m), real(m)[1]),
    "a vector on the left": lambda m, F, nn: F.cosine_similarity(real(m)[1], real(m), dim=0),
    "a negative dim": lambda m, F, nn: F.cosine_similarity(real(m)[1], real(m), dim=-2),
    "a column and a row": lambda m, F, nn: F.cosine_similarity(real(m)[:, :1], real(m)[:1], dim=0),
    "integers beside floats": lambda m, F, nn: F.cosine_similarity(real(m), real(m, "int64")),
}
CHOSEN_BY_NUMPY = {
    **{f"prod of {a} in {b}": lambda m, F, nn, a=a, b=b: small(m, a).prod(dtype=getattr(m, b))
       for a, b in [("uint8", "uint8"), ("uint8", "int32"), ("bool", "bool"), ("bool", "uint8"),
                    ("float32", "int32")]},
    **{f"prod over dim of {a}": lambda m, F, nn, a=a: small(m, a).prod(0, dtype=getattr(m, a))
       for a in ("int8", "int16", "int32", "uint8", "bool")},
    **{f"cumprod of {a} in {b}": lambda m, F, nn, a=a, b=b: small(m, a).cumprod(
        0, dtype=getattr(m, b)) for a, b in [("uint8", "uint8"), ("int8", "int16"),
                                             ("bool", "int32")]},
    "prod of a number": lambda m, F, nn: m.tensor(True).prod(dtype=m.int8),
    "prod of nothing": lambda m, F, nn: m.zeros(0, 2, dtype=m.int8).prod(0, dtype=m.int8),
    "square of bools": lambda m, F, nn: small(m, "bool").square(),
    "diag of bools": lambda m, F, nn: small(m, "bool")[0].diag(),
    "diag of bools, away": lambda m, F, nn: small(m, "bool")[0].diag(-1),
    "product of bools": lambda m, F, nn: small(m, "bool") @ small(m, "bool").T,
    "einsum of bools": lambda m, F, nn: m.einsum("ij,kj->ik", small(m, "bool"), small(m, "bool")),
    "einsum of bools, each by each": lambda m, F, nn: m.einsum(
        "ij,ij->ij", small(m, "bool"), small(m, "bool")),
    "round of bools": lambda m, F, nn: small(m, "bool").round(),
    "pow of bools": lambda m, F, nn: small(m, "bool") ** small(m, "bool"),
}  # fmt: skip
HALVES = {
    f"{name} of {dtype}": lambda m, F, nn, call=call, dtype=dtype: call(m, F, nn, real(m, dtype))
    for dtype in EPS
    for name, call in {
        "batch_norm": lambda m, F, nn, x: F.batch_norm(x, m.zeros(3), m.ones(3), m.ones(3) * 2),
        "batch_norm in training": lambda m, F, nn, x: F.batch_norm(
            x, m.zeros(3), m.ones(3), training=True
        ),
        "BatchNorm1d": lambda m, F, nn, x: nn.BatchNorm1d(3)(x),
        "LayerNorm": lambda m, F, nn, x: nn.LayerNorm(3)(x),
        "RMSNorm": lambda m, F, nn, x: nn.RMSNorm(3)(x),
        "group_norm": lambda m, F, nn, x: F.group_norm(x, 1, m.ones(3), m.ones(3)),
        "normal of means": lambda m, F, nn, x: m.normal(x, 0.0),
        "normal of deviations": lambda m, F, nn, x: m.normal(1.5, x * 0),
        "normal of both": lambda m, F, nn, x: m.normal(x, m.zeros(3)),
    }.items()
}
CASES = {"integers": POOLING, "spread": SPREAD, "cosine": COSINES, "dtype": CHOSEN_BY_NUMPY,
         "16 bits": HALVES}  # fmt: skip


def outcome(library, call):
    """(dtype, values) of each result; None if it is refused."""
    try:
        found = call(*library)
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    ys = found if isinstance(found, tuple) else (found,)
    return [(dtype_name(y.dtype), y.detach().double().numpy()) for y in ys]


@pytest.mark.filterwarnings("ignore")  # PyTorch's, of what it computes all the same
@pytest.mark.parametrize("group, name", [(g, n) for g, cases in CASES.items() for n in cases])
def test_it_is_as_in_pytorch(group, name):
    ours, theirs = (outcome(library, CASES[group][name]) for library in (OURS, THEIRS))
    if theirs is None:
        assert ours is None, f"PyTorch refuses it, we gave {ours}"
        return
    assert ours is not None and [d for d, _ in ours] == [d for d, _ in theirs]
    for (dtype, a), (_, b) in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=EPS.get(dtype, 1e-6), atol=EPS.get(dtype, 1e-7))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8"])
@pytest.mark.parametrize("equation", ["ij,jk->i", "ij,jk,kl->i", "ij,jk,kl->l"])
def test_einsum_of_small_integers_that_sums_one_alone(equation, dtype):
    """PyTorch refuses it: a sum made one of its operands int64."""
    x = small(md, dtype)
    xs = [x, x.T, x][: equation.count(",") + 1]
    y = md.einsum(equation, *xs)
    exact = np.einsum(equation, *(x.numpy().astype(int) for x in xs))
    assert y.dtype == md.int64 and y.tolist() == exact.tolist()


def test_means_of_integers_are_not_cut_off_by_a_loss():
    with pytest.raises(RuntimeError, match="mean of int64"):
        functional.l1_loss(md.arange(3), md.arange(3) + 1)
    assert functional.l1_loss(md.arange(3), md.arange(3) + 1, reduction="sum").item() == 3


def test_the_spread_of_equal_numbers_without_freedom_is_nan():
    x = md.full((3,), 0.1)
    assert math.isnan(x.var(correction=3).item()) and math.isnan(x.std(correction=4).item())
