"""The same computation here and in PyTorch: values, gradients, dtypes and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from minidist import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed: parity tests need it")
torch.set_num_threads(1)

BOUNDS = {"float64": 1e-12, "float32": 2e-5}


def to_torch(array: np.ndarray) -> Any:
    return torch.from_numpy(np.array(array, copy=True))


def dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def assert_close(name: str, ours: np.ndarray, theirs: Any, bound: float) -> None:
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, f"{name}: shape {ours.shape}, PyTorch's {theirs.shape}"
    assert ours.dtype == theirs.dtype, f"{name}: {ours.dtype}, PyTorch's {theirs.dtype}"
    off = np.abs(ours.astype(float) - theirs.astype(float)).max(initial=0)
    assert off <= bound * max(1.0, np.abs(theirs).max(initial=0)), f"{name}: off by {off:.3g}"


def compare(
    ours: Callable[..., Tensor], theirs: Callable[..., Any], arrays: Sequence[np.ndarray],
    dtype: str = "float64",
) -> None:  # fmt: skip
    """Both functions on the same arrays (floats cast to dtype): value and every gradient."""
    arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in map(np.asarray, arrays)]
    xs, ts = [Tensor(a.copy()) for a in arrays], [to_torch(a) for a in arrays]
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    for i in floats:
        xs[i].requires_grad_(), ts[i].requires_grad_()
    y, z = ours(*xs), theirs(*ts)
    assert_close("value", y.data, z, BOUNDS[dtype])
    assert y.requires_grad == z.requires_grad
    if not z.requires_grad:
        return
    g = np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype)
    y.backward(g)
    z.backward(to_torch(g))
    for i in floats:
        assert (xs[i].grad is None) == (ts[i].grad is None), f"gradient {i}: one of two is None"
        if ts[i].grad is not None:
            assert_close(f"gradient {i}", xs[i].grad.data, ts[i].grad, BOUNDS[dtype])


def error_of(function: Callable[[], Any]) -> type[Exception] | None:
    try:
        function()
    except Exception as error:
        return type(error)
    return None
