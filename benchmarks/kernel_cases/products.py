"""Kernels that are products: their floor is flops, at the rate of a GEMM."""

import numpy as np
import torch
from kernel_cases.case import Case, H, N, V, numbers, pytorch
from measure import RNG
from minidist.kernels import (
    attention,
    conv,
    flash,
    gru_cell,
    linear,
    linear_cross_entropy,
    lstm_cell,
    matmul,
)
from minidist.kernels.windows import Windows
from torch.nn import functional as F


def product():
    a, b = numbers(N, N), numbers(N, N)
    ta, tb = torch.tensor(a), torch.tensor(b)
    return Case(f"{N}x{N}x{N}", lambda: [matmul.matmul(a, b)], lambda: [ta @ tb], flops=2 * N**3)


def linear_layer():
    x, w, b, g = numbers(N, H), numbers(4 * H, H), numbers(4 * H), numbers(N, 4 * H)

    def ours():
        y = linear.forward(x, w, b)
        dw, db = linear.backward_weight(g, x), linear.backward_bias(g)
        return y, linear.backward_input(g, w), dw, db

    return Case(
        f"{N}x{H} -> {4 * H}", ours, pytorch(F.linear, g, x, w, b), flops=3 * 2 * N * H * 4 * H
    )


def linear_loss():
    x, w, t = numbers(N, H), numbers(V, H) / 16, RNG.integers(0, V, N)
    classes, g = torch.tensor(t), np.ones(N, "float32")

    def ours():
        losses, saved = linear_cross_entropy.forward(x, w, t)
        return losses, *linear_cross_entropy.backward(g, saved, x, w, t)

    def theirs(x, w):
        return F.cross_entropy(F.linear(x, w), classes, reduction="none")

    return Case(f"{N}x{H} -> {V}", ours, pytorch(theirs, g, x, w), flops=3 * 2 * N * H * V)


def attend(kernel, s):
    heads, d = max(2, 2048 // s), 64
    q, k, v, g = (numbers(1, heads, s, d) for _ in range(4))
    attention.KEPT = 1 << 62  # the plain kernel at any length

    def ours():
        out, *slopes = (np.empty_like(q) for _ in range(4))
        saved = kernel.forward(q, k, v, out, True, d**-0.5)
        kernel.backward(g, q, k, v, out, saved, *slopes, True, d**-0.5)
        return out, *slopes

    def theirs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    products = 7 if kernel is flash else 6  # flash makes the scores again
    flops = products * 2 * heads * s * s * d / 2
    return Case(f"{heads} heads s{s} d{d}", ours, pytorch(theirs, g, q, k, v), flops=flops)


def step(theirs, gates, states, ours):
    """A whole step of H rows and H units, all gradients too: its products, and a cell between."""
    x, *states, g = (numbers(H, H) for _ in range(states + 2))
    (wx, wh), b = (numbers(gates * H, H) / 16 for _ in range(2)), numbers(gates * H)

    def run():
        a, m = linear.forward(x, wx, b), linear.forward(states[0], wh, None)
        y, da, dm, *slopes = ours(a, m, *states, g)
        slopes[0] = slopes[0] + linear.backward_input(dm, wh)
        dw = linear.backward_weight(da, x), linear.backward_weight(dm, states[0])
        return y, linear.backward_input(da, wx), *slopes, *dw, linear.backward_bias(da)

    theirs = pytorch(theirs, g, x, *states, wx, wh, b)
    return Case(f"{H}x{H}", run, theirs, flops=3 * 2 * 2 * H * H * gates * H)


def lstm_step():
    def ours(a, m, h, c, g):
        y, new = lstm_cell.forward(a, m, c)  # a becomes the gates
        zeros, dc = np.zeros_like(g), np.zeros_like(c)
        da = lstm_cell.backward(g, zeros, dc, a, c, new)
        return y, da, da, zeros, dc

    def theirs(x, h, c, wx, wh, b):
        return torch.lstm_cell(x, (h, c), wx, wh, b, torch.zeros_like(b))[0]

    return step(theirs, 4, 2, ours)


def gru_step():
    def ours(a, m, h, g):
        y, hidden = gru_cell.forward(a, m, h)  # a becomes the gates
        return y, *gru_cell.backward(g, np.zeros_like(g), a, hidden, h)

    def theirs(x, h, wx, wh, b):
        return torch.gru_cell(x, h, wx, wh, b, torch.zeros_like(b))

    return step(theirs, 3, 1, ours)


def convolution():
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    x, w, b = numbers(32, 64, 32, 32), numbers(64, 64, 3, 3) / 24, numbers(64)
    g = numbers(*x.shape)

    def ours():
        y, dx = conv.forward(x, w, b, win), conv.backward_input(g, w, x.shape[2:], win)
        return y, dx, conv.backward_weight(g, x, w.shape, win), conv.backward_bias(g)

    theirs = pytorch(lambda *a: F.conv2d(*a, padding=1), g, x, w, b)
    flops = 3 * 2 * x.size * w[0].size
    return Case("32x64x32x32 -> 64", ours, theirs, flops=flops)


CASES = {
    "matmul (forward)": product,
    "linear, with bias": linear_layer,
    "linear cross-entropy": linear_loss,
    "attention s256, causal": lambda: attend(attention, 256),
    "flash attention s256": lambda: attend(flash, 256),
    "attention s1024, causal": lambda: attend(attention, 1024),
    "flash attention s1024": lambda: attend(flash, 1024),
    "attention s4096, causal": lambda: attend(attention, 4096),
    "flash attention s4096": lambda: attend(flash, 4096),
    "LSTM step": lstm_step,
    "GRU step": gru_step,
    "conv 3x3": convolution,
}
