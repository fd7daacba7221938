"""Rows and words that do not count, whatever they hold: no inf or NaN of theirs gets out."""

from math import inf, nan

import numpy as np
import pytest
from minidist.kernels import cross_entropy as kernel
from minidist.kernels.dispatch import using

import minidist as md
from minidist.comm import simulate
from minidist.nn import functional as F
from minidist.parallel.layout import Shard, shard_indices
from minidist.parallel.tensor.cross_entropy import vocab_parallel_cross_entropy
from minidist.parallel.tensor.linear import VocabParallelEmbedding

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
BAD = [[-inf, 0.0, 1.0, 0.0], [nan, 0.0, 1.0, 0.0], [inf] * 4, [-inf] * 4]
ROWS = pytest.mark.parametrize("row", BAD)
SEEN, TARGET = [0.0, 1.0, 2.0, 0.5], [-100, 1]
WEIGHT = md.tensor([inf, 2.0, 3.0, 1.0])  # of class 0, which stands in for the ignored one

LOSSES = {
    "cross_entropy": lambda x, t: F.cross_entropy(x, t),
    "sum": lambda x, t: F.cross_entropy(x, t, reduction="sum"),
    "none": lambda x, t: F.cross_entropy(x, t, reduction="none").sum(),
    "weighted": lambda x, t: F.cross_entropy(x, t, WEIGHT),
    "smoothed": lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1),
    "bfloat16": lambda x, t: F.cross_entropy(x.bfloat16(), t).float(),
    "nll_loss": lambda x, t: F.nll_loss(x, t),
    "weighted nll_loss": lambda x, t: F.nll_loss(x, t, WEIGHT),
    "linear_cross_entropy": lambda x, t: F.linear_cross_entropy(x, md.eye(4), t),
    "of rows": lambda x, t: F.linear_cross_entropy(x, md.eye(4), t, reduction="none").sum(),
}


def loss_and_gradient(loss, rows, target):
    x = md.tensor(rows, requires_grad=True)
    y = loss(x, md.tensor(target))
    y.backward()
    return y.item(), x.grad.data


@ROWS
@pytest.mark.parametrize("name", LOSSES)
def test_an_ignored_row_adds_nothing(name, row):
    if name == "smoothed" and row[0] == -inf and row[1] == 0.0:
        row = [-inf, inf, 0.0, 0.0]
    wanted, seen = loss_and_gradient(LOSSES[name], [SEEN], TARGET[1:])
    found, grad = loss_and_gradient(LOSSES[name], [row, SEEN], TARGET)
    assert found == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(grad, [np.zeros(4), seen[0]], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("row", BAD[1:])
def test_its_kernels(row):
    """NumPy's, Triton's and the formula, by a cotangent that is 0 for the first row."""
    pytest.importorskip("triton", reason="triton is not installed: it runs on Linux alone")
    logits, target = np.array([row, SEEN], "float32"), np.array([0, 1])
    for version in ("numba", "triton", "naive"):
        with using(version):
            _, sums = kernel.forward(logits, target)
            d = kernel.backward(np.array([0.0, 1.0], "float32"), logits, sums, target)
        assert not d[0].any() and np.isfinite(d).all(), f"{version}: {d}"


def test_weight_of_a_product_of_ignored_rows():
    """All rows' cotangents are added up in the weight's: those of ignored rows are zeros."""
    w = md.ones(4, 4).requires_grad_()
    rows = md.tensor([[nan] * 4, SEEN])
    F.linear_cross_entropy(rows, w, md.tensor(TARGET)).backward()
    assert np.isfinite(w.grad.data).all()


@ROWS
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_vocabulary_over_ranks(row, smoothing):
    def rank(comm):
        part = Shard((4, 1), 0, shard_indices(4, comm), comm)
        x = md.Tensor(np.array([row, SEEN], "float32")[:, part.index]).requires_grad_()
        y = vocab_parallel_cross_entropy(x, md.tensor(TARGET), part, label_smoothing=smoothing)
        y.backward()
        return y.item(), x.grad.data

    wanted = F.cross_entropy(md.tensor([SEEN]), md.tensor([1]), label_smoothing=smoothing).item()
    for value, grad in simulate(rank, 2):
        assert value == pytest.approx(wanted, rel=1e-6)
        assert not grad[0].any() and np.isfinite(grad).all()


def test_an_infinite_word_vector_of_another_rank():
    """A rank looks its first word up in place of those that it does not have."""

    def rank(comm):
        embedding = VocabParallelEmbedding(4, 2, comm=comm)
        embedding.weight.data[...] = 1.0
        if comm.rank == 1:
            embedding.weight.data[0] = inf  # word 2
        return embedding(md.tensor([[0, 3]])).tolist()

    assert simulate(rank, 2) == [[[[1.0, 1.0], [1.0, 1.0]]]] * 2
