"""Published bugs of what goes over the wire: its strides, and the bits it is summed in."""

import numpy as np
import pytest
from minidist.kernels.half_precision import BFLOAT16, cast, wide

from minidist import nn
from minidist.comm import all_gather, simulate
from minidist.ops import communication
from minidist.parallel.data import sum_gradients as data
from minidist.parallel.data.sum_gradients import Bucketed, Naive
from minidist.tensor.tensor import Tensor

# Views

BASE = np.arange(48.0).reshape(6, 8)
VIEWS = {
    "transposed": lambda x: x.T,
    "every second column": lambda x: x[:, ::2],
    "backwards": lambda x: x[::-1, ::-1],
    "in Fortran's order": np.asfortranarray,
    "one row often": lambda x: np.broadcast_to(x[0], (5, 8)),
}


def of_rank(view, rank):
    return VIEWS[view](BASE + 100 * rank)


def collectives(comm, view):
    """Forward and backward of each, of views, along the last dimension."""
    cotangent, found = Tensor.of(of_rank(view, comm.rank)), []
    x = Tensor.of(of_rank(view, comm.rank)).requires_grad_()
    communication.copy(x, comm).backward(cotangent)
    found.append(x.grad.data)
    found.append(communication.reduce(x, comm).data)
    found.append(communication.all_gather(x, comm, -1).data)
    y = communication.reduce_scatter(x, comm, -1)
    return [*found, communication.gather(y, comm, -1).data]


def views_arrive_as_they_read(ranks, view):
    each = [of_rank(view, rank) for rank in range(ranks)]
    total = sum(each)
    wanted = [total, total, np.concatenate(each, axis=-1), total]
    for found in simulate(lambda comm: collectives(comm, view), ranks):
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_views_arrive_as_they_read(ranks, view):
    """Megatron-LM's mappings, by way of NovaSky-AI/SkyRL#1886: all-reduce of a view's copy.

    The sum went into the copy, and the view came back as it was, in backward alone.
    """
    views_arrive_as_they_read(ranks, view)


def into_a_copy(comm, x):
    total = SUMMED(comm, np.ascontiguousarray(x))
    return total if x.flags.c_contiguous else x


def as_it_lies_in_memory(collective, comm, x, dim, *args):
    moved = np.moveaxis(x, dim, 0)
    lying = x.ravel("K").reshape(moved.shape)
    return np.moveaxis(collective(comm, lying, *args), 0, dim)


SUMMED = communication.summed


@pytest.mark.parametrize(
    "name, mutant, view",
    [
        ("summed", into_a_copy, "transposed"),
        ("_first", as_it_lies_in_memory, "every second column"),
    ],
)
def test_a_view_taken_for_its_memory_is_seen(name, mutant, view, monkeypatch):
    monkeypatch.setattr(communication, name, mutant)
    with pytest.raises(AssertionError):
        views_arrive_as_they_read(2, view)


# Sums in 16 bits


def summed_gradient(comm, way):
    """256 of rank 0 and 1 of each other: bfloat16 has no 257, so each 1 would be lost alone."""
    p = nn.Parameter(Tensor(np.ones(3), dtype="bfloat16"))
    p.grad = Tensor(np.full(3, 1.0 if comm.rank else 256.0), dtype="bfloat16")
    way([p], comm, algorithm="ordered").sum_gradients()
    assert p.grad.data.dtype == BFLOAT16
    return p.grad.float().data


def halves_are_summed_in_float32(way):
    for g in simulate(lambda comm: summed_gradient(comm, way), 5):
        assert (g == 260).all()


@pytest.mark.parametrize("way", [Naive, Bucketed])
def test_halves_are_summed_in_float32(way):
    """Megatron-LM tests its reduce-scatter with float32 sums: bfloat16 hops lose what is small."""
    halves_are_summed_in_float32(way)


def rounded_at_every_hop(comm, array, op, algorithm, *, out):
    parts = all_gather(comm, array[None])
    total = cast(parts[0], BFLOAT16)
    for part in parts[1:]:
        total = cast(wide(total) + part, BFLOAT16)
    out[...] = wide(total)
    return out


@pytest.mark.parametrize("way", [Naive, Bucketed])
def test_rounding_at_every_hop_is_seen(way, monkeypatch):
    monkeypatch.setattr(data, "all_reduce", rounded_at_every_hop)
    with pytest.raises(AssertionError, match="256"):
        halves_are_summed_in_float32(way)
