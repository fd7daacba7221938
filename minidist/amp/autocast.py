"""16 bits beside 32: autocast (Micikevicius et al. 2018), and how an operation computes on halves.

Weights stay in float32, the masters. Inside `autocast`, products and attention take their operands
in 16 bits; what sums many numbers or ends in exponentials takes them in float32; all else takes
them as they come. The casts are operations on the tape, so gradients arrive in float32.

float16 and bfloat16 hold 11 and 8 bits: an operation widens them to float32, computes, and rounds
once, its value and its cotangents alike. Where a GPU's kernel takes 16 bits as they are, and
where numbers only move, nothing is widened.
"""

# ruff: noqa: SIM905
from __future__ import annotations

from typing import Any

from ..autograd.modes import Mode, current
from ..autograd.tape import Joint
from ..kernels import arrays as xp
from ..kernels.halves import BFLOAT16, cast, is_half, wide
from ..tensor.dtypes import DTYPES, dtype_of

LOWERED = frozenset(
    """attention contract conv conv_transpose linear linear_cross_entropy matmul packed
    recurrent""".split()
)
RAISED = frozenset(
    """acos asin batch_norm bce cosh cross_entropy ctc cumsum erf exp expm1 huber kl_div layer_norm
    log log10 log1p log2 log_softmax logsumexp norm picked pow prod reciprocal rms_norm rsqrt sinh
    soft_cross_entropy softmax softplus square sum tan var""".split()
)
MOVED = frozenset("clone diagonal expand flip getitem permute placed reshape roll".split())
KEPT = MOVED | {"linear_cross_entropy"}  # what is float32 inside stays so
NATIVE = frozenset(  # to the GPU's kernels
    """attention cross_entropy dropout embedding gelu layer_norm linear linear_cross_entropy
    log_softmax matmul packed rms_norm softmax swiglu""".split()
)
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


def prepared(name: str, args: tuple) -> tuple:
    """The arguments of an operation, tensors cast as autocast wants them."""
    place, dtype = current().autocast
    if name in LOWERED:
        return tuple(a.to(dtype) if _casts(a, place) else a for a in args)
    if name in RAISED:
        return tuple(a.to(DTYPES["float32"]) if _casts(a, place) else a for a in args)
    return args


def _casts(a: Any, place: str) -> bool:
    """Whether it is a tensor there, of 16 or 32 bits: float64 is nobody's mistake."""
    if not hasattr(a, "is_cuda") or a.is_cuda != (place == "cuda"):
        return False
    return a.data.dtype == xp.float32 or is_half(a.data)


def computed(name: str, function: Any, args: tuple, arrays: list, options: dict) -> tuple:
    """function(*arrays, **options): a value and its VJPs, of halves by way of float32."""
    halves = [a.dtype if is_half(a) else None for a in arrays]
    if not any(halves) or (name in NATIVE and any(map(xp.on_gpu, arrays))) or name == "cast":
        return function(*arrays, **options)
    given = arrays if name in MOVED else map(wide, arrays)
    value, *vjps = function(*given, **options)
    reals = [a for a in arrays if isinstance(a, xp.ndarray) and _is_real(a)]
    kinds = {a.dtype for a in reals if a.ndim} or {a.dtype for a in reals}  # as result_dtype
    kind = kinds.pop() if len(kinds) == 1 else xp.dtype(xp.float32)
    if kind.itemsize == 2 and name not in KEPT and value.dtype == xp.float32:
        value = cast(xp.asarray(value), kind)
    if vjps and isinstance(vjps[0], Joint):
        return value, _narrowed(vjps[0], halves)
    return value, *(
        v and (lambda g, v=v, h=h: _narrow(v(wide(g)), h)) for v, h in zip(vjps, halves)
    )


def _narrowed(joint: Joint, halves: list) -> Joint:
    """The same of halves, by way of float32; split where it is."""
    narrow = lambda found: list(map(_narrow, found, halves))
    narrowed = Joint(lambda g: narrow(joint(wide(g))))
    if joint.split is not None:

        def split(g: xp.ndarray, now: Any) -> tuple[list, Any]:
            first, rest = joint.split(wide(g), now)
            return narrow(first), lambda: narrow(rest())

        narrowed.split = split
    return narrowed


def of_integers(name: str, arrays: list, error: TypeError) -> Exception:
    """The error itself, or, if NumPy made it of integers where floats are meant, what to do."""
    whole = {a.dtype.name for a in arrays if isinstance(a, xp.ndarray) and not _is_real(a)}
    if not whole or "UFunc" not in type(error).__name__:
        return error
    return NotImplementedError(f"{name} of {' and '.join(whole)}: convert with .float() first")


def _is_real(array: xp.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype == BFLOAT16


def _narrow(g: xp.ndarray | None, dtype: xp.dtype | None) -> xp.ndarray | None:
    return g if g is None or dtype is None else cast(xp.asarray(g), dtype)
