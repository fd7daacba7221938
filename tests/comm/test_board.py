"""The board: which ranks wait for whom, whether one of them runs, and the settings of a wait."""

import os

import numpy as np
import pytest

from minidist.comm.environment import DEADLINE, NOTICE, deadline, notice
from minidist.comm.guard.board import EXITED, NOTE, Board
from minidist.errors import UserError


def board_of(waits, exited=(), gone=()):
    """Rank 0's board; waits[rank] are the ranks for which a rank waits, None is another machine."""
    board = object.__new__(Board)
    board.notes = {r: np.zeros((), NOTE) for r, peers in enumerate(waits) if peers is not None}
    for rank, note in board.notes.items():
        board.mine = note
        note["pid"] = 1 << 22 if rank in gone else os.getpid()  # no process has so large a number
        board.note("start")
        board.note_wait(waits[rank])
        if rank in exited:
            board.note_end(EXITED)
    return board


@pytest.mark.parametrize(
    "waits, options, runs",
    [
        ([[1], [0]], {}, False),
        ([[1], []], {}, True),
        ([[1], [2], [0]], {}, False),
        ([[1], [2], []], {}, True),  # rank 2 computes, and rank 1 waits for it
        ([[1], [0], []], {}, False),  # rank 2 runs, but nobody waits for it
        ([[1], []], {"exited": [1]}, False),
        ([[1], []], {"gone": [1]}, False),
        ([[1], [2], None], {}, False),  # a rank on another machine cannot be seen
        ([[1], [*range(9)], *[[0]] * 7], {}, False),  # a long list is noted as all ranks
        ([[1], [*range(9)], *[[0]] * 6, []], {}, True),
    ],
)
def test_a_wait_can_end_only_if_a_rank_that_it_depends_on_runs(waits, options, runs):
    assert board_of(waits, **options).any_runs(waits[0]) == runs


def test_a_wait_that_is_over_is_none():
    board = board_of([[], [0, 2], [1]])
    board.mine = board.notes[1]
    assert board.waits_for(1) == [0, 2] and not board.runs(1)
    assert "it waits for rank 0, 2" in board.last_seen(1) and "it runs" in board.last_seen(0)
    board.end_wait()
    assert board.waits_for(1) == [] and board.runs(1)


@pytest.mark.parametrize("read, name, default", [
    (deadline, "MINIDIST_TIMEOUT", DEADLINE), (notice, "MINIDIST_NOTICE", NOTICE),
])  # fmt: skip
def test_the_waits_are_settable_with_and_without_debug(read, name, default):
    assert read({}) == read({name: "", "MINIDIST_DEBUG": "1"}) == default
    assert (DEADLINE, NOTICE) == (600, 10)
    assert read({name: "2.5"}) == 2.5 and read({name: "inf"}) == float("inf")
    for wrong in ("0", "-1", "nan", "soon"):
        with pytest.raises(UserError, match=f"{name}='{wrong}': want seconds, more than 0"):
            read({name: wrong})
