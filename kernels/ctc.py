"""CTC (Graves et al. 2006): all alignments of a label to a longer sequence, summed in one sweep.

A label l of S symbols becomes l' = blank l₁ blank … l_S blank, of 2S + 1 states. Paths go from
state s to s, s + 1, and to s + 2 if that is another symbol than s's. The sweeps walk over time;
each step handles all samples and states at once.
"""

from . import arrays as xp


def naive(log_probs, labels, blank=0):
    """One sample by enumeration: -log Σ p(path) over all paths (t,) that spell labels (s,)."""
    total, labels = -xp.inf, list(labels)
    for path in xp.ndindex(*(log_probs.shape[1],) * len(log_probs)):
        merged = [c for i, c in enumerate(path) if i == 0 or c != path[i - 1]]
        if [c for c in merged if c != blank] == labels:
            total = xp.logaddexp(total, log_probs[xp.arange(len(path)), path].sum())
    return -total


def padded(labels: xp.ndarray, sizes: xp.ndarray, blank: int) -> xp.ndarray:
    """Labels one after the other, or in rows, as rows (n, longest) filled up with blanks."""
    longest = int(sizes.max(initial=0))
    inside = xp.arange(longest) < sizes[:, None]
    rows = xp.full((len(sizes), longest), blank)
    rows[inside] = labels if labels.ndim == 1 else labels[:, :longest][inside]
    return rows


def check(shape: tuple, labels: xp.ndarray, lengths: xp.ndarray, sizes: xp.ndarray, blank: int):
    """log_probs (t, n, c) of `shape`, labels (n, s) or (Σ s,), both lengths (n,)."""
    t, n, c = shape
    room = labels.size if labels.ndim == 1 else labels.shape[1] * n
    wanted = int(sizes.sum()) if labels.ndim == 1 else int(sizes.max(initial=0)) * n
    if lengths.shape != (n,) or sizes.shape != (n,) or labels.ndim > 2:
        raise RuntimeError(f"ctc_loss: lengths {lengths.shape} and {sizes.shape}: want ({n},) each")
    if room < wanted or (labels.ndim == 1 and room > wanted) or sizes.min(initial=0) < 0:
        raise RuntimeError(f"ctc_loss: targets {labels.shape} for target_lengths {sizes.tolist()}")
    inside = xp.arange(labels.shape[-1]) < (sizes[:, None] if labels.ndim == 2 else labels.size)
    if xp.outside(labels[inside], c):
        raise RuntimeError(f"ctc_loss: targets {labels.tolist()} are not classes 0 to {c - 1}")
    if lengths.max(initial=0) > t or lengths.min(initial=0) < 0 or not 0 <= blank < c:
        raise RuntimeError(
            f"ctc_loss: input_lengths {lengths.tolist()} and blank {blank} of {t, c}"
        )


def states(labels: xp.ndarray, blank: int) -> tuple[xp.ndarray, xp.ndarray]:
    """labels (n, s) -> l' (n, 2s + 1), and where a path may come from two states before."""
    extended = xp.full((len(labels), 2 * labels.shape[1] + 1), blank)
    extended[:, 1::2] = labels
    skips = xp.zeros(extended.shape, bool)
    skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    return extended, skips


def _step(a: xp.ndarray, skips: xp.ndarray) -> xp.ndarray:
    """log Σ over where a path may come from: a (n, states) one step before."""
    b = xp.array(a)
    b[:, 1:] = xp.logaddexp(b[:, 1:], a[:, :-1])
    b[:, 2:] = xp.where(skips[:, 2:], xp.logaddexp(b[:, 2:], a[:, :-2]), b[:, 2:])
    return b


def forward(
    log_probs: xp.ndarray, labels: xp.ndarray, lengths: xp.ndarray, sizes: xp.ndarray, blank: int
) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:
    """log_probs (t, n, c), labels (n, s), their lengths (n,) each -> losses (n,).

    And for backward log p of each state (t, n, states) and α, its sum over all ways to it.
    Temporary memory: a dozen steps (n, states), and an index of them.
    """
    extended, skips = states(labels, blank)
    n = xp.arange(len(labels))
    p = log_probs[:, n[:, None], extended]
    alpha = xp.full_like(p, -xp.inf)
    alpha[:1, :, :2] = p[:1, :, :2]
    for t in range(1, len(p)):
        xp.add(_step(alpha[t - 1], skips), p[t], out=alpha[t])
    last = alpha[lengths - 1, n] if len(p) else xp.full(extended.shape, -xp.inf, p.dtype)
    last[lengths == 0] = xp.where(xp.arange(extended.shape[1]) == 0, 0, -xp.inf)
    symbol = xp.where(sizes > 0, last[n, 2 * sizes - 1], -xp.inf)
    return xp.asarray(-xp.logaddexp(last[n, 2 * sizes], symbol), p.dtype), p, alpha


def backward(
    g: xp.ndarray, losses: xp.ndarray, p: xp.ndarray, alpha: xp.ndarray,
    labels: xp.ndarray, lengths: xp.ndarray, sizes: xp.ndarray, blank: int, classes: int,
) -> xp.ndarray:  # fmt: skip
    """g (n,) -> the cotangent of log_probs (t, n, c): -g · p(class at t | the label).

    Temporary memory: four arrays like p, and a dozen of its steps.
    """
    extended, skips = states(labels, blank)
    (steps, n, width), rows = p.shape, xp.arange(len(labels))
    ends = xp.full((n, width), -xp.inf, p.dtype)
    ends[rows, 2 * sizes] = ends[rows, xp.maximum(2 * sizes - 1, 0)] = 0
    onward = xp.zeros_like(skips)  # skips, seen from where a path goes to
    onward[:, 2:] = skips[:, :1:-1]
    beta, shares = xp.full((n, width), -xp.inf, p.dtype), xp.zeros_like(p)
    for t in reversed(range(steps)):
        if t + 1 < steps:
            beta = _step((beta + p[t + 1])[:, ::-1], onward)[:, ::-1]
        beta = xp.where((lengths == t + 1)[:, None], ends, beta)
        shares[t] = xp.where((lengths > t)[:, None], alpha[t] + beta, -xp.inf)
    with xp.errstate(invalid="ignore"):  # ∞ - ∞ where no path exists: NaN, as in PyTorch
        shares = xp.exp(shares + losses[:, None]) * -g[:, None]
    out = xp.zeros((steps, n, classes), p.dtype)
    for s in range(width):
        out[:, rows, extended[:, s]] += shares[:, :, s]
    return out
