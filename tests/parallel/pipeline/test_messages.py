"""Which messages the lists of a schedule get, and where they stand."""

import pytest
from hypothesis import given
from support.schedule_cases import count, each_size, lines, naive, run_blocking, schedules, texts

from minidist.parallel.pipeline.actions import COMPUTE, RECEIVES, SENDS
from minidist.parallel.pipeline.check.messages import with_messages
from minidist.parallel.pipeline.check.validate import ScheduleError, validate
from minidist.parallel.pipeline.needs import Needs
from minidist.parallel.pipeline.schedules import make

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
    seen, real = [], Needs.of
    monkeypatch.setattr(Needs, "of", lambda self, a: seen.append(a) or real(self, a))
    lowered = with_messages(make(*size))
    assert len(seen) <= 3 * count(lowered, COMPUTE)
    seen.clear()
    validate(lowered)
    assert len(seen) <= 3 * count(lowered, (*COMPUTE, *SENDS, *RECEIVES))
