"""Data parallel gradients: buckets hold every parameter once, and sum as the naive way does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minidist import nn
from minidist.comm import Ledger, simulate
from minidist.parallel.data import (
    Bucketed,
    broadcast_parameters,
    gradient,
    sum_gradients_naive,
)
from minidist.tensor import Tensor

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
        with Ledger(comm) as ledger:
            Bucketed(model.parameters(), comm, 64).sum_gradients()
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


def test_broadcast_makes_all_ranks_equal_to_rank_0():
    def rank(comm):
        layer = nn.Linear(2, 2)
        layer.weight.data[...] = comm.rank
        broadcast_parameters(layer, comm)
        return layer.weight.data.tolist()

    assert simulate(rank, 3) == [[[0.0, 0.0], [0.0, 0.0]]] * 3
