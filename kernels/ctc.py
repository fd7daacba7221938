"""CTC (Graves et al. 2006): all alignments of a label to a longer sequence, summed in one sweep.

A label l of S symbols becomes l' = blank l₁ blank … l_S blank, of 2S + 1 states. Paths go from
state s to s, s + 1, and to s + 2 if that is another symbol than s's. The sweeps walk over time.

The ladder, t steps of n samples, c classes, numbers of b bytes:

- formula: all samples and states of a step at once, in some forty passes over arrays of a step.
- loop: a sample's states one by one, and each number is read once.
- tile program: a sample a program, whose states stay in registers from step to step. Forward reads
  a number of log_probs for each state, and writes α, 2tn(2S + 1)b bytes. Backward reads both and
  writes each state's share, 3tn(2S + 1)b bytes. Then a program for each step of a sample adds up
  the shares of each class and writes the cotangent, tn(2S + 1 + c)b bytes. Several states may be of
  one class: it compares all of them with all classes, rather than add atomically in any order.
"""

from __future__ import annotations

import math
from math import inf
from typing import Any

from . import arrays as xp
from .dispatch import formula
from .elementary import exp
from .launch import contiguous, next_power_of_2, real, triton_kernel
from .loops import F, Int, Out, helper, loop

tl: Any = None  # Triton's language, once a kernel is launched

WIDEST = 4096  # states that a program keeps in registers: 16 a thread of 8 warps
COMPARED = 2048  # states times classes that a program compares together
CLASSES = 128  # of these


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


# The tile program: all states of a sample


@triton_kernel
def _spelled(labels_ptr, sample, longest, blank, s):
    """The classes of states s, and whether a path may come to each from two states before."""
    symbol = (s % 2 == 1) & (s < 2 * longest)
    place = labels_ptr + sample * longest + s // 2
    label = tl.load(place, symbol, other=blank)
    before = tl.load(place - 1, symbol & (s > 2), other=blank)
    return label, symbol & (s > 2) & (label != before)


@triton_kernel
def _tile_log_sum(a, b, c):
    """log(eᵃ + eᵇ + eᶜ)."""
    top = tl.maximum(a, tl.maximum(b, c))
    top = tl.where(tl.abs(top) == float("inf"), 0.0, top)  # ∞ less ∞ would be NaN
    return top + tl.log(tl.exp(a - top) + tl.exp(b - top) + tl.exp(c - top))


@triton_kernel
def _forward_kernel(
    logs_ptr, labels_ptr, lengths_ptr, sizes_ptr, losses_ptr, alpha_ptr, steps, n, c, longest,
    blank, DOUBLE: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """logs (t, n, c), labels (n, longest), alpha (t, n, 2 · longest + 1), all else (n,)."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    sample, s, width = tl.program_id(0).to(tl.int64), tl.arange(0, STATES), 2 * longest + 1
    label, skip = _spelled(labels_ptr, sample, longest, blank, s)
    length, last = tl.load(lengths_ptr + sample), 2 * tl.load(sizes_ptr + sample)
    a = tl.where(s == 0, 0.0, float("-inf")).to(kind)  # before the first step
    at = sample  # step · n + sample
    for _ in range(length):
        one = tl.where(s > 0, tl.gather(a, tl.maximum(s - 1, 0), 0), float("-inf"))
        two = tl.where(skip, tl.gather(a, tl.maximum(s - 2, 0), 0), float("-inf"))
        p = tl.load(logs_ptr + at * c + label, s <= last, other=0).to(kind)
        a = tl.where(s <= last, _tile_log_sum(a, one, two) + p, float("-inf"))
        tl.store(alpha_ptr + at * width + s, a.to(alpha_ptr.dtype.element_ty), s < width)
        at += n
    for _ in range(length, steps):
        tl.store(alpha_ptr + at * width + s, tl.full([STATES], float("-inf"), kind), s < width)
        at += n
    blank_last = tl.sum(tl.where(s == last, a, 0.0), 0)
    symbol_last = tl.sum(tl.where(s == last - 1, a, 0.0), 0)
    symbol_last = tl.where(last > 0, symbol_last, float("-inf"))
    loss = -_tile_log_sum(blank_last, symbol_last, float("-inf"))
    tl.store(losses_ptr + sample, loss.to(losses_ptr.dtype.element_ty))


@triton_kernel
def _shares_kernel(
    g_ptr, losses_ptr, logs_ptr, alpha_ptr, labels_ptr, lengths_ptr, sizes_ptr, shares_ptr,
    n, c, longest, blank, DOUBLE: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """shares (t, n, 2 · longest + 1): what each state adds to the cotangent of its class."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    sample, s, width = tl.program_id(0).to(tl.int64), tl.arange(0, STATES), 2 * longest + 1
    label, _ = _spelled(labels_ptr, sample, longest, blank, s)
    _, skip = _spelled(labels_ptr, sample, longest, blank, s + 2)  # from s two states on
    length, last = tl.load(lengths_ptr + sample), 2 * tl.load(sizes_ptr + sample)
    g = tl.load(g_ptr + sample).to(kind)
    loss = tl.load(losses_ptr + sample).to(kind)
    # log p of all ways on from each state
    beta = tl.where((s == last) | (s == tl.maximum(last - 1, 0)), 0.0, float("-inf")).to(kind)
    at = sample + length.to(tl.int64) * n
    for _ in range(length):
        at -= n
        alpha = tl.load(alpha_ptr + at * width + s, s <= last, other=0).to(kind)
        share = tl.exp(alpha + beta + loss) * -g  # ∞ - ∞ where no path exists
        tl.store(shares_ptr + at * width + s, share, s <= last)
        beta += tl.load(logs_ptr + at * c + label, s <= last, other=0).to(kind)
        one = tl.gather(beta, tl.minimum(s + 1, STATES - 1), 0)
        one = tl.where(s + 1 < STATES, one, float("-inf"))
        two = tl.gather(beta, tl.minimum(s + 2, STATES - 1), 0)
        beta = _tile_log_sum(beta, one, tl.where(skip, two, float("-inf")))


@triton_kernel
def _classes_kernel(
    shares_ptr, labels_ptr, lengths_ptr, sizes_ptr, out_ptr, n, c, longest, blank,
    STATES: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """out (t, n, c): at one step of a sample, the sums of shares of each of some classes."""
    row = tl.program_id(0).to(tl.int64)
    sample, width = row % n, 2 * longest + 1
    own = tl.program_id(1) * CLASSES + tl.arange(0, CLASSES)
    total = tl.zeros([CLASSES], shares_ptr.dtype.element_ty)
    count = 2 * tl.load(sizes_ptr + sample) + 1
    count = tl.where(row // n < tl.load(lengths_ptr + sample), count, 0)
    for start in range(0, count, STATES):
        s = start + tl.arange(0, STATES)
        label, _ = _spelled(labels_ptr, sample, longest, blank, s)
        share = tl.load(shares_ptr + row * width + s, s < count, other=0)
        same = label[:, None] == own[None, :]
        total += tl.sum(tl.where(same, share[:, None], 0.0), 0)
    tl.store(out_ptr + row * c + own, total.to(out_ptr.dtype.element_ty), own < c)


@forward.version("triton")
def _forward_triton(log_probs, labels, lengths, sizes, blank):
    width = 2 * labels.shape[1] + 1
    if not real(log_probs) or width > WIDEST:
        return forward.plain(log_probs)(log_probs, labels, lengths, sizes, blank)
    logs, (t, n, c) = contiguous(log_probs), log_probs.shape
    losses, alpha = (xp.empty_like(logs, shape=shape) for shape in (n, (t, n, width)))
    arrays = logs, *map(contiguous, (labels, lengths, sizes)), losses, alpha
    with xp.errstate(divide="ignore"):  # in the interpreter: log 0
        _forward_kernel[(n,)](
            *arrays, t, n, c, labels.shape[1], blank, **_constants(logs, width)
        )  # fmt: skip
    return losses, alpha


@backward.version("triton")
def _backward_triton(g, losses, log_probs, alpha, labels, lengths, sizes, blank):
    longest, width, (t, n, c) = labels.shape[1], alpha.shape[2], log_probs.shape
    if not real(g, log_probs) or width > WIDEST:
        return backward.plain(g)(g, losses, log_probs, alpha, labels, lengths, sizes, blank)
    logs, spelled = contiguous(log_probs), [*map(contiguous, (labels, lengths, sizes))]
    shares = xp.empty_like(alpha, dtype=xp.promote_types(logs.dtype, xp.float32))
    arrays = *map(contiguous, (g, losses)), logs, contiguous(alpha), *spelled, shares
    with xp.errstate(divide="ignore", invalid="ignore"):  # in the interpreter: log 0, ∞ - ∞
        _shares_kernel[(n,)](*arrays, n, c, longest, blank, **_constants(logs, width))
    out, wide = xp.empty_like(logs), min(CLASSES, next_power_of_2(c))
    by = {"STATES": COMPARED // wide, "CLASSES": wide}
    _classes_kernel[(t * n, -(-c // wide))](shares, *spelled, out, n, c, longest, blank, **by)
    return out


def _constants(logs, width):
    states = next_power_of_2(width)
    warps = min(8, max(1, states // 128))
    return {"DOUBLE": logs.dtype == xp.float64, "STATES": states, "num_warps": warps}
