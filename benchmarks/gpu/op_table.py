"""Operations, layers and optimisers with small arguments, for `operations` to try on the GPU.

An argument is a shape (numbers of either sign, away from 0), `positive` numbers, or integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Positive(NamedTuple):
    shape: tuple[int, ...]


class Below(NamedTuple):
    n: int
    shape: tuple[int, ...]


def drawn(argument: Any, seed: int) -> np.ndarray:
    """float64 that float32 holds, no two alike, or int64."""
    rng = np.random.default_rng(seed)
    if isinstance(argument, Below):
        return rng.integers(0, argument.n, argument.shape)
    positive = isinstance(argument, Positive)
    shape = argument.shape if positive else argument
    signs = 1 if positive else rng.choice([-1, 1], shape)
    return np.asarray(signs * rng.uniform(0.2, 2, shape), np.float32).astype(np.float64)


M, N = (5, 7), (3, 4, 6)
UNARY = """abs asinh atan ceil cos cosh erf exp expm1 floor neg relu round sigmoid sign sin sinh
square tanh trunc""".split()  # noqa: SIM905
LOGS = "log log10 log1p log2 reciprocal rsqrt sqrt".split()  # noqa: SIM905
BINARY = "add sub mul div atan2 maximum minimum".split()  # noqa: SIM905
REDUCED = "sum mean amax amin prod var std norm max min median".split()  # noqa: SIM905
ACTIVATIONS = "elu leaky_relu logsigmoid softplus silu gelu swiglu".split()  # noqa: SIM905

Op = tuple[Callable[..., Any], list]


def _named(name: str, functional: bool = False) -> Callable[..., Any]:
    """m is minidist, m.F its nn.functional."""
    if functional:
        return lambda m, *xs: getattr(m.F, name)(*xs)
    return lambda m, *xs: getattr(m, name)(*xs)


OPS: dict[str, Op] = {
    **{name: (_named(name), [N]) for name in UNARY},
    **{name: (_named(name), [Positive(N)]) for name in LOGS},
    **{name: (_named(name), [N, (4, 1)]) for name in BINARY},
    **{name: (_named(name, True), [M if name != "swiglu" else (5, 8)]) for name in ACTIVATIONS},
    **{name: (_named(name), [N]) for name in REDUCED},
    **{f"{name} of rows": (lambda m, x, f=name: getattr(m, f)(x, 1), [N])
       for name in REDUCED if name not in ("var", "std", "norm")},
    "logsumexp": (lambda m, x: m.logsumexp(x, 1), [N]),
    "acos": (lambda m, x: m.acos(x / 2.5), [N]),
    "asin": (lambda m, x: m.asin(x / 2.5), [N]),
    "atanh": (lambda m, x: m.atanh(x / 2.5), [N]),
    "acosh": (lambda m, x: m.acosh(x + 1), [Positive(N)]),
    "tan": (lambda m, x: m.tan(x / 2), [N]),
    "gelu tanh": (lambda m, x: m.F.gelu(x, "tanh"), [N]),
    "prelu": (_named("prelu", True), [N, (4,)]),
    "pow": (lambda m, a, b: m.pow(a, b), [Positive(N), (4, 1)]),
    "pow of a number": (lambda m, x: x**3 + 2**x, [N]),
    "remainder": (lambda m, a, b: m.remainder(a, b + 7.3), [N, Positive((4, 1))]),
    "where": (lambda m, a, b: m.where(a > 0, a * 2, b), [N, N]),
    "clamp": (lambda m, x: m.clamp(x, -1.0, 0.9), [N]),
    "masked_fill": (lambda m, x: x.masked_fill(x > 0, 2.0), [N]),
    "masked_select": (lambda m, x: m.masked_select(x, x > 0), [N]),
    "lerp": (lambda m, a, b: m.lerp(a, b, 0.3), [N, N]),
    "comparisons": (lambda m, a, b: [a < b, a >= b, a == a, m.logical_not(a > b)], [N, N]),
    "isfinite": (lambda m, x: [m.isfinite(x * m.inf), m.isnan(x.masked_fill(x > 0, m.nan))], [N]),
    "var along": (lambda m, x: m.var(x, 1), [N]),
    "std along": (lambda m, x: m.std(x, (0, 2), correction=0), [N]),
    "norms along": (lambda m, x: m.norm(x, 3, 1) + m.norm(x, 2, 1), [N]),
    "cumsum": (lambda m, x: m.cumsum(x, 1), [N]),
    "cumprod": (lambda m, x: m.cumprod(x, 1), [N]),
    "softmax": (lambda m, x: m.softmax(x, -1), [N]),
    "softmax of columns": (lambda m, x: m.softmax(x, 1), [N]),
    "log_softmax": (lambda m, x: m.log_softmax(x, -1), [N]),
    "sort": (lambda m, x: m.sort(x, 1, descending=True), [N]),
    "topk": (lambda m, x: m.topk(x, 2, 2), [N]),
    "argmax": (lambda m, x: [m.argmax(x, 1), m.argmin(x), m.argsort(x, 2)], [N]),
    # shapes
    "reshape": (lambda m, x: m.reshape(x, (6, 12)), [N]),
    "view": (lambda m, x: x.view(12, -1), [N]),
    "permute": (lambda m, x: m.permute(x, (2, 0, 1)) * 1, [N]),
    "transpose": (lambda m, x: m.transpose(x, 0, 2), [N]),
    "squeeze": (lambda m, x: m.squeeze(m.unsqueeze(x, 1), 1), [N]),
    "expand": (lambda m, x: x.unsqueeze(0).expand(2, *x.shape) * 2, [N]),
    "repeat": (lambda m, x: x.repeat(2, 1, 3), [N]),
    "flip": (lambda m, x: m.flip(x, (0, 2)), [N]),
    "roll": (lambda m, x: m.roll(x, 2, 1), [N]),
    "pad": (lambda m, x: m.F.pad(x, (1, -1, 0, 2), value=1.5), [N]),
    "cat": (lambda m, a, b: m.cat([a, b * 2, a], 1), [N, N]),
    "stack": (lambda m, a, b: m.stack([a, b], 1), [N, N]),
    "split": (lambda m, x: m.split(x, 2, 2), [N]),
    "chunk": (lambda m, x: m.chunk(x, 3, 2), [N]),
    "tril": (lambda m, x: m.tril(x) + m.triu(x, 1) * 2, [N]),
    "diagonal": (lambda m, x: m.diagonal(x, 1), [M]),
    "repeat_interleave": (lambda m, x: m.repeat_interleave(x, 2, dim=1), [N]),
    "slices": (lambda m, x: x[1:, ::2, None], [N]),
    "index of an array": (lambda m, x, i: x[i], [N, Below(3, (2, 5))]),
    "index of arrays": (lambda m, x, i: x[:, i, i], [N, Below(4, (5,))]),
    "index of a mask": (lambda m, x: x[x > 0], [N]),
    "gather": (lambda m, x, i: m.gather(x, 1, i), [N, Below(4, (3, 2, 6))]),
    "scatter_add": (lambda m, x, s, i: m.scatter_add(x, 1, i, s), [N, N, Below(4, N)]),
    "index_select": (lambda m, x, i: m.index_select(x, 1, i), [N, Below(4, (9,))]),
    "index_add": (lambda m, x, s, i: m.index_add(x, 1, i, s), [N, (3, 9, 6), Below(4, (9,))]),
    "one_hot": (lambda m, i: m.F.one_hot(i, 6), [Below(6, (5,))]),
    # products
    "matmul": (_named("matmul"), [(3, 5, 4), (3, 4, 6)]),
    "matmul, spread": (_named("matmul"), [(2, 3, 5, 4), (4, 6)]),
    "matmul of vectors": (lambda m, a, b: [m.matmul(a, b[0, :, 0]), m.matmul(a[0], b)],
                          [(5, 4), (3, 4, 6)]),
    "linear": (_named("linear", True), [(2, 5, 4), (6, 4), (6,)]),
    "linear without bias": (_named("linear", True), [(5, 4), (6, 4)]),
    "outer": (_named("outer"), [(5,), (4,)]),
    "einsum": (lambda m, a, b: m.einsum("bhqd,bhkd->bhqk", a, b), [(2, 3, 5, 4), (2, 3, 6, 4)]),
    "cosine_similarity": (_named("cosine_similarity", True), [M, M]),
    # layers' functions
    "conv1d": (_named("conv1d", True), [(2, 3, 9), (4, 3, 3), (4,)]),
    "conv2d": (lambda m, *x: m.F.conv2d(*x, stride=2, padding=1),
               [(2, 3, 7, 8), (4, 3, 3, 3), (4,)]),
    "conv2d 3x3": (lambda m, *x: m.F.conv2d(*x, padding=1),
                   [(2, 16, 8, 8), (16, 16, 3, 3), (16,)]),
    "conv2d in groups": (lambda m, *x: m.F.conv2d(*x, groups=2, dilation=2),
                         [(2, 4, 7, 8), (4, 2, 3, 3)]),
    "conv_transpose2d": (lambda m, *x: m.F.conv_transpose2d(*x, stride=2),
                         [(2, 3, 4, 5), (3, 4, 3, 3), (4,)]),
    "max_pool2d": (lambda m, x: m.F.max_pool2d(x, 2), [(2, 3, 6, 8)]),
    "avg_pool2d": (lambda m, x: m.F.avg_pool2d(x, 3, 2, 1), [(2, 3, 6, 8)]),
    "adaptive_avg_pool2d": (lambda m, x: m.F.adaptive_avg_pool2d(x, 3),
                            [(2, 3, 7, 8)]),
    "embedding": (_named("embedding", True), [Below(6, (2, 9)), (6, 4)]),
    "layer_norm": (lambda m, x, w, b: m.F.layer_norm(x, (6,), w, b), [N, (6,), (6,)]),
    "rms_norm": (lambda m, x, w: m.F.rms_norm(x, (6,), w, 1e-5), [N, (6,)]),
    "group_norm": (lambda m, x, w, b: m.F.group_norm(x, 2, w, b), [N, (4,), (4,)]),
    "batch_norm": (lambda m, x, w, b: m.F.batch_norm(
        x, None, None, w, b, training=True), [N, (4,), (4,)]),
    "rotary_embedding": (_named("rotary_embedding", True), [(2, 3, 5, 8)]),
    "dropout": (lambda m, x: m.F.dropout(x, 0.4), [(3, 40)]),
    "attention": (lambda m, q, k, v: m.F.scaled_dot_product_attention(q, k, v),
                  [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)]),
    "attention, causal": (lambda m, q, k, v: m.F.scaled_dot_product_attention(
        q, k, v, is_causal=True), [(2, 3, 7, 8)] * 3),
    "attention, masked": (lambda m, q, k, v, mask: m.F.scaled_dot_product_attention(
        q, k, v, mask), [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), (5, 7)]),
    "packed_attention": (lambda m, x: m.F.packed_attention(x, 2, is_causal=True),
                         [(2, 7, 24)]),
    # losses
    "mse_loss": (_named("mse_loss", True), [M, M]),
    "l1_loss": (_named("l1_loss", True), [M, M]),
    "huber_loss": (_named("huber_loss", True), [M, M]),
    "binary_cross_entropy": (lambda m, x, t: m.F.binary_cross_entropy(
        x.sigmoid(), t.sigmoid()), [M, M]),
    "binary_cross_entropy_with_logits": (
        lambda m, x, t: m.F.binary_cross_entropy_with_logits(x, t.sigmoid()), [M, M]),
    "kl_div": (lambda m, x, t: m.F.kl_div(x.log_softmax(1), t.softmax(1)), [M, M]),
    "nll_loss": (lambda m, x, t: m.F.nll_loss(x.log_softmax(1), t),
                 [M, Below(7, (5,))]),
    "cross_entropy": (_named("cross_entropy", True), [M, Below(7, (5,))]),
    "cross_entropy, smoothed": (lambda m, x, t: m.F.cross_entropy(
        x, t, label_smoothing=0.1, ignore_index=3), [M, Below(7, (5,))]),
    "cross_entropy of soft targets": (lambda m, x, t: m.F.cross_entropy(
        x, t.softmax(1)), [M, M]),
    "ctc_loss": (lambda m, x, t: m.F.ctc_loss(
        x.log_softmax(2), t + 1, m.tensor([6, 6]), m.tensor([2, 2])),
        [(6, 2, 5), Below(4, (2, 2))]),
}  # fmt: skip

LAYERS: dict[str, Op] = {
    "Linear": (lambda n: n.Linear(4, 3), [(5, 4)]),
    "Conv2d": (lambda n: n.Conv2d(3, 4, 3, padding=1), [(2, 3, 6, 6)]),
    "BatchNorm2d": (lambda n: n.BatchNorm2d(3), [(2, 3, 6, 6)]),
    "LayerNorm": (lambda n: n.LayerNorm(6), [N]),
    "Embedding": (lambda n: n.Embedding(6, 4), [Below(6, (2, 9))]),
    "RNN": (lambda n: n.RNN(3, 4), [(5, 2, 3)]),
    "LSTM": (lambda n: n.LSTM(3, 4, num_layers=2), [(5, 2, 3)]),
    "GRU": (lambda n: n.GRU(3, 4, bidirectional=True), [(5, 2, 3)]),
    "LSTMCell": (lambda n: n.LSTMCell(3, 4), [(2, 3)]),
    "GRUCell": (lambda n: n.GRUCell(3, 4), [(2, 3)]),
    "MultiheadAttention": (lambda n: n.MultiheadAttention(8, 2), [(5, 2, 8)] * 3),
    "TransformerEncoderLayer": (lambda n: n.TransformerEncoderLayer(8, 2, 16, 0.0), [(5, 2, 8)]),
    "TransformerDecoderLayer": (lambda n: n.TransformerDecoderLayer(8, 2, 16, 0.0),
                                [(5, 2, 8), (3, 2, 8)]),
    "Sequential": (lambda n: n.Sequential(n.Linear(4, 8), n.GELU(), n.Linear(8, 2)), [(5, 4)]),
}  # fmt: skip

OPTIMISERS: dict[str, Callable[..., Any]] = {
    "SGD": lambda o, p: o.SGD(p, 0.1, momentum=0.9),
    "Adam": lambda o, p: o.Adam(p, 0.1),
    "AdamW": lambda o, p: o.AdamW(p, 0.1),
    "Adagrad": lambda o, p: o.Adagrad(p, 0.1),
    "RMSprop": lambda o, p: o.RMSprop(p, 0.1),
    "Lion": lambda o, p: o.Lion(p, 0.1),
    "Muon": lambda o, p: o.Muon(p, 0.1),
}
