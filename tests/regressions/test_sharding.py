"""Bugs of sharded training: sums over the wrong axis, and states that a reload drops."""

import numpy as np
import pytest

from minidist import nn
from minidist.comm import shard_range, simulate
from minidist.optim import SGD
from minidist.parallel.data.sum_gradients import Bucketed
from minidist.parallel.mesh import Mesh
from minidist.parallel.zero.optimizer import Zero
from minidist.tensor.random import generator
from minidist.tensor.tensor import Tensor

X, Y = np.random.default_rng(0).normal(size=(2, 6, 3))


def layer():
    model = nn.Linear(3, 3).double()
    for name, p in model.named_parameters():
        p.data[...] = generator(0, name).standard_normal(p.shape)
    return model


def step(model, comm, updates, sums):
    first, last = shard_range(6, comm.size, comm.rank)
    loss = (model(Tensor(X[first:last])) - Tensor(Y[first:last])).square().sum() / 18
    loss.backward()
    sums.sum_gradients()
    updates.step()
    updates.zero_grad()


def replicated(comm, steps=4):
    model = layer()
    updates, sums = (
        SGD(model.parameters(), lr=0.5, momentum=0.9),
        Bucketed(model.parameters(), comm),
    )
    for _ in range(steps):
        step(model, comm, updates, sums)
    return model.state_dict()


def hybrid(comm, axes=("tp", "dp")):
    """Shards within pairs (the inner axis here), replicas across them."""
    mesh = Mesh(dp=2, tp=2)
    shard, across = (mesh.group(comm, axis) for axis in axes)
    model = layer()
    zero = Zero(model, shard, SGD, stage=2, replicate_comm=across, lr=0.5, momentum=0.9)
    for _ in range(4):
        step(model, comm, zero, zero)
    return model.state_dict()


def assert_equal(found, wanted):
    for state in found:
        for name, array in wanted.items():
            np.testing.assert_allclose(state[name], array, rtol=0, atol=1e-12)


def test_hybrid_shards_are_summed_over_the_replicas():
    """pytorch/torchtitan#2318: hybrid sharding summed over another axis than the replicas'."""
    wanted = simulate(replicated, 4)[0]
    assert_equal(simulate(hybrid, 4), wanted)
    with pytest.raises(AssertionError):  # over the shards again
        assert_equal(simulate(lambda comm: hybrid(comm, ("tp", "tp")), 4), wanted)


def goes_on(comm, keeps):
    """Two steps, a reload in a new object, two more."""
    model = layer()
    zero = Zero(model, comm, SGD, stage=1, lr=0.5, momentum=0.9)
    for _ in range(2):
        step(model, comm, zero, zero)
    state = zero.full_state_dict()
    zero.close()
    other = layer()
    again = Zero(other, comm, SGD, stage=1, lr=0.5, momentum=0.9)
    again.load_full_state_dict(state if keeps else {**state, "optimizer": {}})
    for _ in range(2):
        step(other, comm, again, again)
    return other.state_dict()


def test_moments_survive_a_reload():
    """NVIDIA/Megatron-LM#1602, inclusionAI/AReaL#1468: optimiser moments were dropped, silently."""
    wanted = simulate(replicated, 3)[0]
    assert_equal(simulate(lambda comm: goes_on(comm, True), 3), wanted)
    with pytest.raises(AssertionError):
        assert_equal(simulate(lambda comm: goes_on(comm, False), 3), wanted)
