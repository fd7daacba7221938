"""Clipping gradients: by their global norm (Pascanu et al. 2013), or value by value.

parallel/clip_grad.py does the same where parameters are sharded over ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...kernels import arrays as xp
from ...kernels.half_precision import BFLOAT16, is_half, wide
from ...kernels.vector_norm import vector_norm
from ...tensor.flat import whole
from ...tensor.tensor import Tensor


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[xp.ndarray]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return whole(p.grad.data for p in parameters if p.grad is not None)


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The p-norm of all tensors together, as one long vector; norm_type is p > 0, or inf.

    Summed in float64, and returned in the tensors' dtype.
    """
    arrays = [t.data for t in ([tensors] if isinstance(tensors, Tensor) else tensors)]
    norm = _norm(arrays, norm_type, error_if_nonfinite)
    return Tensor(norm, dtype=_dtype_of(arrays))


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:  # fmt: skip
    """g ← g · min(1, max_norm / (norm + 1e-6)), norm over all gradients at once; returns norm.

    norm_type: p > 0 for the p-norm, inf for the largest absolute value. A norm that is not finite
    turns gradients into 0 and nan; with error_if_nonfinite it is an error instead.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = _gradients(parameters)
    norm = _norm(grads, norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, norm)
    return Tensor(norm, dtype=_dtype_of(grads))


def _norm(arrays: list[xp.ndarray], norm_type: float, error_if_nonfinite: bool) -> Any:
    """The norm in float64: of arrays on a GPU an array without dimensions there."""
    p = float(norm_type)
    if not p > 0:
        raise ValueError(f"clip_grad_norm_: norm_type = {norm_type}: want p > 0, or inf")
    norm = vector_norm(arrays, p)
    if error_if_nonfinite and not math.isfinite(float(norm)):
        raise RuntimeError(
            f"clip_grad_norm_: the {norm_type}-norm of the gradients is {norm}: it cannot be "
            "clipped; look for what overflowed, or pass error_if_nonfinite=False"
        )
    return norm


def _dtype_of(arrays: list[xp.ndarray]) -> Any:
    dtypes = [wide(a.reshape(-1)[:0]).dtype for a in arrays]
    return xp.result_type(*dtypes) if dtypes else None


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Any
) -> None:
    """g ← g · min(1, max_norm / (total_norm + 1e-6)), for a norm that is known already."""
    scale, norm = max_norm / (total_norm + 1e-6), total_norm
    if xp.on_gpu(norm):  # only the GPU knows whether the scale is under 1: do not wait for it
        scale = xp.where(scale >= 1, 1, scale)
    if xp.on_gpu(norm) or not scale >= 1:
        with xp.errstate(invalid="ignore"):  # inf · 0
            for g in _gradients(parameters):
                if is_half(g):
                    g[...] = wide(g) * scale
                else:
                    xp.multiply(g, scale, out=g)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every value of every gradient to [-clip_value, clip_value]."""
    for g in _gradients(parameters):
        if g.dtype == BFLOAT16:
            g[...] = xp.clip(wide(g), -clip_value, clip_value)
        else:
            xp.clip(g, -clip_value, clip_value, out=g)
