"""Tensor and sequence parallelism of the GPT "on a GPU": the CPU's loss and gradients."""

import numpy as np
import pytest
from support.double import gpu

from minidist import random
from minidist.comm import simulate
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.sequence import partial_parameters, sum_partial
from minidist.tensor.tensor import Tensor

TOKENS = np.arange(9) % 7


def step(comm, sp, device):
    model = GPT(GPTConfig(1, 8, 2, 4, 7, 0.3), tp=comm, sequence_parallel=sp).to(device)
    x, y = (Tensor(TOKENS[k : k + 8].reshape(2, 4).copy()).to(device) for k in (0, 1))
    with random.at(0, 0, 0):
        loss = model.loss(x, y, reduction="sum")
    loss.backward()
    if sp:
        sum_partial(partial_parameters(model), comm)
    return loss.item(), [p.grad.cpu().data for p in model.parameters()]


@pytest.mark.parametrize("sp", [False, True])
def test_two_ranks_there_are_two_ranks_here(sp):
    here = simulate(lambda comm: step(comm, sp, "cpu"), 2)
    with gpu():
        there = simulate(lambda comm: step(comm, sp, "cuda"), 2)
    for (loss, grads), (expected, wanted) in zip(there, here):
        assert loss == pytest.approx(expected, rel=1e-5)
        for g, w in zip(grads, wanted):
            np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-5)
