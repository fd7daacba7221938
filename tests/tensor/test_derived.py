"""Arrays and tensors as operands of each other, and draws at random."""

import operator

import numpy as np
import pytest

import minidist as md
from minidist import Tensor


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow", "lt", "matmul"])
def test_an_array_with_a_tensor_is_a_tensor(name):
    function, x = getattr(operator, name), md.ones(2, 2, requires_grad=True)
    y = function(np.full((2, 2), 2, "float32"), x)
    assert isinstance(y, Tensor) and y.requires_grad == (name != "lt")
    np.testing.assert_array_equal(y.data, function(np.full((2, 2), 2.0), np.ones((2, 2))))


def test_an_array_changed_by_a_tensor_stays_an_array():
    w = md.ones(2, requires_grad=True)
    (w * 3).sum().backward()
    w.data -= 0.5 * w.grad
    assert isinstance(w.data, np.ndarray) and w.tolist() == [-0.5, -0.5]
    with pytest.raises(RuntimeError, match=r"detach\(\)"):
        w.data -= w


# Draws


def test_draws_follow_their_probabilities():
    md.manual_seed(0)
    p = md.tensor([[0.1, 0.2, 0.0, 0.7], [0.0, 3.0, 1.0, 0.0]])
    counts = np.stack([np.bincount(row, minlength=4) for row in
                       md.multinomial(p, 20_000, replacement=True).data])  # fmt: skip
    np.testing.assert_allclose(counts / 20_000, p.data / p.data.sum(1, keepdims=True), atol=0.015)
    first = np.stack([md.multinomial(p, 2).data for _ in range(2000)])
    assert set(np.unique(first[:, 1])) == {1, 2}, "what has no probability is not drawn"
    assert (np.sort(first[:, 0]) == first[:, 0]).mean() < 0.9, "in the order of the draws"
    np.testing.assert_allclose((first[:, 0, 0] == 3).mean(), 0.7, atol=0.05)
    assert abs(md.bernoulli(md.full((10_000,), 0.3)).mean().item() - 0.3) < 0.025
    x = md.normal(md.full((10_000,), 2.0), 0.5)
    assert abs(x.mean().item() - 2) < 0.03 and abs(x.std().item() - 0.5) < 0.03
    y = md.empty(10_000).uniform_(-1, 3)
    assert y.min().item() >= -1 and y.max().item() < 3 and abs(y.mean().item() - 1) < 0.06


def test_draws_repeat_with_the_seed():
    drawn = []
    for _ in range(2):
        md.manual_seed(5)
        drawn.append(md.multinomial(md.ones(9), 4).tolist())
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 4
