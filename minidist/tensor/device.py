"""Where tensors are, in the CPU's memory or a GPU's, by PyTorch's ways to say so."""

from __future__ import annotations

from typing import Any

from ..kernels import arrays as xp
from . import cuda
from .dtypes import DTYPES

PLACES = ("cpu", "cuda")


class device(str):
    """device("cpu"), device("cuda") (the GPU in use), "cuda:1" or 1; equal to the word."""

    def __new__(cls, name: Any = "cpu", index: int | None = None) -> device:
        name = f"cuda:{name}" if isinstance(name, int) else name
        kind, _, number = str("cpu" if name is None else name).partition(":")
        number = number if index is None else str(index)
        known = number in ("", "0") if kind == "cpu" else number.isdigit() or not number
        if kind not in PLACES or not known:
            raise RuntimeError(f"device {str(name)!r}: tensors are on 'cpu', 'cuda' or 'cuda:N'")
        return super().__new__(cls, f"{kind}:{number}" if number and kind != "cpu" else kind)

    @property
    def type(self) -> str:
        return str(self).partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override]
        """Which GPU; None for the one in use, and for the CPU."""
        number = str(self).partition(":")[2]
        return int(number) if number else None

    def is_at(self, wanted: device) -> bool:
        """Whether what is here is where it is wanted: 'cuda' is any GPU."""
        return self == wanted or (self.type == wanted.type and wanted.index is None)

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"


def device_of(array: xp.ndarray) -> device:
    return device("cuda", array.device.id) if xp.on_gpu(array) else device()


def moved(array: xp.ndarray, where: Any) -> xp.ndarray:
    """The array in that place: itself if it is there, else a copy.

    Raises RuntimeError with what is missing where there is no such GPU.
    """
    place = device(where)
    if place.type == "cpu":
        return array.get() if xp.on_gpu(array) else array
    with cuda.using(place.index):
        if not xp.on_gpu(array):
            return cuda.cupy().asarray(array)
        # asarray would give back an array of another GPU as it is; copy() makes one on this GPU
        return array if place.index in (None, array.device.id) else array.copy()


def in_one_place(name: str, args: tuple, arrays: list) -> list:
    """The arrays of an operation's arguments, of which the tensors must all be on one device.

    One number may come from the CPU. Raises RuntimeError with what to move.
    """
    there = [a for a in arrays if xp.on_gpu(a)]
    for i, (t, a) in enumerate(zip(args, arrays) if there else ()):
        if hasattr(t, "is_cuda") and not xp.on_gpu(a):
            if a.ndim:
                raise RuntimeError(
                    f"{name}: argument {i} {a.shape} is on the CPU, others on a GPU: move it there "
                    "with .to(x.device)"
                )
            arrays[i] = xp.at_home_of(there[0], a)
    return arrays


def want_one_place(name: str, *tensors: Any) -> None:
    """Refuse tensors on two devices, for what does not go through an operation's arguments."""
    if xp.gpu() is not None:
        given = tuple(t for t in tensors if hasattr(t, "is_cuda"))
        in_one_place(name, given, [t.data for t in given])


def meant(args: tuple, dtype: Any = None, where: Any = None) -> tuple[Any, device | None]:
    """What `.to(…)` is asked for: a dtype, a device, a tensor that has both, or two of these."""
    place = None if where is None else device(where)
    for a in args:
        if isinstance(a, device | int) or (isinstance(a, str) and a.partition(":")[0] in PLACES):
            place = device(a)
        elif isinstance(getattr(a, "device", None), device):  # a tensor
            dtype, place = a.dtype, a.device
        elif isinstance(a, str) and a not in (*DTYPES, "complex128"):
            raise TypeError(f"{a!r} is not a device (cpu, cuda) or a dtype ({', '.join(DTYPES)})")
        else:
            dtype = a if isinstance(a, type | xp.dtype) else getattr(a, "dtype", a)
    return dtype, place
