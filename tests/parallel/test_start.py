"""How replicas begin and what becomes of their gradients: in every way that sums gradients.

Each rank starts with rank 0's weights, gradients are summed or averaged, and who is unfrozen too
late is named.
"""

import warnings

import numpy as np
import pytest

from minidist import nn, optim, random
from minidist.comm import simulate
from minidist.parallel import Bucketed, Mesh, Naive, Overlapped, Zero, Zero3
from minidist.parallel.pipeline.run.tied import Tied
from minidist.tensor.tensor import Tensor

X = np.random.default_rng(0).standard_normal((8, 3))


def synchronizer(cls):
    def make(model, comm, **options):
        sync = cls(model, comm, **options)
        return sync, optim.SGD(model.parameters(), lr=0.5)

    return make


def zero(cls, hybrid=False, **stage):
    def make(model, comm, **options):
        across = None
        if hybrid:
            mesh = Mesh(dp=2, tp=2)
            comm, across = mesh.group(comm, "tp"), mesh.group(comm, "dp")
        made = cls(model, comm, optim.SGD, lr=0.5, replicate_comm=across, **stage, **options)
        return made, made

    return make


WAYS = {
    "naive": synchronizer(Naive), "bucketed": synchronizer(Bucketed),
    "overlapped": synchronizer(Overlapped), "ZeRO 1": zero(Zero, stage=1),
    "ZeRO 2": zero(Zero, stage=2), "ZeRO 3": zero(Zero3),
    "hybrid 1": zero(Zero, hybrid=True, stage=1), "hybrid 3": zero(Zero3, hybrid=True),
}  # fmt: skip
each_way = pytest.mark.parametrize("way", WAYS)


def model_of(seed):
    """A model with a frozen layer and buffers, in float64."""
    random.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    model[1].running_mean.data[...] = seed
    model[0].bias.requires_grad_(False)
    return model.eval()  # batch norm with its buffers: rows do not depend on each other


def trained(comm, way, mean=True, seed=0, **options):
    """Weights and buffers after two steps on this rank's rows, with the loss of DDP, or a sum."""
    model, size = model_of(seed), comm.size
    sync, optimizer = WAYS[way](model, comm, **options)
    rows = Tensor(X[8 * comm.rank // size : 8 * (comm.rank + 1) // size])
    for _ in range(2):
        losses = model(rows).square()
        (losses.mean() if mean else losses.sum() / X.size * 1.5).backward()
        sync.sum_gradients()
        optimizer.step()
        optimizer.zero_grad()
    if isinstance(sync, Zero):
        return sync.full_state_dict()["model"]
    return {k: v.copy() for k, v in model.state_dict().items()}


def assert_close(found, wanted):
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-12, err_msg=name)


@each_way
def test_ranks_that_are_seeded_differently_train_rank_0s_model(way):
    alone = trained_alone()
    for found in simulate(lambda comm: trained(comm, way, False, seed=comm.rank), 4):
        assert_close(found, alone)


def trained_alone():
    return simulate(lambda comm: trained(comm, "naive"), 1)[0]


@each_way
def test_average_is_for_the_mean_of_a_ranks_rows_and_the_default_is_the_sum(way):
    alone = trained_alone()
    for found in simulate(lambda comm: trained(comm, way, average=True), 4):
        assert_close(found, alone)
    summed = simulate(lambda comm: trained(comm, way), 4)[0]
    with pytest.raises(AssertionError):  # the step of DDP's loss is four times too long
        assert_close(summed, alone)


@each_way
def test_a_parameter_that_is_unfrozen_too_late_is_named_once(way):
    def main(comm):
        model = model_of(0)
        bias = model[0].bias
        sync, optimizer = WAYS[way](model, comm)
        for unfrozen in (False, True, True):
            bias.requires_grad_(unfrozen)
            model(Tensor(X)).sum().backward()
            sync.sum_gradients()
            optimizer.zero_grad()

    ranks = 4 if "hybrid" in way else 2
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        simulate(main, ranks)
    texts = [str(w.message) for w in found]
    assert len(texts) == ranks, texts
    assert all("now require gradients: 0.bias. " in t for t in texts), texts


WRONG = {
    "in another order": lambda comm, model: Bucketed(comm, model),
    "no communicator": lambda comm, model: Bucketed(model, "ring"),
    "Zero in another order": lambda comm, model: Zero(comm, model, optim.Adam),
    "an optimiser, not its class": lambda comm, model: Zero(
        model, comm, optim.Adam(model.parameters())
    ),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_arguments_of_the_wrong_kind_say_what_is_wanted(make):
    wanted = r"want a model .* then a communicator|needs the optimiser's class, got Adam"
    with pytest.raises(TypeError, match=wanted):
        simulate(lambda comm: make(comm, nn.Linear(2, 1)), 2)


def test_only_the_replicas_of_a_shard_begin_alike():
    """With tensor parallelism each rank's shard goes to those of its data-parallel group only."""

    def main(comm):
        mesh = Mesh(dp=2, tp=2)
        model = nn.Linear(2, 1)
        model.weight.data[...] = comm.rank
        Bucketed(model, mesh.group(comm, "dp"))
        return model.weight.data[0, 0].item(), mesh.group(comm, "tp").rank

    assert simulate(main, 4) == [(0.0, 0), (1.0, 1), (0.0, 0), (1.0, 1)]


def test_the_copies_of_a_tied_parameter_on_two_stages_begin_alike():
    def main(comm):
        model = nn.Linear(2, 1)
        model.weight.data[...] = comm.rank
        Tied(model, comm)
        return model.weight.data[0, 0].item()

    assert simulate(main, 3) == [0.0, 0.0, 0.0]
