"""Any number of ranks gives the same training: losses at every step, and every parameter after."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist import data, random
from minidist.comm import simulate
from minidist.parallel.buckets import gradient
from minidist.parallel.data import sum_gradients as data_parallel
from minidist.train import loop, step
from minidist.train.config import TrainConfig
from minidist.train.loop import Trainer

CONFIG = TrainConfig(
    model="gpt-nano", steps=4, batch=7, seq=16, warmup=2, dropout=0.1, dtype="float64", seed=3
)
CORPUS = data.load("docs", CONFIG.seq)


def trained(config: TrainConfig, ranks: int, seed: int | None = None) -> tuple[list, dict]:
    """Every step's loss and gradient norm, and the parameters after the last, on all ranks."""

    def rank(comm):
        trainer = Trainer(config, comm, CORPUS)
        numbers = [(r["loss"], r["grad_norm"]) for r in trainer.run(0, 0)]
        return numbers, {k: v.copy() for k, v in trainer.model.state_dict().items()}

    results = simulate(rank, ranks, seed=seed)
    for numbers, state in results[1:]:
        assert numbers == results[0][0], "ranks report different losses"
        for name, array in state.items():
            assert array.tobytes() == results[0][1][name].tobytes(), f"{name} differs by rank"
    return results[0]


def excess(one: tuple, many: tuple) -> float:
    """The largest difference of two trainings as a multiple of what rounding may cause.

    Losses and norms agree to 1e-10. Adam divides by sqrt(v) + 1e-8, so the rounding (1e-16) of a
    gradient that is truly zero, as a key's bias has, moves a parameter by up to 1e-8 · lr a step.
    """
    numbers = np.abs(np.array(many[0]) / np.array(one[0]) - 1).max()
    parts = max(np.abs(many[1][k] - v).max() for k, v in one[1].items())
    return max(numbers / 1e-10, parts / (1e-6 * CONFIG.lr))


@pytest.fixture(scope="module")
def alone():
    return trained(CONFIG, 1)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_do_not_change_the_training(alone, ranks):
    assert excess(alone, trained(CONFIG, ranks)) < 1


def test_float32_fails_that_bound(alone):
    low = replace(CONFIG, dtype="float32")
    assert excess(trained(low, 1), trained(low, 3)) > 1


@settings(max_examples=6)
@given(
    ranks=st.integers(1, 5),
    extra=st.integers(0, 4),
    seq=st.integers(1, 12),
    bucket_mib=st.sampled_from([0.001, 0.05, 4.0]),
    dropout=st.sampled_from([0.0, 0.3]),
    order=st.integers(0, 99),
)
def test_any_sizes(ranks, extra, seq, bucket_mib, dropout, order):
    config = replace(
        CONFIG, steps=2, batch=ranks + extra, seq=seq, bucket_mib=bucket_mib, dropout=dropout
    )
    one, many = trained(config, 1), trained(config, ranks, seed=order)
    assert excess(one, many) < 1


def test_the_order_of_simulated_ranks_changes_no_bit():
    assert excess(trained(CONFIG, 4), trained(CONFIG, 4, seed=7)) == 0


def no_all_reduce(self):
    """Mutant: gradients stay local."""


def mean_of_means(self, reduce=data_parallel.Bucketed.sum_gradients):
    """Mutant: every rank divides by its own count, then the means are averaged."""
    rows = loop.shard_range(CONFIG.batch, self.comm.size, self.comm.rank)
    for bucket in self.buckets:
        for p in bucket:
            p.grad.data *= CONFIG.batch / (rows[1] - rows[0]) / self.comm.size
    reduce(self)


def last_bucket_forgotten(self):
    """Mutant: the embedding's bucket is never sent."""
    for bucket in self.buckets[:-1]:
        self._sum([gradient(p) for p in bucket])


def test_a_mean_of_means_is_caught(monkeypatch, alone):
    monkeypatch.setattr(data_parallel.Bucketed, "sum_gradients", mean_of_means)
    assert excess(alone, trained(CONFIG, 3)) > 1


@pytest.mark.parametrize("mutant", [no_all_reduce, last_bucket_forgotten])
def test_a_dropped_all_reduce_is_caught(monkeypatch, mutant):
    monkeypatch.setattr(data_parallel.Bucketed, "sum_gradients", mutant)
    with pytest.raises(AssertionError, match="ranks report different"):
        trained(replace(CONFIG, bucket_mib=0.01), 3)


def test_dropout_by_local_row_is_caught(monkeypatch, alone):
    place = random.at
    monkeypatch.setattr(step.random, "at", lambda seed, step, first: place(seed, step, 0))
    assert excess(alone, trained(CONFIG, 3)) > 1


def test_loss_starts_at_a_uniform_guess(alone):
    assert alone[0][0][0] == pytest.approx(np.log(256), rel=0.05)


def test_evaluation_does_not_depend_on_the_ranks():
    config = replace(CONFIG, steps=1)

    def rank(comm):
        return Trainer(config, comm, CORPUS).evaluate()

    assert simulate(rank, 1)[0] == pytest.approx(simulate(rank, 3)[0], rel=1e-12)
