"""Losses: gradients, PyTorch's numbers under every option, PyTorch's errors."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, arrays, numbers, tiny_tiles
from support.parity import compare, error_of, to_torch, torch

import minidist as md
from minidist import nn
from minidist.nn import functional as F
from minidist.testing import gradcheck

T = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
REDUCTIONS = ["mean", "sum", "none"]
EACH = pytest.mark.parametrize("reduction", REDUCTIONS)
SHAPES = [(4, 3), (4, 3, 5), (3,), (2, 3, 2, 2)]
LOGITS = pytest.mark.parametrize(
    "shape, reduction", [(s, r) for s in SHAPES for r in REDUCTIONS] + [((0, 3), "none")]
)


def both(array):
    return (None, None) if array is None else (md.Tensor(array), to_torch(array))


def probabilities(shape, seed):
    return np.random.default_rng(seed).uniform(0.05, 0.95, shape)


# Of elements

PAIRS = {
    "mse_loss": {},
    "l1_loss": {},
    "huber_loss": {"delta": 0.7},
    "binary_cross_entropy_with_logits": {},
    "kl_div": {"log_target": True},
}


@EACH
@pytest.mark.parametrize("name", PAIRS)
@given(seed=SEEDS, shape=st.sampled_from([(), (3,), (2, 4)]))
@settings(max_examples=10)
def test_losses_of_elements(name, reduction, seed, shape):
    x, t = numbers(shape, seed) * 2, numbers(shape, seed + 1) * 1.3
    loss = lambda x, t: getattr(F, name)(x, t, reduction=reduction, **PAIRS[name])
    gradcheck(loss, [x, t])
    theirs = lambda x, t: getattr(T, name)(x, t, reduction=reduction, **PAIRS[name])
    compare(loss, theirs, [x, t])


@EACH
@given(seed=SEEDS, weighted=st.booleans())
@settings(max_examples=10)
def test_losses_of_probabilities(reduction, seed, weighted):
    x, t = probabilities((3, 4), seed), probabilities((3, 4), seed + 1)
    w, w_ = both(probabilities((4,), 2) if weighted else None)
    loss = lambda x, t: F.binary_cross_entropy(x, t, w, reduction=reduction)
    gradcheck(loss, [x, t])
    compare(loss, lambda x, t: T.binary_cross_entropy(x, t, w_, reduction=reduction), [x, t])
    kl = lambda x, t: F.kl_div(x, t, reduction=reduction)
    gradcheck(kl, [np.log(x), t])
    compare(kl, lambda x, t: T.kl_div(x, t, reduction=reduction), [np.log(x), t])
    some, some_ = both(np.where(t > 0.8, 0, t))
    theirs = lambda x: T.kl_div(x, some_, reduction=reduction)
    compare(lambda x: F.kl_div(x, some, reduction=reduction), theirs, [np.log(x)])
    pos, pos_ = both(probabilities((4,), 3) * 3)
    compare(
        lambda x, t: F.binary_cross_entropy_with_logits(
            x, t, w, reduction=reduction, pos_weight=pos),
        lambda x, t: T.binary_cross_entropy_with_logits(
            x, t, w_, reduction=reduction, pos_weight=pos_),
        [numbers((3, 4), seed), t],
    )  # fmt: skip


def test_edges_of_element_losses():
    ends = md.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    loss = F.binary_cross_entropy(ends, md.tensor([0.0, 1.0, 1.0, 0.0]), reduction="none")
    assert loss.tolist() == [0, 0, 100, 100]
    far = md.tensor([1e4, -1e4], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(far, md.tensor([1.0, 1.0]), reduction="none")
    loss.sum().backward()
    assert loss.tolist() == [0, 1e4] and far.grad.tolist() == [0, -1]
    x = numbers((4, 3), 0)
    compare(lambda x: F.kl_div(x, x.exp(), reduction="batchmean"),
            lambda x: T.kl_div(x, x.exp(), reduction="batchmean"), [x])  # fmt: skip
    assert math.isnan(F.mse_loss(md.ones(0), md.ones(0)).item())
    with pytest.warns(UserWarning, match=r"between \(2,\) and \(2, 1\), which broadcast"):
        F.mse_loss(md.ones(2), md.ones(2, 1))


# Of classes


def target_of(shape, seed, ignored):
    """Classes of logits of a shape, a third of them ignored."""
    rows = shape[:1] + shape[2:] if shape[1:] else ()
    target = np.random.default_rng(seed).integers(0, 3, rows)
    return np.where(np.arange(target.size).reshape(rows) % 3 == 1, ignored, target)


@LOGITS
@given(weighted=st.booleans(), ignore=st.sampled_from([-100, 1, 7]), seed=SEEDS,
       smoothing=st.sampled_from([0.0, 0.3, 1.0]), tile=st.sampled_from([3, 1 << 16]))  # fmt: skip
@settings(max_examples=12)
def test_cross_entropy_and_nll(shape, reduction, weighted, ignore, seed, smoothing, tile):
    x, (target, target_) = numbers(shape, seed), both(target_of(shape, seed, ignore))
    assume(reduction != "mean" or (target.data != ignore).any())  # NaN: see below
    w, w_ = both(probabilities((3,), seed) if weighted else None)
    options = {"ignore_index": ignore, "reduction": reduction}
    with tiny_tiles(tile):
        compare(lambda x: F.nll_loss(x, target, w, **options),
                lambda x: T.nll_loss(x, target_, w_, **options), [x])  # fmt: skip
        options["label_smoothing"] = smoothing
        compare(lambda x: F.cross_entropy(x, target, w, **options),
                lambda x: T.cross_entropy(x, target_, w_, **options), [x])  # fmt: skip


@LOGITS
@given(weighted=st.booleans(), seed=SEEDS, smoothing=st.sampled_from([0.0, 0.3]))
@settings(max_examples=8)
def test_cross_entropy_against_probabilities(shape, reduction, weighted, seed, smoothing):
    x, q = numbers(shape, seed), probabilities(shape, seed)
    w, w_ = both(probabilities((3,), seed) if weighted else None)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    compare(lambda x, q: F.cross_entropy(x, q, w, **options),
            lambda x, q: T.cross_entropy(x, q, w_, **options), [x, q])  # fmt: skip


@given(x=arrays((3, 4)), seed=SEEDS, smoothing=st.sampled_from([0.0, 0.2]))
@settings(max_examples=15)
def test_gradients_of_cross_entropy(x, seed, smoothing):
    target, w = np.array([1, 3, -100]), md.Tensor(probabilities((4,), seed))
    options = {"weight": w, "label_smoothing": smoothing}
    gradcheck(lambda x: F.cross_entropy(x, md.Tensor(target), **options), [x])
    gradcheck(lambda x: F.nll_loss(x, md.Tensor(target), w, reduction="sum"), [x])
    gradcheck(lambda x, q: F.cross_entropy(x, q, **options), [x, probabilities((3, 4), seed)])


def test_a_mean_over_all_rows_is_killed():
    """The control: ignored rows must not count, nor weights count as ones."""
    x, target = md.Tensor(numbers((4, 3), 0)), md.tensor([0, -100, 1, 2])
    rows = F.cross_entropy(x, target, reduction="none")
    assert rows.data[1] == 0
    mean = F.cross_entropy(x, target).item()
    assert mean == pytest.approx(rows.data.sum() / 3, rel=1e-12)
    assert abs(mean - rows.data.mean()) > 0.1


def test_where_every_row_is_ignored_the_mean_is_nan_and_moves_nothing():
    for smoothing in (0.0, 0.1):
        x = md.ones(2, 3, requires_grad=True)
        loss = F.cross_entropy(x, md.tensor([-100, -100]), label_smoothing=smoothing)
        loss.backward()
        assert math.isnan(loss.item()) and (x.grad.data == 0).all()


# CTC


def ctc_case(seed):
    """Four samples of uneven lengths, one empty, one with a repeated symbol."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 5, (4, 4))
    labels[0, 1] = labels[0, 0]
    return rng.standard_normal((9, 4, 5)), labels, np.array([9, 7, 9, 8]), np.array([4, 3, 4, 0])


@EACH
@pytest.mark.parametrize("zero", [False, True])
@given(seed=SEEDS, blank=st.sampled_from([0, 2]), flat=st.booleans())
@settings(max_examples=10)
def test_ctc(reduction, zero, seed, blank, flat):
    x, labels, lengths, sizes = ctc_case(seed)
    labels[labels == blank] = 1
    if zero:
        lengths[2] = 3  # too short for its four symbols
    if flat:
        labels = np.concatenate([row[:n] for row, n in zip(labels, sizes)])
    rest = (lengths, sizes)
    compare(
        lambda x: F.ctc_loss(x.log_softmax(2), md.Tensor(labels), *map(md.Tensor, rest),
                             blank, reduction, zero),
        lambda x: T.ctc_loss(x.log_softmax(2), to_torch(labels), *map(to_torch, rest),
                             blank, reduction, zero),
        [x],
    )  # fmt: skip


def test_gradients_of_ctc():
    """Of the log-probabilities themselves, normalised or not."""
    x, labels, lengths, sizes = ctc_case(0)
    gradcheck(lambda x: F.ctc_loss(x, labels_of(labels), lengths, sizes), [x])
    one = lambda x: F.ctc_loss(x, labels_of(labels[0]), 9, 4, reduction="none")
    gradcheck(one, [x[:, 0]])
    assert one(md.Tensor(x[:, 0])).shape == ()


def labels_of(array):
    return md.Tensor(array)


def test_ctc_without_a_path_is_infinite():
    x = md.Tensor(np.log(np.full((1, 1, 3), 1 / 3)), requires_grad=True)
    assert math.isinf(F.ctc_loss(x, md.tensor([[1, 2]]), [1], [2]).item())
    loss = F.ctc_loss(x, md.tensor([[1, 2]]), [1], [2], zero_infinity=True)
    loss.backward()
    assert loss.item() == 0 and (x.grad.data == 0).all()


# Layers and errors

LAYERS = {
    "MSELoss": lambda n, w: n.MSELoss(reduction="sum"),
    "L1Loss": lambda n, w: n.L1Loss(),
    "HuberLoss": lambda n, w: n.HuberLoss("mean", 0.5),
    "BCEWithLogitsLoss": lambda n, w: n.BCEWithLogitsLoss(w, pos_weight=w),
    "CrossEntropyLoss": lambda n, w: n.CrossEntropyLoss(w, label_smoothing=0.1),
    "KLDivLoss": lambda n, w: n.KLDivLoss(reduction="batchmean", log_target=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    w, w_ = both(probabilities((3,), 0))
    ours, theirs = LAYERS[name](nn, w), LAYERS[name](torch.nn, w_)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    compare(ours, theirs, [numbers((4, 3), 0), numbers((4, 3), 1)])


def test_layers_of_classes_and_sequences():
    x, (t, t_) = numbers((4, 3), 0), both(np.array([0, 2, 1, 2]))
    for make in (lambda n: n.NLLLoss(ignore_index=2), lambda n: n.CrossEntropyLoss()):
        compare(lambda x, m=make: m(nn)(x, t), lambda x, m=make: m(torch.nn)(x, t_), [x])
    x, labels, lengths, sizes = ctc_case(0)
    rest, rest_ = zip(*map(both, (labels, lengths, sizes)))
    ours, theirs = (lib.CTCLoss(zero_infinity=True) for lib in (nn, torch.nn))
    compare(lambda x: ours(x.log_softmax(2), *rest),
            lambda x: theirs(x.log_softmax(2), *rest_), [x])  # fmt: skip
    p = probabilities((2, 2), 0)
    compare(nn.BCELoss(), torch.nn.BCELoss(), [p, probabilities((2, 2), 1)])


def ones(m, *shape):
    return m.ones(*shape)


WRONG = {
    "batch": lambda f, m: f.cross_entropy(ones(m, 2, 3), m.tensor([0])),
    "floats": lambda f, m: f.cross_entropy(ones(m, 2, 3), m.tensor([0.0, 1.0])),
    "class": lambda f, m: f.cross_entropy(ones(m, 2, 3), m.tensor([0, 3])),
    "negative": lambda f, m: f.cross_entropy(ones(m, 2, 3), m.tensor([-1, 0])),
    "pixels": lambda f, m: f.cross_entropy(ones(m, 2, 3, 4), m.tensor([0, 1])),
    "0-d": lambda f, m: f.cross_entropy(m.tensor(1.0), m.tensor(0)),
    "weight": lambda f, m: f.cross_entropy(ones(m, 2, 3), m.tensor([0, 1]), ones(m, 2)),
    "smoothing": lambda f, m: f.cross_entropy(
        ones(m, 2, 3), m.tensor([0, 1]), label_smoothing=1.5),
    "reduction": lambda f, m: f.nll_loss(ones(m, 2, 3), m.tensor([0, 1]), reduction="x"),
    "nll batch": lambda f, m: f.nll_loss(ones(m, 2, 3), m.tensor([0])),
    "nll class": lambda f, m: f.nll_loss(ones(m, 2, 3), m.tensor([0, 3])),
    "mse reduction": lambda f, m: f.mse_loss(ones(m, 2), ones(m, 2), reduction="x"),
    "huber": lambda f, m: f.huber_loss(ones(m, 2), ones(m, 2), delta=0),
    "bce shapes": lambda f, m: f.binary_cross_entropy(ones(m, 2), ones(m, 3)),
    "bce range": lambda f, m: f.binary_cross_entropy(2 * ones(m, 2), ones(m, 2)),
    "logits": lambda f, m: f.binary_cross_entropy_with_logits(ones(m, 2), ones(m, 2, 1)),
    "kl": lambda f, m: f.kl_div(ones(m, 2), ones(m, 2), reduction="x"),
    "ctc length": lambda f, m: f.ctc_loss(
        ones(m, 4, 2, 3), m.tensor([[1], [1]]), m.tensor([4, 5]), m.tensor([1, 1])),
    "ctc size": lambda f, m: f.ctc_loss(
        ones(m, 4, 2, 3), m.tensor([[1], [1]]), m.tensor([4, 4]), m.tensor([1, 2])),
    "ctc blank": lambda f, m: f.ctc_loss(
        ones(m, 4, 1, 3), m.tensor([[1]]), m.tensor([4]), m.tensor([1]), blank=3),
    "ctc lengths": lambda f, m: f.ctc_loss(
        ones(m, 4, 2, 3), m.tensor([[1], [1]]), m.tensor([4]), m.tensor([1, 1])),
    "ctc flat": lambda f, m: f.ctc_loss(
        ones(m, 4, 2, 3), m.tensor([1, 1, 1]), m.tensor([4, 4]), m.tensor([1, 1])),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_of_pytorchs_class(name):
    theirs = error_of(lambda: WRONG[name](T, torch))
    assert error_of(lambda: WRONG[name](F, md)) is theirs is not None
