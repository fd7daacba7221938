"""What the environment asks for: MINIDIST_DEBUG, MINIDIST_TIMEOUT and MINIDIST_CUDA_AWARE."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import UserError

DEADLINE = 300.0  # seconds that a rank waits for another before it asks why, in debug mode


def debug_level(env: Mapping[str, str] = os.environ) -> int:
    """0: off. 1: ranks compare what they call before every collective. 2: also from which line."""
    return int(_one_of("MINIDIST_DEBUG", env, "0", "1", "2"))


def cuda_aware(env: Mapping[str, str] = os.environ) -> bool:
    """Whether MPI may read and write a GPU's memory: it was built for that, as no wheel is."""
    return _one_of("MINIDIST_CUDA_AWARE", env, "0", "1") == "1"


def deadline(env: Mapping[str, str] = os.environ) -> float | None:
    """Seconds that one wait may last, MINIDIST_TIMEOUT; DEADLINE in debug mode, else for ever."""
    text = env.get("MINIDIST_TIMEOUT", "")
    if not text:
        return DEADLINE if debug_level(env) else None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not seconds > 0:
        raise UserError(f"MINIDIST_TIMEOUT={text!r}: want seconds, more than 0")
    return seconds


def _one_of(name: str, env: Mapping[str, str], *known: str) -> str:
    text = env.get(name, "") or known[0]
    if text not in known:
        raise UserError(f"{name}={text!r}: want {' or '.join(known)}")
    return text
