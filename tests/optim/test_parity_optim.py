"""Optimisers against PyTorch: 50 steps, groups, changing rates, missing gradients, saved states."""

import numpy as np
import pytest
from support.cases import numbers
from support.parity import error_of, to_torch, torch

from minidist import Tensor, nn, optim

SHAPES = [(3, 4), (5,), (), (0, 2), (2, 3, 2), (1,)]
MATRICES = [(4, 4), (6, 3), (2, 5), (1, 3), (3, 1), (5, 5)]
BOUND = 1e-10

CASES = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.05, "weight_decay": 0.1}),
    ("Adagrad", {"initial_accumulator_value": 0.5, "eps": 1e-3, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.8, "weight_decay": 0.1, "eps": 1e-4}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 1e-3}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"betas": (0.0, 0.5), "weight_decay": 0.3}),
    ("AdamW", {"amsgrad": True, "maximize": True}),
    ("Muon", {}),
    ("Muon", {"nesterov": False, "weight_decay": 0.0}),
    ("Muon", {"adjust_lr_fn": "match_rms_adamw", "momentum": 0.5}),
    ("Muon", {"ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5), "eps": 1e-3}),
]
each_case = pytest.mark.parametrize("name, options", CASES, ids=lambda v: str(v).strip("{}"))


@pytest.fixture(autouse=True)
def muon_in_full(monkeypatch):
    """PyTorch's Muon rounds to bfloat16; here it keeps the dtype, so that digits can be compared.

    A copy, as bfloat16() makes one: the iteration writes into it.
    """
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda t: t.clone())


class Pair:
    """The same parameters here and in PyTorch, each with its optimiser, in two groups."""

    def __init__(self, name, options, our_class=None, our_options=None, dtype="float64"):
        shapes = MATRICES if name == "Muon" else SHAPES
        arrays = [numbers(s, i) for i, s in enumerate(shapes)]
        self.ours = [nn.Parameter(a.astype(dtype)) for a in arrays]
        self.theirs = [torch.nn.Parameter(to_torch(a)) for a in arrays]
        our_class = our_class or getattr(optim, name)
        options = {"lr": 0.05, **options}
        ours = {**options, **(our_options or {})}
        self.optimizer = our_class(self.groups(self.ours), **ours)
        self.reference = getattr(torch.optim, name)(self.groups(self.theirs), **options)

    def groups(self, params):
        """The last parameter joins later."""
        return [{"params": params[:2]}, {"params": params[2:-1], "lr": 0.02, "weight_decay": 0.05}]

    def grow(self):
        for optimizer, params in (self.optimizer, self.ours), (self.reference, self.theirs):
            optimizer.add_param_group({"params": params[-1], "lr": 0.03})

    def step(self, t: int):
        """Gradients that are sometimes missing, sometimes zero, in odd layouts; then a step."""
        for i, (p, q) in enumerate(zip(self.ours, self.theirs)):
            g = numbers(p.shape, 1000 * t + i) * (0 if (t + i) % 11 == 0 else 1 + t % 3)
            missing = (t * (i + 1)) % 4 == 1
            p.grad = None if missing else Tensor(g.T.copy().T.astype(p.dtype))
            q.grad = None if missing else to_torch(g)
        for optimizer in (self.optimizer, self.reference):
            for group in optimizer.param_groups:
                group["lr"] *= 0.9 if t % 10 == 3 else 1.01
            optimizer.step()

    def check(self):
        for i, (p, q) in enumerate(zip(self.ours, self.theirs)):
            q = q.detach().numpy()
            off = np.abs(p.data - q).max(initial=0) / max(1.0, np.abs(q).max(initial=0))
            assert off <= BOUND, f"parameter {i} is off by {off:.3g}"

    def run(self, steps=range(50)):
        for t in steps:
            if t == 20:
                self.grow()
            self.step(t)
            self.check()


@each_case
def test_fifty_steps(name, options):
    pair = Pair(name, options)
    pair.run()
    start = Pair(name, options)
    moved = [np.abs(a.data - b.data).max(initial=1) for a, b in zip(pair.ours, start.ours)]
    assert min(moved) > 1e-3, "all parameters moved"


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "Muon"])
def test_float32_fails_that_bound(name):
    with pytest.raises(AssertionError, match="off by"):
        Pair(name, {}, dtype="float32").run()


class WrongBiasCorrection(optim.Adam):
    def update(self, p, g, state, group):
        state["step"] = state.get("step", 0) + 1
        super().update(p, g, state, group)
        state["step"] -= 1


class EpsilonOff(optim.RMSprop):
    def update(self, p, g, state, group):
        super().update(p, g, state, {**group, "eps": group["eps"] * 1.001})


class FirstStepDampened(optim.SGD):
    def update(self, p, g, state, group):
        state.setdefault("momentum_buffer", np.zeros_like(p))
        super().update(p, g, state, group)


MUTANTS = {
    "bias correction one step late": ("Adam", {}, WrongBiasCorrection, {}),
    "decay coupled": ("AdamW", {"weight_decay": 0.1}, optim.Adam, {}),
    "decay decoupled": ("Adam", {"weight_decay": 0.1}, optim.AdamW, {}),
    "amsgrad forgotten": ("Adam", {"amsgrad": True}, None, {"amsgrad": False}),
    "betas swapped": ("Adam", {"betas": (0.8, 0.9)}, None, {"betas": (0.9, 0.8)}),
    "nesterov forgotten": (
        "SGD", {"momentum": 0.9, "nesterov": True}, None, {"nesterov": False}),
    "dampening forgotten": ("SGD", {"momentum": 0.9, "dampening": 0.1}, None, {"dampening": 0}),
    "first step dampened": ("SGD", {"momentum": 0.9, "dampening": 0.1}, FirstStepDampened, {}),
    "descent for ascent": ("SGD", {"maximize": True}, None, {"maximize": False}),
    "not centred": ("RMSprop", {"centered": True}, None, {"centered": False}),
    "eps a thousandth off": ("RMSprop", {"eps": 1e-4}, EpsilonOff, {}),
    "lr decay forgotten": ("Adagrad", {"lr_decay": 1e-3}, None, {"lr_decay": 0}),
    "Muon without nesterov": ("Muon", {}, None, {"nesterov": False}),
    "Muon a step short": ("Muon", {}, None, {"ns_steps": 4}),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_formula_is_seen(mutant):
    with pytest.raises(AssertionError, match="off by"):
        Pair(*MUTANTS[mutant]).run()


# States


def as_arrays(state_dict):
    """PyTorch's state_dict with arrays for tensors, as safetensors would carry it."""
    state = {
        i: {k: v.numpy().copy() if isinstance(v, torch.Tensor) else v for k, v in s.items()}
        for i, s in state_dict["state"].items()
    }
    return {"state": state, "param_groups": state_dict["param_groups"]}


def as_tensors(state_dict):
    state = {
        i: {k: to_torch(v) if isinstance(v, np.ndarray) else v for k, v in s.items()}
        for i, s in state_dict["state"].items()
    }
    return {"state": state, "param_groups": state_dict["param_groups"]}


@each_case
def test_the_state_dict_is_laid_out_as_theirs(name, options):
    pair = Pair(name, options)
    pair.run(range(25))
    ours, theirs = pair.optimizer.state_dict(), as_arrays(pair.reference.state_dict())
    assert ours.keys() == theirs.keys() and ours["state"].keys() == theirs["state"].keys()
    for i, state in theirs["state"].items():
        assert ours["state"][i].keys() == state.keys()
        for key, value in state.items():
            np.testing.assert_allclose(ours["state"][i][key], value, rtol=1e-10, atol=1e-10)
    for mine, group in zip(ours["param_groups"], theirs["param_groups"]):
        assert mine == {k: v for k, v in group.items() if k in mine}
        speed_only = {"foreach", "fused", "capturable", "differentiable"}
        assert group.keys() - mine.keys() <= speed_only


@pytest.mark.parametrize("convert", [as_arrays, lambda s: s], ids=["arrays", "tensors"])
@each_case
def test_a_state_of_theirs_continues_here(name, options, convert):
    pair = Pair(name, options)
    pair.run(range(30))
    fresh = Pair(name, options)
    fresh.grow()
    for p, q in zip(fresh.ours, pair.theirs):
        p.data[...] = q.detach().numpy()
    fresh.optimizer.load_state_dict(convert(pair.reference.state_dict()))
    pair.ours, pair.optimizer = fresh.ours, fresh.optimizer
    pair.run(range(30, 50))


@each_case
def test_a_state_of_ours_continues_there(name, options):
    pair = Pair(name, options)
    pair.run(range(30))
    fresh = Pair(name, options)
    fresh.grow()
    with torch.no_grad():
        for p, q in zip(pair.ours, fresh.theirs):
            q.copy_(to_torch(p.data))
    fresh.reference.load_state_dict(as_tensors(pair.optimizer.state_dict()))
    pair.theirs, pair.reference = fresh.theirs, fresh.reference
    pair.run(range(30, 50))


def test_a_state_half_loaded_is_seen():
    pair = Pair("Adam", {})
    pair.run(range(30))
    state = pair.optimizer.state_dict()
    state["state"][1]["step"] -= 1
    pair.optimizer.load_state_dict(state)
    with pytest.raises(AssertionError, match="parameter 1"):
        pair.run(range(30, 50))


def test_an_adam_state_makes_no_adam_of_adamw():
    pair = Pair("AdamW", {"weight_decay": 0.1})
    state = Pair("Adam", {"weight_decay": 0.1})
    for optimizer, given in (pair.optimizer, state.optimizer), (pair.reference, state.reference):
        optimizer.load_state_dict(given.state_dict())
    pair.run()


# Refusals

REFUSED = {
    "no parameters": lambda o, p, t: o.SGD([]),
    "one tensor": lambda o, p, t: o.SGD(p),
    "not a tensor": lambda o, p, t: o.SGD([3.0]),
    "not a leaf": lambda o, p, t: o.SGD([p * 2]),
    "two groups, one tensor": lambda o, p, t: o.SGD([{"params": [p]}, {"params": [p]}]),
    "a group that is none": lambda o, p, t: o.SGD([p]).add_param_group([p]),
    "a set": lambda o, p, t: o.SGD([{"params": {p}}]),
    "negative lr": lambda o, p, t: o.SGD([p], lr=-0.1),
    "nesterov alone": lambda o, p, t: o.SGD([p], nesterov=True),
    "nesterov and dampening": lambda o, p, t: o.SGD(
        [p], momentum=0.9, dampening=0.1, nesterov=True),
    "negative lr_decay": lambda o, p, t: o.Adagrad([p], lr_decay=-1),
    "negative alpha": lambda o, p, t: o.RMSprop([p], alpha=-1),
    "negative eps": lambda o, p, t: o.RMSprop([p], eps=-1),
    "beta of 1": lambda o, p, t: o.Adam([p], betas=(0.9, 1.0)),
    "negative decay": lambda o, p, t: o.AdamW([p], weight_decay=-1),
    "Muon of a vector": lambda o, p, t: o.Muon([p]),
    "Muon's unknown rate": lambda o, p, t: o.Muon([t], adjust_lr_fn="other"),
    "states of other groups": lambda o, p, t: o.SGD([p]).load_state_dict(
        o.SGD([p, t]).state_dict()),
    "an unknown option": lambda o, p, t: o.SGD([p], rate=0.1),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_of_their_kind(case):
    ours = error_of(
        lambda: REFUSED[case](optim, nn.Parameter([1.0, 2.0]), nn.Parameter([[1.0, 2.0]]))
    )
    theirs = error_of(
        lambda: REFUSED[case](
            torch.optim,
            torch.nn.Parameter(torch.tensor([1.0, 2.0])),
            torch.nn.Parameter(torch.tensor([[1.0, 2.0]])),
        )
    )
    assert ours is not None and ours is theirs
