"""Numbers as PyTorch prints them: four digits, one width for all, the middle of much left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..kernels.half_precision import wide

EDGE, MOST, DIGITS, COLUMNS, START = 3, 1000, 4, 80, "tensor("
IMPLIED = ("float32", "int64", "bool")  # dtypes that need not be told


def text(array: np.ndarray, notes: Sequence[str] = ()) -> str:
    """tensor(…), its dtype where it is none of the usual ones, and the notes."""
    if array.dtype.name not in (IMPLIED if array.size else IMPLIED[:1]):
        notes = (f"dtype={array.dtype.name}", *notes)
    if not array.size and array.ndim != 1:
        notes = (f"size={array.shape}", *notes)
    said = START + (_numbers(_printable(array)) if array.size else "[]")
    for note in notes:
        fits = len(said.rpartition("\n")[2]) + len(note) + 3 <= COLUMNS
        said += (", " if fits else ",\n" + " " * len(START)) + note
    return said + ")"


def _printable(array: np.ndarray) -> np.ndarray:
    """The same numbers in a dtype that Python formats; float16 has its own digits."""
    return array if array.dtype == np.float16 else wide(array)


def _numbers(array: np.ndarray) -> str:
    much = array.size > MOST
    few = _corners(array) if much else array
    form = _format_of(few.astype(float)) if array.dtype.kind == "f" else str
    width = max(len(form(v)) for v in _counted(few).flat)
    return _rows(array, lambda v: form(v).rjust(width), width, len(START), much)


def _rows(array: np.ndarray, form: Callable, width: int, indent: int, much: bool) -> str:
    """Brackets around rows of rows; numbers fill lines up to the last column."""
    if not array.ndim:
        return form(array[()])
    indent, cut = indent + 1, much and len(array) > 2 * EDGE
    shown = [*array[:EDGE], *array[-EDGE:]] if cut else array
    parts = [_rows(np.asarray(part), form, width, indent, much) for part in shown]
    if cut:
        parts.insert(EDGE, "..." if array.ndim > 1 else " ...")
    line = max(1, (COLUMNS + 1 - indent) // (width + 2)) if array.ndim == 1 else 1
    lines = [", ".join(parts[i : i + line]) for i in range(0, len(parts), line)]
    return "[" + ("," + "\n" * max(1, array.ndim - 1) + " " * indent).join(lines) + "]"


def _corners(array: np.ndarray) -> np.ndarray:
    """What is printed of much."""
    ends = (np.r_[:EDGE, n - EDGE : n] if n > 2 * EDGE else np.arange(n) for n in array.shape)
    return array[np.ix_(*ends)]


def _counted(array: np.ndarray) -> np.ndarray:
    """What sets the width: 0, inf and nan do not, unless there is nothing else."""
    if array.dtype.kind != "f":
        return array
    counted = array[np.isfinite(array) & (array != 0)]
    return counted if counted.size else np.ones(1)


def _format_of(array: np.ndarray) -> Callable[[Any], str]:
    counted = np.abs(_counted(array))
    low, high, whole = counted.min(), counted.max(), bool((counted == np.ceil(counted)).all())
    if high / low > 1000 or high > 1e8 or (low < 1e-4 and not whole):
        return lambda v: f"{v:.{DIGITS}e}"
    if not whole:
        return lambda v: f"{v:.{DIGITS}f}"
    return lambda v: f"{v:.0f}" + "." * bool(np.isfinite(v))
