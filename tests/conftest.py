"""What all tests share: the cases that Hypothesis draws, which process runs what, and `mpirun`."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

# Workers as many as cores, each with one BLAS thread: threads that wait for a core spin.
# NumPy reads this when it is loaded, in this process and in those that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MINIDIST_DEBUG", "1")  # ranks compare what they call, in every test
os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it when it is loaded: no GPU here

# A property test that fails is not shrunk in `make test`: many tests plant a fault and call one
# that has to fail, and looking for its smallest failure took longer than all the rest of it.
FOUND = (Phase.explicit, Phase.generate, Phase.target)
settings.register_profile("test", deadline=None, derandomize=True, phases=FOUND)
settings.register_profile("proofs", deadline=None, derandomize=True)
settings.load_profile("test")
SHARE = {"test": 1 / 3, "proofs": 3}  # of the cases that a property test names
FEWEST = 6  # that are drawn, if the test names as many

OPEN_MPI = {  # as root, and with more ranks than cores; other libraries ignore these
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
LAUNCHERS_OWN = re.compile(r"-{70,}\n(?:prterun|mpirun) detected.*?-{70,}\n", re.DOTALL)
MPIRUN = Path(sys.executable).with_name("mpirun")


FOLDER = Path(__file__).parent
FIRST = ("mpi", "gpu", "train", "kernels", "parallel", "comm")  # the slowest: none starts last


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow folders come first; property tests draw as many cases as the profile says."""
    items.sort(key=rank_of)
    profile = config.getoption("hypothesis_profile", None) or "test"
    scaled: set[int] = set()
    for item in items:
        function = getattr(item, "function", None)
        if not getattr(function, "is_hypothesis_test", False):
            continue
        if profile == "proofs":
            item.add_marker("proof")
        if id(function) not in scaled:  # one function has an item for each of its parameters
            scaled.add(id(function))
            scale(function, SHARE.get(profile, 1.0))


def rank_of(item: pytest.Item) -> int:
    """The place of an item's folder in the order of the run."""
    folder, *rest = item.path.relative_to(FOLDER).parts
    if rest:
        return FIRST.index(folder) if folder in FIRST else len(FIRST) + 1
    return len(FIRST)  # examples and commands, each in processes of its own


def scale(function: Any, share: float) -> None:
    """Change how many cases a property test draws. Hypothesis has no public name for this."""
    own = getattr(function, "_hypothesis_internal_use_settings", None) or settings()
    cases = own.max_examples
    drawn = max(min(cases, FEWEST), round(cases * share))
    function._hypothesis_internal_use_settings = settings(own, max_examples=drawn)


def pytest_collection_finish() -> None:
    """Collections of garbage need not look through 8,000 tests and all that they import."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries report at the end that they leak what was frozen


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests run in one process, so that it makes its fixtures once; tests/mpi in one, too.

    xdist's own groups (`--dist loadgroup`) do nothing under pytest 9.2: every test is on its own.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "mpi" if "/mpi/" in file else file

    return ByFile(config, log)


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


@pytest.fixture
def ask_for_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that sets MINIDIST_KERNELS, which is read once; at first nothing is asked for."""
    from minidist.kernels import dispatch

    def ask(name: str) -> None:
        monkeypatch.setenv("MINIDIST_KERNELS", name)
        dispatch._environment.cache_clear()

    ask("")
    yield ask
    dispatch._environment.cache_clear()
