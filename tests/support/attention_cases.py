"""Attention by its formula in float64, and how far a kernel's results are from it."""

import numpy as np
from minidist.kernels import attention
from minidist.kernels.half_precision import wide


def formulas(q, k, v, g, causal, scale, mask=None, drop=None):
    """[out, lse, dq, dk, dv, dmask], the last of a mask alone; drop is (kept, factor) or None."""
    q, k, v, g = (wide(x).astype("float64") for x in (q, k, v, g))
    mask = None if mask is None else wide(mask).astype("float64")
    out, dq, dk, dv = (np.empty_like(x) for x in (g, q, k, v))
    ds = None if mask is None else np.empty_like(mask)
    lse = attention.forward.formula(q, k, v, out, causal, scale, mask, drop)
    into = dq, dk, dv, causal, scale, mask, ds, drop
    attention.backward.formula(g, q, k, v, out, lse, *into)
    return [out, lse, dq, dk, dv, *([] if mask is None else [ds])]


def difference(found, wanted, size=np.abs) -> float:
    """The largest, beside numbers of at least 1; -inf is -inf."""
    assert [a.shape for a in found] == [w.shape for w in wanted]
    errors = [0.0]
    for a, w in zip(found, wanted):
        np.testing.assert_array_equal(np.isneginf(a), np.isneginf(w))
        a, w = (np.where(np.isneginf(x), 0, x) for x in (a, w))
        errors.append((np.abs(a - w) / np.maximum(1, size(w))).max(initial=0))
    return float(np.max(errors))  # max() of Python would pass over NaN
