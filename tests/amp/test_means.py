"""Means of 16-bit numbers whose sum is beyond float16's 65,504: divided before they are rounded."""

import numpy as np
import pytest

import minidist as md
from minidist.nn import functional as F

EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
ROWS = md.tensor(np.arange(300) % 4)


def entropy(x, weight=None, **options):
    """Of 300 rows (x is their transpose) in which the first class is by far the likeliest."""
    logits = (x * md.tensor([[9.0], [1.0], [1.0], [1.0]]).to(x.dtype)).T
    return F.cross_entropy(logits, ROWS, weight and md.tensor(weight).to(x.dtype), **options)


CASES = {  # of (4, 300) numbers near 300
    "mean": lambda x: x.mean(),
    "mean over a dim": lambda x: x.mean(1),
    "mean over dims": lambda x: x.mean((0, 1), keepdim=True),
    "var_mean": lambda x: md.var_mean(x)[1],
    "std_mean": lambda x: md.std_mean(x, 1)[1],
    "mse_loss": lambda x: F.mse_loss(x / 4, x * 0),
    "l1_loss": lambda x: F.l1_loss(x, x * 0),
    "huber_loss": lambda x: F.huber_loss(x, x * 0),
    "kl_div": lambda x: F.kl_div(-x / 4, x / 300),
    "kl_div, batchmean": lambda x: F.kl_div(-x / 4, x / 300, reduction="batchmean"),
    "binary cross entropy": lambda x: F.binary_cross_entropy_with_logits(x, x * 0),
    "cross_entropy": entropy,
    "cross_entropy, weights": lambda x: entropy(x, [1.0, 2.0, 3.0, 4.0]),
    "cross_entropy, smoothed": lambda x: entropy(x, label_smoothing=0.1),
    "nll_loss": lambda x: F.nll_loss(-x.T, ROWS),
    "nll_loss, some ignored": lambda x: F.nll_loss(-x.T, ROWS, ignore_index=2),
    "add, alpha": lambda x: md.add(x * 200, x, alpha=-250),
    "sub, alpha": lambda x: md.sub(x * 200, x, alpha=250),
    "addmm": lambda x: md.addmm(x[:, :4], x, x.T, alpha=0.001),
}


def computed(call, array, dtype):
    x = md.tensor(array).to(dtype).requires_grad_()
    y = call(x)
    y.backward(md.ones_like(y))
    assert y.dtype == x.dtype
    return [t.float().detach().numpy() for t in (y, x.grad)]


@pytest.mark.parametrize("name", CASES)
def test_a_mean_is_float32s(name):
    numbers = np.random.default_rng(0).integers(290, 310, (4, 300)).astype(np.float32)
    for dtype, eps in EPS.items():
        low = md.tensor(numbers).to(dtype).float().numpy()
        found, wanted = (computed(CASES[name], low, d) for d in (dtype, "float32"))
        for a, b in zip(found, wanted):
            assert np.abs(a - b).max() <= 4 * eps * np.abs(b).max(), dtype


def test_addmm_with_beta_0_does_not_look_at_input():
    eye = md.eye(2)
    assert md.addmm(md.full((2, 2), np.nan), eye, eye, beta=0).tolist() == [[1, 0], [0, 1]]


def test_alpha_of_integers_is_an_integer():
    x = md.tensor([1, 2])
    assert md.sub(x, x, alpha=2).tolist() == [-1, -2]
    with pytest.raises(RuntimeError, match=r"alpha 1\.5 of integers"):
        md.add(x, x, alpha=1.5)
