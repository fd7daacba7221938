"""How many threads BLAS uses: one, unless MINIDIST_BLAS_THREADS asks for more.

The threads of BLAS share out a product by the number of cores, so its bits would depend on the
machine; and on busy cores they spin while they wait for each other: beside six other programs on
two cores, gpt-tiny writes 300 bytes in 61 s with two threads, and in 6 s with one.
OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS change nothing, for batch systems set
them for all programs; MINIDIST_BLAS_THREADS=all leaves BLAS as these variables made it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any


def threads() -> int | None:
    """MINIDIST_BLAS_THREADS: a number, by default 1; None for all, which leaves BLAS as it is."""
    text = os.environ.get("MINIDIST_BLAS_THREADS") or "1"
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"MINIDIST_BLAS_THREADS={text!r}: want a number of at least 1, or all")
    return int(text)


def limit() -> Any:
    """Give BLAS its threads from now on; as a `with` block, until the end of the block."""
    wanted = threads()
    try:
        from threadpoolctl import threadpool_limits  # importing minidist loads it for nobody
    except ImportError:  # kernels also run where only NumPy is installed
        return contextlib.nullcontext()
    return threadpool_limits(limits=wanted, user_api="blas")


@functools.cache
def settle() -> None:
    """Give BLAS its threads, once for the process: what a program changes later is left alone."""
    limit()
