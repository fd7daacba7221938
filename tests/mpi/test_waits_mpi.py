"""Real ranks without debug: a long wait is reported, a wait that nobody can end ends the job."""

import re
import time
from pathlib import Path

import pytest
from support.proofs import proofs

PROGRAM = Path(__file__).parent / "programs" / "comm_waits.py"
SOON = {"MINIDIST_DEBUG": "0", "MINIDIST_NOTICE": "0.3"}
pytestmark = pytest.mark.mpi

# The way to hang, and the call in which rank 1 waits.
HANGS = [
    ("mixed", "all_reduce: (recv|send)"),
    ("ring", r"send\(dest=2"),
    *proofs(
        ("split", "barrier: recv"),
        ("native", "barrier: recv"),
        ("inside", "MPI's Bcast"),
        ("beside", "barrier: recv"),
        ("stopped", "barrier: recv"),
    ),
]


@pytest.mark.parametrize("way, call", HANGS)
def test_a_hang_is_reported_once_and_ends_the_job(mpirun, way, call):
    start = time.monotonic()
    done = mpirun(3, PROGRAM, way, "1", env={**SOON, "MINIDIST_TIMEOUT": "900"})  # "1" wins
    assert done.returncode != 0 and time.monotonic() - start < 30
    notice = rf"^rank 1 has waited \d\.\d s in {call}.* at \S*comm_waits.py:\d+ in {way}"
    assert len(re.findall(notice, done.stderr, re.M)) == 1, done.stderr
    assert "no rank that it depends on is running: the job ends after 1 s of this" in done.stderr
    assert re.search(r"rank \d of 3 \| minidist.comm.errors.DeadlineError: rank \d has waited",
                     done.stderr)  # fmt: skip
    assert "MINIDIST_TIMEOUT=seconds" in done.stderr and "in the same order" in done.stderr


def test_a_rank_that_computes_or_saves_may_take_longer_than_the_deadline(mpirun):
    done = mpirun(3, PROGRAM, "saves", env={**SOON, "MINIDIST_TIMEOUT": "0.8"})
    assert done.returncode == 0 and done.stdout.count("fine") == 3, done.stderr
    calls = re.findall(r"^rank 1 has waited \d\.\d s in (.*) for rank \d at ", done.stderr, re.M)
    assert "barrier: recv(source=0, tag=32004)" in calls, done.stderr
    assert len(calls) == len(set(calls)), "each call is reported once\n" + done.stderr
    assert "rank 0 last seen" in done.stderr and "it runs: it computes, compiles" in done.stderr
    assert "no limit while a rank that it depends on runs" in done.stderr
