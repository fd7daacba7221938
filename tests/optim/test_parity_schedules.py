"""Schedulers against PyTorch: rates, momenta and parameters over 60 steps; states and refusals."""

import numpy as np
import pytest
from support.cases import numbers
from support.parity import error_of, to_torch, torch

from minidist import Tensor, nn, optim
from minidist.optim import lr_scheduler as ours

from torch.optim import lr_scheduler as theirs  # isort: skip

BOUND = 1e-12
STEPS = 60

CASES = {
    "lambda": lambda s, o: s.LambdaLR(o, lambda t: 0.9**t),
    "a lambda a group": lambda s, o: s.LambdaLR(o, [lambda t: 1 / (1 + t), lambda t: 0.9**t]),
    "steps": lambda s, o: s.StepLR(o, 7, 0.5),
    "milestones": lambda s, o: s.MultiStepLR(o, [3, 10, 10, 40], 0.3),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.93),
    "linear": lambda s, o: s.LinearLR(o),
    "linear to nothing": lambda s, o: s.LinearLR(o, 1.0, 0.0, 20),
    "warm-up": lambda s, o: s.LinearLR(o, 1 / 10, 1.0, 9),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, STEPS),
    "cosine up and down": lambda s, o: s.CosineAnnealingLR(o, 7, eta_min=1e-3),
    "one cycle": lambda s, o: s.OneCycleLR(o, 0.3, total_steps=STEPS),
    "one cycle of epochs": lambda s, o: s.OneCycleLR(
        o, [0.3, 0.1], epochs=10, steps_per_epoch=6, pct_start=0.25, anneal_strategy="linear",
        base_momentum=[0.7, 0.8], max_momentum=0.9, div_factor=10.0, final_div_factor=100.0),
    "one cycle in three": lambda s, o: s.OneCycleLR(o, 0.3, STEPS, three_phase=True),
    "one cycle of rates": lambda s, o: s.OneCycleLR(o, 0.3, STEPS, cycle_momentum=False),
    "warm-up, cosine": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, 1.0, 10), s.CosineAnnealingLR(o, STEPS - 10, 1e-4)], [10]),
    "three in turn": lambda s, o: s.SequentialLR(
        o, [s.ExponentialLR(o, 0.8), s.StepLR(o, 4), s.LambdaLR(o, lambda t: 0.99**t)], [5, 25]),
    "one alone in turn": lambda s, o: s.SequentialLR(o, [s.StepLR(o, 20)], []),
}  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES)


class Pair:
    """Parameters and optimisers here and in PyTorch, a scheduler (or several) on each."""

    def __init__(self, *makers, optimizer="SGD", our_makers=None):
        options = {"lr": 0.1, **({"momentum": 0.9} if optimizer == "SGD" else {})}
        arrays = [numbers((3, 2), 0), numbers((4,), 1)]
        self.ours = [nn.Parameter(a) for a in arrays]
        self.theirs = [torch.nn.Parameter(to_torch(a)) for a in arrays]
        self.optimizer = getattr(optim, optimizer)(self.groups(self.ours), **options)
        self.reference = getattr(torch.optim, optimizer)(self.groups(self.theirs), **options)
        self.schedulers = [make(ours, self.optimizer) for make in our_makers or makers]
        self.references = [make(theirs, self.reference) for make in makers]

    def groups(self, params):
        return [{"params": params[:1]}, {"params": params[1:], "lr": 0.04}]

    def check(self, t):
        for mine, group in zip(self.optimizer.param_groups, self.reference.param_groups):
            for key in mine.keys() & {"lr", "momentum", "betas", "initial_lr", "min_lr", "max_lr"}:
                off = np.max(np.abs(np.subtract(mine[key], group[key])))
                assert off <= BOUND, f"{key} at {t} is off by {off:.3g}"
        for scheduler, reference in zip(self.schedulers, self.references):
            np.testing.assert_allclose(
                scheduler.get_last_lr(), reference.get_last_lr(), rtol=0, atol=BOUND
            )
            assert scheduler.last_epoch == reference.last_epoch
        for p, q in zip(self.ours, self.theirs):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=1e-10)

    def run(self, steps=range(STEPS), metric=None):
        for t in steps:
            self.check(t)
            for i, (p, q) in enumerate(zip(self.ours, self.theirs)):
                g = numbers(p.shape, 10 * t + i)
                p.grad, q.grad = Tensor(g), to_torch(g)
            self.optimizer.step()
            self.reference.step()
            for scheduler in (*self.schedulers, *self.references):
                scheduler.step(*() if metric is None else (metric[t],))
        self.check("the end")


@each_case
def test_sixty_steps(case):
    Pair(CASES[case]).run()


def test_one_cycle_moves_the_first_beta():
    pair = Pair(CASES["one cycle"], optimizer="AdamW")
    assert pair.optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    pair.run()


@pytest.mark.parametrize("second", ["linear", "steps", "milestones", "cosine up and down"])
def test_two_on_one_optimizer_multiply(second):
    Pair(CASES["exponential"], CASES[second]).run()


def test_rates_set_by_hand_stay():
    pair = Pair(CASES["exponential"])
    pair.run(range(10))
    for optimizer in (pair.optimizer, pair.reference):
        optimizer.param_groups[0]["lr"] = 0.01
    for optimizer in (pair.optimizer, pair.reference):
        optimizer.step()
    for scheduler in (*pair.schedulers, *pair.references):
        scheduler.step()
    pair.run(range(11, 30))


MUTANTS = {
    "gamma": ("exponential", lambda s, o: s.ExponentialLR(o, 0.93 + 1e-10)),
    "a step late": ("steps", lambda s, o: s.StepLR(o, 8, 0.5)),
    "cosine a step short": ("cosine", lambda s, o: s.CosineAnnealingLR(o, STEPS - 1)),
    "momentum not cycled": ("one cycle", CASES["one cycle of rates"]),
    "warm-up that goes on": (
        "warm-up, cosine",
        lambda s, o: s.SequentialLR(
            o, [s.LinearLR(o, 0.1, 1.0, 10), s.CosineAnnealingLR(o, STEPS - 10, 1e-4)], [11]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_schedule_is_seen(mutant):
    case, wrong = MUTANTS[mutant]
    with pytest.raises(AssertionError, match=r"off by|Not equal"):
        Pair(CASES[case], our_makers=[wrong]).run()


# A metric that stops improving

PLATEAUS = [
    {},
    {"patience": 2, "factor": 0.5},
    {"patience": 1, "cooldown": 3, "threshold": 0.1, "threshold_mode": "abs"},
    {"patience": 0, "mode": "max", "min_lr": [1e-3, 1e-2]},
    {"patience": 1, "mode": "max", "threshold_mode": "abs", "min_lr": 1e-3, "eps": 5e-3},
]


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
@pytest.mark.parametrize("falling", [True, False])
def test_a_plateau(options, falling):
    rng = np.random.default_rng(0)
    metric = rng.uniform(0.5, 1.5, STEPS) * (0.97 ** np.arange(STEPS) if falling else 1)
    pair = Pair(lambda s, o: s.ReduceLROnPlateau(o, **options))
    pair.run(metric=metric)
    if not falling:
        assert pair.optimizer.param_groups[0]["lr"] < 0.1, "it was cut"


def test_a_plateau_takes_a_tensor_and_groups_that_join():
    pair = Pair(lambda s, o: s.ReduceLROnPlateau(o, patience=0, min_lr=1e-3))
    pair.optimizer.add_param_group({"params": nn.Parameter([1.0]), "lr": 0.5})
    for _ in range(3):
        pair.schedulers[0].step(Tensor(1.0))
    assert pair.optimizer.param_groups[2]["lr"] == pytest.approx(0.005)


# States


@each_case
@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_saved_state_continues(case, whose):
    pair = Pair(CASES[case])
    pair.run(range(30))
    fresh = Pair(CASES[case])
    saved = (pair.schedulers if whose == "ours" else pair.references)[0].state_dict()
    for p, q in zip(fresh.ours, pair.ours):
        p.data[...] = q.data
    fresh.optimizer.load_state_dict(pair.optimizer.state_dict())
    fresh.schedulers[0].load_state_dict(saved)
    pair.ours, pair.optimizer, pair.schedulers = fresh.ours, fresh.optimizer, fresh.schedulers
    pair.run(range(30, 60))


@pytest.mark.parametrize(
    "make",
    [
        lambda s, o: s.LambdaLR(o, lambda t: 0.9**t, last_epoch=29),
        lambda s, o: s.StepLR(o, 7, 0.5, last_epoch=29),
        lambda s, o: s.StepLR(o, 10, 0.5, last_epoch=29),
        lambda s, o: s.MultiStepLR(o, [3, 30], last_epoch=29),
        lambda s, o: s.ExponentialLR(o, 0.9, last_epoch=29),
        lambda s, o: s.LinearLR(o, 0.1, 1.0, 50, last_epoch=29),
        lambda s, o: s.CosineAnnealingLR(o, 60, last_epoch=29),
    ],
)
def test_a_schedule_begun_later(make):
    pair = Pair()
    for optimizer in (pair.optimizer, pair.reference):
        for group in optimizer.param_groups:
            group["initial_lr"] = 2 * group["lr"]
    pair.schedulers, pair.references = [make(ours, pair.optimizer)], [make(theirs, pair.reference)]
    pair.run(range(20))


# Refusals

REFUSED = {
    "not an optimizer": lambda s, o: s.StepLR("SGD", 3),
    "lambdas of other groups": lambda s, o: s.LambdaLR(o, [lambda t: 1.0]),
    "no start": lambda s, o: s.LinearLR(o, start_factor=0.0),
    "an end over 1": lambda s, o: s.LinearLR(o, end_factor=1.5),
    "resumed from nothing": lambda s, o: s.StepLR(o, 3, last_epoch=4),
    "a cycle of no length": lambda s, o: s.OneCycleLR(o, 0.1),
    "a cycle of 0": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=0),
    "a cycle of -6": lambda s, o: s.OneCycleLR(o, 0.1, epochs=-2, steps_per_epoch=3),
    "a cycle of (-2)(-3)": lambda s, o: s.OneCycleLR(o, 0.1, epochs=-2, steps_per_epoch=-3),
    "half a step": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=2.5),
    "pct_start": lambda s, o: s.OneCycleLR(o, 0.1, 10, pct_start=1.5),
    "strategy": lambda s, o: s.OneCycleLR(o, 0.1, 10, anneal_strategy="cubic"),
    "rates of other groups": lambda s, o: s.OneCycleLR(o, [0.1], 10),
    "no momentum": lambda s, o: s.OneCycleLR(
        (optim if s is ours else torch.optim).Adagrad(o.param_groups[0]["params"]), 0.1, 10),
    "too many steps": lambda s, o: [c.step() for c in [s.OneCycleLR(o, 0.1, 2)] for _ in range(3)],
    "milestones": lambda s, o: s.SequentialLR(o, [s.StepLR(o, 3)], [4]),
    "none in turn": lambda s, o: s.SequentialLR(o, [], []),
    "a plateau in turn": lambda s, o: s.SequentialLR(o, [s.ReduceLROnPlateau(o)], []),
    "another's": lambda s, o: s.SequentialLR(
        o, [s.StepLR((optim if s is ours else torch.optim).SGD(o.param_groups[0]["params"]), 3)],
        []),
    "a factor of 1": lambda s, o: s.ReduceLROnPlateau(o, factor=1.0),
    "a mode": lambda s, o: s.ReduceLROnPlateau(o, mode="low"),
    "a threshold mode": lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="r"),
    "least rates of other groups": lambda s, o: s.ReduceLROnPlateau(o, min_lr=[0.1]),
    "a plateau without a metric": lambda s, o: s.ReduceLROnPlateau(o).step(),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
def test_refusals_are_of_their_kind(case):
    pair = Pair()
    mine = error_of(lambda: REFUSED[case](ours, pair.optimizer))
    assert mine is not None and mine is error_of(lambda: REFUSED[case](theirs, pair.reference))
