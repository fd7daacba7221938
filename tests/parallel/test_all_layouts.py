"""Every mesh of dp and tp on 1 to 8 ranks, with every ZeRO stage, trains as one process.

Nothing divides: 5 rows, 7 tokens, 4 heads on 3 ranks, 13 words, 12 hidden; ranks beyond the fifth
have no row at all. The batch has all its targets, or one of them: then most ranks' losses are
empty, and only the global count is right.
"""

import numpy as np
import pytest

from minidist import random
from minidist.comm import shard_range, simulate
from minidist.comm.comm_self import CommSelf
from minidist.models.gpt import GPT, GPTConfig
from minidist.optim import SGD
from minidist.parallel.clip_grad import clip_grad_norm_
from minidist.parallel.data.sum_gradients import Bucketed
from minidist.parallel.layout import full_state_dict, shards_of
from minidist.parallel.mesh import Mesh
from minidist.parallel.sequence import partial_parameters, sum_partial, sum_partial_early
from minidist.parallel.zero.optimizer import Zero
from minidist.parallel.zero.stage3 import Zero3
from minidist.tensor.tensor import Tensor

CONFIG = GPTConfig(layers=2, hidden=12, heads=4, positions=7, vocab=13, dropout=0.3)
RNG = np.random.default_rng(0)
TOKENS, WHOLE = RNG.integers(0, 13, (5, 7)), RNG.integers(0, 13, (5, 7))
ONE = np.where(np.arange(35).reshape(5, 7) == 17, WHOLE, -100)
TARGETS = {"all targets": WHOLE, "one target": ONE}
BOUND = 1e-12
MESHES = [Mesh(dp=dp, tp=tp) for tp in (1, 2, 3, 4) for dp in range(1, 9) if dp * tp <= 8]


def optimiser(model, dp, stage):
    """What updates, and what sums gradients."""
    options = {"lr": 0.1, "momentum": 0.9}
    if stage == 0:
        return SGD(model.parameters(), **options), Bucketed(model.parameters(), dp, 500)
    kind, how = (Zero3, {}) if stage == 3 else (Zero, {"stage": stage, "bucket_bytes": 500})
    zero = kind(model, dp, SGD, **how, **options)
    return zero, zero


def clip(model, updates, tp, dp, stage):
    parts = shards_of(model)
    shared = {p for name, p in model.named_parameters() if name in parts}
    if stage == 0:
        return clip_grad_norm_(model.parameters(), 0.5, tp, shared)
    own = [piece.own for piece in updates.pieces]
    mine = [piece.own for piece in updates.pieces if piece.param in shared]
    return clip_grad_norm_(own, 0.5, tp, mine, dp)


def divisor(targets, first, last, dp):
    """The global count: how many targets this rank has does not matter."""
    return (targets >= 0).sum()


def train(comm, mesh, stage, sp, targets, dtype="float64", steps=3):
    """Losses, norms and whole weights."""
    tp, dp = mesh.group(comm, "tp"), mesh.group(comm, "dp")
    model = GPT(CONFIG, tp=tp, sequence_parallel=sp).to(dtype)
    model.reset_parameters(1)
    if sp and stage > 1:
        sum_partial_early(partial_parameters(model), tp)
    updates, sums = optimiser(model, dp, stage)
    first, last = shard_range(5, dp.size, dp.rank)
    count, curve = divisor(targets, first, last, dp), []
    for step in range(steps):
        with random.at(0, step, first):
            x, y = Tensor(TOKENS[first:last]), Tensor(targets[first:last])
            loss = model.loss(x, y, reduction="sum") / float(count)
        loss.backward()
        if sp and stage < 2:
            sum_partial(partial_parameters(model), tp)
        sums.sum_gradients()
        norm = clip(model, updates, tp, dp, stage)
        updates.step()
        updates.zero_grad()
        curve.append((loss.item(), norm.item()))
    if stage < 3:
        return curve, full_state_dict(model)
    with updates.gathered():
        return curve, {k: v.copy() for k, v in full_state_dict(model).items()}


def far(results, mesh, alone):
    """The largest relative difference of losses, norms and weights, over all ranks."""
    firsts = [curve for rank, (curve, _) in enumerate(results) if rank % mesh.tp == 0]
    losses = np.sum([[loss for loss, _ in curve] for curve in firsts], 0)
    found = [np.abs(losses / [loss for loss, _ in alone[0]] - 1).max()]
    for curve, state in results:
        norms = [norm for _, norm in curve]
        found.append(np.abs(norms / np.array([norm for _, norm in alone[0]]) - 1).max())
        for name, wanted in alone[1].items():
            found.append(np.abs(state[name] - wanted).max() / (np.abs(wanted).max() + 1e-3))
    return max(found)


ALONE = {name: train(CommSelf(), Mesh(), 0, False, t) for name, t in TARGETS.items()}
LAYOUTS = [
    (mesh, stage, sp)
    for mesh in MESHES for stage in range(4) for sp in (False, True) if mesh.tp > 1 or not sp
]  # fmt: skip
NAMES = [f"{m.dp}x{m.tp} zero {z}{' sp' * sp}" for m, z, sp in LAYOUTS]


def check(mesh, stage, sp, name, dtype="float64"):
    call = lambda comm: train(comm, mesh, stage, sp, TARGETS[name], dtype)
    return far(simulate(call, mesh.size, seed=1), mesh, ALONE[name])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("mesh, stage, sp", LAYOUTS, ids=NAMES)
def test_a_layout_is_one_process(mesh, stage, sp, name):
    assert check(mesh, stage, sp, name) < BOUND


@pytest.mark.parametrize("stage", range(4))
def test_float32_fails_that_bound(stage):
    assert check(Mesh(dp=2, tp=2), stage, False, "all targets", "float32") > 100 * BOUND


@pytest.mark.parametrize("name", TARGETS)
def test_a_mean_of_means_fails_it(name, monkeypatch):
    """Each rank divides by its own targets, and the sum over ranks by their number."""
    own = lambda targets, first, last, dp: max((targets[first:last] >= 0).sum(), 1) * dp.size
    monkeypatch.setitem(globals(), "divisor", own)
    assert check(Mesh(dp=2), 0, False, name) > 100 * BOUND
