"""Published bugs of uneven batches and of micro-steps, each recreated and seen."""

import contextlib

import numpy as np
import pytest
from support.small import ALONE, BOUND, TARGETS, TOKENS, built, far, whole_gradients

from minidist import random
from minidist.comm import Ledger, all_reduce, shard_range, simulate
from minidist.comm.comm_self import CommSelf
from minidist.comm.errors import CommError
from minidist.parallel.buckets import gradient
from minidist.parallel.data import Bucketed, Naive, Overlapped, Synchronizer
from minidist.tensor.tensor import Tensor

WAYS = {"naive": Naive, "bucketed": Bucketed, "overlapped": Overlapped}
each_way = pytest.mark.parametrize("way", WAYS)


def rows_of(comm, n):
    return range(*shard_range(n, comm.size, comm.rank))


def part_of_loss(model, rows, targets, count, ranks):
    """What these rows add to the mean over all tokens that count."""
    index = slice(rows.start, rows.stop)
    with random.at(0, 0, rows.start):
        loss = model.loss(Tensor(TOKENS[index]), Tensor(targets[index]), reduction="sum")
    return loss / count


def result(comm, model, loss):
    total = all_reduce(comm, np.array([loss]), algorithm="ordered")
    return {"loss": total[0], **whole_gradients(model)}


# Targets that do not count

FEW = TARGETS.copy()
FEW[:3] = FEW[4] = -100
FEW[0, 3] = 5  # all that counts in the first three rows, and nothing in the last one


def on_masked_rows(comm):
    model, rows = built(), rows_of(comm, len(TOKENS))
    counts = (FEW[rows.start : rows.stop] != -100).sum()
    count = all_reduce(comm, np.array([counts]))[0]
    loss = part_of_loss(model, rows, FEW, count, comm.size)
    loss.backward()
    Bucketed(model.parameters(), comm).sum_gradients()
    return result(comm, model, loss.item())


def each_token_weighs_the_same(ranks):
    for ours in simulate(on_masked_rows, ranks):
        assert far(ours, MASKED) < BOUND


MASKED = on_masked_rows(CommSelf())


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_each_token_weighs_the_same(ranks):
    """NVIDIA/Megatron-LM#7452, items 3 and 9; pytorch/torchtitan#2206.

    A rank with one token that counts beside one with seven, and a rank with none at all.
    """
    each_token_weighs_the_same(ranks)


def mean_of_its_own(model, rows, targets, count, ranks):
    index = slice(rows.start, rows.stop)
    with random.at(0, 0, rows.start):
        return model.loss(Tensor(TOKENS[index]), Tensor(targets[index])) / ranks


def by_all_tokens(model, rows, targets, count, ranks):
    return PART(model, rows, targets, TARGETS.size, ranks)


PART = part_of_loss


@pytest.mark.parametrize("mutant", [mean_of_its_own, by_all_tokens])
def test_another_weight_is_seen(mutant, monkeypatch):
    monkeypatch.setitem(globals(), "part_of_loss", mutant)
    with pytest.raises(AssertionError):
        each_token_weighs_the_same(2)


# Ranks that have fewer batches than others


def an_epoch(comm, way):
    """Five rows in steps of one row a rank: in the last one some ranks have none."""
    model = built()
    sync, total, loss = WAYS[way](model.parameters(), comm), None, 0.0
    for first in range(0, len(TOKENS), comm.size):
        row = first + comm.rank
        if row < len(TOKENS):
            part = part_of_loss(model, range(row, row + 1), TARGETS, TARGETS.size, comm.size)
            part.backward()
            loss += part.item()
        sync.sum_gradients()
        grads = {name: gradient(p).copy() for name, p in model.named_parameters()}
        total = grads if total is None else {name: total[name] + g for name, g in grads.items()}
        model.zero_grad()
    sync.remove()
    return {"loss": all_reduce(comm, np.array([loss]), algorithm="ordered")[0], **total}


def an_epoch_of_uneven_ranks_ends(ranks, way):
    try:
        found = simulate(lambda comm: an_epoch(comm, way), ranks)
    except CommError as error:
        raise AssertionError("ranks wait for each other for ever") from error
    for ours in found:
        assert far(ours, ALONE) < BOUND


@each_way
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_an_epoch_of_uneven_ranks_ends(ranks, way):
    """deepspeedai/DeepSpeed#2223, Lightning-AI/pytorch-lightning#13498; what Horovod's join is for.

    A rank without rows takes part with zeros, and all sums are those of one process.
    """
    an_epoch_of_uneven_ranks_ends(ranks, way)


def only_with_gradients(self):
    if any(p.grad is not None for p in self.params):
        SUM(self)


SUM = Synchronizer.sum_gradients


@each_way
def test_a_rank_that_stays_away_is_seen(way, monkeypatch):
    monkeypatch.setattr(Synchronizer, "sum_gradients", only_with_gradients)
    with pytest.raises(AssertionError, match="wait for each other"):
        an_epoch_of_uneven_ranks_ends(3, way)


# Micro-steps


def in_micro_steps(comm, way):
    """Gradients of this rank's of four rows, one by one, and the bytes that it sent for them."""
    model, loss = built(), 0.0
    sync = WAYS[way](model.parameters(), comm)
    rows = rows_of(comm, 4)
    with Ledger(comm) as ledger:
        for row in rows:
            with contextlib.nullcontext() if row == rows[-1] else sync.no_sync():
                part = part_of_loss(model, range(row, row + 1), TARGETS, TARGETS.size, comm.size)
                part.backward()
                loss += part.item()
                sync.sum_gradients()
    sync.remove()
    whole = sum(p.data.nbytes for p in model.parameters())
    return result(comm, model, loss), ledger.bytes, whole


def micro_steps_send_once(ranks, way):
    results = simulate(lambda comm: in_micro_steps(comm, way), ranks)
    for ours, _, _ in results:
        assert far(ours, FOUR_ROWS) < BOUND
    sent, whole = sum(n for _, n, _ in results), results[0][2]
    assert sent == 2 * (ranks - 1) * whole, "another number of bytes than one ring"


FOUR_ROWS = in_micro_steps(CommSelf(), "naive")[0]


@each_way
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_micro_steps_send_once(ranks, way):
    """karpathy/nanochat#33: gradients sent at every micro-step; here sums of sums, too.

    karpathy/build-nanogpt#30: gradients that were not sent after the last one either.
    """
    micro_steps_send_once(ranks, way)


def nothing_is_paused(self):
    return contextlib.nullcontext()


@contextlib.contextmanager
def paused_for_ever(self):
    self.require_backward_grad_sync = False
    yield


@each_way
@pytest.mark.parametrize("mutant", [nothing_is_paused, paused_for_ever])
def test_sending_at_every_micro_step_or_never_is_seen(mutant, way, monkeypatch):
    monkeypatch.setattr(Synchronizer, "no_sync", mutant)
    with pytest.raises(AssertionError):
        micro_steps_send_once(2, way)
