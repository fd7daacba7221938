"""Wrong arguments that every collective refuses before it sends a message."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any

from ..communicator import Communicator
from . import native


def check_known(where: str, what: str, name: str, known: Collection[str]) -> None:
    """Refuse an algorithm or operation that does not exist."""
    if name not in known:
        raise ValueError(f"{where}: {what}={name!r} is not known, use {', '.join(known)}")


def check_algorithm(
    comm: Communicator, where: str, name: Any, known: Collection[str], array: Any = None,
    op: str = "",
) -> None:  # fmt: skip
    """Refuse an unknown algorithm, and "native" where the MPI library cannot do it."""
    if callable(name):
        return
    check_known(where, "algorithm", name, ["auto", *known, "or a function like these"])
    if name == "native":
        native.check(comm, array, op)


def check_root(comm: Communicator, where: str, root: int) -> None:
    """Refuse a root that is not a rank."""
    if not 0 <= operator.index(root) < comm.size:
        raise ValueError(f"{where}: root={root} does not exist, ranks are 0 to {comm.size - 1}")


def check_rows(where: str, array: Any) -> None:
    """Refuse an array, or a tensor, without rows."""
    if array.ndim == 0:
        raise ValueError(f"{where}: a 0-d array has no rows, pass array.reshape(1)")


def check_counts(comm: Communicator, where: str, rows: int, counts: Sequence[int] | None) -> None:
    """Refuse counts that disagree with this rank's number of rows."""
    if counts is not None and (len(counts) != comm.size or counts[comm.rank] != rows):
        raise ValueError(
            f"{where}: counts={list(counts)} must hold {comm.size} numbers, "
            f"and at {comm.rank} this rank's {rows} rows"
        )
