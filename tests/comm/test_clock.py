"""The virtual clock: what collectives would cost, equal to the α-β-γ formulas, on any schedule."""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist import comm as c
from minidist.comm import Clock, simulate
from minidist.comm.collectives import chunks
from minidist.plan.collectives import coefficients

ALPHA, BETA, GAMMA = 3e-6, 2e-9, 5e-10
NUMBERS = 64  # float64: 512 bytes


def rows(comm):
    return np.ones(NUMBERS // comm.size)


CALLS = {
    "all_reduce": lambda comm, a: c.all_reduce(comm, np.ones(NUMBERS), "sum", a),
    "broadcast": lambda comm, a: c.broadcast(comm, np.ones(NUMBERS), 0, a),
    "reduce": lambda comm, a: c.reduce(comm, np.ones(NUMBERS), 0, "sum", a),
    "gather": lambda comm, a: c.gather(comm, rows(comm), 0, [NUMBERS // comm.size] * comm.size, a),
    "all_gather": lambda comm, a: c.all_gather(
        comm, rows(comm), [NUMBERS // comm.size] * comm.size, a
    ),
    "reduce_scatter": lambda comm, a: c.reduce_scatter(comm, np.ones(NUMBERS), "sum", a),
    "all_to_all": lambda comm, a: c.all_to_all(
        comm, np.ones(NUMBERS), None, [NUMBERS // comm.size] * comm.size, a
    ),
    "scan": lambda comm, a: c.scan(comm, np.ones(NUMBERS), "sum", a),
    "barrier": lambda comm, a: c.barrier(comm, a),
}
CASES = [
    *(("all_reduce", a) for a in ("naive", "tree", "ring", "doubling", "rabenseifner", "ordered")),
    *((name, a) for name in ("broadcast", "reduce") for a in ("linear", "tree", "chain")),
    ("gather", "linear"), ("gather", "tree"), ("barrier", "dissemination"),
    *(("all_gather", a) for a in ("ring", "bruck", "doubling")),
    *(("reduce_scatter", a) for a in ("ring", "pairwise", "halving", "ordered")),
    ("all_to_all", "pairwise"), ("all_to_all", "bruck"), ("scan", "chain"), ("scan", "doubling"),
]  # fmt: skip


def makespan(call, size, seed=None, **options):
    clock = Clock(ALPHA, BETA, GAMMA, **options)
    simulate(call, size, seed=seed, clock=clock)
    return clock.makespan


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("collective, algorithm", CASES)
def test_time_equals_the_formula(collective, algorithm, size, monkeypatch):
    monkeypatch.setattr(chunks, "SEGMENT", 64)
    a, b, g = coefficients(collective, algorithm, size, segments=8)
    expected = a * ALPHA + b * 8 * NUMBERS * BETA + g * NUMBERS * GAMMA
    call = lambda comm: CALLS[collective](comm, algorithm)
    for seed in (None, 0, 1):
        assert makespan(call, size, seed) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_the_slowest_link_is_the_rings_time():
    slow = {(0, 1): (ALPHA, 10 * BETA)}
    call = lambda comm: c.all_reduce(comm, np.ones(NUMBERS), algorithm="ring")
    step = ALPHA + 10 * BETA * 8 * NUMBERS / 4
    assert makespan(call, 4, links=lambda s, d: (ALPHA, BETA)) < 6 * step
    assert makespan(call, 4, links=slow) == pytest.approx(6 * step + 3 * GAMMA * NUMBERS / 4)


def test_what_goes_on_beside_costs_nothing_if_there_is_work_enough():
    def main(comm, flops):
        going = c.iall_reduce(comm, np.ones(NUMBERS), algorithm="ring")
        comm.compute(flops)
        going.wait()
        return comm.time()

    alone = makespan(lambda comm: main(comm, 0), 4)
    work = 10 * alone / GAMMA
    assert makespan(lambda comm: main(comm, work), 4) == pytest.approx(10 * alone)


def test_a_rank_that_polls_lets_time_pass():
    def main(comm):
        if comm.rank == 0:
            comm.compute(1e4)
            return comm.send(np.ones(1), 1)
        request, polls = comm.irecv(np.zeros(1), 0), 0
        while not request.is_completed():
            polls += 1
        return comm.time() == pytest.approx(1e4 * GAMMA + ALPHA + 8 * BETA) and polls < 10

    for seed in (None, 1):
        clock = Clock(ALPHA, BETA, GAMMA)
        assert simulate(main, 2, seed=seed, clock=clock)[1]


def test_one_port_sends_one_message_at_a_time_and_eager_ones_leave_at_once():
    def main(comm):
        if comm.rank == 0:
            c.wait_all([comm.isend(np.ones(8), k) for k in (1, 2, 3)])
            return comm.time()
        comm.compute(1e5 if comm.rank == 3 else 0)
        comm.recv(np.zeros(8), 0)
        return comm.time()

    one, late = ALPHA + 64 * BETA, 1e5 * GAMMA
    clock = Clock(ALPHA, BETA, GAMMA)
    assert simulate(main, 4, clock=clock) == pytest.approx([late + one, one, 2 * one, late + one])
    clock = Clock(ALPHA, BETA, GAMMA)
    times = simulate(main, 4, clock=clock, eager_limit=100)
    assert times == pytest.approx([0, one, 2 * one, late])
    assert clock.times == times


@settings(max_examples=25)
@given(st.integers(2, 9), st.integers(0, 99), st.integers(0, 99))
def test_the_schedule_does_not_change_a_rings_time(size, one, other):
    call = lambda comm: (comm.compute(1e3 * comm.rank), c.all_reduce(comm, np.ones(7)))
    assert makespan(call, size, one) == pytest.approx(makespan(call, size, other), rel=1e-12)


def test_a_message_starts_when_both_have_called_whoever_came_first():
    """A rank may post at a time that others have not come to: it has computed meanwhile."""

    def main(comm):
        if comm.rank == 0:
            requests = [comm.irecv(np.zeros(1), source) for source in (1, 2)]
            c.wait_all(requests)
        else:
            comm.compute(5.0 * (comm.rank == 2))
            comm.send(np.ones(1), 0)
        return comm.time()

    for seed in range(5):
        assert simulate(main, 3, seed=seed, clock=Clock(1.0, 0.0, 1.0)) == [6.0, 1.0, 6.0]


def test_a_sender_does_not_hold_the_receivers_array():
    def main(comm):
        if comm.rank == 0:
            request = comm.isend(np.ones(4), 1)
            request.wait()
            comm.recv(np.zeros(1), 1)
            return request is not None
        out = np.zeros(4)
        comm.recv(out, 0)
        array = weakref.ref(out)
        del out
        alive = array() is not None
        comm.send(np.ones(1), 0)
        return alive

    for limit in (0, 1 << 20):
        assert simulate(main, 2, eager_limit=limit) == [True, False]


def test_times_are_not_negative():
    with pytest.raises(ValueError, match="0 or more"):
        Clock(alpha=-1)
