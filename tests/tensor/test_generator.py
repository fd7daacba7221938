"""Generator: each sampling function draws from the one it is given, and from nothing else."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import minidist as md
from minidist import nn

SAMPLED = {
    "rand": lambda **o: md.rand(3, 2, **o),
    "randn": lambda **o: md.randn((6,), **o),
    "rand_like": lambda **o: md.rand_like(md.ones(6), **o),
    "randn_like": lambda **o: md.randn_like(md.ones(6), **o),
    "randint": lambda **o: md.randint(1, 10**6, (6,), **o),
    "randperm": lambda **o: md.randperm(20, **o),
    "normal": lambda **o: md.normal(1.0, 2.0, (6,), **o),
    "normal of tensors": lambda **o: md.normal(md.zeros(6), md.ones(6), **o),
    "bernoulli": lambda **o: md.bernoulli(md.full((50,), 0.5), **o),
    "multinomial": lambda **o: md.multinomial(md.ones(50), 10, **o),
    "multinomial again": lambda **o: md.ones(50).multinomial(10, True, **o),
    "Tensor.bernoulli": lambda **o: md.full((50,), 0.5).bernoulli(**o),
    "Tensor.uniform_": lambda **o: md.zeros(6).uniform_(-1, 1, **o),
    "Tensor.normal_": lambda **o: md.zeros(6).normal_(1, 2, **o),
}
INITIAL = [n for n, f in vars(nn.init).items() if n[-1] == "_" and n[0] != "_"]
INITIAL = [n for n in INITIAL if "generator" in inspect.signature(getattr(nn.init, n)).parameters]
SAMPLED |= {f"init.{n}": lambda n=n, **o: getattr(nn.init, n)(md.zeros(3, 4), **o) for n in INITIAL}


@pytest.mark.parametrize("name", SAMPLED)
def test_what_is_drawn_is_the_generators(name):
    draw, generator = SAMPLED[name], md.Generator().manual_seed(3)
    md.manual_seed(3)
    expected = draw().tolist()  # the default stream has the same numbers by the same seed
    before = md.random.get_state()
    assert draw(generator=generator).tolist() == expected
    assert draw(generator=generator).tolist() != expected, "it moves on"
    assert md.random.get_state() == before, "the default stream does not move"
    assert draw(generator=None).tolist() != expected and md.random.get_state() != before
    with pytest.raises(TypeError, match=r"generator: 3: want an md[.]Generator, or None"):
        draw(generator=3)


def test_all_that_draw_have_been_tried():
    functions = {**vars(md), **{f"Tensor.{n}": f for n, f in vars(md.Tensor).items()}}
    takes = lambda f: "generator" in inspect.signature(inspect.unwrap(f)).parameters
    drawing = {n for n, f in functions.items() if inspect.isfunction(f) and takes(f)}
    assert drawing | {"rand_like", "randn_like"} <= {*SAMPLED, "Tensor.multinomial"}
    assert len(INITIAL) == 8 and "trunc_normal_" in INITIAL


def test_states_and_copies_go_on_with_the_same_numbers():
    g = md.Generator().manual_seed(7)
    md.rand(2, generator=g)
    state, twins = g.get_state(), [copy.deepcopy(g), pickle.loads(pickle.dumps(g))]
    wanted = md.rand(4, generator=g).tolist()
    g.set_state(state)
    for other in (g, *twins):
        assert other.initial_seed() == 7
        assert md.rand(4, generator=other).tolist() == wanted
    assert state.dtype == md.uint8
    fresh = md.Generator()
    fresh.set_state(state)
    assert md.rand(4, generator=fresh).tolist() == wanted


def test_seeds():
    g = md.Generator()
    assert g.device == "cpu" and g.manual_seed(5) is g and g.initial_seed() == 5
    for seed, found in (
        (-1, 2**64 - 1),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), 2**63),
        (np.int8(3), 3),
    ):
        assert g.manual_seed(seed).initial_seed() == found
    drawn = g.seed()
    assert drawn == g.initial_seed() != md.Generator().seed()
    by_hand = md.Generator().manual_seed(drawn)
    assert md.rand(3, generator=g).tolist() == md.rand(3, generator=by_hand).tolist()


def test_what_is_no_seed_or_state_is_refused_as_in_pytorch():
    torch = pytest.importorskip("torch")
    for m in (md, torch):
        g = m.Generator()
        for seed, error in ((2**64, ValueError), (-(2**63) - 1, ValueError), (1.5, RuntimeError),
                            ("a", RuntimeError), (m.tensor(3), RuntimeError)):  # fmt: skip
            with pytest.raises(error):
                g.manual_seed(seed)
        with pytest.raises(TypeError):
            g.set_state(m.zeros(16))
        with pytest.raises(RuntimeError):
            g.set_state(m.zeros(3, dtype=m.uint8))
