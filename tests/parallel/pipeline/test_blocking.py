"""Lowered lists, run on simulated ranks with sends that block: they end, and validate agrees."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.schedule_cases import each_size, ends, naive, run_blocking, schedules, texts

from minidist.comm import DeadlockError
from minidist.parallel.pipeline.actions import RECEIVES, SENDS, Action, Schedule
from minidist.parallel.pipeline.check.messages import with_messages
from minidist.parallel.pipeline.check.validate import ScheduleError, validate
from minidist.parallel.pipeline.schedules import make


@each_size
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_lists_end_though_sends_block(size, seed):
    run_blocking(with_messages(make(*size)), seed)


@given(schedules(), st.integers(0, 9))
def test_any_lists_end_though_sends_block(schedule, seed):
    run_blocking(with_messages(schedule), seed)


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
