"""The simulated world itself: deadlocks explained, errors carried out, seeds replayed."""

import contextvars
import re

import numpy as np
import pytest
from minidist.kernels import blas
from threadpoolctl import ThreadpoolController

from minidist import comm as c
from minidist.comm import CommError, DeadlockError, UnmatchedError, all_reduce, barrier, simulate
from minidist.comm import call_site as sites
from minidist.comm.simulated.deadlock import find_cycle


def send_to_the_right_first(comm):
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    comm.send(np.ones(4), right)
    comm.recv(np.empty(4), left)


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_a_ring_of_sends_is_a_deadlock_with_its_cycle_and_lines(seed):
    with pytest.raises(DeadlockError) as caught:
        simulate(send_to_the_right_first, 3, seed=seed)
    text = str(caught.value)
    line = send_to_the_right_first.__code__.co_firstlineno + 2
    assert "3 of 3 ranks wait for ever" in text
    assert "cycle: 0 -> 1 -> 2 -> 0" in text
    for rank in range(3):
        call = re.escape(f"rank {rank} waits in send(dest={(rank + 1) % 3}, tag=0)  at ")
        assert re.search(call + rf"\S*test_simulated\.py:{line} in send_to_the_right_first", text)


def test_messages_within_the_eager_limit_hide_that_deadlock():
    simulate(send_to_the_right_first, 3, eager_limit=32)
    with pytest.raises(DeadlockError):
        simulate(send_to_the_right_first, 3, eager_limit=31)


def test_waiting_for_a_rank_that_has_returned_is_named():
    def main(comm):
        if comm.rank == 0:
            comm.irecv(np.empty(1), 1, tag=5).wait()

    with pytest.raises(DeadlockError) as caught:
        simulate(main, 2)
    assert "rank 0 waits in recv(source=1, tag=5)" in str(caught.value)
    assert "rank 1 has returned" in str(caught.value)
    assert "cycle" not in str(caught.value)


def test_a_deadlock_inside_a_collective_names_the_collective():
    def main(comm):
        barrier(comm) if comm.rank == 0 else all_reduce(comm, np.ones(2))

    with pytest.raises(DeadlockError, match=r"rank 0 waits in barrier: recv\(source=1"):
        simulate(main, 2, debug=0)


ALL_CALLS = [
    "all_gather", "all_reduce", "all_to_all", "barrier", "broadcast", "gather", "reduce",
    "reduce_scatter", "scan", "scatter",
]  # fmt: skip


def a_deadlock_names_its_collective(name):
    def main(comm):
        if comm.rank == 0:
            arguments = () if name == "barrier" else (np.ones(2),)
            getattr(c, name)(comm, *arguments)

    with pytest.raises(DeadlockError) as caught:
        simulate(main, 2, debug=0)
    assert f"rank 0 waits in {name}: " in str(caught.value)


@pytest.mark.parametrize("name", ALL_CALLS)
def test_a_deadlock_names_the_collective_and_not_its_decorator(name):
    a_deadlock_names_its_collective(name)


def test_a_frame_of_a_decorator_taken_for_the_call_is_seen(monkeypatch):
    monkeypatch.setattr(sites, "DECORATED", "no function has this name")
    with pytest.raises(AssertionError, match="staged"):
        a_deadlock_names_its_collective("all_reduce")


def test_a_deadlock_in_a_split_names_both_numbers_of_a_rank():
    def main(comm):
        group = comm.split(comm.rank // 2)
        group.recv(np.empty(1), 1 - group.rank)

    with pytest.raises(DeadlockError) as caught:
        simulate(main, 4)
    assert "rank 2 waits in recv(source=1 (world rank 3), tag=0)" in str(caught.value)


@pytest.mark.parametrize(
    "waits_for, cycle",
    [
        ({0: [1], 1: [0]}, [0, 1]),
        ({0: [0]}, [0]),
        ({0: [2], 1: [2], 2: [3]}, []),
        ({0: [2], 2: [5], 5: [2]}, [2, 5]),
        ({0: [3, 1], 1: [2], 2: [0]}, [0, 1, 2]),
    ],
)
def test_cycles_are_found_also_behind_a_tail(waits_for, cycle):
    assert find_cycle(waits_for) == cycle


def test_an_error_on_one_rank_ends_the_others_and_comes_out_with_its_rank():
    cleaned = []

    def main(comm):
        try:
            if comm.rank == 2:
                raise KeyError("broken")
            barrier(comm)
        finally:
            cleaned.append(comm.rank)

    with pytest.raises(KeyError, match="broken") as caught:
        simulate(main, 4)
    assert caught.value.__notes__ == ["raised on simulated rank 2 of 4"]
    assert sorted(cleaned) == [0, 1, 2]  # rank 3 had not begun


def test_clean_up_that_communicates_does_not_hide_the_first_error():
    def main(comm):
        try:
            if comm.rank == 1:
                raise KeyError("first")
            comm.recv(np.empty(1), 1)
        finally:
            comm.send(np.ones(1), 1 - comm.rank)

    with pytest.raises(KeyError, match="first"):
        simulate(main, 2)


def test_messages_nobody_took_are_an_error():
    def main(comm):
        if comm.rank == 0:
            comm.isend(np.ones(3, np.float32), 1, tag=4)

    text = r"rank 0 send\(dest=1, tag=4\) of float32 \(3,\) = 12 bytes was never received"
    with pytest.raises(UnmatchedError, match=text):
        simulate(main, 2)
    with pytest.raises(UnmatchedError, match=text):
        simulate(main, 2, eager_limit=100)


def test_a_communicator_used_from_another_rank_is_refused():
    comms = []

    def main(comm):
        comms.append(comm)
        comms[0].isend(np.ones(1), 0)

    with pytest.raises(CommError, match="simulated rank 0 was used from outside"):
        simulate(main, 2)
    with pytest.raises(CommError, match="only while it runs"):
        comms[0].recv(np.ones(1), 0)


def careless(comm):
    """Changes the buffer between isend and wait."""
    if comm.rank == 1:
        return comm.recv(np.zeros(1), 0).item()
    buffer = np.ones(1)
    sending = comm.isend(buffer, 1)
    buffer[0] = 2
    sending.wait()
    return None


def test_seeds_replay_and_expose_a_buffer_touched_too_early():
    seen = [simulate(careless, 2, seed=seed)[1] for seed in range(16)]
    assert set(seen) == {1.0, 2.0}
    assert seen == [simulate(careless, 2, seed=seed)[1] for seed in range(16)]


def test_each_rank_has_its_own_context_variables():
    variable = contextvars.ContextVar("variable", default="outside")

    def main(comm):
        inherited = variable.get()
        variable.set(comm.rank)
        barrier(comm)
        return inherited, variable.get()

    variable.set("caller")
    assert simulate(main, 3) == [("caller", 0), ("caller", 1), ("caller", 2)]
    assert variable.get() == "caller"


def blas_threads():
    return {
        lib["num_threads"] for lib in ThreadpoolController().info() if lib["user_api"] == "blas"
    }


def test_blas_has_one_thread_inside_and_as_many_as_before_outside():
    blas.settle()  # a program changes the number later
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        before = blas_threads()
        assert before in ({2}, set())
        assert simulate(lambda comm: blas_threads(), 2) in ([{1}] * 2, [set()] * 2)
        assert blas_threads() == before


def test_simulations_nest_and_run_many_ranks():
    def main(comm):
        return sum(simulate(lambda inner: inner.rank + comm.rank, 2))

    assert simulate(main, 3) == [1, 3, 5]
    assert simulate(lambda comm: comm.rank, 2000) == list(range(2000))
    with pytest.raises(ValueError, match="size=0"):
        simulate(main, 0)
