"""Collectives that do not wait: the blocking ones' values, in any order, on any schedule."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ranks import SEEDS, SIZES, on_ranks, same, whole

from minidist import comm as c
from minidist.comm import DeadlockError, Ledger, simulate
from minidist.comm.communicator import SLOTS

FORMS = {
    "all_reduce": (c.iall_reduce, c.all_reduce, lambda comm, x: (x, "max", "ring")),
    "all_gather": (c.iall_gather, c.all_gather, lambda comm, x: (x[: comm.rank],)),
    "all_to_all": (c.iall_to_all, c.all_to_all, lambda comm, x: (x,)),
    "barrier": (c.ibarrier, c.barrier, lambda comm, x: ()),
    "broadcast": (c.ibroadcast, c.broadcast, lambda comm, x: (x.copy(), comm.size - 1)),
    "gather": (c.igather, c.gather, lambda comm, x: (x,)),
    "reduce": (c.ireduce, c.reduce, lambda comm, x: (x,)),
    "reduce_scatter": (c.ireduce_scatter, c.reduce_scatter, lambda comm, x: (x, "mean")),
    "scan": (c.iscan, c.scan, lambda comm, x: (x,)),
    "scatter": (c.iscatter, c.scatter, lambda comm, x: (x if comm.rank == 0 else None,)),
}


def equal(a, b):
    return a is b is None or same(a, b)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_each_gives_what_the_blocking_one_gives(name, size):
    starts, waits, arguments = FORMS[name]
    assert starts.__name__ == "i" + waits.__name__

    def main(comm):
        x = whole(1, (7, 2), comm.rank)[0]
        request = starts(comm, *arguments(comm, x))
        result = request.wait()
        assert request.is_completed() and equal(request.wait(), result)
        return equal(result, waits(comm, *arguments(comm, x)))

    for seed in (None, 3):
        assert all(on_ranks(size, main, seed)[0])


@settings(max_examples=60)
@given(size=SIZES, seed=SEEDS, data=st.data())
def test_many_at_once_waited_for_in_any_order(size, seed, data):
    """Beside each other, beside blocking ones and beside messages; each rank in its own order."""
    names = data.draw(st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=6))
    orders = [data.draw(st.permutations(range(len(names)))) for _ in range(size)]

    def main(comm):
        inputs = [whole(1, (7, 2), comm.rank + 10 * k)[0] for k in range(len(names))]
        right, left = (comm.rank + 1) % size, (comm.rank - 1) % size
        going = [FORMS[n][0](comm, *FORMS[n][2](comm, x)) for n, x in zip(names, inputs)]
        out = comm.sendrecv(inputs[0], right, np.zeros((7, 2)), left)
        assert same(out, whole(1, (7, 2), left)[0])
        total = c.all_reduce(comm, inputs[0])
        results = {k: going[k].wait() for k in orders[comm.rank]}
        assert same(total, c.all_reduce(comm, inputs[0]))
        return all(
            equal(results[k], FORMS[n][1](comm, *FORMS[n][2](comm, inputs[k])))
            for k, n in enumerate(names)
        )

    assert all(on_ranks(size, main, seed)[0])


def test_a_send_may_stand_between_the_start_and_the_wait():
    """Legal for what does not wait: rank 1 starts it only when it has heard of rank 0."""

    def main(comm):
        x = np.ones(3)
        if comm.rank == 1:
            comm.recv(np.zeros(1), 0)
        going = c.iall_reduce(comm, x)
        if comm.rank == 0:
            comm.send(np.ones(1), 1)
        return going.wait().tolist()

    for seed in (None, 0, 1):
        assert simulate(main, 2, seed=seed) == [[2.0] * 3] * 2


def test_more_than_there_are_slots_and_some_nobody_waits_for():
    def main(comm):
        with Ledger(comm) as ledger:
            for k in range(SLOTS + 5):
                request = c.iall_reduce(comm, np.full(2, float(k)))
                del request
                gc.collect(0)
            last = c.iall_reduce(comm, np.ones(2)).wait()
        return last.tolist(), ledger.by("collective", "tag")

    for last, sent in simulate(main, 2, seed=1):
        assert last == [2.0, 2.0] and len(sent) == 1, "the ledger knows the collective's own tag"


def test_one_that_others_never_start_is_named():
    def main(comm):
        if comm.rank == 0:
            c.iall_reduce(comm, np.ones(2)).wait()

    with pytest.raises(DeadlockError) as caught:
        simulate(main, 2)
    assert "rank 0 waits for its all_reduce to complete  at " in str(caught.value)
    assert "rank 0 waits in all_reduce: recv(source=1" in str(caught.value)
    assert "1 of 2 ranks wait" in str(caught.value)


def test_to_ask_for_ever_is_a_deadlock_too():
    def main(comm):
        request = comm.irecv(np.zeros(1), 1 - comm.rank)
        while not request.is_completed():
            pass

    with pytest.raises(DeadlockError, match="cycle: 0 -> 1 -> 0"):
        simulate(main, 2)


def test_wrong_arguments_are_refused_at_the_call():
    def main(comm):
        c.iall_reduce(comm, np.ones(2), "xor")
        raise AssertionError("later")

    with pytest.raises(ValueError, match="op='xor'"):
        simulate(main, 2)
    with pytest.raises(ValueError, match="written by hand"):
        simulate(lambda comm: c.ibroadcast(comm, np.ones(2), 0, "native"), 2)


def test_an_array_that_changes_too_early_is_seen():
    def main(comm):
        x = np.ones(4)
        going = c.ireduce(comm, x, 0) if comm.rank else c.ireduce(comm, np.ones(4), 0)
        sent = comm.isend(x, 0, tag=1) if comm.rank else None
        x[:] = 9.0
        if comm.rank == 0:
            late = comm.recv(np.zeros(4), 1, tag=1)
            return going.wait().tolist(), late.tolist()
        sent.wait()
        return going.wait()

    seen = {str(simulate(main, 2, seed=seed)[0]) for seed in range(12)}
    assert len(seen) > 1
