"""A pipeline of a GPT, and backward in two halves, "on a GPU": the CPU's losses and gradients."""

import numpy as np
import pytest
from support.double import gpu
from support.proofs import proofs

from minidist import nn, random
from minidist.autograd.split import backward_input
from minidist.autograd.tape import source
from minidist.comm import simulate
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.clip_grad import clip_grad_norm_
from minidist.parallel.pipeline.cut import ranges
from minidist.parallel.pipeline.run.runtime import Pipeline
from minidist.parallel.pipeline.schedules import make
from minidist.tensor.tensor import Tensor

TOKENS = np.arange(25) % 7


def step(comm, kind, chunks, device):
    schedule = make(kind, comm.size, 3 if chunks == 1 else 4, chunks)
    layers, mine = ranges(4, schedule.stages), schedule.stages_of(comm.rank)
    model = GPT(GPTConfig(4, 8, 2, 4, 7, 0.3), layers=[i for s in mine for i in layers[s]])
    model.to(device).part_head()
    stages = {s: lambda x, part=layers[s]: model.stage(x, part) for s in mine}
    criterion = lambda y, target: model.loss_of(y, target, "sum")
    pipeline = Pipeline(model, stages, criterion, comm, schedule)
    rows = [slice(4 * i, 4 * i + 4) for i in range(schedule.microbatches)]
    xs, ys = (
        [Tensor(TOKENS[k:][part].reshape(1, 4).copy()).to(device) for part in rows] for k in (0, 1)
    )
    loss = pipeline.step(xs, ys, lambda i: random.at(0, 0, i), 1 / 12)
    model.join_head()
    norm = clip_grad_norm_(
        model.parameters(), 0.1, comm.split(comm.rank), stages=comm, counted=pipeline.tied.counted
    )
    total = pipeline.evaluate(xs, ys)
    return loss, total, norm.item(), [p.grad.cpu().data for p in model.parameters()]


@pytest.mark.parametrize("kind, chunks", [("zbv", 2), *proofs(("1f1b", 1), ("zb-h1", 1))])
def test_two_stages_there_are_two_stages_here(kind, chunks):
    here = simulate(lambda comm: step(comm, kind, chunks, "cpu"), 2)
    with gpu():
        there = simulate(lambda comm: step(comm, kind, chunks, "cuda"), 2)
    for (*numbers, grads), (*expected, wanted) in zip(there, here):
        assert numbers == pytest.approx(expected, rel=1e-5)
        for g, w in zip(grads, wanted):
            np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-5)


def test_recurrent_layers_are_split_there():
    def halves(device):
        layer = nn.LSTM(3, 4)
        for i, p in enumerate(layer.parameters()):
            p.data[...] = np.random.default_rng(i).standard_normal(p.shape)
        layer.to(device)
        x = Tensor(np.ones((5, 2, 3), "f4")).to(device).requires_grad_()
        y = layer(x)[0]
        later = backward_input(source(y), Tensor(np.ones((5, 2, 4), "f4")).to(device).data, [x])
        assert all(p.grad is None for p in layer.parameters())
        later.backward()
        return [t.grad.cpu().data for t in (x, *layer.parameters())]

    here = halves("cpu")
    with gpu():
        there = halves("cuda")
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
