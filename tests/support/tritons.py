"""What tests of Triton kernels share: the interpreter, poisoned outputs, and counted traffic."""

import contextlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed: it runs on Linux alone")

from minidist.kernels import arrays
from minidist.kernels.dispatch import using
from triton.runtime.interpreter import interpreter_builder as machine


def both(function, *args, **options) -> tuple:
    """The values of NumPy's version and of Triton's, whose outputs held NaN before."""
    with using("numba"):
        ours = function(*args, **options)
    with using("triton"), poisoned():
        return ours, function(*args, **options)


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Inside, new arrays hold NaN (the largest number, of integers): what is not written shows."""
    empty, empty_like = arrays.empty, arrays.empty_like

    def spoil(array):
        if array.dtype.kind in "fciu":
            array[...] = np.nan if array.dtype.kind in "fc" else np.iinfo(array.dtype).max
        return array

    with pytest.MonkeyPatch.context() as patch:
        for home in (np, arrays):
            patch.setattr(home, "empty", lambda *a, **k: spoil(empty(*a, **k)))
            patch.setattr(home, "empty_like", lambda *a, **k: spoil(empty_like(*a, **k)))
        yield


@contextlib.contextmanager
def traffic() -> Iterator[Counter]:
    """Counts the bytes that kernels load and store inside: {"load": …, "store": …, "atomic": …}."""
    count: Counter = Counter()

    def counted(kind, method, mask_at):
        def call(*args, **options):
            width = args[0].get_element_ty().primitive_bitwidth // 8
            mask = getattr(args[mask_at], "data", args[mask_at])  # Triton 3.6 passes arrays
            count[kind] += int(np.asarray(mask).sum()) * width
            return method(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for kind, name, mask_at in (
            ("load", "create_masked_load", 1),
            ("store", "create_masked_store", 2),
        ):
            patch.setattr(machine, name, counted(kind, getattr(machine, name), mask_at))
        atomic = machine.create_atomic_rmw

        def counted_atomic(op, ptr, value, mask, *rest):
            count["atomic"] += int(mask.data.sum()) * ptr.get_element_ty().primitive_bitwidth // 8
            return atomic(op, ptr, value, mask, *rest)

        patch.setattr(machine, "create_atomic_rmw", counted_atomic)
        yield count
