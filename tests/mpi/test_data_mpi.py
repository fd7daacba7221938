"""Data parallelism on real ranks: the bits of simulated ones, and overlapped those of bucketed."""

import json
import runpy
from pathlib import Path

import pytest
from support.proofs import proofs

from minidist.comm import simulate

PROGRAM = Path(__file__).with_name("programs") / "data_cases.py"
RESULTS = runpy.run_path(str(PROGRAM))["results"]
pytestmark = pytest.mark.mpi


def on_real_ranks(mpirun, folder, n):
    done = mpirun(n, PROGRAM, folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(n)]


@pytest.mark.parametrize("n", [1, 3, *proofs(2, 4)])
def test_training_on_real_ranks_has_the_bits_of_simulated_ones(mpirun, tmp_path, n):
    real = on_real_ranks(mpirun, tmp_path, n)
    assert simulate(RESULTS, n, seed=n) == real
    assert all(found == real[0] for found in real), "ranks end with different parameters"
    for name, digest in real[0].items():
        model, way, algorithm = name.split()
        assert digest == real[0][f"{model} bucketed {algorithm}"] or way == "naive", name
        assert digest == real[0][f"{model} naive ordered"] or algorithm == "ring", name
