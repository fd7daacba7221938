"""What ranks compare before a collective, on simulated ranks; and what the environment asks for."""

import numpy as np
import pytest

from minidist import comm as c
from minidist.comm import MismatchError, simulate
from minidist.comm.environment import DEADLINE, cuda_aware, deadline, debug_level
from minidist.comm.guard.fingerprint import BYTES, Fingerprint, describe_group
from minidist.errors import UserError

X = np.ones(4)
DIFFERENT = {
    "operation": lambda comm, odd: c.barrier(comm) if odd else c.all_reduce(comm, X),
    "dtype": lambda comm, odd: c.all_reduce(comm, X.astype("f4") if odd else X),
    "shape": lambda comm, odd: c.all_reduce(comm, X[:3] if odd else X),
    "reduction": lambda comm, odd: c.all_reduce(comm, X, "max" if odd else "sum"),
    "root": lambda comm, odd: c.broadcast(comm, X.copy(), root=int(odd)),
    "counts": lambda comm, odd: c.reduce_scatter(comm, X, counts=[0, 4, 0] if odd else [4, 0, 0]),
    "algorithm": lambda comm, odd: c.scan(comm, X, algorithm="chain" if odd else "doubling"),
}


@pytest.mark.parametrize("what", DIFFERENT)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_mismatch_shows_both_call_sites(what, seed):
    with pytest.raises(MismatchError) as caught:
        simulate(lambda comm: DIFFERENT[what](comm, comm.rank == 1), 3, seed=seed, debug=1)
    text = str(caught.value)
    assert f"ranks do not call the same collective: {what} is " in text
    assert text.count("test_fingerprint.py:") == 2 and "same order" in text


def test_equal_calls_pass_and_rows_may_differ():
    def main(comm):
        c.all_gather(comm, np.ones((comm.rank, 2)))
        c.gather(comm, np.ones((comm.rank, 2)))
        c.all_to_all(comm, np.ones((comm.rank + 3, 2)))
        c.scatter(comm, X if comm.rank == 0 else None)
        c.all_reduce(comm.split(comm.rank % 2), np.ones(comm.rank % 2))
        c.wait_all([c.iall_reduce(comm, X), c.ibarrier(comm)])

    for seed in (None, 0, 1, 2):
        simulate(main, 4, seed=seed, debug=1)


def test_without_debug_nothing_is_compared_and_nothing_is_looked_up():
    def main(comm):
        return c.all_reduce(comm, np.ones(4), "sum" if comm.rank else "max", "ring").tolist()

    simulate(main, 2, debug=0)
    with pytest.raises(MismatchError):
        simulate(main, 2, debug=1)


def test_call_sites_are_compared_with_debug_2():
    def main(comm):
        if comm.rank == 1:
            return c.barrier(comm)
        return c.barrier(comm)

    simulate(main, 2, debug=1)
    with pytest.raises(MismatchError, match="site is "):
        simulate(main, 2, debug=2)


def test_the_label_and_the_place_are_shown():
    def main(comm):
        c.barrier(comm)
        c.all_reduce(comm, X[: 3 + comm.rank], label="grad/w1")

    with pytest.raises(MismatchError) as caught:
        simulate(main, 2, debug=1)
    line = r"rank 1: all_reduce(float64 (4,), reduction=sum, algorithm=auto) 'grad/w1' #1 of ranks"
    assert line in str(caught.value)


def test_a_fingerprint_survives_its_bytes_however_long():
    short = Fingerprint("3", "0 to 7", "17", "all_reduce", "float32", "(3, 4)", "sum",
                        label="grad/é", site="a.py:3 in f")  # fmt: skip
    assert short.encode().size == BYTES
    assert Fingerprint.decode(short.encode()) == short
    long = Fingerprint(
        "3", "0", "1", "scatter", counts=str([1] * 999), label="é" * 999, site="s" * 99
    )
    back = Fingerprint.decode(long.encode())
    assert long.encode().size == BYTES and back.site == long.site and back.operation == "scatter"


def test_groups_are_told_apart_in_few_words():
    assert (
        describe_group(range(2, 6)) == "2 to 5"
        and describe_group([4]) == "4"
        and describe_group([0, 2]) == "0, 2"
    )
    many = [describe_group([0, 1, 5, *range(k, k + 40)]) for k in (7, 8)]
    assert many[0] != many[1] and all(len(m) < 60 for m in many)


def test_what_the_environment_asks_for():
    assert debug_level({}) == 0 and debug_level({"MINIDIST_DEBUG": "2"}) == 2
    assert deadline({}) == deadline({"MINIDIST_DEBUG": "1"}) == DEADLINE
    assert deadline({"MINIDIST_TIMEOUT": "2.5"}) == 2.5
    assert cuda_aware({"MINIDIST_CUDA_AWARE": "1"}) and not cuda_aware({})
    with pytest.raises(UserError, match="want 0 or 1"):
        debug_level({"MINIDIST_DEBUG": "yes"})
    for text in ("soon", "0", "-1", "nan"):
        with pytest.raises(UserError, match="more than 0"):
            deadline({"MINIDIST_TIMEOUT": text})
    with pytest.raises(UserError, match="MINIDIST_CUDA_AWARE='true'"):
        cuda_aware({"MINIDIST_CUDA_AWARE": "true"})
