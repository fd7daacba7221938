"""Rotary position embedding: the adjoint of a rotation is the rotation back."""

from ..array import is_floating
from ..kernels import arrays as np
from ..kernels import rotary as kernel
from ..kernels.halves import wide
from ..tensor import Tensor
from .op import differentiable


@differentiable
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
    with np.beside(x.data):
        where = np.arange(x.shape[-2]) if positions is None else positions
        where = where.data if isinstance(where, Tensor) else np.asarray(where)
    fits = (n in (1, m) for n, m in zip(where.shape[::-1], x.shape[-2::-1]))
    if where.ndim >= x.ndim or not all(fits):
        raise RuntimeError(f"rotary_embedding: positions {where.shape} for input {x.shape}")
    angles = kernel.angles(np.at_home_of(x.data, where), x.shape[-1], base)
    turn = np.exp(1j * angles).astype(np.result_type(wide(x.data[:0]).dtype, np.complex64))
    return _rotary(x, turn, interleaved)
