"""The activations that a transformer layer keeps, counted on our own tape, array by array.

Korthikanti et al. 2022 (arXiv 2205.05198), 4.1: 34·s·b·h + 5·a·s²·b bytes, with 2 bytes an
element and 1 byte an element of a mask, counted over the layer as the paper draws it. On a CPU an
operation on 16 bits widens to float32 and keeps that, so the layers run in float32 here, and each
floating number counts as 2 bytes; masks are counted as they lie in memory. What the paper leaves
out as small, the norms' statistics, is counted too, and has a term of its own.
"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import dispatch

from minidist import nn, ops, randn
from minidist.comm import simulate
from minidist.models.gpt import Block, GPTConfig
from minidist.nn import functional as F
from minidist.ops.dropout import keep_mask
from minidist.parallel.sequence import Tokens
from minidist.plan.activations import KEPT_SBH, KEPT_SSAB, Layer, layer_bytes
from minidist.plan.tape import kept, saved_bytes
from minidist.tensor.tensor import Tensor

HALF, P = 2, 0.25
SIZES = [(1, 4, 8, 2), (3, 5, 16, 4), (2, 16, 24, 3)]  # b, s, h, a
each_size = pytest.mark.parametrize("b, s, h, a", SIZES)


def dropped(x):
    """Dropout with a mask of one byte an element; minidist's own keeps a bit an element."""
    mask = Tensor.of(keep_mask("mask", x.shape, 1 - P))
    return ops.where(mask, x, 0.0) * (1 / (1 - P))


class Drawn(nn.Module):
    """The layer as the paper draws it, an operation at a time; its causal mask is no activation."""

    def __init__(self, h, a):
        self.heads = a
        self.ln_1, self.ln_2 = nn.LayerNorm(h), nn.LayerNorm(h)
        self.q, self.k, self.v, self.proj = (nn.Linear(h, h) for _ in range(4))
        self.wide, self.narrow = nn.Linear(h, 4 * h), nn.Linear(4 * h, h)

    def forward(self, x):
        x = x + self.attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

    def attention(self, x):
        q, k, v = (self.split(f(x)) for f in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]))
        probabilities = dropped(F.softmax(scores, -1))
        return dropped(self.proj((probabilities @ v).transpose(1, 2).reshape(x.shape)))

    def mlp(self, x):
        return dropped(self.narrow(F.gelu(self.wide(x))))

    def split(self, x):
        b, s, h = x.shape
        return x.reshape(b, s, self.heads, h // self.heads).transpose(1, 2)


def norms(b, s):
    """Of two layer norms' statistics: two numbers a row each."""
    return 2 * 2 * HALF * b * s


def by_operation(model, b, s, h):
    return saved_bytes(model(randn(b, s, h).requires_grad_()), HALF)


def drawn(b, s, h, a):
    return by_operation(Drawn(h, a), b, s, h)


def total(found):
    return sum(found.values())


@each_size
def test_a_drawn_layer_keeps_34sbh_and_5ass_b(b, s, h, a):
    paper = 34 * s * b * h + 5 * a * s * s * b
    assert paper == layer_bytes(Layer(a, s, h, b), "none")
    assert total(drawn(b, s, h, a)) == paper + norms(b, s)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_of_any_size(b, s, width, a):
    h = a * width
    # Heads of width 1 come back from (b, a, s, 1) as a view, so the projection keeps a copy.
    copy = HALF * s * b * h if width == 1 and a > 1 and s > 1 else 0
    assert total(drawn(b, s, h, a)) == 34 * s * b * h + 5 * a * s * s * b + norms(b, s) + copy


@each_size
def test_each_operation_keeps_its_part_of_the_paper(b, s, h, a):
    """11·s·b·h + 5·a·s²·b of attention, 19·s·b·h of the MLP, 4·s·b·h of the norms.

    GELU keeps its slope in place of its input: another array, as large.
    """
    sbh, ssab = s * b * h, a * s * s * b
    units, square = KEPT_SBH, KEPT_SSAB
    inputs = ["input of q, k, v", "input of the projection", "input of the MLP",
              "input of the MLP's second product"]  # fmt: skip
    masks = units["attention's dropout mask"] + units["the MLP's dropout mask"]
    assert drawn(b, s, h, a) == {
        "layer_norm": units["inputs of two norms"] * sbh + norms(b, s),
        "linear": sum(units[name] for name in inputs) * sbh,
        "matmul": (units["q and k"] + units["v"]) * sbh + square["softmax after dropout"] * ssab,
        "softmax": square["softmax"] * ssab,
        "where": masks * sbh + square["softmax's dropout mask"] * ssab,
        "gelu": units["input of GELU"] * sbh,
    }


# The controls: a layer that keeps another array is seen, and so is one that keeps one less


def with_one_more(x):
    return x.exp().log()  # two: what exp made, which log wants as well


def with_a_mask_of_floats(x):
    mask = Tensor.of(keep_mask("mask", x.shape, 1 - P).astype("float32"))
    return x * mask * (1 / (1 - P))


def with_a_mask_of_bits(x):
    return F.dropout(x, P)


@pytest.mark.parametrize("mutant", [with_one_more, with_a_mask_of_floats, with_a_mask_of_bits])
def test_another_array_is_seen(mutant, monkeypatch):
    monkeypatch.setitem(globals(), "dropped", mutant)
    with pytest.raises(AssertionError):
        test_a_drawn_layer_keeps_34sbh_and_5ass_b(*SIZES[0])


def test_an_array_that_is_shared_counts_once_and_a_copy_again(monkeypatch):
    """Queries, keys and values are made of one input: of three copies it would be 38·s·b·h."""
    b, s, h, a = SIZES[1]
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: F.linear(
        x.clone() if self.weight.shape == (h, h) else x, self.weight, self.bias))  # fmt: skip
    paper = layer_bytes(Layer(a, s, h, b), "none")
    assert total(drawn(b, s, h, a)) == paper + norms(b, s) + 2 * HALF * s * b * h


def test_halves_themselves_are_kept_wider():
    """Why elements are counted: of float16, each operation keeps its own copy in float32."""
    b, s, h, a = SIZES[0]
    model, x = Drawn(h, a).half(), randn(b, s, h).half().requires_grad_()
    assert total(saved_bytes(model(x))) > 2 * layer_bytes(Layer(a, s, h, b), "none")


def test_parameters_and_what_nothing_wants_are_not_counted():
    layer, x = nn.Linear(3, 4), randn(2, 3)
    assert saved_bytes(layer(x)) == {"linear": 2 * 3 * 4}
    assert saved_bytes(layer.requires_grad_(False)(x)) == {}
    assert [a is x.data for _, a in kept(x.requires_grad_().exp() * x)] == [False, True]


# Our own block: packed queries, keys and values, fused attention, a bit an element of a mask


def block(b, s, h, a, dropout=P):
    return by_operation(Block(GPTConfig(1, h, a, s, 1, dropout)), b, s, h)


def ours(b, s, h, a, dropout=P):
    """32·s·b·h of activations, a bit of each of two masks, the norms, and a number a query.

    Attention makes its probabilities again in backward.
    """
    masks = 2 * math.ceil(b * s * h / 8) if dropout else 0
    return 32 * s * b * h + masks + norms(b, s) + HALF * a * s * b


@each_size
@pytest.mark.parametrize("dropout", [0.0, P])
def test_our_block(b, s, h, a, dropout):
    assert total(block(b, s, h, a, dropout)) == ours(b, s, h, a, dropout)


@pytest.mark.parametrize("version", ["numba", "naive"])
@pytest.mark.parametrize("s", [1, 64, 300])
def test_attention_keeps_a_number_a_query_at_any_length(version, s):
    b, h, a = 2, 8, 2
    with dispatch.using(version):
        found = block(b, s, h, a)
    assert found["packed"] == HALF * (4 * b * s * h + a * b * s)


def test_our_block_by_operation():
    b, s, h, a = SIZES[1]
    sbh = s * b * h
    assert block(b, s, h, a) == {
        "layer_norm": 4 * sbh + norms(b, s),
        "linear": 12 * sbh,
        "packed": 8 * sbh + HALF * a * b * s,
        "dropout": 2 * math.ceil(sbh / 8),
        "gelu": 8 * sbh,
    }


# Several ranks: Table 2's terms, of our own block


def on_a_rank(comm, b, s, h, a, sp, dropout):
    tokens = Tokens(comm) if sp else None
    if sp:
        tokens.length = s
    model = Block(GPTConfig(1, h, a, s, 1, dropout), comm, tokens)
    return total(by_operation(model, b, s // comm.size if sp else s, h))


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("sp", [False, True])
@pytest.mark.parametrize("dropout", [0.0, P])
def test_our_block_on_a_rank(ranks, sp, dropout):
    """10·s·b·h + 24·s·b·h/t, less 2 for masks that are bits; with sequence parallelism all by t.

    There a mask is cut out of that of whole samples, and is kept as factors, as wide as the rest.
    """
    b, s, h, a = 2, 8, 16, 4
    sbh = s * b * h
    whole, masks = 8 * sbh + norms(b, s), 2 * sbh / 8
    if sp:
        whole, masks = whole / ranks, 2 * HALF * sbh / ranks
    shared = (24 * sbh + HALF * a * s * b) / ranks
    wanted = whole + shared + (masks if dropout else 0)
    found = simulate(lambda comm: on_a_rank(comm, b, s, h, a, sp, dropout), ranks)
    assert found == [wanted] * ranks
