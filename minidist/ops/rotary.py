"""Rotary position embedding: the adjoint of a rotation is the rotation back."""

from ..kernels import arrays as xp
from ..kernels import rotary as kernel
from ..kernels.half_precision import wide
from ..tensor.dtypes import is_floating
from ..tensor.tensor import Tensor
from .op import differentiable


@differentiable(autocast="fallthrough")
def _rotary(x, turn, interleaved):
    return kernel.rotate(x, turn, interleaved), lambda g: kernel.backward(g, turn, interleaved)


def rotary_embedding(x, positions=None, base=10000.0, interleaved=True):
    """Turn each pair of features by position · base^(-2i/d): x (..., s, d) -> (..., s, d).

    Apply it to queries and keys alike: their product then depends on distances alone (Su et al.
    2021, RoFormer, 3.2.2). positions broadcast to (..., s), 0 to s-1 unless given. Pairs are
    (0, 1), (2, 3), … if interleaved, as in the paper; else (0, d/2), (1, d/2 + 1), …, as Llama's.
    """
    if x.ndim < 2 or x.shape[-1] % 2 or not is_floating(x.data):
        raise RuntimeError(
            f"rotary_embedding: input {x.shape} of {x.dtype.name}: want (..., s, d), d even, of "
            "floating-point numbers"
        )
    with xp.beside(x.data):
        where = xp.arange(x.shape[-2]) if positions is None else positions
        where = where.data if isinstance(where, Tensor) else xp.asarray(where)
    fits = (n in (1, m) for n, m in zip(where.shape[::-1], x.shape[-2::-1]))
    if where.ndim >= x.ndim or not all(fits):
        raise RuntimeError(f"rotary_embedding: positions {where.shape} for input {x.shape}")
    angles = kernel.angles(xp.at_home_of(x.data, where), x.shape[-1], base)
    turn = xp.exp(1j * angles).astype(xp.result_type(wide(x.data[:0]).dtype, xp.complex64))
    return _rotary(x, turn, interleaved)
