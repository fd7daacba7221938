"""launch: a program runs where we are, and a launcher of another MPI is found out."""

import numpy as np
import pytest

from minidist.comm import MpiError, all_reduce, launch, launcher
from minidist.comm.environment import is_launched


def test_alone_it_runs_on_simulated_ranks():
    assert launch(lambda comm: (comm.rank, comm.size)) == (0, 1)
    assert launch(lambda comm: int(all_reduce(comm, np.array(comm.rank))), ranks=4) == 6


class One:
    """What mpi4py gives when its library is not the launcher's: every process is alone."""

    rank, size = 0, 1


def test_a_launcher_of_another_mpi_is_found_out(monkeypatch):
    monkeypatch.setattr(launcher, "is_launched", lambda: True)
    monkeypatch.setattr(launcher, "world_from_env", lambda: (0, 4))
    monkeypatch.setattr(launcher, "mpi_world", lambda timeout: One)
    with pytest.raises(MpiError, match="started 4 ranks, but mpi4py's MPI library sees 1"):
        launch(lambda comm: None)


@pytest.mark.parametrize(
    "env, launched",
    [
        ({}, False),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, True),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, True),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, False),  # a shell under srun, too
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"PMI_RANK": "", "PMI_SIZE": "1"}, False),
    ],
)
def test_mpirun_of_one_rank_is_a_launcher_too(env, launched):
    assert is_launched(env) == launched


@pytest.mark.mpi
def test_mpirun_of_one_rank_means_one_rank(mpirun):
    program = (
        "from minidist.comm import launch; print(launch(lambda c: c.size, ranks=4, timeout=9))"
    )
    done = mpirun(1, "-c", program)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr
