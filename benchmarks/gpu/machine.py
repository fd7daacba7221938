"""Where the measured code runs: a GPU by CuPy, or, dry, the CPU by Triton's interpreter."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np

PEAKS = {  # FLOP/s of dense products in bfloat16, by NVIDIA's data sheets
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12,
}  # fmt: skip


def missing(device: str) -> str | None:
    """What there lacks for the device, in one line; None if nothing does."""
    for name in ["triton"] if device == "cpu" else ["cupy", "triton"]:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            return f"{name} cannot be imported ({error}): it is needed for --device {device}"
        reason = _no_gpu(module) if name == "cupy" else _too_old(module.__version__, device)
        if reason:
            return reason
    return None


def _too_old(triton: str, device: str) -> str | None:
    """What that version of Triton wants beside it."""
    version = tuple(map(int, triton.split(".")[:2]))
    if device == "cpu" and version < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        return f"Triton {triton}'s interpreter needs NumPy before 2.4, not {np.__version__}"
    if device == "cuda" and version < (3, 8) and importlib.util.find_spec("torch") is None:
        return f"Triton {triton} launches by way of PyTorch, which is not installed"
    return None


def _no_gpu(cupy: Any) -> str | None:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CUDARuntimeError: no driver, or one that is too old
        return f"CuPy {cupy.__version__} finds no CUDA device: {error}"
    return None if count else f"CuPy {cupy.__version__} finds no CUDA device"


class Machine:
    """Arrays there and back; `tiny` asks for sizes that an interpreter can do.

    It does a part of the checks: those whose number is `share` modulo `shares`.
    """

    def __init__(self, device: str, share: int = 0, shares: int = 1):
        self.device, self.tiny, self.xp = device, device == "cpu", np
        self.share, self.shares, self.count = share, shares, itertools.count()
        if device == "cpu":
            os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is loaded
            os.environ["MINIDIST_KERNELS"] = "triton"  # where nothing else is asked for
        else:
            for name in ("TRITON_INTERPRET", "MINIDIST_KERNELS"):
                os.environ.pop(name, None)
            from minidist.kernels import arrays

            self.xp = importlib.import_module("cupy")
            arrays.enable(self.xp)
        from minidist.kernels import dispatch

        dispatch.require()  # reads the environment anew

    def mine(self) -> bool:
        """Whether the next check is one of its share."""
        return next(self.count) % self.shares == self.share

    def put(self, array: np.ndarray) -> Any:
        """There, under the same strides' order."""
        return array.copy() if self.xp is np else self.xp.asarray(array)

    def get(self, array: Any) -> np.ndarray:
        return np.asarray(array) if self.xp is np else self.xp.asnumpy(array)

    def has(self, array: Any) -> bool:
        return isinstance(array, self.xp.ndarray)

    def synchronize(self) -> None:
        if self.xp is not np:
            self.xp.cuda.Device().synchronize()

    def name(self) -> str:
        if self.tiny:
            return "cpu"
        return self.xp.cuda.runtime.getDeviceProperties(0)["name"].decode()

    def peak(self) -> float | None:
        """FLOP/s in bfloat16, if the GPU is a known one."""
        return next((rate for name, rate in PEAKS.items() if name in self.name()), None)


def versions(machine: Machine) -> dict[str, str]:
    """The versions of Python and of every library that the figures depend on."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("triton", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if not machine.tiny:
        runtime = machine.xp.cuda.runtime
        found["cupy"] = machine.xp.__version__
        found["driver"] = _driver()
        found["CUDA of the driver"] = _dotted(runtime.driverGetVersion())
        found["CUDA runtime"] = _dotted(runtime.runtimeGetVersion())
    return found


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"
    return done.stdout.split("\n")[0].strip()


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Inside, arrays that a kernel allocates hold NaN: what it does not write shows."""
    from minidist.kernels import arrays

    kept = {name: getattr(arrays, name) for name in ("empty", "empty_like")}
    try:
        for name, make in kept.items():
            setattr(arrays, name, _spoiling(make))
        yield
    finally:
        for name, make in kept.items():
            setattr(arrays, name, make)


def _spoiling(make: Any) -> Any:
    def spoiled(*args: Any, **options: Any) -> Any:
        array = make(*args, **options)
        if array.dtype.kind in "fc" or array.dtype.name == "bfloat16":
            array.fill(np.nan)
        return array

    return spoiled
