"""Attention and Transformer layers beside PyTorch's: masks, weights, errors, names of dropout."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, numbers
from support.parity import BOUNDS, assert_close, error_of, to_torch, torch
from support.parity import compare as compare_op

import minidist as md
from minidist import Tensor, nn
from minidist.nn import functional as F
from minidist.testing import gradcheck

torch_attend = torch.nn.functional.scaled_dot_product_attention


def seen(shape, seed, hidden_rows=True):
    """A random mask, True where a query may look; some rows see nothing if hidden_rows."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.6
    mask[..., 0] |= not hidden_rows
    return mask & ((rng.random((*shape[:-1], 1)) < 0.75) | (not hidden_rows))


# scaled_dot_product_attention

SHAPES = {
    "4-d": ((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)),
    "3-d": ((3, 4, 5), (3, 6, 5), (3, 6, 2)),
    "2-d": ((4, 5), (6, 5), (6, 2)),
    "5-d": ((2, 1, 3, 4, 5), (2, 1, 3, 6, 5), (2, 1, 3, 6, 2)),
    "broadcast": ((2, 1, 4, 5), (1, 3, 6, 5), (1, 3, 6, 2)),
    "other dimensions": ((3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)),
    "no keys": ((2, 3, 4, 5), (2, 3, 0, 5), (2, 3, 0, 2)),
    "no queries": ((2, 3, 0, 5), (2, 3, 6, 5), (2, 3, 6, 2)),
    "one key": ((2, 3, 4, 5), (2, 3, 1, 5), (2, 3, 1, 2)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}], ids=str)
def test_attention_is_pytorchs(name, dtype, options):
    arrays = [numbers(s, i) for i, s in enumerate(SHAPES[name])]
    compare_op(
        lambda *x: F.scaled_dot_product_attention(*x, **options),
        lambda *x: torch_attend(*x, **options), arrays, dtype,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(shape=st.sampled_from([(4, 6), (1, 6), (4, 1), (3, 4, 6), (2, 1, 1, 6), (2, 3, 4, 6)]),
       seed=SEEDS)  # fmt: skip
@settings(max_examples=15)
def test_attention_under_masks_is_pytorchs(dtype, shape, seed):
    q, k, v = (numbers(s, seed + i) for i, s in enumerate(SHAPES["4-d"]))
    mask = seen(shape, seed)
    compare_op(F.scaled_dot_product_attention, torch_attend, [q, k, v, mask], dtype)
    compare_op(F.scaled_dot_product_attention, torch_attend, [q, k, v, numbers(shape, 1)], dtype)
    floats = np.where(mask, 0.5, -np.inf).astype(dtype)
    compare_op(
        lambda *x: F.scaled_dot_product_attention(*x, Tensor(floats)),
        lambda *x: torch_attend(*x, to_torch(floats)), [q, k, v], dtype,
    )  # fmt: skip


@pytest.mark.parametrize("mask", [None, (4, 4), (1, 4, 4), (2, 6, 4, 4)])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_grouped_attention_is_pytorchs(mask, batch, groups):
    if not batch and mask == (2, 6, 4, 4):
        mask = (6, 4, 4)
    arrays = [numbers((*batch, a, 4, 5), i) for i, a in enumerate((6, groups, groups))]
    arrays += [numbers(mask, 7)] if mask else []
    compare_op(
        lambda *x: F.scaled_dot_product_attention(*x, enable_gqa=True),
        lambda *x: torch_attend(*x, enable_gqa=True), arrays,
    )  # fmt: skip


def test_everything_dropped_is_pytorchs():
    arrays = [numbers(s, i) for i, s in enumerate(SHAPES["4-d"])]
    compare_op(lambda *x: F.scaled_dot_product_attention(*x, dropout_p=1.0),
               lambda *x: torch_attend(*x, dropout_p=1.0), arrays)  # fmt: skip


# MultiheadAttention


def twins(make, dtype="float64"):
    """The same module here and in PyTorch, every weight of it random and equal."""
    ours, theirs = make(nn).to(dtype), make(torch.nn).to(getattr(torch, dtype))
    state = {k: numbers(tuple(v.shape), i, dtype) / 2 for i, (k, v) in
             enumerate(theirs.state_dict().items())}  # fmt: skip
    assert sorted(ours.state_dict()) == sorted(state)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    ours.load_state_dict(state)
    theirs.load_state_dict({k: to_torch(v) for k, v in state.items()})
    return ours, theirs


def compare(ours, theirs, arrays, run, dtype="float64"):
    """run(module, tensor_of, *inputs) -> a list of outputs (None: none); all gradients."""
    xs = [Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    ts = [to_torch(a.astype(dtype)).requires_grad_() for a in arrays]
    of = lambda a: a.astype(dtype) if a.dtype.kind == "f" else a
    ys = run(ours, lambda a: Tensor(of(a)), *xs)
    zs = run(theirs, lambda a: to_torch(of(a)), *ts)
    total, twin = 0, 0
    for i, (y, z) in enumerate(zip(ys, zs, strict=True)):
        assert (y is None) == (z is None)
        if y is not None:
            assert_close(f"output {i}", y.data, z, 20 * BOUNDS[dtype])
            g = numbers(y.shape, i, dtype)
            total, twin = total + (y * Tensor(g)).sum(), twin + (z * to_torch(g)).sum()
    total.backward()
    twin.backward()
    grads = {k: p.grad for k, p in theirs.named_parameters()}
    for i, (x, t) in enumerate(zip(xs, ts)):
        assert_close(f"gradient {i}", x.grad.data, t.grad, 20 * BOUNDS[dtype])
    for k, p in ours.named_parameters():
        assert_close(k, p.grad.data, grads[k], 20 * BOUNDS[dtype])


MASKS = ["none", "bool", "float", "stacked", "padding", "float padding", "both"]


def masks_of(kind, b, heads, s, t):
    """key_padding_mask and attn_mask, True where hidden; every query sees its first key."""
    hidden = lambda *shape: ~seen(shape, 3, hidden_rows=False)
    floats = lambda mask: np.where(mask, -np.inf, 0.25)
    return {
        "none": {},
        "bool": {"attn_mask": hidden(s, t)},
        "float": {"attn_mask": numbers((s, t), 4)},
        "stacked": {"attn_mask": hidden(b * heads, s, t)},
        "padding": {"key_padding_mask": hidden(b, t)},
        "float padding": {"key_padding_mask": floats(hidden(b, t))},
        "both": {"key_padding_mask": hidden(b, t), "attn_mask": hidden(s, t)},
    }[kind]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("inputs", ["self", "cross", "kdim"])
def test_multihead_attention(mask, need_weights, first, inputs):
    widths = {"kdim": 3, "vdim": 5} if inputs == "kdim" else {}
    ours, theirs = twins(lambda m: m.MultiheadAttention(6, 2, batch_first=first, **widths))
    b, s, t = 3, 4, 4 if inputs == "self" else 5
    form = lambda n, e: (b, n, e) if first else (n, b, e)
    arrays = [numbers(form(s, 6), 0)]
    if inputs != "self":
        arrays += [numbers(form(t, e), i) for i, e in ((1, ours.kdim), (2, ours.vdim))]
    masks = masks_of(mask, b, 2, s, t)

    def run(m, of, *x):
        x = x if len(x) == 3 else x * 3
        options = {k: of(v) for k, v in masks.items()}
        return m(*x, need_weights=need_weights, **options)

    compare(ours, theirs, arrays, run)
    if need_weights:
        compare(ours, theirs, arrays, lambda m, of, *x: run(
            lambda *a, **k: m(*a, average_attn_weights=False, **k), of, *x))  # fmt: skip


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_multihead_attention_without_a_batch(need_weights, bias):
    ours, theirs = twins(lambda m: m.MultiheadAttention(6, 3, bias=bias))
    hidden = ~seen((5,), 0, hidden_rows=False)

    def run(m, of, q, k):
        return m(q, k, k, key_padding_mask=of(hidden), need_weights=need_weights)

    compare(ours, theirs, [numbers((4, 6), 0), numbers((5, 6), 1)], run)
    compare(ours, theirs, [numbers((5, 6), 0)], lambda m, of, x: run(m, of, x, x))


def test_multihead_attention_in_float32():
    ours, theirs = twins(lambda m: m.MultiheadAttention(8, 2, batch_first=True), "float32")
    for need in (True, False):
        compare(ours, theirs, [numbers((2, 5, 8), 0)],
                lambda m, of, x, need=need: m(x, x, x, need_weights=need), "float32")  # fmt: skip


def test_a_causal_hint_spares_the_mask():
    ours, theirs = twins(lambda m: m.MultiheadAttention(6, 2))
    causal = ~np.tri(4, dtype=bool)
    compare(ours, theirs, [numbers((4, 2, 6), 0)], lambda m, of, x: m(
        x, x, x, attn_mask=of(causal), is_causal=True, need_weights=False))  # fmt: skip
    x, unread = Tensor(numbers((4, 2, 6), 0)), Tensor(np.zeros((4, 4), bool))
    a, _ = ours(x, x, x, need_weights=False, attn_mask=unread, is_causal=True)
    b, _ = ours(x, x, x, attn_mask=Tensor(causal))
    np.testing.assert_allclose(a.data, b.data, rtol=1e-12)


def test_ways_to_the_same_attention_agree():
    """Packed (self), separate (cross) and with weights: one function, and so one gradient."""
    model, x = nn.MultiheadAttention(6, 2, batch_first=True).double(), numbers((2, 4, 6), 0)
    hidden = Tensor(~seen((2, 4), 1, hidden_rows=False))
    grads = []
    for keys, need in (("same", False), ("copy", False), ("same", True)):
        q = Tensor(x, requires_grad=True)
        k = q if keys == "same" else q * 1
        y, _ = model(q, k, k, key_padding_mask=hidden, need_weights=need)
        y.backward(numbers(y.shape, 5))
        grads.append((y.data, q.grad.data))
    for other in grads[1:]:
        for a, b in zip(grads[0], other):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_a_query_that_sees_nothing_gets_zeros():
    """PyTorch gives these zeros without weights, and NaN with them."""
    ours, theirs = twins(lambda m: m.MultiheadAttention(6, 2, batch_first=True))
    x, hidden = numbers((2, 3, 6), 0), np.array([[True] * 3, [False] * 3])
    theirs, _ = theirs(*[to_torch(x)] * 3, key_padding_mask=to_torch(hidden), need_weights=False)
    for need in (True, False):
        y, weights = ours(*[Tensor(x)] * 3, key_padding_mask=Tensor(hidden), need_weights=need)
        np.testing.assert_allclose(y.data, theirs.detach().numpy(), rtol=1e-12)
    assert weights is None


def test_dropped_weights_are_those_returned():
    model = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x = Tensor(numbers((2, 20, 8), 0, "float32"))
    with md.random.at(seed=0, step=0, first_sample=0):
        y, weights = model(x, x, x, average_attn_weights=False)
        again, _ = model(x, x, x, need_weights=False)
    assert 0.3 < (weights.data == 0).mean() < 0.7
    np.testing.assert_allclose(y.data, again.data, rtol=1e-5, atol=1e-6)
    assert (model.eval()(x, x, x)[1].data > 0).all()


def test_initial_weights_have_pytorchs_spread():
    md.manual_seed(0)
    for options in ({}, {"kdim": 40, "vdim": 100}):
        make = lambda m, o=options: m.MultiheadAttention(64, 4, **o)
        ours, theirs = make(nn), dict(make(torch.nn).named_parameters())
        assert [k for k, _ in ours.named_parameters()] == list(theirs)
        for k, p in ours.named_parameters():
            q = theirs[k].detach().numpy()
            assert p.dtype == q.dtype and abs(p.data.std() - q.std()) <= 0.05 * q.std()
            assert abs(np.abs(p.data).max() - np.abs(q).max()) <= 0.05 * np.abs(q).max()


# Transformer layers

OPTIONS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "norm first": {"norm_first": True, "batch_first": True},
    "gelu": {"activation": "gelu", "layer_norm_eps": 0.1},
    "without bias": {"bias": False},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_encoder_layers(name):
    ours, theirs = twins(lambda m: m.TransformerEncoderLayer(6, 2, 8, 0.0, **OPTIONS[name]))
    x, first = numbers((4, 3, 6), 0), OPTIONS[name].get("batch_first", False)
    b, s = (4, 3) if first else (3, 4)
    names = {"attn_mask": "src_mask", "key_padding_mask": "src_key_padding_mask"}
    for kind in MASKS:
        masks = {names[k]: v for k, v in masks_of(kind, b, 2, s, s).items()}
        run = lambda m, of, x, masks=masks: [m(x, **{k: of(v) for k, v in masks.items()})]
        compare(ours, theirs, [x], run)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_decoder_layers(name, dtype):
    make = lambda m: m.TransformerDecoderLayer(6, 2, 8, 0.0, **OPTIONS[name])
    ours, theirs = twins(make, dtype)
    first = OPTIONS[name].get("batch_first", False)
    form = lambda s: (3, s, 6) if first else (s, 3, 6)
    own, other = (masks_of("both", 3, 2, 4, t) for t in (4, 5))

    def run(m, of, x, memory):
        masks = {"tgt_mask": own["attn_mask"], "memory_mask": other["attn_mask"],
                 "tgt_key_padding_mask": own["key_padding_mask"],
                 "memory_key_padding_mask": other["key_padding_mask"]}  # fmt: skip
        return [m(x, memory, **{k: of(v) for k, v in masks.items()})]

    compare(ours, theirs, [numbers(form(4), 0), numbers(form(5), 1)], run, dtype)


def stacks(m):
    encoder = m.TransformerEncoderLayer(6, 2, 8, 0.0)
    decoder = m.TransformerDecoderLayer(6, 2, 8, 0.0)
    make = lambda kind, layer: getattr(m, kind)(layer, 2, m.LayerNorm(6))
    return m.ModuleList([make("TransformerEncoder", encoder), make("TransformerDecoder", decoder)])


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_encoder_and_decoder():
    ours, theirs = twins(stacks)
    causal = ~np.tri(3, dtype=bool)

    def run(m, of, source, target):
        memory = m[0](source, src_key_padding_mask=of(~seen((2, 4), 1, False)))
        return [memory, m[1](target, memory, tgt_mask=of(causal), tgt_is_causal=True)]

    compare(ours, theirs, [numbers((4, 2, 6), 0), numbers((3, 2, 6), 1)], run)


def test_copied_layers_are_apart():
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    layer(md.ones(3, 2, 4)).sum().backward()
    stack = nn.TransformerEncoder(layer, 2)
    for p in layer.parameters():
        p.grad = None
    stack.eval()(md.ones(3, 2, 4)).sum().backward()
    assert all(p.grad is None for p in layer.parameters()), "copies fill their own gradients"
    assert len({id(p) for p in stack.parameters()}) == 2 * len(list(layer.parameters()))
    names = [m.name for m in stack.modules() if hasattr(m, "name")]
    assert len(names) == 8 and len(set(names)) == 8, "one name a mask"


def test_masks_belong_to_samples():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.3, batch_first=True), 2)
    x = Tensor(numbers((5, 4, 8), 0, "float32"))
    with md.random.at(seed=0, step=1, first_sample=0):
        whole = encoder(x).data
    with md.random.at(seed=0, step=1, first_sample=2):
        part = encoder(x[2:]).data
    np.testing.assert_allclose(whole[2:], part, rtol=1e-5, atol=1e-6)
    with md.random.at(seed=0, step=2, first_sample=2):
        assert np.abs(encoder(x[2:]).data - part).max() > 0.1


def test_gradients_of_a_layer_with_dropout():
    layer = nn.TransformerDecoderLayer(4, 2, 3, 0.3, activation="gelu", batch_first=True).double()
    weights = [p for k, p in layer.named_parameters() if "norm" in k or "multihead" in k]
    x, memory = numbers((2, 3, 4), 0), numbers((2, 2, 4), 1)
    with md.random.at(seed=0, step=0, first_sample=0):
        gradcheck(lambda x, m, *_: layer(x, m), [x, memory, *weights], rtol=1e-5)


# Transformer


def transformer(m, **options):
    return m.Transformer(6, 2, 2, 2, 8, 0.0, activation="gelu", layer_norm_eps=0.1, **options)


CAUSAL = ~np.tri(3, dtype=bool)
WHOLE = {
    "plain": ({}, {}),
    "post-norm, batch first": ({"batch_first": True}, {}),
    "pre-norm, no bias": ({"norm_first": True, "bias": False}, {}),
    "causal": ({}, {"tgt_mask": CAUSAL, "tgt_is_causal": True}),
    "masks": ({}, {"src_mask": ~seen((4, 4), 1, False), "tgt_mask": CAUSAL,
                   "memory_mask": ~seen((3, 4), 2, False),
                   "src_key_padding_mask": ~seen((2, 4), 3, False),
                   "memory_key_padding_mask": np.array([[False, True, False, False]] * 2),
                   "tgt_key_padding_mask": np.array([[False, False, True]] * 2)}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_transformer(name):
    how, masks = WHOLE[name]
    ours, theirs = twins(lambda m: transformer(m, **how))
    assert list(ours.state_dict()) == list(theirs.state_dict())

    def run(m, of, src, tgt):
        return [m(src, tgt, **{k: of(v) if k[-4:] == "mask" else v for k, v in masks.items()})]

    shapes = ((4, 2, 6), (3, 2, 6)) if not how.get("batch_first") else ((2, 4, 6), (2, 3, 6))
    compare(ours, theirs, [numbers(s, i) for i, s in enumerate(shapes)], run)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_a_transformer_without_a_batch_and_with_layers_of_ones_own():
    ours, theirs = twins(transformer)
    run = lambda m, of, src, tgt: [m(src, tgt)]
    compare(ours, theirs, [numbers((4, 6), 0), numbers((3, 6), 1)], run)

    class Own(nn.Module):
        def forward(self, src, is_causal, mask, src_key_padding_mask):
            return src * 2

    own, x = nn.Transformer(6, 2, custom_encoder=Own(), custom_decoder=ours.decoder), md.ones(4, 6)
    x = x.double()
    assert own.decoder is ours.decoder and own(x, x).tolist() == ours.decoder(x, x * 2).tolist()


def test_a_transformers_first_values_masks_and_names():
    md.manual_seed(0)
    model = nn.Transformer(16, 2, 2, 2, 32)
    assert all(abs(p.data.std() / (2 / sum(p.shape)) ** 0.5 - 1) < 0.15
               for p in model.parameters() if p.ndim > 1), "Xavier's spread"  # fmt: skip
    names = [m.name for m in model.modules() if hasattr(m, "name")]
    assert len(names) == 20 and len(set(names)) == 20, "one name a mask of dropout"
    mask, wanted = (m.Transformer.generate_square_subsequent_mask for m in (nn, torch.nn))
    np.testing.assert_array_equal(mask(4).data, wanted(4).numpy())
    assert mask(2, dtype=md.float64).dtype == "float64"
    x = Tensor(numbers((5, 3, 16), 0, "float32")).transpose(0, 1)
    model = nn.Transformer(16, 2, 1, 1, 32, 0.3, batch_first=True)
    with md.random.at(seed=0, step=1, first_sample=0):
        whole = model(x, x[:, :4]).data
    with md.random.at(seed=0, step=1, first_sample=1):
        part = model(x[1:], x[1:, :4]).data
    np.testing.assert_allclose(whole[1:], part, rtol=1e-5, atol=1e-6)


# What is refused


def attend(sizes, mask=None, **options):
    """One call, as (library, ones) -> result."""

    def call(lib, z):
        given = None if mask is None else mask(z)
        f = F.scaled_dot_product_attention if lib is nn else torch_attend
        return f(*(z(*s) for s in sizes), given, **options)

    return call


def multihead(*shapes, **options):
    return lambda lib, z: lib.MultiheadAttention(6, 2)(
        *(z(*s) for s in shapes), **{k: v(z) for k, v in options.items()})  # fmt: skip


QKV = SHAPES["4-d"]
REFUSED = {
    "1-d": attend([(5,), (5,), (5,)]),
    "widths": attend([QKV[0], (2, 3, 6, 4), QKV[2]]),
    "lengths": attend([QKV[0], QKV[1], (2, 3, 7, 2)]),
    "batches": attend([QKV[0], (3, 3, 6, 5), (3, 3, 6, 2)]),
    "mask's shape": attend(QKV, lambda z: z(4, 5)),
    "mask of more dimensions": attend(QKV, lambda z: z(1, 2, 1, 1, 6)),
    "mask of integers": attend(QKV, lambda z: z(4, 6).long()),
    "mask of another float": attend(QKV, lambda z: z(4, 6).double()),
    "mask and causal": attend(QKV, lambda z: z(4, 6), is_causal=True),
    "heads without groups": attend([(2, 6, 4, 5), *QKV[1:]]),
    "heads that do not divide": attend([(2, 5, 4, 5), *QKV[1:]], enable_gqa=True),
    "dropout": attend(QKV, dropout_p=2.0),
    "embed_dim": lambda lib, z: lib.MultiheadAttention(6, 4),
    "query's width": multihead((4, 2, 5), (4, 2, 6), (4, 2, 6)),
    "4-d query": multihead(*[(1, 4, 2, 6)] * 3),
    "key and value": multihead((4, 2, 6), (3, 2, 6), (5, 2, 6)),
    "batches of a module": multihead((4, 2, 6), (4, 3, 6), (4, 3, 6)),
    "attn_mask": multihead(*[(4, 2, 6)] * 3, attn_mask=lambda z: z(3, 4)),
    "stacked attn_mask": multihead(*[(4, 2, 6)] * 3, attn_mask=lambda z: z(2, 4, 4)),
    "key_padding_mask": multihead(*[(4, 2, 6)] * 3, key_padding_mask=lambda z: z(2, 3)),
    "hint without mask": multihead(*[(4, 2, 6)] * 3, is_causal=lambda z: True),
    "src and tgt of other batches": lambda lib, z: lib.Transformer(6, 2, 1, 1, batch_first=True)(
        z(4, 2, 6), z(3, 3, 6)),
    "features of tgt": lambda lib, z: lib.Transformer(6, 2, 1, 1, batch_first=True)(
        z(2, 4, 6), z(2, 3, 5)),
    "features of src": lambda lib, z: lib.Transformer(6, 2, 1, 1, batch_first=True)(
        z(2, 4, 5), z(2, 3, 6)),
    "activation": lambda lib, z: lib.TransformerEncoderLayer(4, 2, activation="sine"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_errors_are_pytorchs_kind(name):
    theirs = error_of(lambda: REFUSED[name](torch.nn, torch.ones))
    assert theirs is not None
    assert error_of(lambda: REFUSED[name](nn, md.ones)) == theirs


def test_a_used_module_may_be_copied():
    layer = nn.Linear(2, 2)
    layer(md.ones(1, 2)).sum().backward()
    twin = copy.deepcopy(layer)
    twin.weight.grad = layer.weight.grad = None
    twin(md.ones(1, 2)).sum().backward()
    assert layer.weight.grad is None and twin.weight.grad is not None
