"""Clipping against PyTorch: norms of every kind, values, and what is not finite."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import LAYOUTS, laid_out, numbers
from support.parity import assert_close, error_of, to_torch, torch

import minidist as md
from minidist import Tensor, nn, optim

SHAPES = [(3, 2), (), (50,), (1, 4), (0,)]


def pair(scale: float = 1.0, dtype: str = "float64", layout: str = "C", norm_type: float = 2):
    """Parameters with gradients, the last without one, here and in PyTorch.

    PyTorch has no infinity norm of nothing: then no gradient is empty.
    """
    shapes = SHAPES[:-1] if norm_type == math.inf else SHAPES
    grads = [numbers(s, i, dtype) * np.asarray(scale, dtype) for i, s in enumerate(shapes)]
    ours = [nn.Parameter(np.zeros(s, dtype)) for s in [*shapes, (2,)]]
    theirs = [torch.nn.Parameter(to_torch(p.data)) for p in ours]
    for p, q, g in zip(ours, theirs, grads):
        p.grad, q.grad = Tensor(laid_out(np.asarray(g), layout)), to_torch(g)
    return ours, theirs


def check(ours, theirs, bound):
    for p, q in zip(ours, theirs):
        assert (p.grad is None) == (q.grad is None)
        if q.grad is not None:
            assert_close("gradient", p.grad.data, q.grad, bound)


@given(
    scale=st.floats(1e-3, 1e3), most=st.floats(1e-3, 1e3),
    norm_type=st.sampled_from([0.5, 1, 2, 2.0, 3, math.inf]), layout=st.sampled_from(LAYOUTS),
)  # fmt: skip
@settings(max_examples=60)
def test_by_norm(scale, most, norm_type, layout):
    ours, theirs = pair(scale, layout=layout, norm_type=norm_type)
    norm = nn.utils.clip_grad_norm_(ours, most, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, most, norm_type)
    assert_close("norm", norm.data, expected, 1e-12)
    check(ours, theirs, 1e-12)


@pytest.mark.parametrize("norm_type", [0.5, 1, 2, 3, math.inf])
def test_the_norm_alone(norm_type):
    ours, theirs = pair(norm_type=norm_type)
    grads = [p.grad for p in ours if p.grad is not None]
    norm = nn.utils.get_total_norm(grads, norm_type)
    expected = [p.grad for p in theirs if p.grad is not None]
    assert_close("norm", norm.data, torch.nn.utils.get_total_norm(expected, norm_type), 1e-12)
    assert norm.item() == nn.utils.clip_grad_norm_(ours, 1e9, norm_type).item()
    assert norm.item() != nn.utils.get_total_norm(grads[1:], norm_type).item() or norm_type > 3


def test_in_float32_and_of_one_tensor():
    ours, theirs = pair(dtype="float32")
    norm = optim.clip_grad_norm_(ours, 0.5)
    assert_close("norm", norm.data, torch.nn.utils.clip_grad_norm_(theirs, 0.5), 1e-6)
    check(ours, theirs, 1e-6)
    assert optim.clip_grad_norm_(ours[0], 1e9).dtype == np.float32
    assert optim.clip_grad_norm_((p for p in ours), 1e9).shape == ()


@pytest.mark.parametrize("off", [-1e-9, 0.0, 1e-9, 1e-6])
def test_at_the_edge(off):
    ours, theirs = pair()
    most = optim.clip_grad_norm_(ours, math.inf).item() + off
    optim.clip_grad_norm_(ours, most)
    torch.nn.utils.clip_grad_norm_(theirs, most)
    check(ours, theirs, 1e-15)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm_type", [1, 2, math.inf])
def test_what_is_not_finite(bad, norm_type):
    ours, theirs = pair(norm_type=norm_type)
    ours[2].grad.data[7] = theirs[2].grad[7] = bad
    before = ours[0].grad.data.copy()
    for u, params in (nn.utils, ours), (torch.nn.utils, theirs):
        with pytest.raises(RuntimeError, match=r"cannot be\s+clipped"):
            u.clip_grad_norm_(params, 1.0, norm_type, error_if_nonfinite=True)
    np.testing.assert_array_equal(ours[0].grad.data, before)
    norms = [
        float(u.clip_grad_norm_(params, 1.0, norm_type))
        for u, params in ((nn.utils, ours), (torch.nn.utils, theirs))
    ]
    np.testing.assert_array_equal(*norms)
    for p, q in zip(ours[:-1], theirs):
        np.testing.assert_array_equal(p.grad.data, q.grad.numpy())


@given(most=st.floats(0, 3), layout=st.sampled_from(LAYOUTS))
@settings(max_examples=20)
def test_by_value(most, layout):
    ours, theirs = pair(layout=layout)
    assert nn.utils.clip_grad_value_(ours, most) is None
    torch.nn.utils.clip_grad_value_(theirs, most)
    check(ours, theirs, 0)
    nn.utils.clip_grad_value_(ours[0], 0.0)
    assert not ours[0].grad.data.any()


def test_a_clip_forgotten_is_seen():
    ours, theirs = pair()
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    with pytest.raises(AssertionError, match="gradient: off by"):
        check(ours, theirs, 1e-12)


def test_nothing_to_clip_and_what_is_no_norm():
    assert optim.clip_grad_norm_([], 1.0).item() == 0
    assert optim.clip_grad_norm_([nn.Parameter([1.0])], 1.0).dtype == md.float32
    for p in (0, -1, math.nan, -math.inf):
        assert error_of(lambda p=p: optim.clip_grad_norm_([], 1.0, p)) is ValueError
    p = nn.Parameter(np.zeros((0, 2)))
    p.grad = Tensor(np.zeros((0, 2)))
    assert optim.clip_grad_norm_([p], 1.0, math.inf).item() == 0
    assert optim.clip_grad_norm_ is nn.utils.clip_grad_norm_
    assert optim.clip_grad_value_ is nn.utils.clip_grad_value_
