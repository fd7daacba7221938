"""What the tests of tensor-parallel layers share: training in any layout, and its error."""

import numpy as np

import minidist as md
from minidist.comm import simulate
from minidist.nn import functional as F
from minidist.optim import SGD
from minidist.parallel.layout import full_state_dict, shards_of
from minidist.tensor.tensor import Tensor

BOUND = 1e-12  # of some 1e4 operations in float64, relative to the largest entry


def train(make, comm, inputs, targets, dtype="float64", steps=5):
    """Losses, gradients of the first step and weights at the end, all whole.

    make(comm) draws the model, in float32 whatever it is trained in; make(None) is one process's.
    """
    md.manual_seed(3)
    model = make(comm).to(dtype)
    optimizer, losses, first = SGD(model.parameters(), lr=0.1, momentum=0.9), [], None
    parts = shards_of(model)
    for _ in range(steps):
        loss = F.cross_entropy(model(Tensor(inputs.astype(dtype))), Tensor(targets))
        loss.backward()
        if first is None:
            grads = {name: p.grad.data for name, p in model.named_parameters()}
            first = {k: parts[k].gather(g) if k in parts else g.copy() for k, g in grads.items()}
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, first, full_state_dict(model)


def far(ours, alone):
    """The largest difference relative to the largest entry, over losses, gradients, weights."""
    pairs = [(np.array(ours[0]), np.array(alone[0]))]
    for mine, theirs in zip(ours[1:], alone[1:]):
        assert mine.keys() == theirs.keys()
        pairs += [(mine[name], theirs[name]) for name in mine]
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


def check_layouts(make, ranks, inputs, targets):
    """Every rank ends with what one process has, and with the same bits on any schedule."""
    alone = train(make, None, inputs, targets)
    results = [simulate(lambda c: train(make, c, inputs, targets), ranks, seed=s) for s in (3, 4)]
    for ours, again in zip(*results):
        assert far(ours, alone) < BOUND
        assert ours[0] == again[0] == results[0][0][0]


def check_mutant(make, inputs, targets):
    """A wrong layer trains another model, by far."""
    alone = train(make, None, inputs, targets)
    ours = simulate(lambda c: train(make, c, inputs, targets), 2)[0]
    assert far(ours, alone) > 1e6 * BOUND
