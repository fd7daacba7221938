"""Rows of a table by index."""

from ..kernels import arrays as xp
from ..kernels import embedding as kernel
from ..tensor.device import want_one_place
from .op import differentiable


@differentiable(autocast="fallthrough", native_on_gpu=True)
def _embedding(weight, index, padding_idx):
    (rows, width), flat = weight.shape, index.reshape(-1)

    def vjp(g):
        table = kernel.backward(g.reshape(len(flat), width), flat, rows)
        if padding_idx is not None:
            table[padding_idx] = 0
        return table

    return kernel.forward(weight, index), vjp


def embedding(input, weight, padding_idx=None):
    """weight[input]: integers (...) into a table (rows, width) -> (..., width).

    Row padding_idx gets no gradient.
    """
    if weight.ndim != 2:
        raise RuntimeError(f"embedding: a table has 2 dimensions, not shape {weight.shape}")
    want_one_place("embedding", input, weight)
    index, n = xp.asarray(input.data), len(weight)
    if index.dtype.kind not in "iu":
        raise RuntimeError(f"embedding: indices are integers, not {index.dtype.name}")
    if xp.outside(index, n):
        span = f"from {index.min()} to {index.max()}"
        raise IndexError(f"embedding: indices {span} into a table of {n} rows")
    assert padding_idx is None or -n <= padding_idx < n, f"padding_idx {padding_idx} of {n} rows"
    return _embedding(weight, index, padding_idx)
