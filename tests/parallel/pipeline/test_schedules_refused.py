"""Sizes that a schedule cannot have are refused, with those that it can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.errors import UserError
from minidist.parallel.pipeline.schedules import NAMES, forward_only, make


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb-h2"])
def test_one_chunk_only(name):
    with pytest.raises(UserError, match=f"^--schedule {name} --chunks 2: {name} has 1 chunk a "):
        make(name, 2, 4, 2)
    assert make(name, 2, 4, 1) == make(name, 2, 4)


@pytest.mark.parametrize("name", ["zbv", "dualpipev"])
@pytest.mark.parametrize("chunks", [1, 3])
def test_two_chunks_only(name, chunks):
    with pytest.raises(UserError, match=f"^--schedule {name} --chunks {chunks}: {name} has 2 chun"):
        make(name, 2, 4, chunks)


def test_the_remedy_names_schedules_that_would_do():
    with pytest.raises(UserError, match=r"choose --chunks 2, or --schedule interleaved or zb-h1$"):
        make("zbv", 2, 4, 3)
    with pytest.raises(UserError, match="interleaved has at least 2 chunks a rank; choose --chunk"):
        make("interleaved", 2, 4, 1)


@pytest.mark.parametrize("name", ["interleaved", "zb-h1"])
def test_rounds(name):
    text = (
        f"--schedule {name} --pp 4 --microbatches 9: 9 micro-batches are not 2 equal rounds of 4 "
        "or more; choose --microbatches 8 or 10"
    )
    with pytest.raises(UserError, match=text):
        make(name, 4, 9, 2)
    assert make(name, 4, 8, 2) and make(name, 4, 10, 2)


def test_zb_h1_of_one_chunk_has_no_rounds():
    assert make("zb-h1", 4, 9).microbatches == 9


@given(st.integers(1, 9), st.integers(1, 40))
def test_rounds_are_refused_with_the_nearest_that_work(p, m):
    works = lambda n: n > 0 and n % max(1, n // p) == 0
    if works(m):
        return
    with pytest.raises(UserError) as error:
        make("interleaved", p, m)
    fewer, more = map(int, str(error.value).partition("choose --microbatches ")[2].split(" or "))
    assert works(fewer) and works(more) and fewer < m < more
    assert not any(map(works, range(fewer + 1, more)))


def test_dualpipev_needs_two_microbatches_a_rank():
    text = "choose --microbatches 8 or more, or --pp 3 or less$"
    with pytest.raises(UserError, match=text):
        make("dualpipev", 4, 7)
    assert make("dualpipev", 3, 7) and make("dualpipev", 4, 8)
    with pytest.raises(UserError, match=r"choose --microbatches 2 or more$"):
        make("dualpipev", 1, 1)


@pytest.mark.parametrize("sizes", [(0, 4, 1), (2, 0, 1), (2, 4, 0), (-1, 4, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_at_least_1(name, sizes):
    with pytest.raises(UserError, match=r"^--(pp|microbatches|chunks) (0|-1): want at least 1$"):
        make(name, *sizes)


@pytest.mark.parametrize(
    "given_, guess",
    [("1F1B", "1f1b"), ("zb_h1", "zb-h1"), ("zbh2", "zb-h2"), ("DualPipe", "dualpipev")],
)
def test_a_name_that_is_not_known(given_, guess):
    with pytest.raises(UserError, match=f"want one of gpipe, 1f1b.*; did you mean {guess}\\?$"):
        make(given_, 2, 4)


def test_a_name_like_none():
    with pytest.raises(UserError, match=r"^--schedule qqq: want one of .*dualpipev$"):
        make("qqq", 2, 4)


@pytest.mark.parametrize("rank_of, m", [((), 1), ((0, 2), 1), ((0, -1), 1), ((0, 1), 0)])
def test_forward_only_of_nothing(rank_of, m):
    with pytest.raises(UserError, match="a stage on every rank from 0 on"):
        forward_only(rank_of, m)
