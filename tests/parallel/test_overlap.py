"""Three ways to sum gradients give one result, to the bit; the overlapped one inside backward."""

import contextlib
from collections import deque
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.double import gpu
from support.replicas import CASES, WAYS, Tangle, bits, excess, trained

from minidist import nn, ones, random
from minidist.comm import Clock, CommError, Ledger, all_reduce, simulate
from minidist.parallel.data import sum_gradients as overlap
from minidist.parallel.data.sum_gradients import Bucketed, Overlapped
from minidist.tensor.tensor import Tensor

RANKS, SEEDS = st.integers(1, 5), st.none() | st.integers(0, 99)
SHARES = st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(lambda c: sum(c) > 1)
each_way = pytest.mark.parametrize("way", WAYS)


def tangled(comm, make, bucket_bytes, dtype="float32", micro=(2,), steps=2, zero=True):
    """Gradients of a Tangle on this rank's own inputs, after each step."""
    model, found = Tangle(dtype), []
    sync = make(model.parameters(), comm, bucket_bytes)
    rng = np.random.default_rng(comm.rank)
    for step in range(steps):
        for i, rows in enumerate(micro):
            x = Tensor(rng.standard_normal((rows, 3)), dtype=model.first.weight.dtype)
            with sync.no_sync() if i < len(micro) - 1 else contextlib.nullcontext():
                model(x, use=(comm.rank + i + step) % 2 == 0).sum().backward()
                sync.sum_gradients()
        grads = {k: p.grad for k, p in model.named_parameters()}
        found.append({k: g if g is None else g.data.tobytes() for k, g in grads.items()})
        model.zero_grad(set_to_none=zero)
    sync.remove()
    return found


@settings(max_examples=40)
@given(
    ranks=RANKS, bucket_bytes=st.integers(1, 400), seed=SEEDS,
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    micro=st.lists(st.integers(1, 2), min_size=1, max_size=3), zero=st.booleans(),
)  # fmt: skip
def test_three_ways_have_the_same_bits(ranks, bucket_bytes, seed, dtype, micro, zero):
    """Tied, frozen and unused parameters, two dtypes, micro-batches, any bucket and schedule."""

    def rank(comm):
        return [tangled(comm, WAYS[w], bucket_bytes, dtype, micro, zero=zero) for w in WAYS]

    results = simulate(rank, ranks, seed=seed)
    first = results[0][0]
    assert all(found == first for ways in results for found in ways)
    unused = {name for name, g in first[-1].items() if g is not None and not any(g)}
    assert {"never.weight", "never.bias"} <= unused, "zeros, also where no rank has a gradient"
    assert {name for name, g in first[-1].items() if g is None} == {"frozen.weight", "frozen.bias"}


# Against one process


@pytest.fixture(scope="module")
def alone():
    return {(name, n): simulate(partial(trained, name=name, counts=[n], make=WAYS["naive"]), 1)[0]
            for name in CASES for n in (5, 8)}  # fmt: skip


COUNTS = [[5, 0], [0, 3, 2], [2, 1, 0, 5], [1, 0, 3, 1, 0]]


@each_way
@pytest.mark.parametrize("name", CASES)
def test_training_is_that_of_one_process(alone, name, way):
    for counts in COUNTS:
        program = partial(trained, name=name, counts=counts, make=WAYS[way])
        results = simulate(program, len(counts), seed=len(counts))
        assert excess(alone[name, sum(counts)], results[0]) < 1
        assert all(bits(found) == bits(results[0]) for found in results)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8)
@given(counts=SHARES, bucket_bytes=st.integers(1, 5000), seed=SEEDS)
def test_any_shares(name, counts, bucket_bytes, seed):
    one = simulate(partial(trained, name=name, counts=[sum(counts)], make=WAYS["naive"]), 1)[0]
    program = partial(trained, name=name, counts=counts, make=Overlapped, bucket_bytes=bucket_bytes)
    assert excess(one, simulate(program, len(counts), seed=seed)[0]) < 1


@pytest.mark.parametrize("name", CASES)
def test_float32_fails_that_bound(alone, name):
    program = partial(
        trained, name=name, counts=[3, 0, 2], make=WAYS["overlapped"], dtype="float32"
    )
    assert excess(alone[name, 5], simulate(program, 3)[0]) > 1


# When it sends


def deep(width=4, layers=4):
    random.manual_seed(0)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))


def test_buckets_leave_inside_backward():
    def rank(comm):
        model, seen = deep(), []
        sync = Overlapped(model.parameters(), comm, 64)
        with Ledger(comm) as ledger:
            model[0].weight.register_hook(lambda _: seen.append((ledger.messages, sync.next)))
            model(ones(2, 4)).sum().backward()
            inside = ledger.messages
            sync.sum_gradients()
        return seen[0], inside, ledger.messages, len(sync.buckets)

    for seed in (None, *range(5)):
        for (sent, launched), inside, all_sent, buckets in simulate(rank, 3, seed=seed):
            assert buckets == 8 and launched == 7, "all but the last, before its gradient"
            assert 0 < sent <= inside <= all_sent


def test_a_hook_lets_earlier_buckets_go_on():
    """The first bucket arrives before the last leaves: without that nothing moves in backward."""

    def rank(comm, progress):
        model = deep()
        sync = Overlapped(model.parameters(), comm, 64)
        if not progress:
            sync._progress = lambda: None
        model(ones(2, 4)).sum().backward()
        left = len(sync.pending)
        sync.sum_gradients()
        return left

    assert max(simulate(partial(rank, progress=True), 2)) < 8
    assert simulate(partial(rank, progress=False), 2) == [8, 8]


def test_communication_is_hidden_behind_computation():
    """On the virtual clock: 8 s of backward, 1 s for each of 8 buckets; the last one is seen."""

    def rank(comm, way):
        model = deep(layers=8)
        for layer in model:
            layer.bias = None
            layer.weight.register_hook(lambda _: comm.compute(1000))
        sync = WAYS[way](model.parameters(), comm, 64)
        start = comm.time()
        model(ones(2, 4)).sum().backward()
        sync.sum_gradients()
        return comm.time() - start

    def seconds(way):  # 64 bytes on 2 ranks: 2 messages of 32
        return max(simulate(partial(rank, way=way), 2, clock=Clock(0, 1 / 64, 1e-3), debug=0))

    assert seconds("naive") == pytest.approx(16, 0.01)
    assert seconds("bucketed") == pytest.approx(16, 0.01)
    assert seconds("overlapped") == pytest.approx(9, 0.02)


@each_way
@given(ranks=st.integers(2, 5), micro=st.integers(1, 4))
@settings(max_examples=10)
def test_accumulation_sends_with_the_last_micro_batch_alone(way, ranks, micro):
    def rank(comm):
        model, counts = deep(), []
        sync = WAYS[way](model.parameters(), comm, 100)
        with Ledger(comm) as ledger:
            for i in range(micro):
                with sync.no_sync() if i < micro - 1 else contextlib.nullcontext():
                    model(ones(1, 4)).sum().backward()
                    sync.sum_gradients()
                counts.append(ledger.messages)
        return counts, ledger.bytes, sum(p.nbytes for p in model.parameters())

    results = simulate(rank, ranks)
    for counts, _, _ in results:
        assert counts[:-1] == [0] * (micro - 1) and counts[-1] > 0
    assert sum(sent for _, sent, _ in results) == 2 * (ranks - 1) * results[0][2]


@each_way
def test_alone_nothing_is_sent_copied_or_hung_up(way):
    def rank(comm):
        model = deep()
        sync = WAYS[way](model.parameters(), comm, 64)
        with Ledger(comm) as ledger:
            model(ones(2, 4)).sum().backward()
            before = [p.grad.data for p in model.parameters()]
            sync.sum_gradients()
        assert all(p.grad.data is g for p, g in zip(model.parameters(), before))
        assert all(p.node.hooks is None for p in model.parameters())
        return ledger.messages, comm.numbers

    assert simulate(rank, 1)[0][0] == 0


def test_gradients_stay_in_the_buckets():
    def rank(comm):
        model = deep()
        sync = Overlapped(model.parameters(), comm)
        model(ones(2, 4)).sum().backward()
        sync.sum_gradients()
        (bucket,) = sync.buckets
        assert all(p.grad.data.base is bucket.flat for p in model.parameters())

    simulate(rank, 2)


def test_removed_hooks_send_nothing_but_the_sum_is_right():
    def rank(comm, take_away):
        model = deep()
        sync = Overlapped(model.parameters(), comm, 64, "ordered")
        if take_away:
            sync.remove()
        with Ledger(comm) as ledger:
            model((comm.rank + 1) * ones(2, 4)).sum().backward()
            inside = ledger.messages
            sync.sum_gradients()
        return inside > 0, [p.grad.tolist() for p in model.parameters()]

    def summed(take_away):
        return simulate(partial(rank, take_away=take_away), 3)

    with_hooks, without = summed(False), summed(True)
    assert [sent for sent, _ in with_hooks] == [True] * 3
    assert [sent for sent, _ in without] == [False] * 3
    assert [g for _, g in with_hooks] == [g for _, g in without]


def test_a_second_backward_without_a_sum_is_refused():
    def rank(comm):
        model = deep()
        sync = Overlapped(model.parameters(), comm, 1 << 20)
        for _ in range(2):
            model(ones(2, 4)).sum().backward()
        sync.sum_gradients()

    with pytest.raises(RuntimeError, match=r"again.*but the last into `with no_sync\(\):`"):
        simulate(rank, 2)


@each_way
@pytest.mark.parametrize("ranks", [1, 3])
def test_gradients_on_a_gpu_go_by_way_of_the_host(way, ranks):
    def rank(comm, device):
        model = deep().to(device)
        sync = WAYS[way](model.parameters(), comm, 200)
        model(((comm.rank + 1) * ones(2, 4)).to(device)).sum().backward()
        sync.sum_gradients()
        assert all(p.grad.is_cuda is (device == "cuda") for p in model.parameters())
        return np.concatenate([p.grad.cpu().data.reshape(-1) for p in model.parameters()])

    here = simulate(partial(rank, device="cpu"), ranks)
    with gpu():
        there = simulate(partial(rank, device="cuda"), ranks)
    assert all(found.tobytes() == there[0].tobytes() for found in there)
    np.testing.assert_allclose(there[0], here[0], rtol=1e-5)


def test_more_buckets_than_may_be_under_way(monkeypatch):
    monkeypatch.setattr(overlap, "UNDER_WAY", 3)

    def rank(comm):
        return [tangled(comm, WAYS[way], 1) for way in ("bucketed", "overlapped")]

    for bucketed, overlapped in simulate(rank, 3, seed=1):
        assert bucketed == overlapped


@pytest.mark.parametrize("limit", [2, 32])
def test_collectives_inside_backward_may_cross_the_buckets(monkeypatch, limit):
    """A rank that does not use the last layer launches late: its own collectives come first."""
    monkeypatch.setattr(overlap, "UNDER_WAY", limit)

    def rank(comm):
        model = deep(layers=6)
        sync = Overlapped(model.parameters(), comm, 64)
        layers = list(model)[: 6 if comm.rank else 3]
        h = ones(2, 4)
        for layer in layers:
            h = layer(h)
        model[0].bias.register_hook(lambda g: Tensor(all_reduce(comm, g.data)))
        h.sum().backward()
        sync.sum_gradients()
        return [p.grad.tolist() for p in model.parameters()]

    first, *others = simulate(rank, 3)
    assert all(found == first for found in others)


# Planted faults


class Forgetful(Overlapped):
    """Mutant: the last bucket is never launched."""

    def _launch(self):
        if self.next < len(self.buckets) - 1:
            super()._launch()
        else:
            self.next += 1


class Impatient(Overlapped):
    """Mutant: it does not wait for what is under way."""

    def _finish(self):
        self.left, self.pending = self.pending, deque()
        super()._finish()


class ForgetsTheUnused(Overlapped):
    """Mutant: what a rank did not use leaves the buffer as the step before left it."""

    def _sum_all(self):
        for bucket in self.buckets:
            bucket.missing.clear()
        super()._sum_all()


class EveryMicroBatch(Bucketed):
    """Mutant: it sends after every micro-batch."""

    @contextlib.contextmanager
    def no_sync(self):
        yield


class MeanOfMeans(Overlapped):
    """Mutant: the sum is divided by the ranks once more."""

    def _sum_all(self):
        super()._sum_all()
        for p in self.params:
            p.grad.data /= self.comm.size


class InOrderOfArrival(Overlapped):
    """Mutant: a bucket leaves when it is complete here, whatever other ranks do."""

    def _ready(self, bucket, p):
        bucket.take(p)
        if not bucket.missing:
            self.buckets.remove(bucket)
            self.buckets.insert(self.next, bucket)
            self._launch()


def wrong(make, micro=(2, 1)):
    """Whether the bits differ from those of the naive way, or the ranks fall out."""

    def rank(comm):
        naive = tangled(comm, WAYS["naive"], 64, micro=micro, steps=3)
        return naive == tangled(comm, partial(make, algorithm="ordered"), 64, micro=micro, steps=3)

    try:
        return not all(simulate(rank, 3, eager_limit=1 << 20))
    except CommError:
        return True


@pytest.mark.parametrize(
    "mutant", [Forgetful, Impatient, ForgetsTheUnused, EveryMicroBatch, MeanOfMeans]
)
def test_a_planted_fault_is_caught(mutant):
    assert wrong(mutant)


def test_that_check_passes_what_is_right():
    assert not wrong(Overlapped) and not wrong(Bucketed)


@pytest.mark.parametrize("debug", [0, 1])
@pytest.mark.parametrize("make, fine", [(Overlapped, True), (InOrderOfArrival, False)])
def test_ranks_whose_gradients_come_in_another_order(make, fine, debug):
    """Two branches, the one recorded last walked first: another one on each other rank."""

    def rank(comm):
        branches = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
        sync = make(branches.parameters(), comm, 1)
        x, order = ones(1, 2), (0, 1) if comm.rank % 2 else (1, 0)
        total = 0
        for i in order:
            total = total + (i + 1) * branches[i](x).sum()
        total.backward()
        sync.sum_gradients()
        return [p.grad.tolist() for p in branches.parameters()]

    try:
        results = simulate(rank, 2, debug=debug)
    except CommError:
        assert not fine
    else:
        assert (results == [[[[2.0, 2.0]] * 2, [[4.0, 4.0]] * 2]] * 2) is fine
