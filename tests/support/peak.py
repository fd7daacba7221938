"""Temporary memory, measured: NumPy reports its arrays to tracemalloc."""

import tracemalloc
from collections.abc import Callable
from typing import Any


def peak(function: Callable[..., Any], *args: Any) -> int:
    """The most bytes that a call held at once, its results' aside."""
    function(*args)  # what is cached is there from now on
    tracemalloc.start()
    try:
        results = function(*args)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del results
    return most - held
