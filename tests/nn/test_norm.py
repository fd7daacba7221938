"""Normalisation layers: gradients, running statistics, PyTorch's numbers and errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, numbers
from support.parity import assert_close, compare, error_of, to_torch, torch

import minidist as md
from minidist import nn
from minidist.nn import functional as F
from minidist.testing import gradcheck

T = torch.nn.functional
SHAPES = st.sampled_from([(3, 4), (2, 4, 3), (2, 4, 2, 3)])


@given(shape=SHAPES, seed=SEEDS, training=st.booleans())
@settings(max_examples=15)
def test_gradients_of_batch_norm(shape, seed, training):
    x, w, b = (numbers(s, seed + i) for i, s in enumerate([shape, (4,), (4,)]))
    running = [np.abs(numbers((4,), seed + i)) for i in (3, 4)]

    def norm(*arrays):
        return F.batch_norm(arrays[0], *(md.Tensor(r) for r in running), *arrays[1:], training,
                            eps=0.5, momentum=0.0)  # fmt: skip

    gradcheck(norm, [x, w, b])
    gradcheck(lambda x: F.batch_norm(x, None, None, training=True, eps=0.5), [x])


@given(shape=SHAPES, seed=SEEDS, groups=st.sampled_from([1, 2, 4]))
@settings(max_examples=15)
def test_gradients_of_group_and_rms_norm(shape, seed, groups):
    x, w, b = (numbers(s, seed + i) for i, s in enumerate([shape, (4,), (4,)]))
    gradcheck(lambda *a: F.group_norm(a[0], groups, *a[1:], eps=0.5), [x, w, b])
    gradcheck(lambda *a: F.rms_norm(a[0], shape[1:], *a[1:], eps=0.5), [x, numbers(shape[1:], 1)])


@given(shape=SHAPES, seed=SEEDS)
@settings(max_examples=20)
def test_functions_beside_pytorchs(shape, seed):
    x, w, b = (numbers(s, seed + i) for i, s in enumerate([shape, (4,), (4,)]))
    for groups in (1, 2):
        compare(lambda x, w, b, g=groups: F.group_norm(x, g, w, b),
                lambda x, w, b, g=groups: T.group_norm(x, g, w, b), [x, w, b])  # fmt: skip
    last = shape[1:]
    compare(lambda x, w: F.rms_norm(x, last, w), lambda x, w: T.rms_norm(x, last, w),
            [x, numbers(last, 1)])  # fmt: skip
    for dtype in ("float64", "float32"):  # the default eps is the dtype's
        compare(lambda x: F.rms_norm(x, last), lambda x: T.rms_norm(x, last), [x * 1e-3], dtype)


@pytest.mark.parametrize("training", [True, False])
@given(shape=SHAPES, seed=SEEDS)
@settings(max_examples=10)
def test_batch_norm_beside_pytorchs(training, shape, seed):
    x, w, b = (numbers(s, seed + i) for i, s in enumerate([shape, (4,), (4,)]))
    running = [np.abs(numbers((4,), seed + i)) for i in (3, 4)]
    ours, theirs = [md.Tensor(r.copy()) for r in running], [to_torch(r) for r in running]
    compare(lambda x, w, b: F.batch_norm(x, *ours, w, b, training, 0.3, 0.01),
            lambda x, w, b: T.batch_norm(x, *theirs, w, b, training, 0.3, 0.01),
            [x, w, b])  # fmt: skip
    for p, q in zip(ours, theirs):
        assert_close("running", p.data, q, 1e-12)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_over_steps_and_in_eval(momentum, affine):
    ours = nn.BatchNorm2d(3, momentum=momentum, affine=affine).double()
    theirs = torch.nn.BatchNorm2d(3, momentum=momentum, affine=affine).double()
    for step in range(4):
        x = numbers((2, 3, 2, 2), step) * (1 + step)
        assert_close("training", ours(md.Tensor(x)).data, theirs(to_torch(x)), 1e-12)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert_close(key, ours.state_dict()[key], value, 1e-12)
    ours.eval(), theirs.eval()
    before = ours.running_mean.data.copy()
    assert_close("eval", ours(md.Tensor(x)).data, theirs(to_torch(x)), 1e-12)
    np.testing.assert_array_equal(ours.running_mean.data, before)
    assert ours.num_batches_tracked.item() == 4


def test_a_biased_running_variance_is_killed():
    layer, x = nn.BatchNorm1d(2, momentum=1.0).double(), numbers((3, 2), 0)
    layer(md.Tensor(x))
    np.testing.assert_allclose(layer.running_var.data, x.var(0, ddof=1))
    assert np.abs(layer.running_var.data - x.var(0)).min() > 1e-3


def test_without_running_statistics_the_batchs_serve_always():
    layer = nn.BatchNorm1d(2, track_running_stats=False).double().eval()
    assert list(layer.state_dict()) == ["weight", "bias"]
    np.testing.assert_allclose(layer(md.Tensor(numbers((5, 2), 0))).data.mean(0), 0, atol=1e-12)


def test_a_cotangent_of_eval_is_safe_from_later_training():
    layer = nn.BatchNorm1d(2, affine=False).double().eval()
    x = md.Tensor(numbers((4, 2), 0), requires_grad=True)
    y = layer(x)
    layer.train()(md.Tensor(numbers((4, 2), 1)))
    y.sum().backward()
    np.testing.assert_allclose(x.grad.data, 1 / np.sqrt(1 + 1e-5))


def test_parts_that_are_absent():
    assert nn.LayerNorm(3, bias=False).bias is None
    assert nn.LayerNorm(3, elementwise_affine=False).weight is None
    assert nn.GroupNorm(1, 2, affine=False).bias is None
    assert list(nn.RMSNorm(3).state_dict()) == ["weight"]
    layer = nn.LayerNorm(3)
    layer.weight.data[...] = 5
    layer.reset_parameters()
    assert layer.weight.tolist() == [1, 1, 1]


WRONG = {
    "one value": lambda f, m: f.batch_norm(m.ones(1, 3), None, None, training=True),
    "no statistics": lambda f, m: f.batch_norm(m.ones(2, 3), None, None),
    "weight": lambda f, m: f.batch_norm(m.ones(2, 3), m.ones(3), m.ones(3), m.ones(2)),
    "mean": lambda f, m: f.batch_norm(m.ones(2, 3), m.ones(2), m.ones(3)),
    "groups": lambda f, m: f.group_norm(m.ones(2, 3), 2),
    "one dimension": lambda f, m: f.group_norm(m.ones(2), 1),
    "rms": lambda f, m: f.rms_norm(m.ones(2, 3), (2,)),
    "layer": lambda f, m: f.layer_norm(m.ones(2, 3), ()),
}
LAYERS = {
    "BatchNorm1d": lambda n, m: n.BatchNorm1d(2)(m.ones(1, 2, 3, 3)),
    "BatchNorm2d": lambda n, m: n.BatchNorm2d(2)(m.ones(1, 2, 3)),
    "GroupNorm": lambda n, m: n.GroupNorm(2, 3),
}


@pytest.mark.parametrize("name", [*WRONG, *LAYERS])
def test_errors_are_of_pytorchs_class(name):
    if name in WRONG:
        theirs, ours = (error_of(lambda p=p: WRONG[name](*p)) for p in ((T, torch), (F, md)))
    else:
        pairs = ((torch.nn, torch), (nn, md))
        theirs, ours = (error_of(lambda p=p: LAYERS[name](*p)) for p in pairs)
    assert ours is theirs is not None
