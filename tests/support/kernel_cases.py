"""Every dispatched kernel on small arrays: what naive versions are compared by."""

import numpy as np
from minidist.kernels import (  # fmt: skip
    adamw,
    attention,
    batch_norm,
    conv,
    cross_entropy,
    ctc,
    descent,
    dropout,
    embedding,
    functions,
    gelu,
    group_norm,
    gru_cell,
    huber,
    layer_norm,
    linear,
    linear_cross_entropy,
    lstm_cell,
    matmul,
    pointwise,
    pool,
    resample,
    rms_norm,
    rotary,
    softmax,
    swiglu,
    vector_norm,
)
from minidist.kernels.windows import Windows


class Draw:
    """Small sizes and numbers of one seed; `rounded` ones are numbers of float32 in any dtype."""

    def __init__(self, seed, dtype=np.float64, rounded=False):
        self.rng, self.dtype, self.rounded = np.random.default_rng(seed), dtype, rounded

    def size(self, low=0, high=5):
        return int(self.rng.integers(low, high + 1))

    def flip(self):
        return bool(self.rng.integers(2))

    def normal(self, *shape):
        numbers = self.rng.standard_normal(shape)
        return (numbers.astype(np.float32) if self.rounded else numbers).astype(self.dtype)

    def labels(self, classes, *shape):
        return self.rng.integers(0, classes, shape)

    def either(self, array):
        return array if self.flip() else None


def windows(draw, most=3):
    kernel = draw.size(1, 3), draw.size(1, 3)
    pads = tuple((draw.size(0, k // 2), draw.size(0, k // 2)) for k in kernel)
    return Windows(kernel, (draw.size(1, most), draw.size(1, most)), pads, (draw.size(1, 2),) * 2)


def of_activations(draw):
    g, x = draw.normal(2, 3, draw.size()) * 3
    k = pointwise
    two = {"softplus": (2.0, 1.5), "elu": (0.7,), "leaky_relu": (0.1,), "hard_tanh": (-0.7, 1.3)}
    names = "relu sigmoid log_sigmoid softplus silu leaky_relu elu selu mish hard_tanh hard_swish"
    for name in names.split():
        by = two.get(name, ())
        y = getattr(k, name)(x, *by)
        yield y
        yield getattr(k, f"{name}_slope")(g, y if name == "sigmoid" else x, *by)
    yield k.bce_of_logits(x, g)
    yield k.bce_of_logits_slope(g, x, g)


def of_functions(draw):
    g, x = draw.normal(2, 3, draw.size())
    y = functions.tanh(x)
    yield from (y, functions.tanh_slope(g, y), functions.erf(x), functions.erf_slope(g, x))
    yield from (functions.exp(x), functions.expm1(x))
    yield from (functions.log(x * x), functions.log1p(x * x))


def of_gelu(draw):
    x = draw.normal(draw.size(), 3)
    for form in ("none", "tanh"):
        yield from gelu.forward(x, form)


def of_swiglu(draw):
    x = draw.normal(draw.size(), 2 * draw.size(1))
    yield swiglu.forward(x)
    yield swiglu.backward(x[:, ::2].copy(), x)


def of_softmax(draw):
    g, x = draw.normal(2, draw.size(), draw.size(1)) * 5
    for axis in (0, 1):
        y, z = softmax.forward(x, axis), softmax.log_forward(x, axis)
        yield from (y, z, softmax.backward(g, y, axis), softmax.log_backward(g, z, axis))


def of_norms(draw):
    g, x = draw.normal(2, draw.size(), draw.size(1))
    w, b = (draw.either(draw.normal(x.shape[1])) for _ in range(2))
    y, stats = layer_norm.forward(x, w, b, 0.1)
    yield from (y, *layer_norm.backward(g, x, w, stats))
    y, saved = rms_norm.forward(x, w, 0.1)
    yield from (y, *rms_norm.backward(g, x, w, saved))


def of_batch_norm(draw):
    g, x = draw.normal(2, draw.size(1), draw.size(1), draw.size(1, 3))
    w, b = (draw.either(draw.normal(x.shape[1])) for _ in range(2))
    mean, variance = batch_norm.moments(x)
    rstd = 1 / np.sqrt(variance + 0.1)
    yield from (mean, variance, batch_norm.forward(x, mean, rstd, w, b))
    yield from batch_norm.backward(g, x, mean, rstd, w, draw.flip())


def of_group_norm(draw):
    groups = draw.size(1, 3)
    g, x = draw.normal(2, draw.size(), groups * draw.size(1, 2), draw.size(1))
    w, b = (draw.either(draw.normal(x.shape[1])) for _ in range(2))
    y, stats = group_norm.forward(x, w, b, groups, 0.1)
    yield from (y, stats, *group_norm.backward(g, x, w, groups, stats))


def of_losses(draw):
    n, h, v = draw.size(1), draw.size(1), draw.size(1)
    logits, target, g = draw.normal(n, v), draw.labels(v, n), draw.normal(n)
    loss, sums = cross_entropy.forward(logits, target)
    yield from (loss, sums, cross_entropy.backward(g, logits, sums, target))
    q = draw.normal(n, v)
    loss, sums = cross_entropy.soft_forward(logits, q)
    yield from (loss, sums, cross_entropy.soft_backward(g, logits, q, sums))
    columns = draw.size(1, v)
    part = draw.labels(columns + 1, n) - 1
    yield from cross_entropy.part_forward(logits, part, columns)
    yield cross_entropy.part_backward(g, logits, sums, part, columns, 0.1, 0.9)
    yield cross_entropy.gradient_(logits, target)
    yield logits
    hidden, weight = draw.normal(n, h), draw.normal(v, h)
    loss, saved = linear_cross_entropy.forward(hidden, weight, target)
    yield from (loss, *linear_cross_entropy.backward(g, saved, hidden, weight, target))


def of_huber(draw):
    g, d = draw.normal(2, 3, draw.size(1)) * 2
    for scale in (1.0, 0.7):
        yield from (huber.forward(d, 0.7, scale), huber.backward(g, d, 0.7, scale))


def of_ctc(draw):
    """Samples and labels of all lengths, each long enough for a path."""
    n, s, classes = draw.size(1), draw.size(), draw.size(2)
    labels, sizes = 1 + draw.labels(classes - 1, n, s), draw.labels(s + 1, n)
    lengths = 2 * sizes + draw.labels(3, n)
    logs = draw.normal(int(lengths.max()) + draw.size(), n, classes) - 2
    losses, alpha = ctc.forward(logs, labels, lengths, sizes, 0)
    yield from (losses, alpha)
    yield ctc.backward(draw.normal(n), losses, logs, alpha, labels, lengths, sizes, 0)


def of_embedding(draw):
    n, rows = draw.size(), draw.size(1)
    yield embedding.forward(draw.normal(rows, 3), draw.labels(rows, 2, n))
    yield embedding.backward(draw.normal(n, 3), draw.labels(rows, n), rows)


def of_linear(draw):
    x, w, g = (draw.normal(*s) for s in ((4, 3), (5, 3), (4, 5)))
    yield linear.forward(x, w, draw.either(draw.normal(5)))
    yield from (linear.backward_input(g, w), linear.backward_weight(g, x), linear.backward_bias(g))


def of_matmul(draw):
    a, b = draw.normal(draw.size(), 3), draw.normal(3, 4)
    activation = (None, "relu", "gelu", "gelu_tanh", "silu")[draw.size(0, 4)]
    pre = np.zeros((len(a), 4))
    yield from (matmul.matmul(a, b, draw.either(draw.normal(4)), activation, pre=pre), pre)


def of_conv(draw):
    win, groups = windows(draw), draw.size(1, 2)
    (rh, rw), ((top, bottom), (left, right)) = win.reach(), win.padding
    size = max(rh - top - bottom, 1) + draw.size(), max(rw - left - right, 1) + draw.size()
    x, w = draw.normal(draw.size(), 2 * groups, *size), draw.normal(4, 2, *win.kernel)
    y = conv.forward(x, w, draw.either(draw.normal(4)), win, groups)
    g = draw.normal(*y.shape)
    yield from (y, conv.backward_input(g, w, size, win, groups))
    yield from (conv.backward_weight(g, x, w.shape, win, groups), conv.backward_bias(g))
    yield conv.forward(x, w, None, win, groups, (1, 1))


def of_winograd(draw):
    """Channels enough for it."""
    win, size = Windows((3, 3), (1, 1), ((1, 0), (0, 1))), (9 + draw.size(), 11)
    x, w = draw.normal(2, 16, *size), draw.normal(16, 16, 3, 3)
    y = conv.forward(x, w, None, win)
    yield from (y, conv.backward_weight(y, x, w.shape, win), conv.backward_input(y, w, size, win))


def of_pool(draw):
    win = windows(draw)
    size = tuple(n + draw.size() for n in win.reach())
    ceil_mode = draw.flip()
    x, count = draw.normal(draw.size(), 2, *size), win.grid(size, ceil_mode)
    y, which = pool.max_forward(x, win, count)
    yield from (y, which, pool.max_backward(draw.normal(*y.shape), which, x.shape, win))
    by = ceil_mode, draw.flip(), None, x.dtype
    matrices = [pool.sliding(n, axis, win, *by).copy() for axis, n in enumerate(size)]
    yield (y := pool.mean(x, *matrices))
    yield pool.mean(y, *(m.T for m in matrices))


def of_resample(draw):
    sizes = [(draw.size(1, 7), draw.size(1, most)) for most in (70, 5, 3)[: draw.size(1, 3)]]
    corners, f8 = draw.flip(), np.dtype("f8")
    x = draw.normal(draw.size(1), *(n for n, _ in sizes))
    for taps in ([resample.nearest(n, m, None, f8, corners) for n, m in sizes],
                 [resample.linear(n, m, None, f8, corners) for n, m in sizes]):  # fmt: skip
        y = resample.forward(x, taps)
        yield from (y, resample.backward(draw.normal(*y.shape), taps))


def of_lstm(draw):
    n, h = draw.size(), draw.size(1)
    gates, m = draw.normal(2, n, 4 * h)
    c, g, dh, dc = draw.normal(4, n, h)
    state, new = lstm_cell.forward(gates, m, c, draw.either(draw.normal(4 * h)))
    yield from (state, new, gates, lstm_cell.backward(g, dh, dc, gates, c, new), dc)


def of_gru(draw):
    n, h = draw.size(), draw.size(1)
    gates, m = draw.normal(2, n, 3 * h)
    old, g, dh = draw.normal(3, n, h)
    state, hidden = gru_cell.forward(gates, m, old, draw.either(draw.normal(4 * h)))
    yield from (state, hidden, gates, *gru_cell.backward(g, dh, gates, hidden, old))


def of_attention(draw):
    b, heads, s, d = draw.size(1, 2), draw.size(1, 2), draw.size(1, 6), draw.size(1)
    g, q = draw.normal(2, b, 2 * heads, s, d)
    k, v = draw.normal(2, b, heads, s, d)
    mask, causal = draw.either(draw.normal(b, 2 * heads, s, s)), draw.flip()
    out, dq, dk, dv = (np.zeros_like(x) for x in (q, q, k, v))
    drop = draw.either((draw.normal(b, 2 * heads, s, s) < 1, 1.2))
    lse = attention.forward(q, k, v, out, causal, 0.3, mask, drop)
    dmask = None if mask is None else np.zeros_like(mask)
    attention.backward(g, q, k, v, out, lse, dq, dk, dv, causal, 0.3, mask, dmask, drop)
    seen = np.tril(np.ones((s, s))) if causal else 1  # elsewhere dmask may stay as it was
    yield from (out, lse, dq, dk, dv, np.zeros(1) if dmask is None else dmask * seen)


def of_rotary(draw):
    x, interleaved = draw.normal(2, draw.size(), 2 * draw.size(1)), draw.flip()
    turn = np.exp(1j * draw.normal(x.shape[1], x.shape[2] // 2))
    yield from (rotary.rotate(x, turn, interleaved), rotary.backward(x, turn, interleaved))


def of_dropout(draw):
    x, drawn = draw.normal(4, draw.size()), (5, 7, 4, 0.6, 1 / 0.6)
    y, kept = dropout.forward(x, *drawn)
    yield from (y, dropout.backward(x, kept, *drawn))


def of_optimizers(draw):
    p, g, m, v, a = draw.normal(5, draw.size())
    v, a, first = v * v, a / 9, draw.flip()
    common = {"lr": 0.1, "weight_decay": draw.size(0, 1) * 0.3}
    betas = {"beta1": 0.9, "beta2": 0.7}
    momentum = draw.either(m)
    descent.sgd_(
        p, g, momentum, momentum=0.0 if momentum is None else 0.9, dampening=0.1,
        nesterov=momentum is not None and draw.flip(), first=first, **common,
    )  # fmt: skip
    descent.adagrad_(p, g, v, eps=1e-8, **common)
    a = draw.either(a)
    large = v + 1
    descent.rmsprop_(p, g, large, a, momentum, alpha=0.9, eps=1e-8, momentum=0.9, **common)
    descent.lion_(p, g, m, **betas, **common)
    highest = draw.either(v + 0.5)
    decoupled = draw.flip()
    adamw.step_(
        p, g, m, v, step=3, eps=1e-8, decoupled=decoupled, highest=highest, **betas, **common
    )
    yield from (x for x in (p, g, m, v, a, momentum, large, highest) if x is not None)


def of_vector_norm(draw):
    arrays = [draw.normal(draw.size(), 3) for _ in range(draw.size())]
    for p in (1, 2, 3, np.inf):
        yield np.array(vector_norm.vector_norm(arrays, p))
    for a in arrays:
        yield from (np.array(sum(vector_norm.square_sum(a))), vector_norm.largest(a))


CASES = {name[3:]: value for name, value in dict(globals()).items() if name.startswith("of_")}
