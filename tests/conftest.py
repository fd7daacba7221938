"""What all tests share: reproducible Hypothesis runs, and `mpirun` for tests on real ranks."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("MINIDIST_DEBUG", "1")  # ranks compare what they call, in every test
os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it when it is loaded: no GPU here

settings.register_profile("minidist", deadline=None, derandomize=True)
settings.load_profile("minidist")

OPEN_MPI = {  # as root, and with more ranks than cores; other libraries ignore these
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
LAUNCHERS_OWN = re.compile(r"-{70,}\n(?:prterun|mpirun) detected.*?-{70,}\n", re.DOTALL)
MPIRUN = Path(sys.executable).with_name("mpirun")


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of two processes that run tests, one has all that starts ranks; files are not torn apart."""
    for item in items:
        starts_ranks = "mpirun" in getattr(item, "fixturenames", ())
        group = "mpirun" if starts_ranks else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


Mpirun = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def mpirun() -> Mpirun:
    """`mpirun(n, program, *args, timeout=60, env={})` runs a Python program on n real ranks."""
    if importlib.util.find_spec("mpi4py") is None or not MPIRUN.exists():
        pytest.skip(f"no mpi4py or no {MPIRUN}: pip install 'minidist[mpi]'")
    return start_ranks


def start_ranks(
    n: int, *args: object, timeout: float = 60, env: Mapping[str, str] = {}
) -> subprocess.CompletedProcess:
    """Run `python args…` on n ranks; one that does not end in time is stopped, and fails."""
    command = [str(MPIRUN), "-n", str(n), sys.executable, *map(str, args)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **OPEN_MPI, **env},
        start_new_session=True,
    ) as job:
        try:
            out, err = job.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            stop(job)
            pytest.fail(f"{n} ranks of {args} did not end within {timeout} s")
    return subprocess.CompletedProcess(command, job.returncode, out, LAUNCHERS_OWN.sub("", err))


def stop(job: subprocess.Popen) -> None:
    """Let mpirun end its ranks, which it keeps in sessions of their own; then end mpirun."""
    job.terminate()
    try:
        job.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
