"""The temporary memory of NumPy kernels is what their docstrings state; naive versions need more.

Here are the families that have no such test of their own, at sizes where one more array would show.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from minidist.kernels import (
    adamw,
    batch_norm,
    conv,
    cross_entropy,
    ctc,
    descent,
    embedding,
    functions,
    gelu,
    group_norm,
    gru_cell,
    huber,
    layer_norm,
    linear,
    lstm_cell,
    newton_schulz,
    pointwise,
    pool,
    product,
    recurrent,
    rms_norm,
    softmax,
    swiglu,
    vector_norm,
    winograd,
)
from minidist.kernels.dispatch import using
from minidist.kernels.windows import Windows
from support.peak import peak

SLACK = 1 << 18  # bytes: small arrays, and buffers of NumPy's own
ELEMENTS = 1 << 16  # of an array that stays in the cache
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


class Case(NamedTuple):
    """A call; the numbers (of 4 bytes) that it may hold; whether its naive version holds more."""

    call: Callable
    numbers: float
    naive: bool = True


# Tiles of rows or of elements


def of_batch_norm():
    x, g, w = normal(32, 64, 2048), normal(32, 64, 2048), normal(64)
    moments = batch_norm.moments(x)
    yield "moments", Case(lambda: batch_norm.moments(x), 0)
    yield "forward", Case(lambda: batch_norm.forward(x, *moments, w, w), 0)
    back = lambda: batch_norm.backward(g, x, *moments, w, True)
    yield "backward", Case(back, 0)
    _, stats = group_norm.forward(x, w, w, 8, 0.1)
    yield "groups", Case(lambda: group_norm.forward(x, w, w, 8, 0.1), 0)
    yield "groups back", Case(lambda: group_norm.backward(g, x, w, 8, stats), 0)


def of_descent():
    p, g, m, v = (np.abs(normal(4 * ELEMENTS)) for _ in range(4))
    by = {"lr": 0.1, "weight_decay": 0.1}
    sgd = {"momentum": 0.9, "nesterov": True, "first": False, **by}
    yield "sgd", Case(lambda: descent.sgd_(p, g, m, dampening=0.1, **sgd), 0)
    yield "adagrad", Case(lambda: descent.adagrad_(p, g, v, eps=1e-8, **by), 0)
    rest = {"alpha": 0.9, "eps": 1e-8, "momentum": 0.9, **by}
    yield "rmsprop", Case(lambda: descent.rmsprop_(p, g, v, None, m, **rest), 0)
    yield "lion", Case(lambda: descent.lion_(p, g, m, beta1=0.9, beta2=0.9, **by), 0)


def of_adamw():
    arrays = [np.abs(normal(4 * ELEMENTS)) for _ in range(4)]
    by = {"lr": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "weight_decay": 0.1}
    yield "step", Case(lambda: adamw.step_(*arrays, step=3, **by), 0)


def of_cross_entropy():
    logits, target, g = normal(2048, 4096), RNG.integers(0, 4096, 2048), normal(2048)
    yield "forward", Case(lambda: cross_entropy.forward(logits, target), 0)
    _, sums = cross_entropy.forward(logits, target)
    yield "backward", Case(lambda: cross_entropy.backward(g, logits, sums, target), 0)
    yield "in place", Case(lambda: cross_entropy.gradient_(logits, target), 0)
    q = normal(2048, 4096)
    yield "soft", Case(lambda: cross_entropy.soft_forward(logits, q), 0)
    yield "soft back", Case(lambda: cross_entropy.soft_backward(g, logits, q, sums), 0)
    part = np.where(target < 4000, target, -1)
    yield "part", Case(lambda: cross_entropy.part_forward(logits, part, 4000), 0)
    back = lambda: cross_entropy.part_backward(g, logits, sums, part, 4000, 0.1, 0.9)
    yield "part back", Case(back, 0)


def of_huber():
    g, d = normal(2, 1 << 20)
    yield "forward", Case(lambda: huber.forward(d, 0.7, 1.0), 0)
    yield "backward", Case(lambda: huber.backward(g, d, 0.7, 1.0), 0)


def of_pointwise():
    g, x = normal(2, 16 * ELEMENTS)
    options = {"softplus": (2.0, 3.0), "leaky_relu": (0.1,), "elu": (0.5,), "hard_tanh": (-1, 1)}
    names = "relu sigmoid log_sigmoid softplus silu leaky_relu elu selu mish hard_tanh hard_swish"
    more = (
        "sigmoid_slope softplus_slope silu_slope elu_slope selu_slope mish_slope hard_swish_slope"
    )
    for name in names.split():
        kernel, by = getattr(pointwise, name), options.get(name, ())
        yield name, Case(lambda f=kernel, by=by: f(x, *by), 0, name != "relu")
    for name in more.split():
        kernel, by = getattr(pointwise, name), options.get(name.removesuffix("_slope"), ())
        yield name, Case(lambda f=kernel, by=by: f(g, x, *by), 0)
    for form in ("none", "tanh"):
        yield f"gelu {form}", Case(lambda form=form: gelu.forward(x, form), 0)
    gate, slope = normal(512, 2048), normal(512, 1024)
    yield "swiglu", Case(lambda: swiglu.forward(gate), 0)
    yield "swiglu back", Case(lambda: swiglu.backward(slope, gate), 0)
    for name in ("exp", "log1p", "tanh", "erf"):
        kernel = getattr(functions, name)
        yield name, Case(lambda f=kernel: f(np.abs(x)), x.size, name == "erf")


def of_cells():
    a, m, c = normal(1024, 4096), normal(1024, 4096), normal(1024, 1024)
    state, new = lstm_cell.forward(a, m, c)
    yield "lstm forward", Case(lambda: lstm_cell.forward(a, m, c), 0)
    back = lambda: lstm_cell.backward(c, state, new, a, c, new)
    yield "lstm backward", Case(back, 0)
    a, m = a[:, :3072].copy(), m[:, :3072].copy()
    state, hidden = gru_cell.forward(a, m, c)
    yield "gru forward", Case(lambda: gru_cell.forward(a, m, c), 0)
    back = lambda: gru_cell.backward(c, state, a, hidden, c)
    yield "gru backward", Case(back, 0)


def of_rows():
    g, x, w = normal(2048, 600), normal(2048, 600), normal(600)
    y, z = softmax.forward(x, 1), softmax.log_forward(x, 1)
    yield "softmax", Case(lambda: softmax.forward(x, 1), 0)
    yield "softmax back", Case(lambda: softmax.backward(g, y, 1), 0, False)
    yield "log softmax", Case(lambda: softmax.log_forward(x, 1), 0)
    yield "log softmax back", Case(lambda: softmax.log_backward(g, z, 1), 0)
    _, stats = layer_norm.forward(x, w, w, 0.1)
    yield "layer norm", Case(lambda: layer_norm.forward(x, w, w, 0.1), 0)
    back = lambda: layer_norm.backward(g, x, w, stats)
    yield "layer norm back", Case(back, 0)
    _, scale = rms_norm.forward(x, w, 0.1)
    yield "rms norm", Case(lambda: rms_norm.forward(x, w, 0.1), 0)
    yield "rms norm back", Case(lambda: rms_norm.backward(g, x, w, scale), 0)


# Convolution and pooling


def of_conv():
    """5 · 5 places: tiles of 14 rows of one image; 3 · 3 with a stride; Winograd's."""
    x, w, b, g = normal(16, 16, 96, 96), normal(16, 16, 5, 5), normal(16), normal(16, 16, 96, 96)
    win, columns = Windows((5, 5), padding=((2, 2), (2, 2))), conv.COLUMNS
    part = columns / 25
    yield "forward", Case(lambda: conv.forward(x, w, b, win), columns + part)
    weight = lambda: conv.backward_weight(g, x, w.shape, win)
    yield "backward weight", Case(weight, columns + part)
    back = lambda: conv.backward_input(g, w, (96, 96), win)
    yield "backward input", Case(back, columns + part)
    apart = Windows((5, 5), (2, 2), ((2, 2), (2, 2)))
    few = np.ascontiguousarray(g[:, :, ::2, ::2])
    back = lambda: conv.backward_input(few, w, (96, 96), apart)
    yield "by patches", Case(back, columns + part)


def of_winograd():
    x, w, b, g = normal(32, 32, 64, 64), normal(32, 32, 3, 3), normal(32), normal(32, 32, 64, 64)
    win = Windows((3, 3), padding=((1, 1), (1, 1)))
    assert winograd.suits(win, (32, 32), (64, 64))
    sums = 16 * winograd.TILES * (32 + 32)
    yield "winograd", Case(lambda: conv.forward(x, w, b, win), sums)
    weight = lambda: conv.backward_weight(g, x, w.shape, win)
    yield "winograd weight", Case(weight, sums + 3 * 16 * 32 * 32)


def of_pool():
    x, win = normal(64, 64, 64, 64), Windows((3, 3), (2, 2), ((1, 1), (1, 1)))
    y, which = pool.max_forward(x, win, (32, 32))
    yield "max", Case(lambda: pool.max_forward(x, win, (32, 32)), 0)
    yield "max back", Case(lambda: pool.max_backward(y, which, x.shape, win), 0)
    matrix = pool.sliding(64, 0, win, False, True, None, "float32")
    yield "mean", Case(lambda: pool.mean(x, matrix, matrix), 0)


# Products


def of_products():
    x, w, b = normal(4096, 256), normal(512, 256), normal(512)
    yield "linear", Case(lambda: linear.forward(x, w, b), 0)
    yield "linear to x", Case(lambda: linear.backward_input(x, w[:256]), 0, False)
    yield "linear to w", Case(lambda: linear.backward_weight(x, x), 0, False)
    few, wide = normal(32, 512), normal(2048, 512)
    yield "few rows", Case(lambda: linear.forward(few, wide, None), 32 * 2048, False)
    gs = normal(32, 2048)
    yield "few rows to w", Case(lambda: linear.backward_weight(gs, few), 2.5 * gs.size, False)
    deep = normal(512, 4096)
    yield (
        "product",
        Case(lambda: product.product(deep, deep.T.copy()), 512 * 512 + deep.size, False),
    )
    g, by = normal(256, 1024), ((3.0, -4.0, 2.0), 5, 1e-7)
    turn = lambda: newton_schulz.orthogonalized(g, *by)
    yield "newton_schulz", Case(turn, 2 * g.size + 2 * 256 * 256, False)
    yield "norm", Case(lambda: vector_norm.vector_norm([x, w], 3), 6 * vector_norm.BLOCK)
    yield "norm 2", Case(lambda: vector_norm.vector_norm([x, w], 2), 0)


# Whole sequences


def of_recurrent(kind, gates):
    n, h, b, sizes = 64 * 16, 128, 16, (16,) * 64
    x, weights = normal(n, h), [normal(gates * h, h) / 9 for _ in range(2)]
    bias = [normal(gates * h)] * 2
    y, saved = recurrent.forward(kind, x, None, None, *weights, *bias, sizes)
    forward = lambda: recurrent.forward(kind, x, None, None, *weights, *bias, sizes)
    room = (3.5 if product.unpacked() else 2.3) * weights[0].size + 2 * (gates + 1) * h * b
    yield f"{kind} forward", Case(forward, room, False)
    room = (2 if kind == "GRU" else 1) * n * gates * h + 2 * gates * h * b
    yield f"{kind} backward", Case(lambda: recurrent.backward(y, saved), room, False)


def of_ctc():
    t, n, classes, s = 64, 32, 40, 20
    logs, labels = normal(t, n, classes), RNG.integers(1, classes, (n, s))
    lengths, sizes = np.full(n, t), np.full(n, s)
    losses, alpha = ctc.forward(logs, labels, lengths, sizes, 0)
    states = n * (2 * s + 1)
    yield "forward", Case(lambda: ctc.forward(logs, labels, lengths, sizes, 0), 4 * states)
    back = lambda: ctc.backward(losses, losses, logs, alpha, labels, lengths, sizes, 0)
    yield "backward", Case(back, 4 * states)


def of_embedding():
    g, index = normal(8192, 256), RNG.integers(0, 512, 8192)
    ints = 2 * (len(index) + 513)
    yield "backward", Case(lambda: embedding.backward(g, index, 512), ints, False)


FAMILIES = {
    "adamw": of_adamw, "cross_entropy": of_cross_entropy, "huber": of_huber,
    "batch_norm": of_batch_norm, "descent": of_descent, "pointwise": of_pointwise, "rows": of_rows,
    "cells": of_cells, "conv": of_conv, "winograd": of_winograd, "pool": of_pool,
    "products": of_products, "ctc": of_ctc, "embedding": of_embedding,
    "LSTM": lambda: of_recurrent("LSTM", 4), "GRU": lambda: of_recurrent("GRU", 3),
    "RNN": lambda: of_recurrent("RNN_TANH", 1),
}  # fmt: skip


def held(case, version):
    with using(version):
        return peak(case.call)


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_hold_what_they_state_and_naive_ones_more(family):
    for name, case in FAMILIES[family]():
        room = 4 * case.numbers + SLACK
        used = held(case, "numba")
        assert used <= room, f"{name} holds {used:,} bytes, not {room:,.0f}"
        if case.naive:
            naive = held(case, "naive")
            assert naive > room, f"{name}: {naive:,} bytes by its naive version are no more"
