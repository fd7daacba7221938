"""Lowered lists, run on simulated ranks with sends that block: they end, and validate agrees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.comm import CommError, DeadlockError, simulate
from minidist.parallel.pipeline.actions import COMPUTE, RECEIVES, SENDS, Action, Schedule
from minidist.parallel.pipeline.messages import with_messages
from minidist.parallel.pipeline.progress import Progress
from minidist.parallel.pipeline.schedules import NAMES, forward_only, make
from minidist.parallel.pipeline.validate import ScheduleError, validate

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


# Schedules

CHUNKS = {"interleaved": (2, 3), "zb-h1": (1, 3), "zbv": (2, 2), "dualpipev": (2, 2)}


@st.composite
def schedules(draw):
    kind, ranks = draw(st.sampled_from([*NAMES, "forward"])), draw(st.integers(1, 4))
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


# They end


@each_size
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_lists_end_though_sends_block(size, seed):
    run_blocking(with_messages(make(*size)), seed)


@given(schedules(), st.integers(0, 9))
def test_any_lists_end_though_sends_block(schedule, seed):
    run_blocking(with_messages(schedule), seed)


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


def test_receives_where_they_are_needed_deadlock_and_are_refused():
    schedule = naive(make("1f1b", 2, 2))
    assert texts(schedule) == [
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1",
        "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1",
    ]
    with pytest.raises(DeadlockError, match="cycle: 0 -> 1 -> 0"):
        run_blocking(schedule)
    with pytest.raises(ScheduleError) as error:
        validate(schedule)
    assert str(error.value) == (
        "the lists cannot be run to the end: ranks wait for each other, 0 -> 1 -> 0\n"
        "  rank 0, step 3 (0SEND_F1) waits for 1RECV_F1, which rank 1 does only at step 4\n"
        "  rank 1, step 3 (1SEND_B0) waits for 0RECV_B0, which rank 0 does only at step 4\n"
        "post the receive earlier: 1RECV_F1 before rank 1, step 3 (1SEND_B0)"
    )


def test_the_remedy_helps():
    """That receive posted earlier, and all else as it was."""
    first, second = naive(make("1f1b", 2, 2)).orders
    receive = Action(1, "RECV_F", 1)
    second = [a for a in second if a != receive]
    second.insert(second.index(Action(1, "SEND_B", 0)), receive)
    run_blocking(validate(Schedule.of([first, second])))


@pytest.mark.parametrize("schedule", [make("gpipe", 3, 4), make("1f1b", 2, 1)])
def test_where_nobody_sends_both_ways_the_naive_lists_end(schedule):
    run_blocking(validate(naive(schedule)))


@given(st.data(), schedules())
@settings(max_examples=200)
def test_a_message_elsewhere_is_refused_if_and_only_if_it_fails(data, schedule):
    """A send or a receive moves in its rank's list: validate says what the ranks will do."""
    orders = [list(order) for order in with_messages(schedule).orders]
    places = [(o, s) for o in orders for s in o if s.parts[0].kind in (*SENDS, *RECEIVES)]
    if places:
        order, step = data.draw(st.sampled_from(places))
        order.remove(step)
        order.insert(data.draw(st.integers(0, len(order))), step)
    moved = Schedule.of(orders)
    try:
        validate(moved)
    except ScheduleError:
        assert not ends(moved)
    else:
        assert ends(moved)


# What they consist of


@given(schedules())
def test_computing_stays_as_it_was(schedule):
    lowered = with_messages(schedule)
    steps = lambda order: tuple(s for s in order if s.parts[0].kind in COMPUTE)
    assert tuple(map(steps, lowered.orders)) == schedule.orders
    assert lowered.name == schedule.name


@given(schedules())
def test_it_is_done_once(schedule):
    lowered = with_messages(schedule)
    if lowered.has_messages:
        assert with_messages(lowered) is lowered
    else:
        assert lowered == schedule


def boundaries(schedule):
    return sum(map(schedule.crosses, range(schedule.stages)))


@given(schedules())
def test_a_message_for_each_boundary_between_ranks(schedule):
    ways = 2 if schedule.has_backward else 1
    lowered = with_messages(schedule)
    assert count(lowered) == ways * schedule.microbatches * boundaries(schedule)
    assert count(lowered, RECEIVES) == count(lowered)


@pytest.mark.parametrize("m", [4, 8])
@pytest.mark.parametrize("p", [1, 2, 4])
def test_numbers_of_messages(p, m):
    """Once around for each micro-batch; chunks send as often more; the fold of a V is local."""
    sent = lambda *schedule: count(with_messages(make(*schedule)))
    for name in ("gpipe", "1f1b", "zb-h1", "zb-h2"):
        assert sent(name, p, m) == 2 * m * (p - 1)
    for v in (2, 3):
        interleaved = 2 * m * (p * v - 1) if p > 1 else 0
        assert sent("interleaved", p, m, v) == sent("zb-h1", p, m, v) == interleaved
    assert sent("zbv", p, 2 * m) == sent("dualpipev", p, 2 * m) == 4 * (2 * m) * (p - 1)


# Where they stand


@given(schedules())
def test_a_send_follows_the_step_that_makes_its_array(schedule):
    makes = {"SEND_F": "F", "SEND_B": "IB"}
    for order in with_messages(schedule).orders:
        made = ()
        for step in order:
            kind = step.parts[0].kind
            if kind in SENDS:
                assert any(
                    a.kind in makes[kind] and (a.stage, a.microbatch) == (step.stage, step[2])
                    for a in made
                )
            else:
                made = step.parts if kind in COMPUTE else ()


def lead(order):
    """For each receive, how many steps compute between it and the one that needs it."""
    needs = {"F": "RECV_F", "I": "RECV_B", "B": "RECV_B"}
    computed, posted = 0, {}
    for step in order:
        if step.parts[0].kind in COMPUTE:
            for stage, kind, i in step.parts:
                receive = posted.get((stage, needs.get(kind), i))
                if receive is not None:
                    yield computed, computed - receive
            computed += 1
        else:
            posted[tuple(step)] = computed


@given(schedules())
def test_a_receive_is_posted_a_step_early(schedule):
    for order in with_messages(schedule).orders:
        assert all(early >= 1 or not before for before, early in lead(order))


def test_a_receive_that_is_needed_at_once_is_not_early():
    assert list(lead(naive(make("1f1b", 2, 2)).orders[1])) == [(0, 0), (2, 0)]


def test_not_all_receives_are_posted_at_once():
    """The last rank of a GPipe has no more than two forwards' ahead: what it holds is bounded."""
    (*_, last) = with_messages(make("gpipe", 4, 16)).orders
    assert max(early for _, early in lead(last)) <= 2


def test_one_by_hand():
    assert texts(with_messages(make("1f1b", 2, 3))) == [
        "0F0 0SEND_F0 0RECV_B0 0F1 0SEND_F1 0B0 0RECV_B1 0F2 0SEND_F2 0RECV_B2 0B1 0B2",
        "1RECV_F0 1RECV_F1 1F0 1B0 1SEND_B0 1F1 1RECV_F2 1B1 1SEND_B1 1F2 1B2 1SEND_B2",
    ]


def test_an_overlap_sends_what_both_parts_made():
    lowered = with_messages(
        lines("0F0 0F1 0B0 0B1", "1F0 (1F1;1B0)OVERLAP_F_B 1B1", "2F0 2B0 2F1 2B1")
    )
    assert "(1F1;1B0)OVERLAP_F_B 1SEND_F1 1SEND_B0" in texts(lowered)[1]
    run_blocking(validate(lowered))


def test_a_rank_sends_itself_nothing():
    assert texts(with_messages(lines("0F0 1F0 1B0 0B0"))) == ["0F0 1F0 1B0 0B0"]
    first, second = texts(with_messages(lines("0F0 3F0 3B0 0B0", "1F0 2F0 2B0 1B0")))
    assert first == "3RECV_F0 0F0 0SEND_F0 3F0 0RECV_B0 3B0 3SEND_B0 0B0"
    assert second == "1RECV_F0 1F0 2RECV_B0 2F0 2SEND_F0 2B0 1B0 1SEND_B0"


def test_what_gets_stuck_is_refused():
    with pytest.raises(ScheduleError) as error:
        with_messages(lines("0F0 0B0", "1B0 1F0"))
    assert str(error.value) == (
        "the lists cannot be run to the end: rank 1 waits for itself\n"
        "  rank 1, step 0 (1B0) waits for 1F0, which rank 1 does only at step 1\n"
        "  rank 0, step 1 (0B0) waits for 1B0, which rank 1 does only at step 0\n"
        "let one of these ranks first do what another waits for"
    )
    with pytest.raises(ScheduleError, match="waits for 1F0, which no rank does"):
        with_messages(lines("0F0", "2F0"))


@each_size
def test_an_action_is_looked_at_a_few_times(size, monkeypatch):
    """Once when its turn comes, and once more for each thing that it waited for."""
    seen, real = [], Progress.needs
    monkeypatch.setattr(Progress, "needs", lambda self, a: seen.append(a) or real(self, a))
    lowered = with_messages(make(*size))
    assert len(seen) <= 3 * count(lowered, COMPUTE)
    seen.clear()
    validate(lowered)
    assert len(seen) <= 3 * count(lowered, (*COMPUTE, *SENDS, *RECEIVES))
