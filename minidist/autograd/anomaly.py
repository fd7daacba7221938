"""Anomaly mode: the operation that makes the first NaN, and the line of code that called it."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..kernels import arrays as xp
from ..kernels.half_precision import is_floating
from . import modes

if TYPE_CHECKING:
    from .tape import Node

MINIDIST = f"{Path(__file__).parent.parent}{os.sep}"
KERNELS = f"{Path(__file__).parents[2] / 'kernels'}{os.sep}"
ENGINE = tuple(f"{MINIDIST}{name}{os.sep}" for name in ("autograd", "ops", "tensor"))


def calling_line() -> str:
    """Where the user's code is: the innermost line outside minidist, or outside its operations."""
    frame, inner = sys._getframe(1), None
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((MINIDIST, KERNELS)):
            return _line(frame)
        if inner is None and not file.startswith((*ENGINE, KERNELS)):
            inner = frame
        frame = frame.f_back  # type: ignore[assignment]
    return _line(inner) if inner is not None else "an unknown line"


def _line(frame: Any) -> str:
    file, number = frame.f_code.co_filename, frame.f_lineno
    code = linecache.getline(file, number).strip()
    return f"{file}:{number}, in {frame.f_code.co_name}: `{code}`"


def nans(value: Any) -> int:
    """How many NaN there are in a value; 0 if it is no array of floats."""
    floats = isinstance(value, xp.ndarray) and is_floating(value)
    return int(xp.isnan(value).sum()) if floats else 0


def check_forward(name: str, value: xp.ndarray, arrays: Sequence[Any], node: Node | None) -> None:
    """Note the calling line on the node, and refuse a value with a NaN in it."""
    where = calling_line()
    if node is not None:
        node.where = where
    if modes.current().anomaly == "nan" and nans(value):
        given = [str(i) for i, a in enumerate(arrays) if nans(a)]
        did = f"was given NaN (input {', '.join(given)})" if given else "made the first NaN"
        shapes = ", ".join(str(a.shape) for a in arrays if isinstance(a, xp.ndarray))
        raise RuntimeError(
            f"'{name}' {did}: {nans(value)} of {value.size} values, from inputs of "
            f"shapes {shapes}, at {where}"
        )


def pull(node: Node, cotangent: xp.ndarray, wanted: Any) -> list:
    """node.pull, with errors that tell where the operation was called; NaN is one of them."""
    where = node.where or "a line that was not noted: turn anomaly mode on before the forward pass"
    try:
        cotangents = node.pull(cotangent, wanted)
    except Exception as error:
        error.add_note(f"in the backward of '{node.name}', called at {where}")
        raise
    if modes.current().anomaly == "nan":
        for i, g in enumerate(cotangents):
            if nans(g):
                given = ", whose own cotangent had NaN," if nans(cotangent) else ""
                raise RuntimeError(
                    f"the backward of '{node.name}'{given} returned nan values for input {i}: "
                    f"{nans(g)} of {g.size}; it was called at {where}"
                )
    return cotangents
