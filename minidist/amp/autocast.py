"""Autocast (Micikevicius et al. 2018), and how an operation computes with 16-bit numbers.

How it works:
1. Every operation declares a Precision at its definition: `@differentiable(autocast="fp32")`. Its
   policy has PyTorch's name, and PyTorch's choice where PyTorch has the operation. An operation
   that declares none is refused when its module is imported.
2. Inside an `autocast` block, ops/op.py first casts the arguments by that policy (`cast_inputs`).
   The casts are operations on the tape, so the weights stay in float32 and gradients reach them
   in float32.
3. An operation on 16-bit arrays, inside a block or not, widens them to float32, computes, and
   rounds its value and its cotangents once (`in_float32`): bfloat16 holds 8 bits, float16 11.
4. Nothing is widened where numbers only move, or where a GPU's kernel reads 16 bits itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..autograd.modes import Mode, current
from ..autograd.tape import Joint
from ..kernels import arrays as xp
from ..kernels.half_precision import as_dtype, is_half, wide
from ..tensor.dtypes import DTYPES, dtype_of

POLICIES = ("lower_precision_fp", "fp32", "promote", "fallthrough")
DEFAULTS = {"cuda": "float16", "cpu": "bfloat16"}


class autocast(Mode):
    """torch.autocast(device_type, dtype): a `with` block or a decorator.

    dtype is float16 or bfloat16; by default float16 on a GPU, bfloat16 on the CPU, as PyTorch's.
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True):
        if device_type not in DEFAULTS:
            raise RuntimeError(f"autocast on {device_type!r}: want 'cpu' or 'cuda'")
        dtype = dtype_of(DEFAULTS[device_type] if dtype is None else dtype)
        if dtype not in (DTYPES["float16"], DTYPES["bfloat16"]):
            raise RuntimeError(f"autocast to {dtype.name}: want float16 or bfloat16")
        super().__init__(autocast=(device_type, dtype) if enabled else None)


def is_autocast_enabled() -> bool:
    return current().autocast is not None


@dataclass(frozen=True)
class Precision:
    """What an operation declares about 16-bit numbers.

    autocast is its policy for tensors of float16, bfloat16 and float32 inside an autocast block:
    - "lower_precision_fp" (products): cast them to autocast's 16-bit dtype;
    - "fp32" (long sums, exponentials, losses): cast them to float32;
    - "promote": cast them to float32 if their dtypes differ;
    - "fallthrough": take them as they are.
    moves_only: the function only moves numbers, so it gets 16-bit arrays as they are.
    float32_result: a result in float32 is not rounded to 16 bits.
    native_on_gpu: the GPU's kernel reads and writes 16-bit arrays itself.
    """

    autocast: str
    moves_only: bool = False
    float32_result: bool = False
    native_on_gpu: bool = False

    def cast_inputs(self, args: tuple) -> tuple:
        """The arguments of an operation, the tensors among them cast by the policy."""
        if self.autocast == "fallthrough":
            return args
        place, dtype = current().autocast
        cast = [a for a in args if _is_cast(a, place)]
        if self.autocast == "promote" and len({a.dtype for a in cast}) < 2:
            return args
        dtype = dtype if self.autocast == "lower_precision_fp" else DTYPES["float32"]
        return tuple(a.to(dtype) if _is_cast(a, place) else a for a in args)


def declared(function: Callable[..., Any], autocast: Any = None, **options: bool) -> Precision:
    """The Precision that an operation's decorator was given; TypeError if it has no policy."""
    if autocast not in POLICIES:
        raise TypeError(
            f"operation '{function.__name__}' declares no autocast policy: its decorator needs "
            f"autocast=, one of {', '.join(map(repr, POLICIES))}, not {autocast!r}"
        )
    return Precision(autocast, **options)


def _is_cast(a: Any, place: str) -> bool:
    """Whether it is a tensor on that device of 16 or 32 bits. float64 was chosen on purpose."""
    if not hasattr(a, "is_cuda") or a.is_cuda != (place == "cuda"):
        return False
    return a.data.dtype == xp.float32 or is_half(a.data)


def in_float32(
    function: Callable[..., tuple], precision: Precision, arrays: list, options: dict
) -> tuple:
    """function(*arrays, **options): a value and its VJPs, 16-bit arrays by way of float32."""
    dtypes = [a.dtype if is_half(a) else None for a in arrays]
    if not any(dtypes) or (precision.native_on_gpu and any(map(xp.on_gpu, arrays))):
        return function(*arrays, **options)
    value, *vjps = function(*(arrays if precision.moves_only else map(wide, arrays)), **options)
    if not precision.moves_only and not precision.float32_result:
        value = _rounded(xp.asarray(value), arrays)
    if vjps and isinstance(vjps[0], Joint):
        return value, _narrowed(vjps[0], dtypes)
    return value, *(
        v and (lambda g, v=v, d=d: _narrow(v(wide(g)), d)) for v, d in zip(vjps, dtypes)
    )


def _rounded(value: xp.ndarray, arrays: list) -> xp.ndarray:
    """A value in float32, rounded to the dtype in which the arrays meet (see result_dtype)."""
    floats = [
        a for a in arrays if isinstance(a, xp.ndarray) and (a.dtype.kind == "f" or is_half(a))
    ]
    dtypes = {a.dtype for a in floats if a.ndim} or {a.dtype for a in floats}
    dtype = dtypes.pop()
    narrow = not dtypes and dtype.itemsize == 2 and value.dtype == xp.float32
    return as_dtype(value, dtype) if narrow else value


def _narrowed(joint: Joint, dtypes: list) -> Joint:
    """The same for 16-bit arrays, by way of float32; it can be split if `joint` can."""
    narrow = lambda found: list(map(_narrow, found, dtypes))
    narrowed = Joint(lambda g: narrow(joint(wide(g))))
    if joint.split is not None:

        def split(g: xp.ndarray, now: Any) -> tuple[list, Any]:
            first, rest = joint.split(wide(g), now)
            return narrow(first), lambda: narrow(rest())

        narrowed.split = split
    return narrowed


def _narrow(g: xp.ndarray | None, dtype: xp.dtype | None) -> xp.ndarray | None:
    return g if g is None or dtype is None else as_dtype(xp.asarray(g), dtype)
