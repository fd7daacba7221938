"""Is it right? What a check looks like in the record, and how far off is too far."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Entry = dict[str, Any]

# Of results, each array's beside its largest number: a few roundings of the dtype
BOUNDS = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def check(name: str, bound: float, error: Callable[..., float], *args: Any) -> Entry:
    """Whether error(*args) is at most the bound; what it raises is a failure, and told."""
    entry: Entry = {"kind": "check", "name": name, "bound": bound}
    try:
        found = float(error(*args))
    except Exception as problem:
        return {**entry, "ok": False, **told(problem)}
    if not math.isfinite(found):  # which JSON does not know
        return {**entry, "ok": False, "message": f"off by {found}"}
    return {**entry, "error": found, "ok": found <= bound}


def told(problem: BaseException) -> Entry:
    """An exception in a line, and where it came from."""
    lines = str(problem).strip().splitlines() or [""]
    frames = traceback.extract_tb(problem.__traceback__)[-6:]
    where = [f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in frames]
    return {"message": f"{type(problem).__name__}: {lines[0][:300]}", "where": where}


def difference(
    found: Iterable[np.ndarray], wanted: Iterable[np.ndarray], least: float = 1.0
) -> float:
    """The largest, each array's beside its largest number, or `least`; infinities must agree."""
    found, wanted = list(found), list(wanted)
    if [a.shape for a in found] != [a.shape for a in wanted]:
        raise ValueError(f"shapes {[a.shape for a in found]}, not {[a.shape for a in wanted]}")
    errors = [_difference(a, w, least) for a, w in zip(found, wanted)]
    return float(np.max([0.0, *errors]))  # max() would pass over NaN


def _difference(found: np.ndarray, wanted: np.ndarray, least: float) -> float:
    found, wanted = (np.asarray(x).astype(np.float64) for x in (found, wanted))
    endless = np.isinf(wanted)
    if not np.array_equal(found[endless], wanted[endless]):
        return np.inf
    found, wanted = found[~endless], wanted[~endless]
    return (np.abs(found - wanted) / max(least, np.abs(wanted).max(initial=0))).max(initial=0)
