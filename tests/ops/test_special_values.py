"""NaN, infinities, zeros and the ends of float32's range: values and gradients as PyTorch's."""

from math import inf, nan

import numpy as np
import pytest
from support.parity import torch

import minidist as md
from minidist.nn import functional as F

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
FUNCTIONS = {md: F, torch: torch.nn.functional}
MIXED = [-1.0, 0.0, 1.0, nan, 2.0, inf, -inf]
NUMBERS = [-1.0, 0.0, 1.0, 0.5, -3.0, 2.0, -0.5]
PAIRS = [1.0, nan, 1.0, nan, 0.0, -0.0, inf], [nan, 1.0, 1.0, nan, 0.0, 0.0, inf]


def value_and_gradients(m, function, inputs, g):
    """The value and each input's gradient as NumPy arrays of float64, in module m."""
    xs = [m.tensor(x, requires_grad=True) for x in inputs]
    y = function(m, FUNCTIONS[m], *xs)
    if y.requires_grad:
        y.backward(m.full(tuple(y.shape), g))
    arrays = [y, *(x.grad for x in xs if x.grad is not None)]
    assert all(str(a.dtype).endswith("float32") for a in arrays)
    return [np.array(a.tolist(), float) for a in arrays]


# Name: (function of the module, its functional and the inputs), inputs, the cotangent
AS_PYTORCH = {
    "relu": (lambda m, f, x: m.relu(x), [MIXED], 1.0),
    "abs": (lambda m, f, x: m.abs(x), [MIXED], 1.0),
    "l1_loss": (lambda m, f, x: f.l1_loss(x, x * 0, reduction="sum"), [MIXED], 1.0),
    "sign": (lambda m, f, x: m.sign(x), [MIXED], 1.0),
    "norm by p=1": (lambda m, f, x: x.norm(1), [MIXED], 1.0),
    "elu": (lambda m, f, x: f.elu(x), [MIXED], 1.0),
    "elu of alpha": (lambda m, f, x: f.elu(x, 3.0), [MIXED], 1.0),
    "leaky_relu by 0": (lambda m, f, x: f.leaky_relu(x, 0.0), [MIXED], 1.0),
    "softplus": (lambda m, f, x: f.softplus(x, 3.0, 0.2), [MIXED], 1.0),
    "max": (lambda m, f, x: x.max(), [MIXED], 1.0),
    "min": (lambda m, f, x: x.min(), [MIXED], 1.0),
    "median": (lambda m, f, x: x.median(), [MIXED], 1.0),
    "median along": (lambda m, f, x: m.median(x, 0)[0], [MIXED], 1.0),
    "max_pool": (lambda m, f, x: f.max_pool1d(x.reshape(1, 1, 7), 3, 1, 1), [MIXED], 1.0),
    "maximum": (lambda m, f, a, b: m.maximum(a, b), PAIRS, 1.0),
    "minimum": (lambda m, f, a, b: m.minimum(a, b), PAIRS, 1.0),
    "atan2": (lambda m, f, a, b: m.atan2(a, b), PAIRS, 1.0),
    "bce with logits": (
        lambda m, f, x: f.binary_cross_entropy_with_logits(x, m.zeros(3), reduction="none"),
        [[inf, 100.0, 0.0]],
        1.0,
    ),
    "kl_div": (
        lambda m, f, x: f.kl_div(x, m.tensor([-1.0, 0.5, 0.0]), reduction="none"),
        [[0.5, 0.5, 0.5]],
        1.0,
    ),
    "0 to a power": (
        lambda m, f, b: m.tensor([0.0, 0.0, 0.0, -0.0, 2.0]) ** b,
        [[-2.0, 0.0, 2.0, -1.0, 3.0]],
        1.0,
    ),
    # An infinite cotangent reaches only what it belongs to
    "relu, inf": (lambda m, f, x: m.relu(x), [NUMBERS], inf),
    "clamp, inf": (lambda m, f, x: x.clamp(0, 1), [NUMBERS], inf),
    "clamp below, inf": (lambda m, f, x: m.clamp(x, min=0.0), [NUMBERS], inf),
    "maximum, inf": (lambda m, f, a, b: m.maximum(a, b), [NUMBERS, NUMBERS[::-1]], inf),
    "max, inf": (lambda m, f, x: x.max(), [NUMBERS], inf),
    "max_pool, inf": (lambda m, f, x: f.max_pool1d(x.reshape(1, 1, 7), 2, 2), [NUMBERS], inf),
    "lerp, inf": (lambda m, f, a, b: m.lerp(a, b, 0.7), [NUMBERS, NUMBERS[::-1]], inf),
    "prelu, inf": (lambda m, f, x, w: f.prelu(x, w), [[1.0, 2.0], [0.25]], inf),
    "power 0, inf": (lambda m, f, x: x**0, [NUMBERS], inf),
    "avg_pool": (lambda m, f, x: f.avg_pool1d(x.reshape(1, 1, 7), 3, 1, 1), [MIXED], 1.0),
    "avg_pool, planes": (
        lambda m, f, x: f.avg_pool2d(x, 2, 1),
        [[[[inf, 1, 2], [3, 4, 5], [6, 7, nan]]]],
        1.0,
    ),
    "adaptive_avg_pool": (
        lambda m, f, x: f.adaptive_avg_pool2d(x, 2),
        [[[[inf, 1, 2, 3], [-inf, 4, 5, nan]]]],
        1.0,
    ),
    "avg_pool, inf": (lambda m, f, x: f.avg_pool1d(x.reshape(1, 1, 7), 3, 3), [NUMBERS], inf),
    # The ends of the range
    "lerp to the end": (lambda m, f, a, b: m.lerp(a, b, 1.0), [[1e20, 1.0], [1.0, 1e20]], 1.0),
    "lerp by a tensor": (
        lambda m, f, a, b: m.lerp(a, b, m.tensor([1.0, 0.1])),
        [[1e20, inf], [1.0, 1.0]],
        1.0,
    ),
    "label smoothing": (
        lambda m, f, x: f.cross_entropy(x, m.tensor([0, 2]), label_smoothing=0.1),
        [[[1e5, 1e5 + 1, 1e5 + 2], [1e38, 1e38, 1e38]]],
        1.0,
    ),
    "probabilities": (
        lambda m, f, x, q: f.cross_entropy(x, q),
        [[[1e5, 1e5 + 1, 1e5 + 2]], [[0.2, 0.3, 0.5]]],
        1.0,
    ),
    "median of equal ones": (lambda m, f, x: x.median(), [[1.0, 0.0, 1.0, 1.0]], 1.0),
    "norm by p=-1 of a zero": (lambda m, f, x: x.norm(-1), [[0.0, 1.0, 2.0]], 1.0),
    "small std": (lambda m, f, x: x.std(), [[1e-25, 3e-25]], 1.0),
    "large std": (lambda m, f, x: x.std(), [[1e25, 3e25]], 1.0),
    "std of rows": (lambda m, f, x: x.std(1), [[[1e-36, 3e-36], [1.0, 2.0]]], 1.0),
}


@pytest.mark.parametrize("name", AS_PYTORCH)
def test_as_pytorch(name):
    function, inputs, g = AS_PYTORCH[name]
    ours, theirs = (value_and_gradients(m, function, inputs, g) for m in (md, torch))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-40)


# Where PyTorch's own float32 is wrong: held against float64
AT_THE_ENDS = {
    "atan2": (lambda m, f, a, b: m.atan2(a, b), [[1e-25, -1e-25, 1e20], [1e-25, 1e-25, 1e22]]),
    "norm": (lambda m, f, x: x.norm(dim=1), [[[1e-25, 3e-25], [1e25, 3e25]]]),
    "norm by p=3": (lambda m, f, x: x.norm(3), [[1e25, -3e25]]),
    "normalize": (lambda m, f, x: f.normalize(x) * 1e25, [[[1e20, 2e20], [1.0, 2.0]]]),
    "var far from 0": (lambda m, f, x: x.var(), [[1e7 + 1, 1e7 + 2, 1e7 + 3]]),
    "bce of 1": (  # PyTorch's gradient, sigmoid(x) - 1, is wrong in float64 too
        lambda m, f, x: (
            f.binary_cross_entropy_with_logits(x, x * 0 + 1.0, reduction="none")
            if m is md
            else f.softplus(-x)
        ),
        [[30.0, 60.0]],
    ),
}


@pytest.mark.parametrize("name", AT_THE_ENDS)
def test_against_float64(name):
    function, inputs = AT_THE_ENDS[name]
    ours = value_and_gradients(md, function, inputs, 1.0)
    exact = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    y = function(torch, torch.nn.functional, *exact)
    y.sum().backward()
    for a, b in zip(ours, [y.detach(), *(x.grad for x in exact)]):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-6 * abs(b.numpy()).max())


def test_median_says_where_the_nan_is():
    rows = [[1.0, nan, nan, 0.0], [3.0, 1.0, 2.0, 0.0]]
    ours, theirs = (m.tensor(rows).median(1, keepdim=True) for m in (md, torch))
    assert ours.indices.tolist() == theirs.indices.tolist() == [[1], [1]]
    assert np.isnan(md.zeros(0).median().item())
    with pytest.raises(IndexError, match="nothing to choose from"):
        md.zeros(0, 3).median(0)
