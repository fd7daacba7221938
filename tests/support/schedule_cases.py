"""What tests of lists share: any schedule there is, naive lists, and ranks whose sends block."""

import numpy as np
import pytest
from hypothesis import strategies as st

from minidist.comm import CommError, simulate
from minidist.parallel.pipeline.actions import COMPUTE, SENDS, Action, Schedule
from minidist.parallel.pipeline.schedules import NAMES, forward_only, make

CHUNKS = {"interleaved": (2, 3), "zb-h1": (1, 3), "zbv": (2, 2), "dualpipev": (2, 2)}


@st.composite
def schedules(draw, kinds=(*NAMES, "forward")):
    kind, ranks = draw(st.sampled_from(kinds)), draw(st.integers(1, 4))
    if kind == "forward":
        placement = draw(st.permutations([*range(ranks), *range(draw(st.integers(0, ranks)))]))
        return forward_only(placement, draw(st.integers(1, 5)))
    v = draw(st.integers(*CHUNKS.get(kind, (1, 1))))
    m = draw(st.integers(1, 3)) * ranks if v > 1 else draw(st.integers(1, 7))
    return make(kind, ranks, max(m, 2 * ranks) if kind == "dualpipev" else m, v)


SIZES = [
    ("gpipe", 4, 8, None), ("1f1b", 2, 1, None), ("1f1b", 4, 8, None), ("1f1b", 5, 3, None),
    ("interleaved", 2, 4, 2), ("interleaved", 4, 8, 3), ("zb-h1", 4, 8, None), ("zb-h1", 2, 4, 2),
    ("zb-h2", 4, 9, None), ("zbv", 2, 4, None), ("zbv", 4, 9, None), ("dualpipev", 2, 4, None),
    ("dualpipev", 4, 10, None), ("1f1b", 8, 12, None), ("zbv", 8, 16, None),
]  # fmt: skip
each_size = pytest.mark.parametrize("size", SIZES, ids=lambda s: "-".join(map(str, s)))


def lines(*orders):
    return Schedule.of([order.split() for order in orders])


def texts(schedule):
    return [" ".join(map(str, order)) for order in schedule.orders]


def count(schedule, kinds=SENDS):
    return sum(a.kind in kinds for rank in range(schedule.ranks) for a in schedule.actions(rank))


def naive(schedule):
    """Receive where it is needed, send where it is made: what one writes first."""
    orders = []
    for order in schedule.orders:
        steps = []
        for step in order:
            stage, kind, i = step
            if kind == "F" and stage:
                steps.append(Action(stage, "RECV_F", i))
            if kind == "B" and stage < schedule.stages - 1:
                steps.append(Action(stage, "RECV_B", i))
            steps.append(step)
            if kind == "F" and stage < schedule.stages - 1:
                steps.append(Action(stage, "SEND_F", i))
            if kind == "B" and stage:
                steps.append(Action(stage, "SEND_B", i))
        orders.append(steps)
    return Schedule.of(orders)


# An executor that knows nothing but lists. A send blocks until its receive is posted, and what is
# sent says what it is: (stage, micro-batch) of the F or backward that made it.


class Wrong(Exception):
    """An action did not find what it needs."""


class Rank:
    def __init__(self, comm, schedule):
        self.comm, self.rank_of, self.last = comm, schedule.rank_of, schedule.stages - 1
        self.receiving, self.made = {}, set()

    def run(self, steps):
        for step in steps:
            for action in step.parts:
                self.find(*action)
            for stage, kind, i in step.parts:
                if kind in COMPUTE:
                    self.made |= {(stage, k, i) for k in {"B": "IW"}.get(kind, kind)}

    def find(self, stage, kind, i):
        if kind == "SEND_F":
            self.send((stage, "F", i), stage + 1, stage)
        elif kind == "SEND_B":
            self.send((stage, "I", i), stage - 1, 100 + stage)
        elif kind == "RECV_F":
            self.receive((stage - 1, "F", i), stage - 1)
        elif kind == "RECV_B":
            self.receive((stage + 1, "I", i), 100 + stage + 1)
        elif kind == "F":
            self.take((stage - 1, "F", i)) if stage else None
        elif kind == "W":
            self.take((stage, "I", i))
        else:
            self.take((stage, "F", i))
            self.take((stage + 1, "I", i)) if stage < self.last else None

    def send(self, what, to, tag):
        if what not in self.made:
            raise Wrong(f"{what} is not made yet")
        self.comm.ssend(np.array([what[0], what[2]]), self.rank_of[to], tag)

    def receive(self, what, tag):
        self.receiving[what] = self.comm.irecv(np.empty(2, int), self.rank_of[what[0]], tag)

    def take(self, what):
        if what in self.receiving:
            found = self.receiving.pop(what).wait()
            if tuple(found) != (what[0], what[2]):
                raise Wrong(f"{what} was expected, {found} has come")
        elif what not in self.made:
            raise Wrong(f"{what} is not here")


def run_blocking(schedule, seed=None):
    work = lambda comm: Rank(comm, schedule).run(schedule.orders[comm.rank])
    simulate(work, schedule.ranks, seed=seed)


def ends(schedule):
    try:
        run_blocking(schedule)
    except (CommError, Wrong):
        return False
    return True
