"""Kernels that pass over arrays: their floor is bytes, at the rate of a copy."""

import numpy as np
import torch
from kernel_cases.case import Case, H, N, V, numbers, pytorch
from measure import RNG
from minidist.kernels import (
    adamw,
    batch_norm,
    cross_entropy,
    dropout,
    embedding,
    gelu,
    layer_norm,
    pool,
    rms_norm,
    rotary,
    softmax,
    swiglu,
)
from minidist.kernels.windows import Windows
from torch.nn import functional as F


def rows(forward, backward, theirs, n, v, arrays):
    """A kernel of x (n, v) alone: forward(x) -> y, saved; backward(g, saved) -> dx."""
    x = numbers(n, v)
    g = numbers(*forward(x)[0].shape)

    def ours():
        y, saved = forward(x)
        return y, backward(g, saved)

    return Case(f"{n}x{v}", ours, pytorch(theirs, g, x), moved=arrays * x.nbytes)


def softmax_rows():
    def forward(x):
        y = softmax.forward(x, 1)
        return y, y

    return rows(forward, lambda g, y: softmax.backward(g, y, 1), lambda x: F.softmax(x, 1), V, N, 5)


def normalised(n, h):
    x, w, b, g = numbers(n, h), numbers(h), numbers(h), numbers(n, h)

    def ours():
        y, saved = layer_norm.forward(x, w, b, 1e-5)
        return y, *layer_norm.backward(g, x, w, saved)

    def theirs(x, w, b):
        return F.layer_norm(x, (h,), w, b)

    return Case(f"{n}x{h}", ours, pytorch(theirs, g, x, w, b), moved=5 * x.nbytes)


def root_mean_square(n, h):
    x, w, g = numbers(n, h), numbers(h), numbers(n, h)

    def ours():
        y, saved = rms_norm.forward(x, w, 1e-5)
        return y, *rms_norm.backward(g, x, w, saved)

    def theirs(x, w):
        return F.rms_norm(x, (h,), w, 1e-5)

    return Case(f"{n}x{h}", ours, pytorch(theirs, g, x, w), moved=5 * x.nbytes)


def gelus(form):
    return rows(
        lambda x: gelu.forward(x, form), gelu.backward,
        lambda x: F.gelu(x, approximate=form), N, N, 5,
    )  # fmt: skip


def gated():
    def theirs(x):
        a, b = x.chunk(2, -1)
        return F.silu(a) * b

    return rows(lambda x: (swiglu.forward(x), x), swiglu.backward, theirs, N, 2 * N, 4)


def losses():
    x, t, g = numbers(N, V), RNG.integers(0, V, N), np.ones(N, "float32")
    classes = torch.tensor(t)

    def ours():
        loss, *saved = cross_entropy.forward(x, t)
        return loss, cross_entropy.backward(g, *saved, t)

    def theirs(x):
        return F.cross_entropy(x, classes, reduction="none")

    return Case(f"{N}x{V}", ours, pytorch(theirs, g, x), moved=2 * x.nbytes)


def losses_in_place():
    case, x, t = losses(), numbers(N, V), RNG.integers(0, V, N)
    return case._replace(ours=lambda: [cross_entropy.gradient_(x, t)], same=False)


def turned(interleaved):
    x, g = numbers(1, 8, N, 64), numbers(1, 8, N, 64)
    turn = np.exp(1j * rotary.angles(np.arange(N), 64, 1e4)).astype("complex64")
    z, pairs = torch.tensor(turn), (*x.shape[:-1], 32, 2)
    cos, sin = torch.cat((z.real, z.real), 1), torch.cat((z.imag, z.imag), 1)

    def ours():
        return rotary.rotate(x, turn, interleaved), rotary.backward(g, turn, interleaved)

    def theirs(x):
        if interleaved:
            return torch.view_as_real(torch.view_as_complex(x.view(pairs)) * z).flatten(-2)
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat((-b, a), -1) * sin

    return Case(f"8 heads s{N} d64", ours, pytorch(theirs, g, x), moved=4 * x.nbytes)


def table_rows():
    index, table, g = RNG.integers(0, V, N), numbers(V, H), numbers(N, H)
    where = torch.tensor(index)

    def ours():
        return embedding.forward(table, index), embedding.backward(g, index, V)

    theirs = pytorch(lambda table: F.embedding(where, table), g, table)
    return Case(f"{N} of {V}x{H}", ours, theirs, moved=table.nbytes + 3 * g.nbytes)


def dropped():
    drawn = 7, 0, N, 0.9, 1 / 0.9  # key, first count, samples, keep, scale

    def backward(g, kept):
        return dropout.backward(g, kept, *drawn)

    case = rows(
        lambda x: dropout.forward(x, *drawn), backward, lambda x: F.dropout(x, 0.1), N, N, 4
    )
    return case._replace(same=False)


def adam(optimizer=torch.optim.AdamW, **how):
    """AdamW, or Adam without weight decay."""
    size, decay = 3_000_000, 0.01 if optimizer is torch.optim.AdamW else 0.0
    p, g = numbers(size), numbers(size)
    m, v = np.zeros_like(p), np.zeros_like(p)
    q = torch.nn.Parameter(torch.tensor(p))
    q.grad = torch.tensor(g)
    twin = optimizer([q], lr=1e-3, weight_decay=decay, **how)

    def ours():
        adamw.step_(
            p, g, m, v, step=1, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=decay,
            decoupled=decay > 0,
        )  # fmt: skip
        return [p]

    def theirs():
        twin.step()
        return [q.detach()]

    return Case("3M", ours, theirs, moved=7 * p.nbytes)


def largest():
    win, x, g = Windows((2, 2), (2, 2)), numbers(32, 64, 32, 32), numbers(32, 64, 16, 16)

    def ours():
        y, which = pool.max_forward(x, win, (16, 16))
        return y, pool.max_backward(g, which, x.shape, win)

    theirs = pytorch(lambda x: F.max_pool2d(x, 2), g, x)
    return Case("2x2, 32x64x32x32", ours, theirs, moved=2 * (x.nbytes + g.nbytes))


def means():
    win, x, g = Windows((2, 2), (2, 2)), numbers(32, 64, 32, 32), numbers(32, 64, 16, 16)
    m = pool.sliding(32, 0, win, False, True, None, "float32")

    def ours():
        return pool.mean(x, m, m), pool.mean(g, m.T, m.T)

    theirs = pytorch(lambda x: F.avg_pool2d(x, 2), g, x)
    return Case("2x2, 32x64x32x32", ours, theirs, moved=2 * (x.nbytes + g.nbytes))


def batch():
    x, w, b = numbers(32, 64, 32 * 32), numbers(64), numbers(64)
    g = numbers(*x.shape)

    def ours():
        mean, variance = batch_norm.moments(x)
        rstd = (1 / np.sqrt(variance + 1e-5)).astype(x.dtype)
        y = batch_norm.forward(x, mean, rstd, w, b)
        return y, *batch_norm.backward(g, x, mean, rstd, w, True)

    theirs = pytorch(lambda x, w, b: F.batch_norm(x, None, None, w, b, True), g, x, w, b)
    return Case("32x64x1024", ours, theirs, moved=5 * x.nbytes)


CASES = {
    "softmax": softmax_rows,
    "layer norm": lambda: normalised(N, H),
    "layer norm, past the cache": lambda: normalised(V, N),
    "RMS norm": lambda: root_mean_square(N, H),
    "RMS norm, past the cache": lambda: root_mean_square(V, N),
    "GELU": lambda: gelus("none"),
    "GELU (tanh)": lambda: gelus("tanh"),
    "SwiGLU": gated,
    "cross-entropy": losses,
    "cross-entropy, in place": losses_in_place,
    "rotary, pairs": lambda: turned(True),
    "rotary, halves": lambda: turned(False),
    "embedding": table_rows,
    "dropout": dropped,
    "Adam, beside fused": lambda: adam(torch.optim.Adam, fused=True),
    "AdamW, beside fused": lambda: adam(fused=True),
    "AdamW, beside foreach": lambda: adam(foreach=True),
    "max pool": largest,
    "mean pool": means,
    "batch norm": batch,
}
