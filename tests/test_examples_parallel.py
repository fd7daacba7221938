"""The examples of tensor and sequence parallelism: alone and on real ranks, they say the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.proofs import keeping

FOLDER = Path(__file__).resolve().parent.parent / "tutorials" / "examples"
SAID = {
    "tensor_parallel": [
        "rank 0 holds 1,154 parameters in 9,232 bytes (of 4,388 parameters in 35,104 bytes)",
        "{'fc_1.weight': (17, 16), 'fc_1.bias': (17,)}",
        "{'fc_1.weight': (16, 16), 'fc_1.bias': (16,)}",
        "sent 6 messages, 7,680 bytes by all_reduce",  # 3 sums of 10·16 float64, doubling: twice
    ],
    "sequence_parallel": [
        "tensor parallelism alone",
        "rank 0 holds 3,768 parameters, 30,144 bytes ([2, 2] heads, 8 of 31 words)",
        "between the pairs 18 of 18 tokens; sent 176,256 bytes by all_reduce\n",
        "with sequence parallelism",
        "between the pairs 5 of 18 tokens",
        "between the pairs 4 of 18 tokens",
        "62,400 bytes by reduce_scatter",
    ],
}
each_example = pytest.mark.parametrize("name", SAID)


def run_alone(name: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def check(done: subprocess.CompletedProcess, name: str, ranks: int) -> None:
    assert done.returncode == 0, done.stderr
    equal = r"^rank \d: loss (\S+), gradients and weights after a step are those of one process"
    losses = re.findall(equal, done.stdout, re.M)
    assert len(losses) == ranks and len(set(losses)) == 1, done.stdout
    assert all(text in done.stdout for text in SAID[name] if ranks == 4), done.stdout


@each_example
def test_alone(name):
    check(run_alone(name), name, 4)


@pytest.mark.mpi
@pytest.mark.parametrize("name", keeping(["tensor_parallel"], SAID))
def test_four_real_ranks_say_the_same_as_simulated_ones(mpirun, name):
    done = mpirun(4, FOLDER / f"{name}.py")
    check(done, name, 4)
    assert done.stdout == run_alone(name).stdout


@pytest.mark.mpi
@pytest.mark.parametrize("name", keeping(["sequence_parallel"], SAID))
def test_three_real_ranks(mpirun, name):
    check(mpirun(3, FOLDER / f"{name}.py"), name, 3)


# Data parallelism, and a mesh of two axes

MORE = {
    "data_parallel": [
        "rank 3 computes rows 6 to 6",
        "Naive       rank 0 sent 336,384 bytes in 168 messages a step",
        "Overlapped  rank 0 sent 336,384 bytes in   6 messages a step",
        "the three have the same bits",
    ],
    "mesh": ["rank 3 at dp 1, tp 1 holds of one process's bytes: parameters 0.52, gradients 0.26"],
    "zero": ["stage 3 rank 3: holds 98,960 parameters", "rank 3: the losses of one process"],
}


@pytest.mark.parametrize("name", MORE)
def test_more_of_them_without_mpi(name):
    done = run_alone(name)
    assert done.returncode == 0 and all(text in done.stdout for text in MORE[name]), done.stderr


@pytest.mark.mpi
@pytest.mark.parametrize("name", keeping(["zero", "mesh"], MORE))
def test_more_of_them_on_four_real_ranks(mpirun, name):
    done = mpirun(4, FOLDER / f"{name}.py")
    assert done.returncode == 0 and all(text in done.stdout for text in MORE[name]), done.stderr
