"""Everything that ranks read from the environment: MINIDIST_… settings, rank and size by mpirun."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import UserError

DEADLINE = 300.0  # seconds that a rank waits for another before it raises, in debug mode

LAUNCHERS = [  # variables that MPICH's and Intel's mpirun, Open MPI's mpirun, and srun set
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
]
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


def deadline(env: Mapping[str, str] = os.environ) -> float | None:
    """MINIDIST_TIMEOUT: seconds that one wait may last; DEADLINE in debug mode, else no limit."""
    text = env.get("MINIDIST_TIMEOUT", "")
    if not text:
        return DEADLINE if debug_level(env) else None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not seconds > 0:  # also refuses nan
        raise UserError(f"MINIDIST_TIMEOUT={text!r}: want seconds, more than 0")
    return seconds


def _one_of(name: str, env: Mapping[str, str], *known: str) -> str:
    text = env.get(name, "") or known[0]
    if text not in known:
        raise UserError(f"{name}={text!r}: want {' or '.join(known)}")
    return text
