"""Bells: a sleeping rank wakes when another one rings, and loses no ring."""

import ctypes
import threading
import time

import pytest

from minidist.comm.mpi import bell

LONG = 0.9  # seconds: a sleep that nobody ends


class Memory:
    """The words of some ranks, as a board has them."""

    def __init__(self, size):
        self.words = (ctypes.c_uint32 * size)()

    def bells(self):
        start = ctypes.addressof(self.words)
        return {rank: start + 4 * rank for rank in range(len(self.words))}


@pytest.fixture
def ranks():
    memory = Memory(3)
    found = [bell.find_bells(memory, rank, 3) for rank in range(3)]
    if None in found:
        pytest.skip("this system has no futex")
    yield found
    del memory


def seconds(task, *args):
    start = time.monotonic()
    task(*args)
    return time.monotonic() - start


def test_a_sleep_ends_when_another_rank_rings(ranks):
    sleeper, other, _ = ranks
    timer = threading.Timer(0.1, other.ring, [0])
    timer.start()
    assert 0.05 < seconds(sleeper.sleep, sleeper.heard(), LONG) < LONG / 2
    timer.join()


def test_a_ring_before_the_sleep_is_not_lost(ranks):
    sleeper, *others = ranks
    for other in (*others, *others):
        heard = sleeper.heard()
        other.ring(0)
        assert sleeper.heard() != heard
        assert seconds(sleeper.sleep, heard, LONG) < LONG / 2


def test_two_rings_that_cross_change_the_number(ranks):
    """Both others write at the same time: whichever is last, the number is a new one."""
    sleeper, one, other = ranks
    seen = {sleeper.heard()}
    for _ in range(5):
        one.ring(0)
        other.ring(0)
        assert sleeper.heard() not in seen
        seen.add(sleeper.heard())


def test_a_sleep_without_a_ring_ends_by_itself(ranks):
    sleeper, other, _ = ranks
    other.ring(2)  # another rank's bell
    assert 0.04 < seconds(sleeper.sleep, sleeper.heard(), 0.05) < LONG


def test_a_rank_does_not_ring_itself_or_a_rank_of_another_machine(ranks):
    me = ranks[0]
    before = [r.heard() for r in ranks]
    me.ring(0, 17)
    assert [r.heard() for r in ranks] == before


def test_there_are_no_bells_on_another_system(monkeypatch):
    monkeypatch.setattr(bell.sys, "platform", "darwin")
    assert bell.find_bells(Memory(2), 0, 2) is None
    monkeypatch.undo()
    monkeypatch.setattr(bell.platform, "machine", lambda: "unknown")
    assert bell.find_bells(Memory(2), 0, 2) is None


def test_there_are_no_bells_where_the_call_is_refused(monkeypatch):
    """A system that answers anything else at once would make a rank spin."""
    monkeypatch.setattr(bell, "FUTEX", dict.fromkeys(bell.FUTEX, 100_000))  # no such call
    assert bell.find_bells(Memory(2), 0, 2) is None
