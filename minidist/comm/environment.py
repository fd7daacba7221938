"""Everything that ranks read from the environment: MINIDIST_… settings, rank and size by mpirun."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import UserError

DEADLINE = 600.0  # seconds that a rank waits before it raises, if no rank can end the wait
NOTICE = 10.0  # seconds that a rank waits before it reports on stderr

SLURM_SIZE = "SLURM_STEP_NUM_TASKS"
LAUNCHERS = [  # variables that MPICH's and Intel's mpirun, Open MPI's mpirun, and srun set
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", SLURM_SIZE),
]
RANKS_OWN = (  # how the launchers' variables for one rank begin
    "PMI_", "PMIX_", "HYDI_", "MPI_LOCAL", "OMPI_COMM_WORLD_", "PRTE_LAUNCHED",
)  # fmt: skip
LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID",
)  # fmt: skip


def world_from_env(env: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, size) by the launcher's environment variables, without starting MPI.

    Outside a launcher it is (0, 1); also in a Slurm batch script, which is not yet a rank.
    """
    for rank, size in LAUNCHERS:
        if env.get(rank, "").isdigit() and env.get(size, "").isdigit():
            return int(env[rank]), int(env[size])
    return 0, 1


def is_launched(env: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher started this process as a rank; `mpirun -n 1` starts one rank.

    A single task of Slurm does not count: an interactive shell under srun is one too.
    """
    found = [size for rank, size in LAUNCHERS
             if env.get(rank, "").isdigit() and env.get(size, "").isdigit()]  # fmt: skip
    return world_from_env(env)[1] > 1 or found[:1] not in ([], [SLURM_SIZE])


def without_launcher(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a process that a rank starts and that is not a rank itself.

    With the launcher's variables, an MPI program would believe that it is this rank, and fail.
    """
    return {name: value for name, value in env.items() if not name.startswith(RANKS_OWN)}


def local_rank(env: Mapping[str, str] = os.environ) -> int:
    """This rank's number among the ranks of its machine, by the launcher; else its rank."""
    numbers = (env[name] for name in LOCAL_RANKS if env.get(name, "").isdigit())
    return int(next(numbers, world_from_env(env)[0]))


def debug_level(env: Mapping[str, str] = os.environ) -> int:
    """MINIDIST_DEBUG. 1: ranks compare their calls before every collective; 2: also the lines."""
    return int(_one_of("MINIDIST_DEBUG", env, "0", "1", "2"))


def cuda_aware(env: Mapping[str, str] = os.environ) -> bool:
    """MINIDIST_CUDA_AWARE: MPI may read and write a GPU's memory. It must be built for that."""
    return _one_of("MINIDIST_CUDA_AWARE", env, "0", "1") == "1"


def deadline(env: Mapping[str, str] = os.environ) -> float:
    """MINIDIST_TIMEOUT: seconds that a wait may last if no rank can end it; inf for no limit."""
    return _seconds("MINIDIST_TIMEOUT", env, DEADLINE)


def notice(env: Mapping[str, str] = os.environ) -> float:
    """MINIDIST_NOTICE: seconds after which a waiting rank reports on stderr; inf for never."""
    return _seconds("MINIDIST_NOTICE", env, NOTICE)


def check_seconds(name: str, given: object) -> float:
    """The number of seconds, more than 0; it may be inf."""
    try:
        seconds = float(str(given))
    except ValueError:
        seconds = 0
    if not seconds > 0:  # also refuses nan
        raise UserError(f"{name}={given!r}: want seconds, more than 0 (inf: no limit)")
    return seconds


def _seconds(name: str, env: Mapping[str, str], default: float) -> float:
    return check_seconds(name, env[name]) if env.get(name) else default


def _one_of(name: str, env: Mapping[str, str], *known: str) -> str:
    text = env.get(name, "") or known[0]
    if text not in known:
        raise UserError(f"{name}={text!r}: want {' or '.join(known)}")
    return text
