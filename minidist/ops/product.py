"""Matrix products: matmul in all ranks, and the linear layer's fused form."""

import math

from ..kernels import arrays as xp
from ..kernels import linear as kernel
from ..tensor.tensor import Tensor
from .op import (
    axes_of,
    differentiable,
    unbroadcast,
    want_numbers,
    want_one_dtype,
    want_whole,
    wrapped,
)  # fmt: skip


def _swap(x: xp.ndarray) -> xp.ndarray:
    return x.swapaxes(-1, -2) if x.ndim > 1 else x


@differentiable(autocast="lower_precision_fp", native_on_gpu=True)
def _matmul(a, b):
    """Both at least 2-d; leading dimensions broadcast."""
    try:
        y = kernel.multiply(a, b)
    except ValueError:
        raise RuntimeError(f"matmul: leading sizes of {a.shape} and {b.shape} differ") from None
    return (
        y,
        lambda g: unbroadcast(kernel.multiply(g, _swap(b)), a.shape),
        lambda g: unbroadcast(kernel.multiply(_swap(a), g), b.shape),
    )


def matmul(a, b):
    """a @ b as torch.matmul: vectors are rows on the left and columns on the right."""
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise RuntimeError(
            f"matmul: shapes {a.shape} and {b.shape}: the last size of the first must equal "
            "the last but one of the second (the only one, if it is a vector)"
        )
    want_one_dtype("matmul", a, b)
    want_numbers("matmul", a)
    if a.ndim > 2 and b.ndim == 2:  # one product of all rows, and one for each gradient
        rows = _matmul(a.reshape(math.prod(a.shape[:-1]), a.shape[-1]), b)
        return rows.reshape(*a.shape[:-1], b.shape[1])
    row, column = a.ndim == 1, b.ndim == 1
    y = _matmul(a.unsqueeze(0) if row else a, b.unsqueeze(1) if column else b)
    y = y.squeeze(-1) if column else y
    return y.squeeze(-1 if column else -2) if row else y


def _of_ranks(name, ranks, *tensors):
    if [x.ndim for x in tensors] != ranks:
        shapes = " and ".join(str(x.shape) for x in tensors)
        wanted = " and ".join(map(str, ranks))
        raise RuntimeError(f"{name} of shapes {shapes}: want tensors of {wanted} dimensions")


def mm(input, mat2):
    """(n, k) @ (k, m) -> (n, m)."""
    _of_ranks("mm", [2, 2], input, mat2)
    return matmul(input, mat2)


def bmm(input, mat2):
    """(b, n, k) @ (b, k, m) -> (b, n, m)."""
    _of_ranks("bmm", [3, 3], input, mat2)
    if len(input) != len(mat2):
        raise RuntimeError(f"bmm: {len(input)} matrices and {len(mat2)}: matmul broadcasts")
    return matmul(input, mat2)


def dot(input, tensor):
    """Σ x·y of two vectors."""
    _of_ranks("dot", [1, 1], input, tensor)
    return matmul(input, tensor)


def outer(input, vec2):
    """(n), (m) -> (n, m): each element times each."""
    _of_ranks("outer", [1, 1], input, vec2)
    return input.unsqueeze(1) * vec2


@differentiable(autocast="lower_precision_fp", native_on_gpu=True)
def _linear(x, weight, *bias):
    n = math.prod(x.shape[:-1])
    rows = xp.ascontiguousarray(x).reshape(n, x.shape[-1])
    y = kernel.forward(rows, weight, bias[0] if bias else None)
    flat = (n, len(weight))
    return (
        y.reshape(*x.shape[:-1], len(weight)),
        lambda g: kernel.backward_input(g.reshape(flat), weight).reshape(x.shape),
        lambda g: kernel.backward_weight(g.reshape(flat), rows),
        lambda g: kernel.backward_bias(g.reshape(flat)),
    )


def linear(x, weight, bias=None):
    """x Wᵀ + b: x (..., in), weight (out, in), bias (out,) -> (..., out)."""
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            f"linear: input {x.shape} and weight {weight.shape}: the input's last size must be "
            "the weight's second, of two"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise RuntimeError(f"linear: bias {bias.shape} for weight {weight.shape}: one per output")
    want_one_dtype("linear", x, weight, bias)
    return _linear(x, weight) if bias is None else _linear(x, weight, bias)


def mv(input, vec):
    """(n, k) @ (k) -> (n)."""
    if (input.ndim, vec.ndim) != (2, 1):
        raise RuntimeError(f"mv of shapes {input.shape} and {vec.shape}: want (n, k) and (k)")
    return input @ vec


@differentiable(autocast="lower_precision_fp")
def _addmm(x, a, b, *, beta, alpha):
    want_whole("addmm", a.dtype, beta=beta, alpha=alpha)
    beta, alpha = wrapped(beta, a.dtype), wrapped(alpha, a.dtype)
    y = kernel.multiply(a, b) * alpha
    return (
        y + x * beta if beta else y,  # with beta 0, a NaN in x has no effect
        lambda g: g * beta,
        lambda g: kernel.multiply(g, _swap(b)) * alpha,
        lambda g: kernel.multiply(_swap(a), g) * alpha,
    )


def addmm(input, mat1, mat2, *, beta=1, alpha=1):
    """beta·input + alpha·(mat1 @ mat2), rounded once; with beta 0, input is ignored."""
    _of_ranks("addmm", [2, 2], mat1, mat2)
    want_one_dtype("addmm", input, mat1, mat2)
    if mat1.shape[1] != mat2.shape[0]:
        raise RuntimeError(f"addmm: shapes {mat1.shape} and {mat2.shape}: want (n, k) and (k, m)")
    shape = mat1.shape[0], mat2.shape[1]
    return _addmm(input.expand(shape), mat1, mat2, beta=beta, alpha=alpha)


def baddbmm(input, batch1, batch2, *, beta=1, alpha=1):
    """addmm for each of b matrices: batch1 (b, n, k), batch2 (b, k, m); input broadcasts."""
    _of_ranks("baddbmm", [3, 3], batch1, batch2)
    want_one_dtype("baddbmm", input, batch1, batch2)
    if len(batch1) != len(batch2) or batch1.shape[2] != batch2.shape[1]:
        raise RuntimeError(
            f"baddbmm: shapes {batch1.shape} and {batch2.shape}: want (b, n, k) and (b, k, m)"
        )
    shape = *batch1.shape[:2], batch2.shape[2]
    return _addmm(input.expand(shape), batch1, batch2, beta=beta, alpha=alpha)


def tensordot(a, b, dims=2):
    """Sum products over pairs of dimensions; the other dimensions stay, those of a first.

    dims is a number n (the last n dimensions of a with the first n of b) or two lists. If one
    dimension of a pair has size 1, it broadcasts.
    """
    want_one_dtype("tensordot", a, b)
    first, second = _pairs(a, b, dims)
    for i, j in zip(first, second):
        if b.shape[j] == 1:
            a = a.sum(i, keepdim=True, dtype=a.dtype)
        elif a.shape[i] == 1:
            b = b.sum(j, keepdim=True, dtype=b.dtype)
        elif a.shape[i] != b.shape[j]:
            raise RuntimeError(
                f"tensordot: size {a.shape[i]} of dim {i} of {a.shape}, but {b.shape[j]} of dim "
                f"{j} of {b.shape}: want equal sizes"
            )
    rows = [d for d in range(a.ndim) if d not in first]
    columns = [d for d in range(b.ndim) if d not in second]
    shape = [*(a.shape[d] for d in rows), *(b.shape[d] for d in columns)]
    n, k, m = (math.prod(x.shape[d] for d in ds) for x, ds in ((a, rows), (a, first), (b, columns)))
    left = a.permute(*rows, *first).reshape(n, k)
    right = b.permute(*second, *columns).reshape(k, m)
    return (left @ right).reshape(shape)


def _pairs(a, b, dims):
    """The dimensions of a and of b that are summed."""
    dims = dims.tolist() if isinstance(dims, Tensor) else dims
    if not isinstance(dims, int):
        first, second = ([d] if isinstance(d, int) else list(d) for d in dims)
        if len(first) != len(second):
            raise RuntimeError(f"tensordot: dims {dims}: want two lists of one length")
        return [axes_of(d, x.ndim) if d else () for d, x in ((first, a), (second, b))]
    if not 0 <= dims <= min(a.ndim, b.ndim):
        raise RuntimeError(
            f"tensordot: dims={dims} of shapes {a.shape} and {b.shape}: want 0 to "
            f"{min(a.ndim, b.ndim)}, or two lists of dimensions"
        )
    return range(a.ndim - dims, a.ndim), range(dims)
