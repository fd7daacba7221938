"""Whatever is done to parameters between steps, each is stepped as if it were alone, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import adamw, descent
from support.cases import SEEDS, numbers

from minidist import Tensor, nn, optim

ADAM = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
SGD = {"momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}


def adam_alone(p, g, memory, step, lr):
    adamw.step_(p, g, *memory, step=step, lr=lr, **ADAM)


def sgd_alone(p, g, memory, step, lr):
    descent.sgd_(p, g, memory[0], first=step == 1, lr=lr, **SGD)


def make_adam(groups):
    return optim.AdamW(groups, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1)


OPTIMIZERS = {
    "AdamW": (make_adam, adam_alone, ("exp_avg", "exp_avg_sq")),
    "SGD": (
        lambda groups: optim.SGD(groups, lr=0.1, momentum=0.9),
        sgd_alone,
        ("momentum_buffer",),
    ),
}
SHAPES = [(3, 5), (7,), (), (0,), (2, 3, 4)]
ACTIONS = ["step", "replace", "transpose", "write", "share", "freeze", "add", "reload", "double",
           "rate"]  # fmt: skip


class Alone:
    """A parameter's own numbers, one after the other in memory of their own."""

    def __init__(self, p, lr):
        self.numbers, self.lr = p.data.copy().reshape(-1), lr
        self.memory, self.steps = [np.zeros_like(self.numbers) for _ in range(2)], 0

    def double(self):
        self.numbers = self.numbers.astype("float64")
        self.memory = [m.astype("float64") for m in self.memory]


class World:
    """An optimizer and what its parameters must be: `alone`, by parameter."""

    def __init__(self, kind, seed):
        make, self.step_alone, self.names = OPTIMIZERS[kind]
        self.rng = np.random.default_rng(seed)
        params = [nn.Parameter(numbers(s, i, "float32")) for i, s in enumerate(SHAPES)]
        self.optimizer = make([{"params": params[:3]}, {"params": params[3:], "lr": 0.01}])
        self.alone = {p: Alone(p, 0.1 if i < 3 else 0.01) for i, p in enumerate(params)}
        self.shared = {}  # a parameter that has the memory of another

    def any(self):
        return list(self.alone)[self.rng.integers(len(self.alone))]

    def normal(self, like):
        return self.rng.standard_normal(like.shape).astype(like.dtype)

    def step(self):
        """Some parameters get a gradient, some of them not contiguous."""
        self.optimizer.zero_grad()
        for p in self.alone:
            if p.requires_grad and self.rng.random() < 0.7:
                g = self.normal(p)
                p.grad = Tensor(np.array(g, order="F") if self.rng.random() < 0.5 else g)
        self.optimizer.step()
        for p, a in self.alone.items():
            if p.grad is not None:
                one = self.alone[self.shared.get(p, p)]
                a.steps += 1
                g = p.grad.data.reshape(-1)
                self.step_alone(one.numbers, g, a.memory, a.steps, a.lr)

    def replace(self):
        p = self.any()
        p.data = self.normal(p)
        for other in [q for q, r in self.shared.items() if p is q or p is r]:
            self.alone[other].numbers = self.alone[self.shared.pop(other)].numbers.copy()
        self.alone[p].numbers = p.data.copy().reshape(-1)

    def transpose(self):
        """The same numbers in another layout, and so in other memory."""
        p = self.any()
        if p not in self.shared and all(p is not q for q in self.shared.values()):
            p.data = np.array(p.data, order="F")

    def write(self):
        p = self.any()
        p.data[...] = 0.5
        self.alone[self.shared.get(p, p)].numbers[...] = 0.5

    def share(self):
        """One parameter takes the memory of another, as tied weights do."""
        p, q = self.any(), self.any()
        taken = {*self.shared, *self.shared.values()}
        if p is not q and p.shape == q.shape and p.dtype == q.dtype and not {p, q} & taken:
            p.data = q.data
            self.shared[p] = q

    def freeze(self):
        p = self.any()
        p.requires_grad_(not p.requires_grad)
        p.grad = None

    def add(self):
        like = self.any()
        p = nn.Parameter(self.normal(like))
        self.optimizer.add_param_group({"params": [p], "lr": 0.3})
        self.alone[p] = Alone(p, 0.3)

    def reload(self):
        self.optimizer.load_state_dict(self.optimizer.state_dict())

    def double(self):
        p = self.any()
        if p not in self.shared and all(p is not q for q in self.shared.values()):
            p.grad, p.data = None, p.data.astype("float64")
            self.alone[p].double()

    def rate(self):
        group = self.optimizer.param_groups[self.rng.integers(len(self.optimizer.param_groups))]
        group["lr"] *= 0.9
        for p in group["params"]:
            self.alone[p].lr = group["lr"]

    def check(self):
        for p, a in self.alone.items():
            one = self.alone[self.shared.get(p, p)]
            assert p.dtype == one.numbers.dtype
            assert p.data.tobytes() == one.numbers.tobytes()
            state = self.optimizer.state[p]
            for name, memory in zip(self.names, a.memory):
                assert not a.steps or state[name].astype(memory.dtype).tobytes() == memory.tobytes()
                assert not a.steps or state[name].shape == p.shape


@pytest.mark.parametrize("kind", OPTIMIZERS)
@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=25), seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_actions_between_steps(kind, actions, seed):
    world = World(kind, seed)
    for action in ["step", *actions, "step"]:
        getattr(world, action)()
        world.check()


def test_a_gradient_of_another_parameter_is_seen():
    """The control: the check refuses a step by a gradient in another order."""
    world = World("AdamW", 0)
    world.step_alone = lambda p, g, *rest: adam_alone(p, g[::-1].copy(), *rest)
    world.step()
    with pytest.raises(AssertionError):
        world.check()
