"""Where tensors are: in the CPU's memory, by PyTorch's ways to say so."""

from __future__ import annotations

from typing import Any

import numpy as np

PLACES = ("cpu", "cuda", "mps", "xpu", "meta")


class device(str):
    """device("cpu"), the one there is; equal to the word."""

    def __new__(cls, name: Any = "cpu") -> device:
        if name is not None and str(name) not in ("cpu", "cpu:0"):
            raise RuntimeError(f"device {str(name)!r}: tensors here are on 'cpu'")
        return super().__new__(cls, "cpu")

    @property
    def type(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"device(type='{self}')"


def dtype_among(args: tuple, dtype: Any = None, where: Any = None) -> Any:
    """What `.to(…)` is asked for: a dtype, a device, a tensor that has both, or two of these."""
    if where is not None:
        device(where)
    for a in args:
        if isinstance(a, np.dtype):
            dtype = a
        elif isinstance(a, str) and a.split(":")[0] in PLACES:
            device(a)
        else:
            dtype = a if isinstance(a, type) else getattr(a, "dtype", a)
    return dtype
