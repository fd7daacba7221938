"""launch: a program runs where we are, and a launcher of another MPI is found out."""

import numpy as np
import pytest

from minidist.comm import MpiError, all_reduce, launch, launcher


def test_alone_it_runs_on_simulated_ranks():
    assert launch(lambda comm: (comm.rank, comm.size)) == (0, 1)
    assert launch(lambda comm: int(all_reduce(comm, np.array(comm.rank))), ranks=4) == 6


class One:
    """What mpi4py gives when its library is not the launcher's: every process is alone."""

    rank, size = 0, 1


def test_a_launcher_of_another_mpi_is_found_out(monkeypatch):
    monkeypatch.setattr(launcher, "world_from_env", lambda: (0, 4))
    monkeypatch.setattr(launcher, "mpi_world", lambda: One)
    with pytest.raises(MpiError, match="started 4 ranks, but mpi4py's MPI library sees 1"):
        launch(lambda comm: None)
