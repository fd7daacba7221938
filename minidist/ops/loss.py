"""Losses: a number an element (or a row) from a formula or a kernel, then a reduction."""

import math
import warnings

from ..amp.autocast import is_autocast_enabled
from ..autograd.tape import Joint
from ..kernels import arrays as xp
from ..kernels import cross_entropy as kernel
from ..kernels import ctc, huber, pointwise
from ..kernels import linear_cross_entropy as fused
from ..kernels.half_precision import wide
from ..tensor.device import moved, want_one_place
from ..tensor.dtypes import is_floating
from ..tensor.tensor import Tensor
from .activation import softplus
from .elementwise import abs, square, where
from .op import composite, differentiable, elementwise, want_floating, want_one_dtype
from .product import linear
from .reduce import sum_over
from .shape import permute, reshape


def _reduced(losses, reduction, total=None):
    """The losses, or their sum, or that over `total` (by default the number of losses)."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction {reduction!r} is not 'mean', 'sum' or 'none'")
    if reduction != "mean":
        return losses if reduction == "none" else losses.sum()
    total = losses.numel() if total is None else total
    if not xp.on_gpu(total) and not total:
        return losses.sum() * 0 + math.nan  # as 0/0, which moves nothing
    return sum_over(losses, total if xp.on_gpu(total) else float(total))


# Losses of single elements


@differentiable(autocast="fp32")
def _huber(d, *, delta, scale):
    return huber.forward(d, delta, scale), lambda g: huber.backward(g, d, delta, scale)


def _difference(x, target):
    if x.shape != target.shape:
        text = f"a loss between {x.shape} and {target.shape}, which broadcast: is that meant?"
        warnings.warn(text, stacklevel=4)
    return x - target


@composite(autocast="fp32")
def mse_loss(input, target, *, reduction="mean"):
    """(x - t)²."""
    difference = _difference(input, target)
    want_floating("mse_loss", difference)
    return _reduced(square(difference), reduction)


@composite(autocast="fp32")
def l1_loss(input, target, *, reduction="mean"):
    """|x - t|."""
    return _reduced(abs(_difference(input, target)), reduction)


@composite(autocast="fp32")
def huber_loss(input, target, reduction="mean", delta=1.0):
    """d²/2 where |d| = |x - t| < delta, else delta·(|d| - delta/2) (Huber 1964)."""
    if delta <= 0:
        raise RuntimeError(f"huber_loss: delta {delta}: want more than 0")
    difference = _difference(input, target)
    want_floating("huber_loss", difference)
    return _reduced(_huber(difference, delta=delta, scale=1.0), reduction)


@composite(autocast="fp32")
def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    """d²/(2·beta) where |d| = |x - t| < beta, else |d| - beta/2 (Girshick 2015).

    beta 0 is l1_loss.
    """
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss: beta {beta}: want 0 or more")
    d = _difference(input, target)
    want_floating("smooth_l1_loss", d)
    return _reduced(_huber(d, delta=beta, scale=beta) if beta else abs(d), reduction)


@elementwise(autocast="fp32")
def _bce(x, t):
    with xp.errstate(divide="ignore"):
        yes, no = (xp.maximum(xp.log(p), -100) for p in (x, 1 - x))
    flat = xp.maximum(x * (1 - x), 1e-12)
    return -(t * yes + (1 - t) * no), lambda g: g * (x - t) / flat, lambda g: g * (no - yes)


def _binary(name, loss, x, target, weight, reduction):
    if x.shape != target.shape:
        raise ValueError(f"{name}: input {x.shape}, target {target.shape}: want equal shapes")
    losses = loss(x, target)
    return _reduced(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """-t·log p - (1 - t)·log(1 - p) of probabilities p, each logarithm at least -100."""
    x = wide(input.data)
    if not xp.on_gpu(x) and x.size and not (x.min() >= 0 and x.max() <= 1):
        raise RuntimeError("binary_cross_entropy: probabilities outside 0 to 1: sigmoid first")
    return _binary("binary_cross_entropy", _bce, input, target, weight, reduction)


@elementwise(autocast="fp32")
def _bce_of_logits(x, t):
    y = pointwise.bce_of_logits(x, t)
    return y, lambda g: pointwise.bce_of_logits_slope(g, x, t), lambda g: -g * x


@composite(autocast="fp32")
def binary_cross_entropy_with_logits(
    input, target, weight=None, *, reduction="mean", pos_weight=None
):
    """binary_cross_entropy of sigmoid(input), without overflow; pos_weight scales t's term."""

    def loss(x, t):
        if pos_weight is None:
            return _bce_of_logits(x, t)
        negative = (1 - t) * softplus(x, 1.0, math.inf)
        return negative + pos_weight * t * softplus(-x, 1.0, math.inf)

    return _binary("binary_cross_entropy_with_logits", loss, input, target, weight, reduction)


@elementwise(autocast="fp32")
def _x_log_x(x):
    with xp.errstate(invalid="ignore"):  # NaN for negative targets
        log = xp.log(xp.where(x == 0, 1, x))
    return x * log, lambda g: xp.where(x == 0, 0, g * (log + 1))


@composite(autocast="fp32")
def kl_div(input, target, *, reduction="mean", log_target=False):
    """t·(log t - x) of log-probabilities x; 'batchmean' divides the sum by the first size."""
    want_floating("kl_div", input)
    logs = target.exp() * (target - input) if log_target else _x_log_x(target) - target * input
    mean = reduction == "batchmean"
    return sum_over(logs, (input.shape or (1,))[0]) if mean else _reduced(logs, reduction)


# Losses of classes


@differentiable(autocast="fp32", native_on_gpu=True)
def _cross_entropy(logits, target):
    logits = xp.ascontiguousarray(logits)
    losses, sums = kernel.forward(logits, target)
    return losses, lambda g: kernel.backward(g, logits, sums, target)


@differentiable(autocast="fp32")
def _soft_cross_entropy(logits, q):
    losses, sums = kernel.soft_forward(logits, q)
    return (
        losses,
        lambda g: kernel.soft_backward(g, logits, q, sums),
        lambda g: kernel.soft_backward_target(g, logits, sums),
    )


@differentiable(autocast="fp32")
def _smoothed_cross_entropy(logits, *, q):
    """With q (n, C) in float32 as an option: logits alone decide the dtype of the result."""
    losses, sums = kernel.soft_forward(logits, q)
    return losses, lambda g: kernel.soft_backward(g, logits, q, sums)


@differentiable(autocast="fp32")
def _picked(rows, target):
    y, classes = rows[xp.arange(len(target)), target], rows.shape[1]
    return y, lambda g: kernel.one_hot(target, g, classes)


def _rows(x):
    """Classes last and all else before: (n, C, …) or (C,) -> (rows, C)."""
    if x.ndim == 2:
        return x
    y = permute(x, 0, *range(2, x.ndim), 1) if x.ndim > 2 else x
    return reshape(y, math.prod(y.shape[:-1]), y.shape[-1])


def _without_ignored(losses, keep):
    """Set the losses of ignored rows to 0 (multiplying by 0 would leave NaN from inf or NaN)."""
    return losses if not xp.on_gpu(keep) and keep.all() else where(Tensor.of(keep), losses, 0)


def _weighed(losses, target, classes, keep, weight, reduction):
    """Each row's loss by its weight (0 if ignored); the mean is over the sum of the weights."""
    shape, total = target.shape, None
    losses = _without_ignored(losses, keep)
    if weight is not None:
        each = xp.where(keep, wide(weight.data)[classes], 0)
        losses, total = losses * Tensor(each, dtype=losses.dtype), each.sum()
    elif xp.on_gpu(keep) or not keep.all():
        total = keep.sum()
    return _reduced(losses if losses.shape == shape else losses.reshape(shape), reduction, total)


def nll_loss(input, target, weight=None, *, ignore_index=-100, reduction="mean"):
    """-input[target]: log-probabilities (n, C, …) or (C,), classes (n, …), as cross_entropy."""
    want_floating("nll_loss", input)
    scale, given = weight if weight is None else wide(weight.data), xp.asarray(target.data)
    want_one_place("nll_loss", input, target, weight)
    classes, keep = kernel.check("nll_loss", input.shape, given, scale, ignore_index)
    return _weighed(-_picked(_rows(input), classes), target, classes, keep, weight, reduction)


def cross_entropy(
    input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """-log softmax(input)[target] in nats: logits (n, C, …) or (C,), classes (n, …) or one.

    weight (C,) scales each class; the mean is over the weights of the rows that are not
    ignored. Targets of the logits' shape are probabilities. Label smoothing mixes the target
    with the uniform distribution (Szegedy et al. 2016).
    """
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"cross_entropy: label_smoothing {label_smoothing}: want 0 to 1")
    scale, given = weight if weight is None else wide(weight.data), xp.asarray(target.data)
    if input.ndim and input.shape == given.shape and is_floating(given):
        if ignore_index >= 0:
            raise RuntimeError(
                f"cross_entropy: ignore_index {ignore_index} for probabilities: there is no class "
                "number to compare with; give class numbers, or rows of zeros"
            )
        return _of_probabilities(input, target, weight, reduction, label_smoothing)
    want_one_place("cross_entropy", input, target, weight)
    classes, keep = kernel.check("cross_entropy", input.shape, given, scale, ignore_index)
    rows = _rows(input)
    if not label_smoothing:
        return _weighed(_cross_entropy(rows, classes), given, classes, keep, weight, reduction)
    scale = xp.ones_like(wide(rows.data[:0]), shape=rows.shape[1]) if scale is None else scale
    q = kernel.smoothed(classes, keep, scale, label_smoothing)
    losses = _without_ignored(_smoothed_cross_entropy(rows, q=q), keep)
    total = xp.where(keep, scale[classes], 0).sum()
    return _reduced(losses.reshape(given.shape), reduction, total)


@differentiable(autocast="lower_precision_fp", float32_result=True, native_on_gpu=True)
def _linear_cross_entropy(x, weight, target, keep, summed):
    losses, saved = fused.forward(x, weight, target, keep)
    zeroed = lambda a: a if keep is None else xp.where(keep > 0, a, 0)
    y = zeroed(losses)
    kept = lambda g: g if summed else zeroed(g)
    vjp = lambda g: list(fused.backward(kept(g), saved, x, weight, target))
    return y.sum() if summed else y, Joint(vjp)


def linear_cross_entropy(
    input, linear_weight, target, *, linear_bias=None, weight=None, reduction="mean",
    ignore_index=-100, label_smoothing=0.0,
):  # fmt: skip
    """cross_entropy(linear(input, linear_weight), target) that never holds all logits at once.

    input (n, h), linear_weight (C, h), classes (n,). Gradients are made in the same pass. With a
    bias, class weights, smoothing or other targets it is what it says.
    """
    want_one_dtype("linear_cross_entropy", input, linear_weight)
    want_one_place("linear_cross_entropy", input, linear_weight, target)
    fits = input.ndim == target.ndim + 1 == 2 and input.shape[1:] == linear_weight.shape[1:]
    if label_smoothing or not (linear_bias is None is weight and fits):
        options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
        logits = linear(input, linear_weight, linear_bias)
        return cross_entropy(logits, target, weight, reduction=reduction, **options)
    shape = len(input), len(linear_weight)
    classes, keep = kernel.check("linear_cross_entropy", shape, target.data, None, ignore_index)
    kept = None if not xp.on_gpu(keep) and keep.all() else keep.astype(wide(input.data[:0]).dtype)
    x = _without_ignored(input, keep[:, None])  # the weight's gradient adds up all rows
    y = _linear_cross_entropy(x, linear_weight, classes, kept, reduction != "none")
    y = y / (len(input) if kept is None else Tensor(kept.sum())) if reduction == "mean" else y
    return y if is_autocast_enabled() else y.to(input.dtype)


def _of_probabilities(x, target, weight, reduction, smoothing):
    rows, q = _rows(x), _rows(target).to(x.dtype)
    q = q * (1 - smoothing) + smoothing / rows.shape[1] if smoothing else q
    losses = _soft_cross_entropy(rows, q if weight is None else q * weight)
    return _reduced(losses.reshape(x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()), reduction)


# Losses of sequences


@differentiable(autocast="fp32")
def _ctc(log_probs, spelled, blank, zero_infinity):
    labels, lengths, sizes = (xp.at_home_of(log_probs, a) for a in spelled)
    losses, alpha = ctc.forward(log_probs, labels, lengths, sizes, blank)
    if zero_infinity:
        losses[xp.isinf(losses)] = 0
    saved = losses, log_probs, alpha, labels, lengths, sizes, blank
    return losses.copy(), lambda g: ctc.backward(g, *saved)


def ctc_loss(
    log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean",
    zero_infinity=False,
):  # fmt: skip
    """-log Σ p(path) over the paths that spell each target (Graves et al. 2006).

    log_probs (t, n, C) or (t, C), targets (n, s) or one after the other in (Σ s,). The mean is
    of losses over target lengths. The gradient is that of log_probs themselves; PyTorch's adds
    exp(log_probs), which a log_softmax before it takes off again.
    """
    x = log_probs.unsqueeze(1) if log_probs.ndim == 2 else log_probs
    given = (xp.asarray(getattr(v, "data", v)) for v in (targets, input_lengths, target_lengths))
    labels, lengths, sizes = (moved(xp.atleast_1d(v), "cpu") for v in given)  # they steer loops
    ctc.check(x.shape, labels, lengths, sizes, blank)
    labels = ctc.padded(labels, sizes, blank)
    losses = _ctc(x, (labels, lengths, sizes), blank, zero_infinity)
    if reduction == "mean":
        losses = losses / Tensor(xp.maximum(sizes, 1), dtype=losses.dtype).to(losses.device)
    return _reduced(losses.reshape(log_probs.shape[1:-1]), reduction)
