"""CTC (Graves et al. 2006): all alignments of a label to a longer sequence, summed in one sweep.

A label l of S symbols becomes l' = blank l₁ blank … l_S blank, of 2S + 1 states. Paths go from
state s to s, s + 1, and to s + 2 if that is another symbol than s's. The sweeps walk over time.

The ladder: the formula handles all samples and states of a step at once, in some forty passes over
arrays of a step. The loop goes through a sample's states one by one and reads each number once.
"""

from __future__ import annotations

import math
from math import inf

from . import arrays as xp
from .dispatch import formula
from .elementary import exp
from .loops import F, Int, Out, helper, loop


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


# The formula


@formula
def forward(
    log_probs: xp.ndarray, labels: xp.ndarray, lengths: xp.ndarray, sizes: xp.ndarray, blank: int
) -> tuple[xp.ndarray, xp.ndarray]:
    """log_probs (t, n, c), labels (n, s), their lengths (n,) each -> losses (n,).

    And for backward α (t, n, states): log p of each state, summed over all ways to it; -inf past
    the end of a sample or of its labels.
    """
    extended, skips = states(labels, blank)
    n = xp.arange(len(labels))
    p = log_probs[:, n[:, None], extended]  # (t, n, states)
    alpha = xp.full_like(p, -xp.inf)
    alpha[:1, :, :2] = p[:1, :, :2]
    for t in range(1, len(p)):
        xp.add(_step(alpha[t - 1], skips), p[t], out=alpha[t])
    alpha = xp.where(_inside(p.shape, lengths, sizes), alpha, -xp.inf)
    last = alpha[lengths - 1, n] if len(p) else xp.full(extended.shape, -xp.inf, p.dtype)
    last[lengths == 0] = xp.where(xp.arange(extended.shape[1]) == 0, 0, -xp.inf)
    symbol = xp.where(sizes > 0, last[n, 2 * sizes - 1], -xp.inf)
    return xp.asarray(-xp.logaddexp(last[n, 2 * sizes], symbol), p.dtype), alpha


@formula
def backward(
    g: xp.ndarray, losses: xp.ndarray, log_probs: xp.ndarray, alpha: xp.ndarray,
    labels: xp.ndarray, lengths: xp.ndarray, sizes: xp.ndarray, blank: int,
) -> xp.ndarray:  # fmt: skip
    """g (n,) -> the cotangent of log_probs (t, n, c): -g · p(class at t | the label).

    Where no path spells the label it is NaN, as in PyTorch.
    """
    extended, skips = states(labels, blank)
    (steps, n, width), rows = alpha.shape, xp.arange(len(labels))
    p = log_probs[:, rows[:, None], extended]  # (t, n, states)
    ends = xp.full((n, width), -xp.inf, p.dtype)
    ends[rows, 2 * sizes] = ends[rows, xp.maximum(2 * sizes - 1, 0)] = 0
    onward = xp.zeros_like(skips)  # skips, seen from where a path goes to
    onward[:, 2:] = skips[:, :1:-1]
    beta, shares = xp.full((n, width), -xp.inf, p.dtype), xp.zeros_like(p)
    for t in reversed(range(steps)):
        if t + 1 < steps:
            beta = _step((beta + p[t + 1])[:, ::-1], onward)[:, ::-1]
        beta = xp.where((lengths == t + 1)[:, None], ends, beta)
        shares[t] = alpha[t] + beta
    with xp.errstate(invalid="ignore"):  # ∞ - ∞ where no path exists
        shares = xp.exp(shares + losses[:, None]) * -g[:, None]
    shares = xp.where(_inside(p.shape, lengths, sizes), shares, 0)
    out = xp.zeros_like(log_probs)
    for s in range(width):
        out[:, rows, extended[:, s]] += shares[:, :, s]
    return out


def _step(a: xp.ndarray, skips: xp.ndarray) -> xp.ndarray:
    """log Σ over where a path may come from: a (n, states) one step before."""
    b = xp.array(a)
    b[:, 1:] = xp.logaddexp(b[:, 1:], a[:, :-1])
    b[:, 2:] = xp.where(skips[:, 2:], xp.logaddexp(b[:, 2:], a[:, :-2]), b[:, 2:])
    return b


def _inside(shape: tuple, lengths: xp.ndarray, sizes: xp.ndarray) -> xp.ndarray:
    """True (t, n, states) at the steps of a sample and at the states of its labels."""
    steps, _, width = shape
    return (xp.arange(steps)[:, None] < lengths)[:, :, None] & (
        xp.arange(width) <= 2 * sizes[:, None]
    )


# The loop


@helper()
def log_sum(a, b, c):
    """log(eᵃ + eᵇ + eᶜ)."""
    top = a
    top = b if b > top else top
    top = c if c > top else top
    top = 0.0 if top == -inf else top  # -inf less -inf would be NaN
    return top + math.log(exp(a - top) + exp(b - top) + exp(c - top))


@loop
def ctc_rows(
    logs: F[:, :, ::1], states: Int[:, ::1], skips: F[:, ::1], lengths: Int[::1], sizes: Int[::1],
    losses: Out[::1], alpha: Out[:, :, ::1],
):  # fmt: skip
    # logs (t, n, c), states and skips (n, 2s + 1), alpha (t, n, 2s + 1), all else (n,);
    # skips are 0 or -inf: added, not asked for, so that the loop over states is vectorised
    alpha[:] = -inf
    for i in range(len(lengths)):
        last = 2 * sizes[i]
        for t in range(lengths[i]):
            a = alpha[t, i]
            if t == 0:
                a[: min(2, last + 1)] = 0.0
            else:
                before = alpha[t - 1, i]
                a[0] = before[0]
                if last > 0:
                    a[1] = log_sum(before[1], before[0], -inf)
                stay, one, skip, rest = before[2:], before[1:], skips[i, 2:], a[2:]
                for s in range(last - 1):
                    rest[s] = log_sum(stay[s], one[s], before[s] + skip[s])
            for s in range(last + 1):
                a[s] += logs[t, i, states[i, s]]
        if lengths[i] == 0:
            losses[i] = 0.0 if last == 0 else inf
        else:
            a = alpha[lengths[i] - 1, i]
            losses[i] = -log_sum(a[last], a[last - 1] if last > 0 else -inf, -inf)


@loop
def ctc_slope_rows(
    g: F[::1], losses: F[::1], logs: F[:, :, ::1], alpha: F[:, :, ::1], states: Int[:, ::1],
    skips: F[:, ::1], lengths: Int[::1], sizes: Int[::1], beta: Out[::1], out: Out[:, :, ::1],
):  # fmt: skip
    # beta (2s + 3,): log p of all ways on from each state; the last two lead nowhere
    out[:] = 0.0
    for i in range(len(lengths)):
        last = 2 * sizes[i]
        beta[:] = -inf
        beta[last] = beta[max(last - 1, 0)] = 0.0
        for t in range(lengths[i] - 1, -1, -1):
            for s in range(last + 1):
                share = exp(alpha[t, i, s] + beta[s] + losses[i])  # ∞ - ∞ where no path exists
                out[t, i, states[i, s]] -= share * g[i]
            for s in range(last + 1):
                beta[s] += logs[t, i, states[i, s]]
            one, two, skip = beta[1:], beta[2:], skips[i, 2:]
            for s in range(last + 1):  # in place: a path only goes to states that come later
                beta[s] = log_sum(beta[s], one[s], two[s] + skip[s])


@forward.version("numba")
def _forward_loop(log_probs, labels, lengths, sizes, blank):
    extended, skips = _for_loops(log_probs, labels, blank)
    shape = (len(log_probs), *extended.shape)
    losses, alpha = (xp.empty_like(log_probs, order="C", shape=s) for s in (len(labels), shape))
    ctc_rows(log_probs, extended, skips, _whole(lengths), _whole(sizes), losses, alpha)
    return losses, alpha


@backward.version("numba")
def _backward_loop(g, losses, log_probs, alpha, labels, lengths, sizes, blank):
    extended, skips = _for_loops(log_probs, labels, blank)
    out = xp.empty_like(log_probs, order="C")
    beta, lengths, sizes = (
        xp.empty_like(skips, shape=skips.shape[1]),
        _whole(lengths),
        _whole(sizes),
    )
    ctc_slope_rows(g, losses, log_probs, alpha, extended, skips, lengths, sizes, beta, out)
    return out


def _for_loops(log_probs, labels, blank):
    """The states (n, 2s + 1), and what is added on the way to each from two before: 0 or -inf.

    (n, 2s + 3): two states more, to which no way leads.
    """
    extended, may = states(labels, blank)
    skips = xp.full_like(log_probs, -inf, order="C", shape=(len(may), may.shape[1] + 2))
    skips[:, :-2][may] = 0
    return _whole(extended), skips


def _whole(numbers):
    return xp.ascontiguousarray(numbers, xp.int64)
