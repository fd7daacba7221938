"""Rows of a table by index."""

import numpy as np

from ..kernels import embedding as kernel
from .op import differentiable


@differentiable
def _embedding(weight, index):
    rows, width = weight.shape
    flat = index.reshape(-1)
    return weight[index], lambda g: kernel.backward(g.reshape(len(flat), width), flat, rows)


def embedding(input, weight):
    """weight[input]: integers (...) into a table (rows, width) -> (..., width)."""
    index = np.asarray(input.data)
    if weight.ndim != 2:
        raise RuntimeError(f"embedding: a table has 2 dimensions, not shape {weight.shape}")
    if index.dtype.kind not in "iu":
        raise RuntimeError(f"embedding: indices are integers, not {index.dtype.name}")
    if index.size and not (index.min() >= 0 and index.max() < len(weight)):
        raise IndexError(
            f"embedding: indices from {index.min()} to {index.max()} into a table of "
            f"{len(weight)} rows"
        )
    return _embedding(weight, index)
