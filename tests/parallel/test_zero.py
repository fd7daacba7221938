"""ZeRO stages 1 and 2: the bits of data parallelism, its bytes, and what each rank holds."""

import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.zero_cases import (  # fmt: skip
    OPTIMIZERS,
    assert_same,
    batch,
    differs,
    make,
    of_buckets,
    optimizer_of,
    run,
    same_state,
    steps,
    trained,
)

from minidist import Tensor, nn, optim
from minidist.amp import GradScaler
from minidist.comm import Ledger, shard_range, simulate
from minidist.parallel.buckets import fill_buckets
from minidist.parallel.zero.flat import FlatParameter
from minidist.parallel.zero.optimizer import Zero
from minidist.plan.collectives import Traffic, traffic

few, fewer = settings(max_examples=12), settings(max_examples=5)
sizes, stages, seeds = st.integers(1, 5), st.sampled_from([1, 2]), st.none() | st.integers(0, 9)
frozen = st.sampled_from([(), ("h.1",), ("wte", "ln"), ("bias",)])


@few
@given(sizes, stages, seeds, frozen, st.sampled_from([*OPTIMIZERS]), st.booleans(),
       st.sampled_from([None, 0.01, 1e9]))  # fmt: skip
def test_bits_are_those_of_data_parallelism(size, stage, seed, frozen, kind, groups, clip):
    told = {"frozen": frozen, "options": {"kind": kind, "groups": groups}, "clip": clip}
    assert_same(run(size, stage, seed, **told), run(size, "plain", **told))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_elementwise_optimiser(kind):
    told = {"options": {"kind": kind, "groups": True}, "clip": 0.5}
    plain = run(3, "plain", **told)
    for stage in (1, 2):
        assert_same(run(3, stage, **told), plain)


@few
@given(sizes, stages, st.sampled_from([1, 50, 10**6]))
def test_bits_do_not_depend_on_the_buckets(size, stage, nbytes):
    def main(comm):
        model = make()
        zero = Zero(model, comm, optim.AdamW, stage=stage, bucket_bytes=nbytes, lr=0.1,
                    weight_decay=0.1, algorithm="ordered")  # fmt: skip
        return steps(zero, comm, 0, 5), zero.full_state_dict()

    assert_same(simulate(main, size), run(size, "plain"))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_dtypes(dtype):
    told = {"dtype": dtype, "options": {"kind": "momentum"}}
    plain = run(3, "plain", **told)
    for layout in (1, 2, 3):
        assert_same(run(3, layout, **told), plain)


@fewer
@given(sizes, stages, seeds)
def test_three_microbatches_are_added_up_locally(size, stage, seed):
    assert_same(run(size, stage, seed, micro=3), run(size, "plain", micro=3))


def test_or_each_is_summed_over_the_ranks_and_kept_as_a_shard():
    """As data parallelism does it that sums every micro-batch."""

    def plain(comm):
        zero = optimizer_of(comm, "plain", make())
        for step in range(5):
            sums = [0.0 for _ in trained(zero.model)]
            for k in range(3):
                (zero.model.loss(*batch(100 * step + k, comm.rank, comm.size)) / 30).backward()
                zero.sum_gradients()
                sums = [a + p.grad.data for a, p in zip(sums, trained(zero.model))]
                zero.zero_grad()
            for p, g in zip(trained(zero.model), sums):
                p.grad = Tensor.of(g)
            zero.step()
            zero.zero_grad()
        return zero.full_state_dict()

    states = [state for _, state in run(3, 2, micro=3, sync_each=True)]
    for state, theirs in zip(states, simulate(plain, 3)):
        same_state(state, theirs)


@few
@given(sizes, seeds)
def test_stage_2_never_holds_a_gradient_after_its_bucket_was_summed(size, seed):
    def main(comm):
        model = make()
        zero = Zero(model, comm, optim.SGD, bucket_bytes=400)
        most = []
        for p in model.parameters():  # called after the hooks of `zero`
            p.register_post_accumulate_grad_hook(lambda p: most.append(_whole(model)))
        model.loss(*batch(0)).backward()
        assert all(p.grad is None for p in model.parameters())
        zero.sum_gradients()
        return max(most), zero.nbytes()

    shards = [sum(b - a for a, b in (shard_range(sum(p.numel() for p in flat), size, rank)
                                     for flat in of_buckets(make())))
              for rank in range(size)]  # fmt: skip
    largest = max(p.data.nbytes for p in make().parameters())
    for rank, (most, held) in enumerate(simulate(main, size, seed=seed)):
        assert most <= 400 + largest, "a bucket that is being filled, and no other"
        assert held["gradients"] == 4 * shards[rank]


def _whole(model):
    return sum(p.grad.data.nbytes for p in model.parameters() if p.grad is not None)


@few
@given(sizes, stages, st.sampled_from([(), ("wte",)]))
def test_bytes_held_are_the_formulas(size, stage, frozen):
    def main(comm):
        zero = optimizer_of(comm, stage, make(frozen))
        zero.model.loss(*batch(0)).backward()
        zero.sum_gradients()
        zero.step()
        return zero.nbytes()

    model = make(frozen)
    psi = sum(p.numel() for p in trained(model))
    for rank, held in enumerate(simulate(main, size)):
        ranges = (shard_range(sum(p.numel() for p in f), size, rank) for f in of_buckets(model))
        shard = sum(b - a for a, b in ranges)
        assert held == {
            "parameters": 4 * sum(p.numel() for p in model.parameters()),
            "gradients": 4 * (psi if stage == 1 else shard),
            "optimizer": 8 * shard,  # of AdamW
        }


@few
@given(sizes, stages)
def test_bytes_and_messages_of_a_step_are_the_formulas(size, stage):
    def main(comm):
        zero = optimizer_of(comm, stage, make(), algorithm="ring")
        with Ledger(comm) as ledger:
            steps(zero, comm, 0, 1)
        return ledger.messages, ledger.bytes

    messages, sent = map(sum, zip(*simulate(main, size)))
    expected = Traffic(0, 0)
    for bucket in of_buckets(make()):
        n = sum(p.numel() for p in bucket)
        parts = [4 * (b - a) for a, b in (shard_range(n, size, k) for k in range(size))]
        for collective in ("reduce_scatter", "all_gather"):
            expected += traffic(collective, "ring", parts)
    assert Traffic(messages, sent) == expected
    psi = sum(p.numel() for p in make().parameters())
    assert sent == 2 * (size - 1) * psi * 4


def grid(comm):
    """(shard_comm, replicate_comm) of a 2 x 2 grid: neighbours share a shard group."""
    return comm.split(comm.rank // 2, comm.rank), comm.split(comm.rank % 2, comm.rank)


def hybrid(layout, wrong=False):
    def main(comm):
        shard, replicas = grid(comm)
        told = {"replicate_comm": replicas, "algorithm": "doubling"}
        if layout != "plain":
            told["algorithm"] = "ordered"
            zero = optimizer_of(shard, layout, make(), **told)
            zero.replicate_comm = shard if wrong else replicas
        else:
            zero = optimizer_of(comm, layout, make(), algorithm="doubling")
        return steps(zero, comm, 0, 5), zero.full_state_dict()

    return simulate(main, 4)


@pytest.mark.parametrize("layout", [1, 2, 3])
def test_hybrid_two_by_two_is_data_parallelism_over_four(layout):
    """Bit for bit: recursive doubling over four ranks adds (0 + 1) + (2 + 3), as the grid does."""
    plain = hybrid("plain")
    assert_same(hybrid(layout), plain)
    assert differs(lambda: hybrid(layout, wrong=True), plain), "summed over the wrong axis"


LAYOUTS = ["plain", 1, 2, 3]


@few
@given(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS), st.integers(1, 4),
       st.sampled_from(["AdamW", "momentum", "Adagrad", "SGD"]))  # fmt: skip
def test_a_checkpoint_of_any_layout_continues_in_any_other(before, after, size, kind):
    options = {"kind": kind, "groups": True}

    def main(comm):
        first = optimizer_of(comm, before, make(), **options)
        losses = steps(first, comm, 0, 2)
        model = make()
        for p in model.parameters():
            p.data[...] = 9
        second = optimizer_of(comm, after, model, **options)
        second.load_full_state_dict(first.full_state_dict())
        same_state(second.full_state_dict(), first.full_state_dict())
        return losses + steps(second, comm, 2, 5), second.full_state_dict()

    assert_same(simulate(main, size), run(size, "plain", options=options))


def test_a_checkpoint_of_one_number_of_ranks_continues_on_another():
    """In float64 whole batches on one rank: what differs is the layout alone."""

    def train(comm, first, last, state):
        zero = optimizer_of(comm, 2, make(dtype="float64"))
        if state:
            zero.load_full_state_dict(state)
        steps(zero, comm, first, last)
        return zero.full_state_dict()

    half = simulate(lambda comm: train(comm, 0, 2, None), 4)[0]
    resumed = simulate(lambda comm: train(comm, 2, 5, half), 3)[0]
    straight = simulate(lambda comm: train(comm, 0, 5, None), 1)[0]
    for name, array in straight["model"].items():
        np.testing.assert_allclose(resumed["model"][name], array, rtol=0, atol=1e-10)


def test_a_parameter_that_a_rank_does_not_use_counts_as_zeros():
    def main(comm, layout):
        model = make()
        zero = optimizer_of(comm, layout, model)
        for step in range(3):
            x, _ = batch(step, comm.rank, comm.size)
            out = model.wte(x) if comm.rank == 1 else model(x)
            (out**2).mean().backward()
            zero.sum_gradients()
            zero.step()
            zero.zero_grad()
        return [0.0], zero.full_state_dict()

    plain = simulate(lambda comm: main(comm, "plain"), 3)
    for stage in (1, 2):
        assert_same(simulate(lambda comm, stage=stage: main(comm, stage), 3), plain)


def test_a_grad_scaler_works_with_it():
    def main(comm):
        zero = optimizer_of(comm, 2, make())
        scaler, losses = GradScaler(comm=comm), []
        for step in range(5):
            loss = zero.model.loss(*batch(100 * step, comm.rank, comm.size)) / 10
            scaler.scale(loss).backward()
            zero.sum_gradients()
            scaler.unscale_(zero)
            scaler.step(zero)
            scaler.update()
            zero.zero_grad()
            losses.append((loss.item(), 0.0))
        return losses, zero.full_state_dict()

    assert_same(simulate(main, 3), run(3, "plain"))


# Planted faults


def test_a_shard_that_begins_one_too_early_is_seen():
    honest = FlatParameter._pieces

    def shifted(self):
        if self.comm.rank and self.stop - self.start:
            self.shard = self.full[self.start - 1 : self.stop - 1]
        return honest(self)

    plain = run(3, "plain")
    with mock.patch.object(FlatParameter, "_pieces", shifted):
        assert differs(lambda: run(3, 1), plain)
        assert differs(lambda: run(3, 2), plain)


@pytest.mark.parametrize("layout", [1, 2, 3])
def test_states_that_are_reset_are_seen(layout):
    honest = Zero.step

    def forgetful(self):
        self.optimizer.state.clear()
        honest(self)

    plain = run(3, "plain")
    with mock.patch.object(Zero, "step", forgetful):
        assert differs(lambda: run(3, layout), plain)


def test_another_order_of_summation_is_seen():
    assert differs(lambda: run(3, 2, options={"algorithm": "ring"}), run(3, "plain"))


def test_a_gather_that_is_left_out_is_seen():
    plain = run(3, "plain")
    with mock.patch.object(Zero, "_gather_updated", lambda self: None):
        assert differs(lambda: run(3, 1), plain)


def test_the_example_without_mpi():
    path = Path(__file__).parents[2] / "tutorials" / "examples" / "zero.py"
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "stage 3 rank 3: holds 98,960 parameters" in done.stdout
    assert done.stdout.count("the losses of one process") == 4


# What is refused


def alone(fn):
    return simulate(fn, 1)[0]


def test_what_is_refused():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    weight = model[0].weight

    def refused(error, match, cls=optim.SGD, params=None, **options):
        with pytest.raises(error, match=match):
            alone(lambda comm: Zero(model, comm, cls, params, **options))

    refused(TypeError, "Muon needs whole matrices", optim.Muon)
    refused(ValueError, "stage 3: want one of .*Zero3", stage=3)
    refused(ValueError, r"0.bias, 1.weight, 1.bias in no group", params=[weight])
    refused(ValueError, "given twice", params=[*model.parameters(), weight])
    refused(ValueError, r"shape \(5,\) in `params`",
            params=[*model.parameters(), nn.Parameter(np.ones(5, np.float32))])  # fmt: skip
    model.requires_grad_(False)
    refused(ValueError, "nothing to train")


def test_a_step_without_gradients_is_refused():
    zero = alone(lambda comm: optimizer_of(comm, 2, make()))
    with pytest.raises(RuntimeError, match="then sum_gradients"):
        zero.step()


def test_inside_no_sync_nothing_is_sent():
    def main(comm, layout):
        zero = optimizer_of(comm, layout, make())
        with Ledger(comm) as ledger, zero.no_sync():
            zero.model.loss(*batch(0)).backward()
            zero.sum_gradients()
        return set(ledger.by("collective")), zero.nbytes()["gradients"]

    psi = sum(p.numel() for p in make().parameters())
    for layout in (1, 2, 3):
        for sent, gradients in simulate(lambda comm, layout=layout: main(comm, layout), 2):
            assert sent <= {("all_gather",)} and bool(sent) == (layout == 3)
            assert gradients == 4 * psi


def test_closed_it_leaves_gradients_alone():
    def main(comm):
        zero = optimizer_of(comm, 2, make())
        zero.close()
        zero.model.loss(*batch(0)).backward()
        return [p.grad is not None for p in zero.model.parameters()]

    assert all(all(found) for found in simulate(main, 2))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 60))
def test_buckets_hold_every_parameter_once_the_last_first(widths, nbytes):
    params = [nn.Parameter(np.ones(w, np.float32 if w % 2 else np.float64)) for w in widths]
    found = fill_buckets(params[::-1], nbytes)
    turn = {id(p): i for i, p in enumerate(params[::-1])}
    assert sorted(turn[id(p)] for b in found for p in b) == [*range(len(params))]
    for dtype in {p.dtype for p in params}:
        order = [turn[id(p)] for b in found for p in b if p.dtype == dtype]
        assert order == sorted(order)
    last = [turn[id(b[-1])] for b in found]
    assert last == sorted(last), "in the order in which backward completes them"
    assert all(len(b) == 1 or sum(p.data.nbytes for p in b) <= nbytes for b in found)
    assert all(len({p.dtype for p in b}) == 1 for b in found)
