"""Arrays under the Tensors: dtypes, their defaults, and a heap that is kept for reuse."""

from __future__ import annotations

import ctypes
import math
import sys
from typing import Any

import ml_dtypes

from ..autograd.modes import current
from ..kernels import arrays as xp
from ..kernels.half_precision import BFLOAT16, as_dtype
from ..kernels.half_precision import is_floating as is_floating

DTypeLike = Any  # a dtype, a NumPy scalar type or one of the names below

DTYPES: dict[str, xp.dtype] = {
    name: xp.dtype(name)
    for name in "float16 float32 float64 int8 uint8 int16 int32 int64 bool".split()  # noqa: SIM905
}
DTYPES["bfloat16"] = BFLOAT16
KNOWN = frozenset(DTYPES.values())
float16, float32, float64 = DTYPES["float16"], DTYPES["float32"], DTYPES["float64"]
int8, int16, int32 = DTYPES["int8"], DTYPES["int16"], DTYPES["int32"]
int64, uint8, bool_ = DTYPES["int64"], DTYPES["uint8"], DTYPES["bool"]
DEFAULT = float32
WHOLE = {int, int8, int16, int32, int64, uint8, xp.dtype("uint64")}


def dtype_of(dtype: DTypeLike) -> xp.dtype:
    """The dtype behind a name such as 'float32'; a TypeError lists the names there are."""
    name = xp.dtype(dtype).name if not isinstance(dtype, str) else dtype
    if name == "complex128" and current().complex_numbers:
        return xp.dtype(name)
    if name not in DTYPES:
        raise TypeError(f"no dtype {name!r} here: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def as_array(data: Any, dtype: DTypeLike = None) -> xp.ndarray:
    """An array from numbers, lists or arrays: Python floats become float32, as in PyTorch."""
    array = xp.asarray(data)
    if not array.dtype.isnative:
        order = "big" if sys.byteorder == "little" else "little"
        raise ValueError(
            f"an array of {array.dtype} in {order}-endian byte order: this machine cannot compute "
            "with it; convert it by array.astype(array.dtype.newbyteorder('='))"
        )
    if dtype is not None:
        dtype = dtype_of(dtype)
        if not isinstance(data, xp.ndarray):  # casts of arrays are unchecked, as in Tensor.to
            want_fit("tensor", array, dtype)
        return as_dtype(array, dtype)
    if array.dtype == float64 and not isinstance(data, xp.ndarray | xp.generic):
        return array.astype(DEFAULT)
    if array.dtype not in KNOWN:
        dtype_of(array.dtype.name)  # raises what it is to be called by
    return array


def want_fit(name: str, values: Any, dtype: xp.dtype, floats: bool = False) -> None:
    """Refuse a number, or an array, that a cast to the dtype would change.

    Integers hold no infinity and no NaN. With `floats`, a finite number must also stay finite.
    """
    if dtype.kind in "iu":
        low, high = _range(dtype, whole=getattr(values, "dtype", type(values)) in WHOLE)
        fits = (values >= low) & (values <= high)
    elif floats and dtype != bool_:
        fits = (abs(values) <= float(finfo(dtype).max)) | (abs(values) == math.inf)
        fits = fits | (values != values)  # NaN
    else:
        return
    if not (fits if isinstance(fits, bool) else fits.all()):
        largest = xp.iinfo(dtype).max if dtype.kind in "iu" else finfo(dtype).max
        raise RuntimeError(
            f"{name}: {values} does not fit into {dtype.name}, whose largest number is {largest}: "
            "choose another dtype, or clamp() it before"
        )


def _range(dtype: xp.dtype, whole: bool) -> tuple[int, int]:
    """The integers that a dtype accepts: negative ones wrap in unsigned dtypes, as in PyTorch."""
    limits = xp.iinfo(dtype)
    return -limits.max if whole and dtype.kind == "u" else limits.min, limits.max


def fitting(name: str, number: Any, dtype: xp.dtype, floats: bool = False) -> Any:
    """The number, after want_fit, ready to be assigned to an array of that dtype."""
    if type(number) is float and dtype.kind == "f" and not floats:
        return number
    try:
        want_fit(name, number, dtype, floats)
    except TypeError:
        number = None
    if number is None or (isinstance(number, complex) and dtype.kind != "c"):
        raise TypeError(f"{name}: want a number that {dtype.name} holds")
    below = dtype.kind == "u" and number < 0
    return int(number) % (xp.iinfo(dtype).max + 1) if below else number


def finfo(dtype: DTypeLike) -> Any:
    """The limits of a floating-point dtype: eps, max, min, tiny, …, as numpy.finfo."""
    dtype = dtype_of(dtype)
    return ml_dtypes.finfo(dtype) if dtype == BFLOAT16 else xp.finfo(dtype)


def keep_heap() -> None:
    """Ask glibc to reuse freed memory instead of returning it and faulting it in anew.

    Every step of a training run allocates the same large temporaries; by default each one over
    128 KiB is mapped afresh and its pages are zeroed by the kernel. Does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 256 << 20)
