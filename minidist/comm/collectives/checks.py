"""What collectives refuse before any message is sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..communicator import Communicator


def check_known(
    where: str, what: str, name: str, known: Collection[str], hint: str = "use one of"
) -> None:
    """Refuse an algorithm or operation that there is not."""
    if name not in known:
        raise ValueError(f"{where}: {what}={name!r} is not known, {hint} {', '.join(known)}")


def check_rows(where: str, array: Any) -> None:
    """Refuse an array, or a tensor, without rows."""
    if array.ndim == 0:
        raise ValueError(f"{where}: a 0-d array has no rows, pass array.reshape(1)")


def check_counts(comm: Communicator, where: str, rows: int, counts: Sequence[int] | None) -> None:
    """Refuse counts that do not tell of this rank's rows."""
    if counts is not None and (len(counts) != comm.size or counts[comm.rank] != rows):
        raise ValueError(
            f"{where}: counts={list(counts)} must hold {comm.size} numbers, "
            f"and at {comm.rank} this rank's {rows} rows"
        )
