"""Data parallel gradients: buckets hold every parameter once, and sum as the naive way does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.replicas import WAYS, slices

from minidist import nn
from minidist.comm import Ledger, simulate
from minidist.nn import functional as F
from minidist.parallel.buckets import fill_buckets, gradient
from minidist.parallel.data.sum_gradients import (
    Bucketed,
    broadcast_parameters,
    sum_gradients_naive,
)
from minidist.tensor.tensor import Tensor

each_way = pytest.mark.parametrize("way", WAYS)
widths = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def model_with_gradients(widths: list[int], rank: int) -> nn.Module:
    """Biases of given widths with small whole numbers as gradients: sums are exact."""
    model = nn.ModuleList(nn.Linear(2, w) for w in widths)
    for i, p in enumerate(model.parameters()):
        p.grad = Tensor(np.arange(p.numel(), dtype=p.dtype).reshape(p.shape) + 10 * i + rank)
    return model


@given(widths, st.integers(1, 4), st.integers(1, 200), st.sampled_from(["ring", "naive"]))
def test_bucketed_equals_naive(widths, ranks, bucket_bytes, algorithm):
    def rank(comm):
        ours, naive = (model_with_gradients(widths, comm.rank) for _ in range(2))
        Bucketed(ours.parameters(), comm, bucket_bytes, algorithm).sum_gradients()
        sum_gradients_naive(naive.parameters(), comm, algorithm)
        pairs = zip(ours.parameters(), naive.parameters())
        return [(a.grad.data.tolist(), b.grad.data.tolist()) for a, b in pairs]

    for pairs in simulate(rank, ranks):
        for ours, naive in pairs:
            assert ours == naive


@given(widths, st.integers(1, 200))
def test_buckets_are_full_and_in_reverse_order(widths, bucket_bytes):
    params = list(model_with_gradients(widths, 0).parameters())
    buckets = simulate(lambda comm: Bucketed(params, comm, bucket_bytes).buckets, 1)[0]
    assert [id(p) for b in buckets for p in b] == [id(p) for p in params[::-1]]
    sizes = [sum(p.data.nbytes for p in b) for b in buckets]
    assert all(n <= bucket_bytes or len(b) == 1 for n, b in zip(sizes, buckets))
    nexts = [b[0].data.nbytes for b in buckets[1:]]
    assert all(n + more > bucket_bytes for n, more in zip(sizes, nexts)), "a bucket closed early"


@given(widths, st.integers(1, 4))
def test_bytes_are_those_of_the_ring(widths, ranks):
    def rank(comm):
        model = model_with_gradients(widths, comm.rank)
        sums = Bucketed(model.parameters(), comm, 64)  # it broadcasts the weights
        with Ledger(comm) as ledger:
            sums.sum_gradients()
        return ledger.bytes, sum(p.data.nbytes for p in model.parameters())

    results = simulate(rank, ranks)
    assert sum(sent for sent, _ in results) == 2 * (ranks - 1) * results[0][1]


def test_a_parameter_without_gradient_counts_as_zeros():
    def rank(comm):
        p = nn.Parameter(np.ones(3))
        if comm.rank == 0:
            p.grad = Tensor(np.full(3, 5.0))
        Bucketed([p], comm).sum_gradients()
        return gradient(p).tolist()

    assert simulate(rank, 3) == [[5.0] * 3] * 3


@given(st.lists(st.sampled_from(["float32", "float64", "float16", "bfloat16"])), widths)
def test_a_bucket_is_of_one_dtype_and_comes_when_its_last_parameter_does(dtypes, bucket_widths):
    params = [nn.Parameter(Tensor(np.ones(2), dtype=dtype)) for dtype in dtypes]
    turn = {id(p): i for i, p in enumerate(params)}
    buckets = fill_buckets(params, 20)
    assert all(len({p.dtype for p in bucket}) == 1 for bucket in buckets)
    last = [turn[id(bucket[-1])] for bucket in buckets]
    assert last == sorted(last) and sorted(turn.values()) == sorted(
        turn[id(p)] for bucket in buckets for p in bucket
    )


@each_way
def test_tied_once_and_frozen_never(way):
    def rank(comm):
        tied, frozen = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(2), requires_grad=False)
        sync = WAYS[way]([tied, frozen, tied], comm, 1)
        with Ledger(comm) as ledger:
            (tied * tied.detach() + tied).sum().backward()
            sync.sum_gradients()
        return tied.grad.tolist(), frozen.grad, ledger.by("collective")

    for tied, frozen, sent in simulate(rank, 2):
        assert tied == [4.0] * 3 and frozen is None
        assert sent == {("all_reduce",): (2, 24)}


@each_way
@pytest.mark.parametrize("ranks", [1, 3])
def test_nothing_to_train(way, ranks):
    frozen = nn.Parameter(np.ones(2), requires_grad=False)
    assert simulate(lambda c: WAYS[way]([frozen], c, 1).sum_gradients(), ranks) == [None] * ranks


# The loss: local sums, divided once by the global count


def weighted(comm, counts, way, mean_of_means=False):
    """The gradient of a loss weighted by token, this rank's rows by `counts`."""
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((sum(counts), 3)), rng.integers(0, 3, sum(counts))
    w[0] = w[-1] = 5
    weight = nn.Parameter(np.linspace(-1, 1, 6).reshape(2, 3))
    sync = WAYS[way]([weight], comm, 8)
    rows = slices(counts)[comm.rank]
    losses = F.cross_entropy(
        F.linear(Tensor(x[rows]), weight), Tensor(w[rows] % 2), reduction="none"
    )
    count = max(w[rows].sum(), 1) * comm.size if mean_of_means else w.sum()
    ((losses * Tensor(w[rows].astype(float))).sum() / count).backward()
    sync.sum_gradients()
    return weight.grad.data


@each_way
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(lambda c: sum(c) > 1))
def test_token_weighted_losses_are_divided_once(way, counts):
    one = simulate(lambda comm: weighted(comm, [sum(counts)], "naive"), 1)[0]
    for many in simulate(lambda comm: weighted(comm, counts, way), len(counts)):
        np.testing.assert_allclose(many, one, rtol=1e-12, atol=1e-14)


@each_way
def test_a_mean_of_means_is_another_loss(way):
    one = simulate(lambda comm: weighted(comm, [7], "naive"), 1)[0]
    wrong = simulate(lambda comm: weighted(comm, [4, 1, 2], way, mean_of_means=True), 3)[0]
    assert np.abs(wrong - one).max() > 1e-2 * np.abs(one).max()


# Where the ranks begin


def test_broadcast_makes_all_ranks_equal_to_rank_0():
    def rank(comm):
        layer, norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        model = nn.Sequential(layer, norm)
        layer.weight.data[...] = comm.rank
        norm.running_var.data[...] = comm.rank + 2
        norm.num_batches_tracked.data[...] = comm.rank + 3
        broadcast_parameters(model, comm)
        return {name: array.tolist() for name, array in model.state_dict().items()}

    first, *others = simulate(rank, 3)
    assert all(state == first for state in others)
    assert first["0.weight"] == [[0.0, 0.0], [0.0, 0.0]]
    assert first["1.running_var"] == [2.0, 2.0] and first["1.num_batches_tracked"] == 3
