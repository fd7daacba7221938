"""Parameters that `make test` leaves to `make proofs`, beside those that it keeps."""

from collections.abc import Iterable
from typing import Any

import pytest


def proofs(*values: Any) -> list[Any]:
    """`parametrize("n", [3, *proofs(2, 8)])`: 2 and 8 run in `make proofs`, 3 in `make test`.

    A tuple is taken for the values of several arguments.
    """
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.proof)
        for value in values
    ]


def keeping(kept: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """These values in their order, of which `make test` runs those that are kept."""
    kept = list(kept)
    assert all(value in list(values) for value in kept), f"{kept} are not among {list(values)}"
    return [value if value in kept else proofs(value)[0] for value in values]
