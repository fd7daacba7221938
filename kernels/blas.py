"""How many threads BLAS uses: one, unless MINIDIST_BLAS_THREADS asks for more.

BLAS divides a product among its threads by the number of cores, so the bits of the result would
depend on the machine. On busy cores its threads also spin while they wait for each other: beside
six other programs on two cores, gpt-tiny generates 300 bytes in 61 s with two threads, and in 6 s
with one. OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS have no effect, because batch
systems set them for all programs. With MINIDIST_BLAS_THREADS=all they decide.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any


def threads() -> int | None:
    """The value of MINIDIST_BLAS_THREADS, by default 1; None for "all" (BLAS stays as it is)."""
    text = os.environ.get("MINIDIST_BLAS_THREADS") or "1"
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"MINIDIST_BLAS_THREADS={text!r}: want a number of at least 1, or all")
    return int(text)


def limit() -> Any:
    """Set the number of threads of BLAS; in a `with` statement, until the end of the block."""
    wanted = threads()
    try:
        from threadpoolctl import threadpool_limits  # loaded at the first product only
    except ImportError:  # kernels also run where only NumPy is installed
        return contextlib.nullcontext()
    return threadpool_limits(limits=wanted, user_api="blas")


@functools.cache
def settle() -> None:
    """Set the threads of BLAS once for the process; later changes by the program stay."""
    limit()
