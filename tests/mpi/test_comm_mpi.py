"""Real ranks: the bits and messages of simulated ones, and no failure leaves anyone waiting."""

import json
import os
import runpy
import time
from pathlib import Path

import pytest
from support.proofs import proofs

from minidist.comm import simulate

PROGRAMS = Path(__file__).with_name("programs")
TWO_BLAS_THREADS = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}  # that a rank gives up
RESULTS = runpy.run_path(str(PROGRAMS / "comm_cases.py"))["results"]
pytestmark = pytest.mark.mpi


def on_real_ranks(mpirun, folder, n, *args):
    done = mpirun(n, PROGRAMS / "comm_cases.py", folder, *args)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(n)]


@pytest.mark.parametrize("n", [1, 3, 4, *proofs(2, 5, 8)])
def test_real_and_simulated_ranks_agree_to_the_bit_and_the_message(mpirun, tmp_path, n):
    real = on_real_ranks(mpirun, tmp_path, n)
    assert simulate(RESULTS, n) == real
    assert simulate(RESULTS, n, seed=0) == real


def test_another_order_of_summation_on_real_ranks_is_caught(mpirun, tmp_path):
    real = on_real_ranks(mpirun, tmp_path, 3, "mutant")
    differ = {name for name, found in simulate(RESULTS, 3)[0].items() if found != real[0][name]}
    assert {"reductions: ledger", "ring float32 (37, 5)"} <= differ
    assert "ring int64 (37, 5): messages" in differ
    assert "ring int64 (37, 5)" not in differ


def test_native_all_reduce_mismatches_lost_requests_and_one_blas_thread(mpirun):
    done = mpirun(4, PROGRAMS / "comm_native.py", env=TWO_BLAS_THREADS)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} is fine" for rank in range(4)]


def fail(mpirun, how):
    start = time.monotonic()
    done = mpirun(4, PROGRAMS / "comm_failures.py", how)
    assert time.monotonic() - start < 10
    return done


def test_an_uncaught_exception_on_one_rank_ends_the_job_with_its_traceback(mpirun):
    done = fail(mpirun, "raise")
    assert done.returncode != 0
    assert "rank 2 of 4 | Traceback" in done.stderr
    assert "rank 2 of 4 | KeyError: 'lost shard'" in done.stderr


def test_a_failing_exit_of_one_rank_ends_the_job(mpirun):
    done = fail(mpirun, "exit")
    assert done.returncode != 0  # 3 as a rule; 9 where mpirun saw a rank that it killed itself
    assert "rank 1 of 4 | exits with 3" in done.stderr


def test_an_agreed_exit_ends_every_rank_with_its_code(mpirun):
    done = fail(mpirun, "agree")
    assert done.returncode == 2
    assert done.stderr.count("rank 1: train.txt is empty") == 4
    assert sorted(done.stdout.split()) == ["begun"] * 4


@pytest.mark.proof
def test_messages_of_more_than_two_gigabytes(mpirun):
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 16 << 30:
        pytest.skip("it takes 13 GiB of memory")
    done = mpirun(2, PROGRAMS / "comm_large.py", timeout=300)
    assert done.returncode == 0, done.stderr
