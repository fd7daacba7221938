"""nn.init: distributions beside PyTorch's by their moments, exact properties, PyTorch's errors."""

import math

import numpy as np
import pytest
from support.parity import error_of, torch

import minidist as md
from minidist import nn
from minidist.nn import init

SHAPE = (60, 40, 3, 2)
RANDOM = {
    "uniform_": (-1.0, 3.0),
    "normal_": (1.0, 2.0),
    "trunc_normal_": (0.5, 1.0, -0.3, 1.0),
    "xavier_uniform_": (2.0,),
    "xavier_normal_": (2.0,),
    "kaiming_uniform_": (math.sqrt(5),),
    "kaiming_normal_": (0, "fan_out", "relu"),
    "orthogonal_": (2.0,),
}


@pytest.fixture(autouse=True)
def seeded():
    md.manual_seed(0)
    torch.manual_seed(0)


@pytest.mark.parametrize("name", RANDOM)
def test_distributions_have_pytorchs_moments_and_ends(name):
    ours, theirs = md.zeros(*SHAPE, dtype="float64"), torch.zeros(*SHAPE, dtype=torch.float64)
    assert getattr(init, name)(ours, *RANDOM[name]) is ours
    a, b = ours.data, getattr(torch.nn.init, name)(theirs, *RANDOM[name]).numpy()
    noise = 6 * b.std() / math.sqrt(b.size)  # six deviations of a mean
    assert abs(a.mean() - b.mean()) < 2 * noise and abs(a.std() - b.std()) < 2 * noise
    if ("normal" not in name and name != "orthogonal_") or "trunc" in name:
        assert abs(a.max() - b.max()) < 0.01 and abs(a.min() - b.min()) < 0.01
    before = a.copy()
    assert (getattr(init, name)(ours, *RANDOM[name]).data != before).any(), "drawn anew"


def test_another_fan_is_killed():
    """The control: fan_out for fan_in is outside the noise."""
    a, b = (md.zeros(*SHAPE) for _ in range(2))
    init.kaiming_uniform_(a), init.kaiming_uniform_(b, mode="fan_out")
    assert abs(a.data.std() / b.data.std() - 1) > 0.1


def test_constants():
    t = md.ones(2, 3)
    assert init.zeros_(t).tolist() == [[0] * 3] * 2 and init.ones_(t).tolist() == [[1] * 3] * 2
    assert init.constant_(t, 2.5).tolist() == [[2.5] * 3] * 2
    assert init.eye_(t).tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (3, 2, 5)])
def test_orthogonal_rows_or_columns(shape):
    matrix = init.orthogonal_(md.zeros(*shape, dtype="float64"), 3.0).data.reshape(shape[0], -1)
    short = matrix if shape[0] <= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(short @ short.T, 9 * np.eye(len(short)), atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "conv2d", "sigmoid", "tanh", "relu", "selu"])
def test_gains(name):
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    for slope in (None, 0.0, 0.3):
        theirs = torch.nn.init.calculate_gain("leaky_relu", slope)
        assert init.calculate_gain("leaky_relu", slope) == pytest.approx(theirs)


WRONG = {
    "fan": lambda i, m: i.xavier_uniform_(m.ones(3)),
    "mode": lambda i, m: i.kaiming_normal_(m.ones(3, 3), mode="in"),
    "eye": lambda i, m: i.eye_(m.ones(3)),
    "orthogonal": lambda i, m: i.orthogonal_(m.ones(3)),
    "gain": lambda i, m: i.calculate_gain("gelu"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_of_pytorchs_class(name):
    theirs = error_of(lambda: WRONG[name](torch.nn.init, torch))
    assert error_of(lambda: WRONG[name](init, md)) is theirs is not None


def test_an_interval_without_probability_is_refused():
    with pytest.raises(ValueError, match="almost no number of"):
        init.trunc_normal_(md.ones(3), a=8.0, b=9.0)


def test_weights_are_filled_in_place_and_keep_requiring_grad():
    layer = nn.Linear(3, 2)
    array = layer.weight.data
    init.xavier_normal_(layer.weight)
    assert layer.weight.data is array and layer.weight.requires_grad
    assert layer.weight.is_leaf
