"""One rule splits everything: contiguous, complete, disjoint, sizes within one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.comm import shard_bounds, shard_range


def is_fair_split(bounds, n):
    sizes = [stop - start for start, stop in bounds]
    covered = [i for start, stop in bounds for i in range(start, stop)]
    return covered == list(range(n)) and max(sizes) - min(sizes) <= 1


@given(st.integers(0, 200), st.integers(1, 33))
def test_shards_cover_everything_once_and_evenly(n, size):
    assert is_fair_split([shard_range(n, size, rank) for rank in range(size)], n)
    assert shard_bounds(n, size) == [shard_range(n, size, rank) for rank in range(size)]


def test_a_split_that_drops_the_remainder_is_caught():
    assert not is_fair_split([(rank * 3, rank * 3 + 3) for rank in range(3)], 10)
    assert not is_fair_split([(0, 6), (6, 8), (8, 10)], 10)


@pytest.mark.parametrize("n, size, rank", [(5, 2, 2), (5, 2, -1), (-1, 2, 0), (5, 0, 0)])
def test_a_rank_or_size_that_cannot_be_is_refused(n, size, rank):
    with pytest.raises(ValueError, match=f"n={n}, size={size}, rank={rank}"):
        shard_range(n, size, rank)
