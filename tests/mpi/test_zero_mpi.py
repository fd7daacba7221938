"""ZeRO on real ranks: the bits, the bytes and the messages of simulated ranks, at every stage."""

import json
import runpy
from pathlib import Path

import pytest
from support.proofs import proofs

from minidist.comm import simulate

PROGRAM = Path(__file__).with_name("programs") / "zero_stages.py"
RESULTS = runpy.run_path(str(PROGRAM))["results"]
pytestmark = pytest.mark.mpi


def on_real_ranks(mpirun, folder, n, *args):
    done = mpirun(n, PROGRAM, folder, *args)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(n)]


@pytest.mark.parametrize("n", [3, *proofs(2)])
def test_stages_agree_with_simulated_ranks_and_weights_are_freed(mpirun, tmp_path, n):
    real = on_real_ranks(mpirun, tmp_path, n)
    for left in (rank.pop("left") for rank in real):
        assert left == [0, 0, 3]
    assert json.loads(json.dumps(simulate(RESULTS, n))) == real
    assert json.loads(json.dumps(simulate(RESULTS, n, seed=0))) == real
    digests = {rank[stage][1] for rank in real for stage in rank}
    assert len(digests) == 1, "all stages on all ranks end with the same bits"


def test_a_gather_left_out_on_real_ranks_is_seen(mpirun, tmp_path):
    real = on_real_ranks(mpirun, tmp_path, 2, "mutant")
    simulated = json.loads(json.dumps(simulate(RESULTS, 2)))
    assert simulated[0]["stage 1"][1] != real[0]["stage 1"][1]


@pytest.mark.proof  # test_examples_parallel starts it in every run
def test_the_example_on_four_real_ranks(mpirun):
    done = mpirun(4, Path(__file__).parents[2] / "tutorials" / "examples" / "zero.py")
    assert done.returncode == 0, done.stderr
    assert "stage 3 rank 3: holds 98,960 parameters" in done.stdout
