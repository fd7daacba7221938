"""A kernel's case: Triton's version there, in each dtype, against NumPy's on the CPU in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .checks import BOUNDS, Entry, check, difference, told
from .machine import Machine, poisoned

HALVES = ("float16", "bfloat16")
SINGLE = ("float32", *HALVES)
EVERY = ("float64", *SINGLE)


class Case(NamedTuple):
    """run(*arrays) -> arrays, by whichever version is in use. Floats are cast to each dtype,
    complex numbers to twice its bytes (at least complex64), integers stay."""

    name: str
    run: Callable[..., Iterable[Any]]
    arrays: list[np.ndarray]
    dtypes: tuple[str, ...] = EVERY
    slack: float = 1.0  # times the dtype's bound


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def below(n: int, *shape: int) -> np.ndarray:
    """Integers."""
    return np.random.default_rng(shape).integers(0, n, shape)


def checks(machine: Machine, cases: Iterable[Case]) -> Iterator[Entry]:
    for case in cases:
        for dtype in case.dtypes:
            bound = BOUNDS[dtype] * case.slack
            if machine.mine():
                yield check(f"{case.name} {dtype}", bound, error, machine, case, dtype)


def families(machine: Machine, *makers: Callable[[bool], Iterable[Case]]) -> Iterator[Entry]:
    """The checks of each family; one that cannot be made is a failure of its own."""
    for make in makers:
        try:
            yield from checks(machine, make(machine.tiny))
        except Exception as problem:
            yield {"kind": "check", "name": make.__name__.strip("_"), "ok": False, **told(problem)}


def error(machine: Machine, case: Case, dtype: str) -> float:
    from minidist.kernels.dispatch import using

    given = [stored(a, dtype) for a in case.arrays]
    with using("numba"):
        wanted = list(case.run(*map(exact, given)))
    with poisoned():
        found = list(case.run(*map(machine.put, given)))
    machine.synchronize()
    if not all(map(machine.has, found)):
        raise TypeError(f"results are {[type(a).__name__ for a in found]}")
    return difference([exact(machine.get(a)) for a in found], wanted, least=0.01)


def stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """A copy in that dtype; integers stay."""
    from minidist.kernels.half_precision import BFLOAT16

    if array.dtype.kind == "c":
        return array.astype(np.complex128 if dtype == "float64" else np.complex64)
    if array.dtype.kind != "f":
        return array
    return array.astype(BFLOAT16 if dtype == "bfloat16" else dtype)


def exact(array: np.ndarray) -> np.ndarray:
    """The same numbers in float64 (complex128)."""
    from minidist.kernels.half_precision import wide

    if array.dtype.kind in "iub":
        return array
    return wide(array).astype(np.complex128 if array.dtype.kind == "c" else np.float64)
