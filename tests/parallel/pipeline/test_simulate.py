"""The simulator against the virtual clock: the same lists on simulated ranks take the same time."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist import comm as mpi
from minidist.errors import UserError
from minidist.parallel.pipeline.actions import Action, Overlap, Schedule
from minidist.parallel.pipeline.check.messages import with_messages
from minidist.parallel.pipeline.schedules import make
from minidist.parallel.pipeline.study.costs import UNIT, Costs, at
from minidist.parallel.pipeline.study.simulate import Timed, simulate

# An executor that knows nothing but lists: small arrays for messages, `compute` for time


class Executor:
    """One rank walks its list on the virtual clock."""

    def __init__(self, comm, schedule, costs, nbytes, blocking):
        self.comm, self.schedule, self.costs = comm, schedule, costs
        self.nbytes, self.blocking = nbytes, blocking
        self.receives, self.sends, self.times = {}, [], []

    def run(self):
        for step in self.schedule.orders[self.comm.rank]:
            kind = "" if isinstance(step, Overlap) else step.kind
            if kind.startswith("SEND"):
                self.send(step)
            elif kind.startswith("RECV"):
                self.receive(step)
            else:
                self.compute(step)
        mpi.wait_all(self.sends)
        return self.times

    def message(self, boundary, forward):
        """An array, and the tag of its channel."""
        array = np.zeros(at(self.nbytes, boundary), np.uint8)
        return array, 2 * boundary + forward

    def send(self, step):
        forward = step.kind == "SEND_F"
        array, tag = self.message(step.stage - (not forward), forward)
        dest = self.schedule.rank_of[step.stage + (1 if forward else -1)]
        request = self.comm.isend(array, dest, tag)
        request.wait() if self.blocking else self.sends.append(request)

    def receive(self, step):
        forward = step.kind == "RECV_F"
        array, tag = self.message(step.stage - forward, forward)
        source = self.schedule.rank_of[step.stage + (-1 if forward else 1)]
        self.receives[step] = self.comm.irecv(array, source, tag)

    def compute(self, step):
        for stage, kind, microbatch in step.parts:
            needs = {"F": "RECV_F", "I": "RECV_B", "B": "RECV_B"}.get(kind)
            request = self.receives.pop(Action(stage, needs, microbatch), None)
            if request is not None:
                request.wait()
        start = self.comm.time()
        self.comm.compute(self.costs.of(step))
        self.times.append(Timed(step, start, self.comm.time()))


def executed(schedule, costs, alpha, beta, nbytes, blocking=False):
    """(times of every rank, when each is done)."""
    clock = mpi.Clock(alpha, beta, gamma=1.0)
    run = lambda comm: Executor(comm, schedule, costs, nbytes, blocking).run()
    return mpi.simulate(run, schedule.ranks, clock=clock), clock.times


def agrees(schedule, costs=UNIT, alpha=0.0, beta=0.0, nbytes=0):
    foretold = simulate(schedule, costs, alpha, beta, nbytes)
    happened = executed(foretold.schedule, costs, alpha, beta, nbytes)
    return happened == (foretold.times, foretold.ends)


SHAPES = [  # name, ranks, micro-batches, chunks
    ("gpipe", 1, 3, None), ("gpipe", 4, 8, None), ("1f1b", 2, 1, None), ("1f1b", 4, 8, None),
    ("1f1b", 5, 3, None), ("interleaved", 2, 4, 2), ("interleaved", 4, 8, 2),
    ("interleaved", 4, 8, 4), ("zb-h1", 4, 8, None), ("zb-h1", 2, 8, 2), ("zb-h2", 4, 8, None),
    ("zb-h2", 3, 7, None), ("zbv", 2, 4, None), ("zbv", 4, 9, None), ("dualpipev", 2, 4, None),
    ("dualpipev", 4, 10, None),
]  # fmt: skip
LINKS = [  # alpha, beta, bytes
    (0.0, 0.0, 0), (0.1, 0.0, 1), (0.3, 0.01, 70), (5.0, 0.5, 3),
]  # fmt: skip
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s)))


@each_shape
@pytest.mark.parametrize("link", LINKS)
def test_every_step_happens_when_foretold(shape, link):
    schedule = make(*shape)
    assert agrees(schedule, Costs(), *link)
    assert agrees(schedule, Costs(0.9, 1.3, 0.7, overlap=2.3), *link)


def drawn(data, count):
    return data.draw(st.lists(st.integers(0, 40), min_size=count, max_size=count))


@given(st.data(), st.sampled_from(SHAPES), st.integers(0, 9), st.sampled_from([0, 0.125, 0.3]))
def test_uneven_stages_and_boundaries(data, shape, alpha, beta):
    schedule = make(*shape)
    each = (drawn(data, schedule.stages) for _ in range(3))
    costs = Costs(*([n / 7 for n in times] for times in each))
    assert agrees(schedule, costs, alpha / 3, beta, drawn(data, schedule.stages - 1))


@pytest.mark.parametrize("shape", [("gpipe", 4, 8), ("1f1b", 4, 8), ("interleaved", 4, 8, 2)])
def test_other_terms_are_seen(shape):
    """Links or a stage a little slower, or sends that block, happen at other times."""
    foretold = simulate(make(*shape), Costs(), 0.3, 0.01, 70)
    happened = lambda *terms, **more: executed(foretold.schedule, *terms, **more)[0]
    assert happened(Costs(), 0.3, 0.01, 70) == foretold.times
    assert happened(Costs(), 0.3001, 0.01, 70) != foretold.times
    assert happened(Costs(), 0.3, 0.01, 71) != foretold.times
    assert happened(Costs(weight=1.01), 0.3, 0.01, 70) != foretold.times
    assert happened(Costs(), 0.3, 0.01, 70, blocking=True) != foretold.times


def test_a_message_starts_when_both_sides_have_called():
    """Rank 1 calls for the second one at 5, rank 0 has sent it at 2: it arrives at 6."""
    lists = [
        ["0F0", "0SEND_F0", "0F1", "0SEND_F1", "0RECV_B0", "0B0", "0RECV_B1", "0B1"],
        ["1RECV_F0", "1F0", "1B0", "1SEND_B0", "1RECV_F1", "1F1", "1B1", "1SEND_B1"],
    ]
    late = Schedule.of(lists)
    simulated = simulate(late, Costs(), alpha=1)
    assert [t.start for t in simulated.times[1]] == [2, 3, 6, 7]
    assert agrees(late, alpha=1.0)


def test_messages_cost_nothing_and_change_nothing():
    schedule = make("interleaved", 4, 8, 2)
    alone, lowered = simulate(schedule), simulate(with_messages(schedule))
    assert (alone.times, alone.sent) == (lowered.times, lowered.sent)


# By hand: 1F1B of two ranks and two micro-batches, F = 1, I = 2, W = 1, a message of 4 bytes 0.5


@pytest.fixture
def small():
    return simulate(make("1f1b", 2, 2), Costs(input=2), alpha=0.25, beta=0.0625, nbytes=4)


def spans(simulated):
    return [" ".join(f"{s}@{a:g}-{b:g}" for s, a, b in times) for times in simulated.times]


def test_times_by_hand(small):
    assert spans(small) == [
        "0F0@0-1 0F1@1-2 0B0@6-9 0B1@10-13",
        "1F0@1.5-2.5 1B0@2.5-5.5 1F1@5.5-6.5 1B1@6.5-9.5",
    ]


def test_measures_by_hand(small):
    assert (small.makespan, small.ends) == (13, [13, 10])
    assert (small.ideal, small.work, small.idle) == (8, [8, 8], [5, 5])
    assert (small.span, small.span_bubble) == ([13, 8], [5, 0])
    assert small.idle_fraction == pytest.approx(10 / 26)
    assert small.bubble_ratio == 13 / 8 - 1
    assert (small.messages, small.bytes) == (4, 16)
    assert [dict(sent) for sent in small.sent] == [{"SEND_F": 2}, {"SEND_B": 2}]


def test_bytes_are_those_of_the_boundary():
    simulated = simulate(make("gpipe", 3, 2), nbytes=[10, 1])
    assert simulated.sent_bytes == [20, 22, 2]


@pytest.mark.parametrize(
    "held, peak", [(1, 3), (0.5, 2.5), (0, 2)]
)  # fmt: skip
def test_what_w_needs_is_live_until_w(held, peak):
    order = ["0F0", "0F1", "0I0", "0F2", "0W0", "0I1", "0W1", "0I2", "0W2"]
    assert simulate(Schedule.of([order])).peak_live(held) == [peak]


def test_an_overlap_holds_both():
    order = ["0F0", "(0F1;0B0)OVERLAP_F_B", "0B1"]
    simulated = simulate(Schedule.of([order]), Costs(overlap=2.5))
    assert simulated.peak_live() == [2]
    assert spans(simulated) == ["0F0@0-1 (0F1;0B0)OVERLAP_F_B@1-3.5 0B1@3.5-5.5"]


def test_peaks_in_microbatches_are_of_all_chunks():
    simulated = simulate(make("zbv", 4, 8))
    assert simulated.peak_live() == [8] * 4
    assert simulated.peak_microbatches() == [4] * 4


def test_nothing_to_do_takes_no_time():
    simulated = simulate(make("gpipe", 2, 2), Costs(0, 0, 0))
    assert (simulated.makespan, simulated.idle_fraction, simulated.bubble_ratio) == (0, 0, 0)


def test_fractions_stay_exact():
    simulated = simulate(make("1f1b", 3, 5), Costs(*[Fraction(1, 3)] * 3), Fraction(1, 7))
    assert isinstance(simulated.makespan, Fraction)
    assert simulated.work == [5, 5, 5]


def test_many_ranks_and_microbatches():
    simulated = simulate(make("1f1b", 32, 128))
    assert simulated.makespan == 3 * (128 + 31)


# Mistakes


@pytest.mark.parametrize(
    "terms, said",
    [
        ({"costs": Costs(forward=[1, 1])}, "cost of forward: 2 numbers for 3 stages: give 1 or 3"),
        ({"costs": Costs(weight=-1)}, "cost of weight is -1: want a number of 0 or more"),
        ({"costs": Costs(input=[1, float("nan"), 1])}, "cost of input is nan"),
        ({"costs": Costs(overlap=-2)}, "cost of overlap is -2"),
        ({"nbytes": [1, 2, 3]}, "nbytes: 3 numbers for 2 boundaries"),
        ({"alpha": -1}, "alpha is -1"),
        ({"beta": float("inf")}, "beta is inf"),
    ],
)
def test_wrong_terms(terms, said):
    with pytest.raises(UserError, match=said):
        simulate(make("gpipe", 3, 2), **terms)


@pytest.mark.parametrize(
    "lists, said",
    [
        ([["0F0", "0SEND_F0"], ["1F0"]], "rank 1 at 1F0; 1RECV_F0 is only sent"),
        ([["0F0"], ["1RECV_F0", "1F0"]], "rank 1 at 1F0; 1RECV_F0 is only received"),
        (
            [["0F0", "0F1", "0SEND_F1", "0SEND_F0"], ["1RECV_F0", "1F0", "1RECV_F1", "1F1"]],
            "1RECV_F0 gets what was sent for 1RECV_F1",
        ),
    ],
)
def test_a_schedule_that_gets_stuck_is_no_result(lists, said):
    with pytest.raises(UserError, match=said):
        simulate(Schedule.of(lists))
