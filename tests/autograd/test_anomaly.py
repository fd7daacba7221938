"""Anomaly mode names the operation that makes the first NaN, and the line that called it."""

import sys

import numpy as np
import pytest

import minidist as md
from minidist import Tensor, nn, ops
from minidist.autograd import detect_anomaly, set_detect_anomaly

operation = ops.op.differentiable(autocast="fallthrough")

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def leaf(*values: float) -> Tensor:
    return md.tensor(list(values), dtype="float64", requires_grad=True)


def next_line() -> str:
    return f"test_anomaly.py:{sys._getframe(1).f_lineno + 1}, in "


def test_a_nan_in_forward():
    x = leaf(1.0, -1.0)
    with detect_anomaly(), pytest.raises(RuntimeError) as error:
        line = next_line()
        x.log().sum()
    assert "'log' made the first NaN: 1 of 2 values" in str(error.value)
    assert line + "test_a_nan_in_forward: `x.log().sum()`" in str(error.value)


def test_a_nan_that_was_given():
    with detect_anomaly(), pytest.raises(RuntimeError, match=r"'mul' was given NaN \(input 1\)"):
        leaf(1.0) * leaf(np.nan)


def test_infinities_pass():
    with detect_anomaly():
        (leaf(1.0, 0.0).log() * 2).softmax(0)


def test_a_nan_in_backward():
    x = leaf(0.0, 1.0)
    with detect_anomaly():
        line = next_line()
        y = x.sqrt()
        with pytest.raises(RuntimeError) as error:
            (y * y).sum().backward()  # 0 · 1/0
    message = str(error.value)
    assert "the backward of 'sqrt' returned nan values for input 0: 1 of 2" in message
    assert line in message


def test_inside_a_module_the_users_line_is_told():
    layer = nn.Linear(2, 2)
    layer.weight.data[...] = np.inf
    with detect_anomaly(), pytest.raises(RuntimeError) as error:
        line = next_line()
        layer(md.tensor([[1.0, -1.0]]))
    assert "'linear' made" in str(error.value) and line in str(error.value)


def test_without_the_search_errors_still_tell_where():
    def vjp(g):
        raise ValueError("broken")

    with detect_anomaly(check_nan=False):
        assert np.isnan((leaf(-1.0).log() + 1).item())
        line = next_line()
        y = operation(lambda a: (a * 1, vjp))(leaf(1.0))
        with pytest.raises(ValueError, match="broken") as error:
            y.backward()
    assert line in error.value.__notes__[0]


def test_it_ends_with_its_block_and_can_be_set():
    with detect_anomaly():
        pass
    leaf(-1.0).log()
    with set_detect_anomaly(True), pytest.raises(RuntimeError, match="made the first NaN"):
        leaf(-1.0).log()
    set_detect_anomaly(True)
    with pytest.raises(RuntimeError, match="made the first NaN"):
        leaf(-1.0).log()
    set_detect_anomaly(False)
    y = leaf(0.0).sqrt() * 0
    with detect_anomaly(), pytest.raises(RuntimeError, match="turn anomaly mode on before"):
        y.backward()


def test_whole_models_pass():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with detect_anomaly():
        md.checkpoint(model, md.ones(5, 3)).sum().backward()
    assert model[0].weight.grad is not None
