"""Attention by its formula in float64, and how far a kernel's results are from it."""

import numpy as np
from minidist.kernels import flash
from minidist.kernels.half_precision import wide


def formulas(q, k, v, g, causal, scale, mask=None):
    """[out, lse, dq, dk, dv, dmask], the last of a mask alone."""
    q, k, v, g = (wide(x).astype("float64") for x in (q, k, v, g))
    mask = None if mask is None else wide(mask).astype("float64")
    out, lse = flash.naive(q, k, v, causal, scale, mask)
    *grads, ds = flash.naive_backward(g, q, k, v, out, lse, causal, scale, mask)
    return [out, lse, *grads, *([] if mask is None else [ds])]


def difference(found, wanted, size=np.abs) -> float:
    """The largest, beside numbers of at least 1; -inf is -inf."""
    assert [a.shape for a in found] == [w.shape for w in wanted]
    errors = [0.0]
    for a, w in zip(found, wanted):
        np.testing.assert_array_equal(np.isneginf(a), np.isneginf(w))
        a, w = (np.where(np.isneginf(x), 0, x) for x in (a, w))
        errors.append((np.abs(a - w) / np.maximum(1, size(w))).max(initial=0))
    return float(np.max(errors))  # max() of Python would pass over NaN
