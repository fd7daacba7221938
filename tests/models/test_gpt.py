"""GPT: every gradient, one model whatever the cut of the batch, and text drawn from it."""

import math

import numpy as np
import pytest
from minidist.kernels import dropout
from support.cases import tiny_tiles

import minidist as md
from minidist import Tensor, random
from minidist.models import gpt
from minidist.models.gpt import GPT, Block, GPTConfig
from minidist.testing import gradcheck

TINY = GPTConfig(layers=2, hidden=4, heads=2, positions=5, vocab=6)
RNG = np.random.default_rng(0)
TOKENS, TARGETS = Tensor(RNG.integers(0, 6, (2, 5))), Tensor(RNG.integers(0, 6, (2, 5)))


def tiny(**changes) -> GPT:
    """A float64 model whose weights are large enough to matter, norms and biases too."""
    model = GPT(GPTConfig(**{**TINY.__dict__, **changes})).double()
    for name, p in model.named_parameters():
        p.data[...] += 0.3 * random.generator("tiny", name).standard_normal(p.shape)
    return model


@pytest.mark.parametrize("queries", [1, 3, 64])
def test_gradients_of_every_parameter_of_the_loss(queries):
    model = tiny()
    with tiny_tiles(16, queries):
        gradcheck(lambda *_: model.loss(TOKENS, TARGETS), list(model.parameters()))


def test_gradients_of_a_block():
    md.manual_seed(0)
    block = Block(TINY).double()
    x = RNG.standard_normal((2, 5, 4))
    with tiny_tiles(16, 3):
        gradcheck(lambda x, *_: block(x), [x, *block.parameters()])


def test_gradients_with_dropout():
    model = tiny(layers=1, dropout=0.3)

    def loss(*_):
        with random.at(seed=1, step=2, first_sample=3):
            return model.loss(TOKENS, TARGETS, reduction="sum")

    gradcheck(loss, list(model.parameters()))


def test_a_forgotten_tie_is_killed():
    """The control: the embedding's second use is half of its gradient."""
    model = tiny(layers=1)

    def loss(*_):
        wte = Tensor(model.wte.weight.data, requires_grad=True)  # off the tape
        logits = md.ops.linear(model.ln_f(model.h[0](model.wte(TOKENS) + model.wpe.weight)), wte)
        return md.ops.cross_entropy(logits.view(-1, 6), TARGETS.reshape(-1))

    with pytest.raises(AssertionError, match="input 0"):
        gradcheck(loss, [model.wte.weight])


# Weights and masks belong to names and places


def test_the_weights_of_a_seed():
    a, b, other = GPT(TINY, seed=3), GPT(TINY, seed=3), GPT(TINY, seed=4)
    for (name, p), q, r in zip(a.named_parameters(), b.parameters(), other.parameters()):
        assert p.data.tobytes() == q.data.tobytes(), name
        if p.ndim == 2:
            assert (p.data != r.data).all(), name
    deep = GPT(GPTConfig(layers=3, hidden=4, heads=2, positions=5, vocab=6), seed=3)
    assert deep.h[1].c_fc.weight.data.tobytes() == a.h[1].c_fc.weight.data.tobytes()
    blocks = [a.h[0].c_fc.weight.data, a.h[1].c_fc.weight.data]
    assert (blocks[0] != blocks[1]).all(), "keyed by name, not by shape"


def test_the_deviations_of_gpt_2():
    model = GPT(GPTConfig(layers=2, hidden=128, heads=2, positions=64, vocab=256))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.data.any(), name
        elif "ln_" in name:
            assert (p.data == 1).all(), name
        else:
            expected = 0.02 * math.sqrt(768 / 128) / (2 if "proj" in name else 1)
            assert abs(p.data.std() / expected - 1) < 0.05, name


def test_reset_parameters_resets_all_of_them():
    model = GPT(TINY, seed=3)
    for p in model.parameters():
        p.data += 1
    model.reset_parameters(3)
    for p, q in zip(model.parameters(), GPT(TINY, seed=3).parameters()):
        np.testing.assert_array_equal(p.data, q.data)


def test_names_and_counts():
    model = GPT(TINY)
    names = [n for n, _ in model.named_parameters()]
    assert names[:2] == ["wte.weight", "wpe.weight"] and names[-1] == "ln_f.bias"
    h, layers = 4, 2
    block = 12 * h * h + 13 * h
    assert sum(p.numel() for p in model.parameters()) == (6 + 5) * h + layers * block + 2 * h
    drops = [m.name for n, m in model.named_modules() if n.rpartition(".")[2].startswith("drop")]
    assert len(drops) == len(set(drops)) == 1 + 2 * layers


@pytest.mark.parametrize("cut", range(1, 5))
def test_rows_apart_are_rows_together_to_the_bit(cut):
    """With dropout: the masks are those of the global samples."""
    model = GPT(GPTConfig(**{**TINY.__dict__, "dropout": 0.4})).double()
    tokens = np.random.default_rng(1).integers(0, 6, (5, 5))

    def logits(first, last, number):
        with random.at(seed=7, step=11, first_sample=number):
            return model(Tensor(tokens[first:last])).data

    whole = logits(0, 5, 100)
    parts = [logits(0, cut, 100), logits(cut, 5, 100 + cut)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12, atol=1e-14)
    wrong = [logits(0, cut, 100), logits(cut, 5, 100)]
    assert np.abs(np.concatenate(wrong) - whole).max() > 1e-3, "the control"


def test_masks_inside_the_model_are_cut_to_the_bit(monkeypatch):
    seen: list[np.ndarray] = []
    forward = dropout.forward

    def noted(x, *drawn):
        seen.append(forward(np.ones_like(x), *drawn)[0])
        return forward(x, *drawn)

    monkeypatch.setattr(dropout, "forward", noted)
    model = GPT(GPTConfig(**{**TINY.__dict__, "dropout": 0.4}))
    tokens = np.random.default_rng(1).integers(0, 6, (5, 5))

    def masks(first, last):
        seen.clear()
        with random.at(7, 11, 100 + first):
            model(Tensor(tokens[first:last]))
        return list(seen)

    for a, b, c in zip(masks(0, 2), masks(2, 5), masks(0, 5)):
        np.testing.assert_array_equal(np.concatenate([a, b]), c)


# Behaviour


def test_the_loss_of_a_uniform_guess():
    model = GPT(TINY)
    model.ln_f.weight.data[...] = 0  # all logits are 0
    loss = model.loss(TOKENS, TARGETS)
    assert loss.item() == pytest.approx(math.log(6), rel=1e-6) and loss.dtype == md.float32


def test_reductions_of_the_loss():
    model = tiny()
    each = model.loss(TOKENS, TARGETS, reduction="none")
    assert each.shape == (10,)
    total = model.loss(TOKENS, TARGETS, "sum").item()
    assert (
        total
        == pytest.approx(each.data.sum())
        == pytest.approx(10 * model.loss(TOKENS, TARGETS).item())
    )


def test_a_token_does_not_see_the_future():
    model, tokens = tiny(), TOKENS.data.copy()
    before = model(Tensor(tokens)).data
    tokens[:, 3:] = (tokens[:, 3:] + 1) % 6
    after = model(Tensor(tokens)).data
    np.testing.assert_allclose(before[:, :3], after[:, :3], rtol=1e-12)
    assert (before[:, 3:] != after[:, 3:]).any(-1).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_large_vocabulary_is_worked_through_in_chunks(reduction, monkeypatch):
    """The same loss and the same gradients, and no logits of all tokens."""

    def both():
        model = tiny()
        loss = model.loss(TOKENS, TOKENS, reduction)
        loss.backward()
        return [loss.item(), *(p.grad.data for p in model.parameters())]

    whole = both()
    monkeypatch.setattr(gpt, "LARGE_VOCABULARY", 6)
    monkeypatch.setattr(GPT, "forward", None)
    for a, b in zip(whole, both(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-13)


def test_generate():
    model = tiny()
    greedy = model.generate(np.array([1, 2]), 8, temperature=0, top_k=0, seed=0)
    assert greedy[:2].tolist() == [1, 2] and len(greedy) == 10
    for i in range(2, 10):
        window = greedy[max(0, i - 5) : i]
        assert greedy[i] == model(Tensor(window[None])).data[0, -1].argmax()
    short = model.generate(np.array([1, 2]), 6, 0, 0, 0, context=3)
    for i in range(2, 8):
        assert short[i] == model(Tensor(short[None, max(0, i - 3) : i])).data[0, -1].argmax()
    draw = lambda seed, k: model.generate(np.array([1]), 30, 1.0, k, seed).tolist()
    assert draw(0, 0) == draw(0, 0) != draw(1, 0)
    assert draw(0, 1) == draw(1, 1), "the likeliest only"
    assert set(draw(0, 0)) <= set(range(6)) and md.is_grad_enabled()


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="hidden 4 does not divide into 3 heads"):
        GPTConfig(layers=1, hidden=4, heads=3, positions=5, vocab=6)
    with pytest.raises(ValueError, match="layers = 0"):
        GPTConfig(layers=0, hidden=4, heads=2, positions=5, vocab=6)
    with pytest.raises(ValueError, match="6 tokens, but it has 5 positions"):
        tiny()(Tensor(np.zeros((1, 6), int)))
    with pytest.raises(IndexError, match="table of 6 rows"):
        tiny()(Tensor(np.full((1, 2), 6)))
