"""Dropout of channels, pretrained embeddings, Unflatten, Upsample, SmoothL1Loss; their errors."""

import warnings

import numpy as np
import pytest
from support.cases import numbers
from support.parity import compare, error_of, to_torch, torch

import minidist as md
from minidist import Tensor, nn
from minidist.nn import functional as F

theirs = torch.nn.functional

# Dropout2d


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_channels_are_dropped_whole(dtype):
    md.manual_seed(0)
    x = md.ones(40, 50, 2, 3).to(dtype).requires_grad_()
    y = nn.Dropout2d(0.25)(x)
    y.sum().backward()
    kept = y.detach().float().data
    assert y.dtype.name == dtype and (kept == kept[..., :1, :1]).all()
    assert abs((kept > 0).mean() - 0.75) < 0.03
    np.testing.assert_allclose(np.unique(kept), [0, 4 / 3], rtol=5e-3)
    assert (x.grad.float().data == kept).all()


def test_a_samples_channels_are_its_own():
    layer, x = nn.Dropout2d(0.5, name="a layer"), md.ones(6, 9, 2, 2)
    assert layer.eval()(x) is x and F.dropout2d(x, 0.0) is x
    layer.train()
    with md.random.at(seed=0, step=1, first_sample=0):
        whole = layer(x).data
    with md.random.at(seed=0, step=1, first_sample=4):
        assert (layer(x[4:]).data == whole[4:]).all()
        assert (F.dropout2d(x[4:], name="another").data != whole[4:]).any()


def test_dropout2d_wants_images():
    for p in (1.5, -1):
        with pytest.raises(error_of(lambda p=p: theirs.dropout2d(torch.ones(1, 1, 1, 1), p))):
            F.dropout2d(md.ones(1, 1, 1, 1), p)
    with pytest.raises(RuntimeError, match=r"float32 \(3,\): want floating-point .*h, w\)"):
        F.dropout2d(md.ones(3))
    with pytest.raises(RuntimeError, match=r"int64 .*want floating-point"):
        F.dropout2d(md.ones(2, 3, 4, 5).long())
    with pytest.warns(UserWarning, match=r"\(2, 3, 4\): it is taken as \(n, c, …\)"):
        assert F.dropout2d(md.ones(2, 3, 4), 1.0).sum() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.Dropout2d()(md.ones(1, 2, 3, 4))


# Embeddings


def test_pretrained_embeddings():
    table = md.tensor(numbers((5, 3), 0))
    layer = nn.Embedding.from_pretrained(table)
    assert repr(layer) == "Embedding(5, 3)" and not layer.weight.requires_grad
    assert layer.weight.dtype == "float64" and layer(md.tensor([4])).tolist() == table[4:].tolist()
    table[0] = 0.0  # the same memory, as PyTorch's
    assert layer.weight[0].tolist() == [0, 0, 0]
    ours = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=-2)
    other = torch.nn.Embedding.from_pretrained(to_torch(table.data), freeze=False, padding_idx=-2)
    assert repr(ours) == repr(other) == "Embedding(5, 3, padding_idx=3)"
    assert ours.weight[3].any(), "its row is as it was given"
    index = np.array([[3, 0], [4, 3]])
    compare(ours, other, [index])
    np.testing.assert_array_equal(ours.weight.grad.data, other.weight.grad.numpy())
    with pytest.raises(AssertionError, match=r"\(5,\): want \(rows, width\)"):
        nn.Embedding.from_pretrained(md.ones(5))


# Shapes


@pytest.mark.parametrize("shape, dim, sizes", [
    ((0, 4), 1, (2, -1)), ((0, 4), 1, (3, 5)), ((0, 4), 0, (3, -1)), ((4,), 0, (2, 2)),
    ((4,), 0, (-1, -1)), ((4,), 0, ()), ((1,), 0, ()), ((), 0, (1,)), ((4,), 0, (3, -1)),
    ((4, 6), -1, [2, 3]), ((4, 6), 2, (2, 3)), ((0,), 0, (0, 0)), ((4,), 0, (-2, -2)),
])  # fmt: skip
def test_unflatten_is_pytorchs(shape, dim, sizes):
    found = []
    for m in (md, torch):
        try:
            found.append(tuple(m.nn.Unflatten(dim, sizes)(m.ones(shape)).shape))
        except (RuntimeError, IndexError) as error:
            found.append(type(error))
    assert found[0] == found[1]


def test_upsample_and_what_does_not_fit():
    x = numbers((1, 2, 3, 4), 0)
    lines = {"mode": "bilinear"}
    for how in ({"size": 5}, lines | {"scale_factor": (2, 1.5), "align_corners": True},
                lines | {"scale_factor": 1.7, "recompute_scale_factor": True}):  # fmt: skip
        ours, other = nn.Upsample(**how), torch.nn.Upsample(**how)
        assert repr(ours) == repr(other)
        compare(ours, other, [x])
    for error, words, call in (
        (TypeError, "want an int and ints", lambda: nn.Unflatten(1, (2.0, 3))),
        (TypeError, "want an int and ints", lambda: nn.Unflatten(1, 6)),
        (ValueError, "want min_val < max_val", lambda: nn.Hardtanh(1.0, 1.0)),
        (
            NotImplementedError,
            "want 'nearest'",
            lambda: nn.Upsample(8, mode="bicubic")(Tensor(x)),
        ),
        (ValueError, "leave it out", lambda: nn.Mish(inplace=True)),
        (ValueError, "leave it out", lambda: nn.Dropout2d(inplace=True)),
    ):
        with pytest.raises(error, match=words):
            call()


# SmoothL1Loss


def test_smooth_l1_loss_from_tiny_to_huge_differences():
    x = np.outer([1, -1], [0.0, 1e-30, 0.2, 0.5, 1.0, 3.0, 1e30])
    for beta in (0.5, 1.0, 2.0, 1e-30, 0):
        for reduction in ("mean", "sum", "none"):
            how = {"beta": beta, "reduction": reduction}
            for dtype in ("float32", "float64"):
                compare(lambda x, t, how=how: F.smooth_l1_loss(x, t, **how),
                        lambda x, t, how=how: theirs.smooth_l1_loss(x, t, **how),
                        [x, np.zeros_like(x) + 0.25 * (np.abs(x) < 1)], dtype)  # fmt: skip
    assert nn.SmoothL1Loss(beta=2.0, reduction="sum")(md.tensor([1.0]), md.tensor([0.0])) == 0.25
    with pytest.raises(RuntimeError, match="beta -1: want 0 or more"):
        F.smooth_l1_loss(md.ones(1), md.ones(1), beta=-1)
    with pytest.warns(UserWarning, match="which broadcast"):
        F.smooth_l1_loss(md.ones(2), md.ones(1))
