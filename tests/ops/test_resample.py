"""interpolate beside PyTorch's: sizes and scales of every kind, errors, and what a NaN reaches."""

import numpy as np
import pytest
from minidist.kernels.dispatch import using
from support.cases import numbers
from support.parity import compare, error_of, to_torch, torch

import minidist as md
from minidist.nn import functional as F

theirs = torch.nn.functional.interpolate
SHAPES = {1: (2, 3, 7), 2: (1, 2, 5, 4), 3: (1, 1, 3, 4, 5)}


def both(x, dtype="float64", **options):
    compare(lambda x: F.interpolate(x, **options), lambda x: theirs(x, **options), [x], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "bilinear"])
def test_sizes_and_scales(mode, dtype):
    for dims in {"nearest": (1, 2, 3), "linear": (1,), "bilinear": (2,)}[mode]:
        x = numbers(SHAPES[dims], dims)
        for corners in (None,) if mode == "nearest" else (None, False, True):
            for size in (1, 3, 4, 9):
                both(x, dtype, size=size, mode=mode, align_corners=corners)
            for scale in (0.5, 1.6, 2, (2.5, 0.7, 1.3)[:dims]):
                for again in (None, True):
                    both(x, dtype, scale_factor=scale, mode=mode, align_corners=corners,
                         recompute_scale_factor=again)  # fmt: skip


def test_many_places():
    """Far more places than elements, and far fewer."""
    for n, m in ((40, 150), (150, 40), (1, 200), (200, 1)):
        both(numbers((2, 2, n), 0), size=m, mode="linear")
        both(numbers((1, 2, n, 3), 0), size=(m, 70), mode="bilinear", align_corners=True)
        both(numbers((1, 2, n, 3), 0), size=(m, 70))


def test_places_of_the_nearest_are_pytorchs():
    """Which element it is where i·scale is a whole number hangs on the dtype of the product."""
    for dims in (1, 2):
        for n in range(1, 60, 3):
            x = np.arange(n, dtype="f4").reshape(1, 1, *(1,) * (dims - 1), n)
            for to in [{"size": (*(1,) * (dims - 1), m)} for m in (n, 2 * n, n + 1, 49, 63)] + [
                {"scale_factor": (*(1.0,) * (dims - 1), s)} for s in (1.1, 2.3, 2.5, 3.7, 10 / 3)
            ]:
                wanted = theirs(to_torch(x), **to).numpy()
                np.testing.assert_array_equal(F.interpolate(md.tensor(x), **to).data, wanted)


X3, X4 = (2, 3, 4), (2, 3, 4, 4)
MISTAKES = [
    (X3, {}, "give one of the two"), (X3, {"size": 4, "scale_factor": 2}, "give one of the two"),
    (X3, {"size": (4, 2)}, r"\(4, 2\): want a number, or one for each of \(4,\)"),
    (X3, {"scale_factor": (4, 2)}, "one for each"), (X3, {"size": 0}, "want sizes of 1 or more"),
    (X3, {"scale_factor": -2.0}, "want sizes of 1 or more"),
    (X3, {"size": 2.5}, "want whole numbers"),
    ((0, 3, 4), {"size": 0}, "1 or more"), ((2, 0, 4), {"size": 8}, "1 or more"),
    (X3, {"size": 4, "align_corners": True}, "'nearest': leave it out"),
    (X4, {"size": 8, "recompute_scale_factor": True}, "needs scale_factor"),
    (X3, {"size": 4, "mode": "bilinear"}, r"'linear' for \(n, c, l\), 'bilinear' for \(n, c, h, w"),
    (X4, {"size": 4, "mode": "linear"}, "for"), ((2, 4), {"size": (), "mode": "linear"}, "for"),
    (X3, {"size": 4, "mode": "cubic"}, "mode 'cubic' for"),
]  # fmt: skip


@pytest.mark.parametrize("shape, options, words", MISTAKES)
def test_mistakes_are_of_pytorchs_class(shape, options, words):
    wanted = error_of(lambda: theirs(torch.ones(shape), **options))
    with pytest.raises(wanted, match=words):
        F.interpolate(md.ones(shape), **options)


def test_modes_that_are_left_out_say_what_there_is():
    for options in ({"mode": "bicubic"}, {"mode": "area"}, {"mode": "nearest-exact"},
                    {"mode": "bilinear", "antialias": True}):  # fmt: skip
        with pytest.raises(NotImplementedError, match="want 'nearest' for"):
            F.interpolate(md.ones(X4), 8, **options)
    with pytest.raises(NotImplementedError, match="'trilinear'"):
        F.interpolate(md.ones(1, 1, 2, 2, 2), 8, mode="trilinear")


def test_integers():
    x = md.tensor([[[1, 2, 3]]]).to(md.uint8)
    assert F.interpolate(x, scale_factor=2).tolist() == [[[1, 1, 2, 2, 3, 3]]]
    assert (
        F.interpolate(x, np.int64(6)).dtype == "uint8"
        and F.interpolate(md.ones(0, 2, 3), 6).shape[0] == 0
    )
    for kind, mode in (("uint8", "linear"), ("int64", "nearest"), ("bool", "nearest")):
        with pytest.raises(NotImplementedError, match=rf"{kind}: convert with \.float\(\)"):
            F.interpolate(x.to(kind), 6, mode=mode)


def test_a_nan_stays_with_its_neighbours():
    x = md.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = md.nan
    seen = F.interpolate(x, 10, mode="bilinear").isnan().data[0, 0]
    assert seen.any(0).tolist() == seen.any(1).tolist() == [False] * 3 + [True] * 4 + [False] * 3
    wanted = theirs(to_torch(x.data), 10, mode="bilinear").isnan().numpy()
    assert (seen == wanted).all()


@pytest.mark.parametrize("version", ["numba", "naive"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nan_in_the_cotangent_reaches_the_elements_that_were_read(mode, value, version):
    x = md.zeros(1, 1, 5, 90, requires_grad=True)
    g = np.ones((1, 1, 10, 180), "f")
    g[0, 0, 4, 31] = value
    with using(version):
        F.interpolate(x, (10, 180), mode=mode).backward(md.tensor(g))
    there = to_torch(x.data).requires_grad_()
    theirs(there, (10, 180), mode=mode).backward(torch.tensor(g))
    wanted = there.grad.numpy()
    assert 1 <= (~np.isfinite(wanted)).sum() <= 4
    np.testing.assert_allclose(x.grad.data, wanted, rtol=1e-6)
