"""A schedule that breaks a rule is refused: each planted fault, with rank, step and reason."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.schedule_cases import schedules

from minidist.parallel.pipeline.actions import SENDS, Action, Overlap, Schedule, parse
from minidist.parallel.pipeline.check.messages import with_messages
from minidist.parallel.pipeline.check.validate import ScheduleError, validate
from minidist.parallel.pipeline.schedules import NAMES, forward_only, make


def edited(schedule, edit):
    """The same after edit(lists), lists of the ranks' texts."""
    lists = [[str(step) for step in order] for order in schedule.orders]
    edit(lists)
    return Schedule.of(lists)


def reason(schedule, **options):
    with pytest.raises(ScheduleError) as error:
        validate(schedule, **options)
    return str(error.value)


@given(schedules(NAMES))
@settings(deadline=None, max_examples=60)
def test_every_schedule_that_is_made_is_valid_and_comes_back_complete(schedule):
    complete = validate(schedule)
    assert complete == with_messages(schedule)
    assert validate(complete) == complete


@given(st.data(), schedules(NAMES))
@settings(deadline=None, max_examples=60)
def test_nothing_can_be_left_out_or_done_twice(data, schedule):
    """Whatever single step is dropped or repeated, computing or message: refused."""
    complete = validate(schedule)
    rank = data.draw(st.integers(0, complete.ranks - 1))
    number = data.draw(st.integers(0, len(complete.orders[rank]) - 1))
    again = data.draw(st.booleans())

    def edit(lists):
        step = lists[rank].pop(number)
        if again:
            lists[rank][number:number] = [step, step]

    if schedule.stages == schedule.microbatches == 1:
        return  # what is left of F and B is an evaluation
    reason(edited(complete, edit))


@given(st.data(), schedules(NAMES))
@settings(deadline=None, max_examples=60)
def test_no_two_micro_batches_of_a_stage_can_be_exchanged(data, schedule):
    """LIFO in the small: two F, I, W or B of a stage change places."""
    rank = data.draw(st.integers(0, schedule.ranks - 1))
    kinds = {}
    for action in schedule.actions(rank):
        kinds.setdefault(action[:2], []).append(action)
    pairs = [(a, b) for like in kinds.values() for a, b in pairwise(like)]
    if not pairs:
        return
    a, b = data.draw(st.sampled_from(pairs))
    swap = lambda action: {a: b, b: a}.get(action, action)

    def swapped(step):
        if isinstance(step, Overlap):
            return Overlap(swap(step.forward), swap(step.backward))
        return swap(step)

    orders = [tuple(map(swapped, order)) for order in schedule.orders]
    reason(Schedule(tuple(orders)))


SMALL = with_messages(make("1f1b", 2, 3))
SPLIT = with_messages(make("zb-h1", 2, 3))


def drop(text):
    return lambda lists: [order.remove(text) for order in lists if text in order]


def move(text, before):
    def edit(lists):
        order = next(order for order in lists if text in order)
        order.remove(text)
        order.insert(order.index(before), text)

    return edit


def swap(a, b):
    def edit(lists):
        order = next(order for order in lists if a in order)
        i, j = order.index(a), order.index(b)
        order[i], order[j] = b, a

    return edit


def put(rank, text, at=0):
    return lambda lists: lists[rank].insert(at, text)


FAULTS = {
    "a send is missing": (SMALL, drop("0SEND_F1"), "0SEND_F1 is missing; rank 0, step"),
    "a receive is missing": (SMALL, drop("0RECV_B1"), "rank 0: 0RECV_B1 is missing"),
    "a send before what it sends": (SMALL, move("0SEND_F0", "0F0"), "0SEND_F0) needs 0F0, which"),
    "a receive after what needs it": (SMALL, move("1F1", "1RECV_F1"), "1F1) needs 1RECV_F1"),
    "two receives of a channel swapped": (
        SMALL, swap("1RECV_F0", "1RECV_F1"), "1RECV_F1) would get what"),
    "a send to oneself": (
        Schedule.of([["0F0", "0SEND_F0", "1RECV_F0", "1F0", "1B0", "0B0"]]), lambda lists: None,
        "which sends itself nothing"),
    "a send of the last stage": (SMALL, put(1, "1SEND_F0", 3), "stage 1 is the last; leave it out"),
    "a receive of the first": (SMALL, put(0, "0RECV_F0"), "no stage before the first"),
    "a W is dropped": (SPLIT, drop("0W1"), "0W1 is missing; without it the gradients lack"),
    "a W before its I": (SPLIT, swap("0I0", "0W0"), "0W0) needs 0I0, which comes only at step"),
    "a forward twice": (SMALL, put(0, "0F0", 5), "step 0 is the same; want every action once"),
    "backward before forward": (SMALL, move("1B0", "1F0"), "1B0) needs 1F0"),
    "both B and I": (SPLIT, put(1, "1B2", -1), "is both 1I2 and 1W2"),
    "W without I": (SPLIT, lambda lists: [drop("1I2")(lists), drop("1SEND_B2")(lists)],
                    "1I2 is missing"),
    "a backward is missing": (make("gpipe", 2, 2), drop("0B1"), "its backward is missing"),
    "a forward is missing": (make("gpipe", 2, 2), drop("1F1"), "1F1 is missing"),
    "an action on the wrong rank": (
        make("gpipe", 2, 2), lambda lists: [drop("1B1")(lists), put(0, "1B1", 4)(lists)],
        "stage 1 is on two ranks"),
    "a micro-batch left out": (
        make("gpipe", 2, 3), lambda lists: [order.remove(f"{s}{k}1") for s, order in
                                            enumerate(lists) for k in "FB"],
        "micro-batch 1 is nowhere"),
    "a stage left out": (Schedule.of([["0F0", "0B0"], ["2F0", "2B0"]]), lambda lists: None,
                         "stage 1 is nowhere"),
    "an idle rank": (make("gpipe", 2, 2), lambda lists: lists.append([]), "rank 2 does nothing"),
    "LIFO backward": (make("gpipe", 2, 2), lambda lists: [swap("0B0", "0B1")(lists),
                                                          swap("1B0", "1B1")(lists)],
                      "want micro-batches in ascending order"),
    "weights in another order": (make("zb-h1", 3, 4), swap("2W0", "2W1"),
                                 "gradients of weights are summed in this order"),
    "warm-up one too short": (make("interleaved", 2, 4), move("3B0", "3F0"), "3B0) needs 3F0"),
    "an unknown kind": (Schedule(((Action(0, "X", 0),),)), None, "want one of F, I"),
    "backward overlaps backward": (
        Schedule(((Action(0, "F", 0), Overlap(Action(0, "B", 0), Action(0, "F", 1)),
                   Action(0, "B", 1)),)), None, "F and B overlap, no others"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_refused_with_its_place(name):
    schedule, edit, text = FAULTS[name]
    wrong = schedule if edit is None else edited(schedule, edit)
    assert text in reason(wrong)


def test_warm_up_off_by_one_breaks_the_bound_on_memory():
    schedule = make("1f1b", 4, 8)
    assert validate(schedule, max_live=4)
    text = reason(make("gpipe", 4, 8), max_live=4)
    assert "rank 0, step 4 (0F4): the rank then holds the activations of 5 micro-batches" in text
    longer = edited(schedule, lambda lists: lists[0].insert(4, lists[0].pop(5)))
    assert "and may hold 4" in reason(longer, max_live=4)
    assert validate(make("dualpipev", 4, 12), max_live=9)
    assert "may hold 8" in reason(make("dualpipev", 4, 12), max_live=8)


def test_a_deadlock_names_the_circle():
    wrong = Schedule.of([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1F1", "1B0", "1B1"],
                         ["2F0", "2B0", "2F1", "2B1"]])  # fmt: skip
    assert validate(wrong)
    stuck = edited(wrong, lambda lists: lists[0].insert(1, lists[0].pop(2)))
    text = reason(stuck)
    assert "ranks wait for each other, 0 -> 1 -> 0" in text
    assert "rank 0, step 1 (0B0) waits for 1B0, which rank 1 does only at step 2" in text
    assert "rank 1, step 1 (1F1) waits for 0F1, which rank 0 does only at step 2" in text


def test_sends_that_only_buffers_would_save_are_refused():
    """Both ranks send first and receive then: right only as long as the library buffers."""
    good = Schedule.of([
        ["0F0", "0SEND_F0", "0F1", "0RECV_B0", "0SEND_F1", "0B0", "0RECV_B1", "0B1"],
        ["1RECV_F0", "1F0", "1B0", "1RECV_F1", "1SEND_B0", "1F1", "1B1", "1SEND_B1"],
    ])  # fmt: skip
    assert validate(good)
    late = edited(good, lambda lists: [
        swap("0RECV_B0", "0SEND_F1")(lists), swap("1RECV_F1", "1SEND_B0")(lists)])  # fmt: skip
    text = reason(late)
    assert "ranks wait for each other, 0 -> 1 -> 0" in text and "post the receive earlier" in text


def test_evaluation_has_no_backward_at_all():
    assert validate(forward_only((0, 1, 1, 0), 3)).microbatches == 3
    half = edited(forward_only((0, 1), 3), lambda lists: lists[0].append("0B0"))
    assert "backward is missing" in reason(half)
    gradients = edited(validate(forward_only((0, 1), 2)), lambda lists: [
        lists[0].append("0RECV_B0"), lists[1].append("1SEND_B0")])  # fmt: skip
    reason(gradients)


def test_no_ranks_at_all():
    assert "no ranks" in reason(Schedule(()))


def test_parse_and_validate_agree_on_what_a_cell_is():
    assert parse("1F0") == Action(1, "F", 0)
    assert [a.kind for a in SMALL.actions(0) if a.kind in SENDS] == ["SEND_F"] * 3
