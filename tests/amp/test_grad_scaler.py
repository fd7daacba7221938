"""Loss scaling: exact sequences of scales, PyTorch's rule, skipped steps to the bit, one vote."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidist as md
from minidist import nn, optim
from minidist.amp import GradScaler
from minidist.comm import simulate
from minidist.nn import functional as F

INF = float("inf")


def scales(overflows, make=GradScaler, **options):
    """The scale after each step of a script that says which steps overflow."""
    p = nn.Parameter(md.ones(3))
    optimizer, scaler, seen = optim.SGD([p], lr=1.0), make(**options), []
    for overflow in overflows:
        p.grad = md.tensor([1.0, INF if overflow else 2.0, 3.0]) * scaler.get_scale()
        before = p.data.copy()
        scaler.step(optimizer)
        scaler.update()
        assert (p.data.tobytes() == before.tobytes()) == overflow
        seen.append(scaler.get_scale())
    return seen


def test_the_scale_doubles_after_clean_steps_and_halves_at_an_overflow():
    start = {"init_scale": 2.0**8, "growth_interval": 2}
    assert scales([0] * 6, **start) == [256, 512, 512, 1024, 1024, 2048]
    assert scales([1] * 4, **start) == [128, 64, 32, 16]
    assert scales([0, 1, 0, 0, 1, 0, 0], **start) == [256, 128, 128, 256, 128, 128, 256]


def test_it_stops_at_the_floor():
    assert scales([1] * 4, init_scale=4.0, min_scale=1.0) == [2, 1, 1, 1]


def test_hysteresis_delays_the_first_halving_and_comes_back_with_growth():
    options = {"init_scale": 64.0, "growth_interval": 2, "hysteresis": 2}
    assert scales([1, 1, 1, 0, 0, 1, 1], **options) == [64, 32, 16, 16, 32, 32, 16]


@given(script=st.lists(st.booleans(), max_size=12), interval=st.integers(1, 4),
       growth=st.sampled_from([2.0, 4.0]), backoff=st.sampled_from([0.5, 0.25]))  # fmt: skip
@settings(max_examples=25)
def test_the_rule_is_pytorchs(script, interval, growth, backoff):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    theirs = torch.amp.GradScaler("cpu", 1024.0, growth, backoff, interval)
    p = torch.nn.Parameter(torch.ones(3))
    optimizer, expected = torch.optim.SGD([p], lr=0.0), []
    theirs.scale(torch.zeros(()))  # it is made on its first use
    for overflow in script:
        p.grad = torch.tensor([1.0, INF if overflow else 2.0, 3.0])
        theirs.step(optimizer)
        theirs.update()
        expected.append(theirs.get_scale())
    rule = {"growth_factor": growth, "backoff_factor": backoff, "growth_interval": interval}
    assert scales(script, init_scale=1024.0, **rule) == expected


def trained(scaler, steps=4):
    md.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    x, y = md.randn(6, 5), md.tensor([0, 1, 2, 0, 1, 2])
    for _ in range(steps):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
    return [p.data.tobytes() for p in model.parameters()]


def test_a_power_of_two_changes_no_bit():
    plain = trained(GradScaler(enabled=False))
    assert trained(GradScaler(2.0**10)) == plain
    assert trained(GradScaler(3.0**5)) != plain, "another factor rounds"


@pytest.mark.parametrize("where", range(3))
def test_one_rank_that_overflows_stops_all(where):
    def job(comm):
        p = nn.Parameter(md.ones(2))
        scaler = GradScaler(8.0, comm=comm)
        optimizer = optim.SGD([p], lr=1.0)
        p.grad = md.tensor([1.0, np.nan if comm.rank == where else 1.0])
        scaler.step(optimizer)
        scaler.update()
        return p.tolist(), scaler.get_scale()

    assert simulate(job, 3) == [([1, 1], 4)] * 3


def test_without_the_vote_ranks_part():
    """The negative control of the test above."""

    def job(comm):
        p = nn.Parameter(md.ones(1))
        p.grad = md.tensor([np.inf if comm.rank else 1.0])
        scaler = GradScaler(8.0)
        scaler.step(optim.SGD([p], lr=1.0))
        return p.item()

    assert len(set(simulate(job, 2))) == 2


def test_its_state_goes_on():
    first = GradScaler(64.0, growth_interval=3, hysteresis=2)
    p = nn.Parameter(md.ones(1))
    optimizer = optim.SGD([p], lr=1.0)
    for _ in range(2):
        p.grad = md.ones(1)
        first.step(optimizer)
        first.update()
    second = GradScaler(hysteresis=2)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    p.grad = md.ones(1)
    second.step(optimizer)
    second.update()
    assert second.get_scale() == 128


def test_mistakes():
    p = nn.Parameter(md.ones(1))
    p.grad = md.ones(1)
    optimizer, scaler = optim.SGD([p], lr=1.0), GradScaler()
    with pytest.raises(RuntimeError, match="before any step"):
        scaler.update()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="since the last update"):
        scaler.unscale_(optimizer)
    with pytest.raises(ValueError, match="backoff_factor 2"):
        GradScaler(backoff_factor=2.0)
    with pytest.raises(ValueError, match="growth_interval 0"):
        GradScaler(growth_interval=0)
    with pytest.raises(RuntimeError, match="empty state_dict"):
        scaler.load_state_dict({})
    off = GradScaler(enabled=False)
    assert off.get_scale() == 1 and off.state_dict() == {}
