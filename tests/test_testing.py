"""gradcheck passes right gradients, and every planted mistake is killed by the check named here."""

import numpy as np
import pytest
from support.cases import numbers

from minidist import Tensor, ops
from minidist.autograd.tape import Joint
from minidist.ops.op import differentiable
from minidist.testing import gradcheck

A, B = numbers((3, 3), 0), numbers((3, 3), 1)
operation = differentiable(autocast="fallthrough")


def test_right_gradients_pass():
    assert gradcheck(lambda a, b: (a @ b).tanh() * a, [A, B])
    assert gradcheck(lambda a: a.sum(0) + a, [A])
    assert gradcheck(lambda a: a, [A]), "the identity"
    assert gradcheck(ops.exp, [np.array(0.5)]), "0-d"
    assert gradcheck(ops.exp, [np.ones((0, 2))]), "empty"


def test_an_input_that_is_not_used_has_a_gradient_of_zero():
    assert gradcheck(lambda a, b: a * 2, [A, B])


def test_integers_ride_along():
    assert gradcheck(lambda table, index: ops.embedding(index, table), [A, np.array([0, 2, 0])])


def test_parameters_that_a_closure_reads():
    weight = Tensor(A.copy())
    assert gradcheck(lambda x, _: ops.linear(x, weight), [B, weight])


def test_the_inputs_come_back_as_they_were():
    a = A.copy()
    gradcheck(lambda x: x * x, [a])
    assert a.tobytes() == A.tobytes()


def test_float32_is_refused():
    with pytest.raises(AssertionError, match="input 1 is float32"):
        gradcheck(lambda a, b: a * b, [A, B.astype("float32")])


# Planted mistakes: (name, what the message must say, function, inputs)


def _kept():
    buffer = np.zeros((3, 3))

    def vjp(g):
        np.multiply(g, 2, out=buffer)
        return buffer

    return vjp


def _returns_what_it_saved(x):
    saved = np.full(x.shape, 2.0)
    return x * 2, lambda g: saved


def _writes_upstream(x):
    def vjp(g):
        g *= 2
        return g

    return x * 2, vjp


def _writes_where_it_is_allowed_to(x):
    """Writes into a stride-0 cotangent only: NumPy itself refuses that."""

    def vjp(g):
        if g.strides and not any(g.strides):
            g += 0
        return g * 2

    return x * 2, vjp


def _reads_memory_instead_of_elements(x):
    return x * 2, lambda g: 2 * np.lib.stride_tricks.as_strided(g, g.shape, (24, 8))


def _overwrites_what_it_saved(x):
    saved = x.copy()

    def vjp(g):
        np.multiply(saved, g, out=saved)
        return 2 * saved

    return x * x, vjp


def _writes_into_its_input(x):
    y = x * 2
    x += 1e-3
    return y, lambda g: g * 2


def _one_array_for_two_inputs(a, b):
    return a + b, Joint(lambda g: [g * 1] * 2)


PLANTED = {
    "transposed": ("analytic", lambda x: (x * B, lambda g: (g * B).T)),
    "scaled by 2": ("analytic .* numeric", lambda x: (x * B, lambda g: 2 * g * B)),
    "of the wrong sign": ("analytic", lambda x: (-x, lambda g: g)),
    "right but for one entry": ("input 0 at .2, 1.*1 of 9 entries", None),
    "NaN": ("analytic nan", lambda x: (x * 1, lambda g: g * np.nan)),
    "no broadcast sum": ("shape .1, 3., its gradient .3, 3.", None),
    "in float32": ("float64, its gradient float32", lambda x: (x, lambda g: g.astype("float32"))),
    "writes upstream": ("wrote into its cotangent|wrote into the cotangent", _writes_upstream),
    "writes to stride 0": ("refused its cotangent", _writes_where_it_is_allowed_to),
    "keeps what it returns": ("memory that it keeps", lambda x: (x * 2, _kept())),
    "returns what it saved": ("memory that it keeps|analytic", _returns_what_it_saved),
    "reads raw memory": ("strided cotangent|stride-0 cotangent", _reads_memory_instead_of_elements),
    "overwrites what it saved": ("second backward gives other bits", _overwrites_what_it_saved),
    "writes into its input": ("input 0 was written to", _writes_into_its_input),
}


def _one_wrong_entry(x):
    wrong = np.ones((3, 3))
    wrong[2, 1] += 1e-3
    return x * B, lambda g: g * B * wrong


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_killed(name):
    message, function = PLANTED[name]
    x = A.copy()
    if name == "right but for one entry":
        function = _one_wrong_entry
    if name == "no broadcast sum":
        function, x = (lambda row: (row + B, lambda g: g)), A[:1].copy()
    with pytest.raises(AssertionError, match=message):
        gradcheck(operation(function), [x])


def test_one_array_for_two_gradients_is_killed():
    with pytest.raises(AssertionError, match="gradient 0 shares memory with gradient 1"):
        gradcheck(operation(_one_array_for_two_inputs), [A, B])


def test_a_mistake_deep_in_a_graph_is_killed():
    broken = operation(_writes_upstream)
    with pytest.raises(AssertionError, match="writes_upstream: a VJP wrote into its cotangent"):
        gradcheck(lambda x: broken(x.tanh()).exp().sum(), [A])


# Other ways to look


def _wrong_by_a_millionth_of_a_millionth(x):
    return x * x, lambda g: g * x * (2 + 1e-11)


def test_the_complex_step_sees_what_differences_cannot():
    wrong = operation(_wrong_by_a_millionth_of_a_millionth)
    assert gradcheck(wrong, [A])
    with pytest.raises(AssertionError, match=r"input 0 at .*: analytic"):
        gradcheck(wrong, [A], complex_step=True)


def test_the_complex_step_of_analytic_functions():
    c = Tensor(B)
    assert gradcheck(
        lambda a, b: ((a @ b).tanh() * a / (b * b + 2)).exp(), [A, B], complex_step=True
    )
    assert gradcheck(lambda a: (a * c + 0.5).sum(0).mean(), [A], complex_step=True)
    assert gradcheck(lambda a: a.exp().log() - a[::2, 1:2].sum(), [A], complex_step=True)
    with pytest.raises(TypeError):
        Tensor(np.array(1j))


def test_fast_mode_looks_in_one_direction():
    calls = []

    def counted(x):
        calls.append(1)
        return x.exp()

    assert gradcheck(counted, [A], fast_mode=True)
    assert len(calls) == 4, "forward twice, then one step forth and back"
    with pytest.raises(AssertionError, match="along a random direction: analytic"):
        gradcheck(operation(_one_wrong_entry), [A], fast_mode=True)


def test_the_direction_is_a_check_of_its_own(monkeypatch):
    monkeypatch.setattr("minidist.testing._check_close", lambda *a: None)
    with pytest.raises(AssertionError, match="along a random direction"):
        gradcheck(operation(_one_wrong_entry), [A])


def test_false_instead_of_an_exception():
    assert gradcheck(operation(_one_wrong_entry), [A], raise_exception=False) is False
    with pytest.raises(ZeroDivisionError):
        gradcheck(lambda a: 1 / 0, [A], raise_exception=False)


def test_several_outputs():
    assert gradcheck(lambda a, b: (a * b, a.sum(), Tensor(A)), [A, B])
    with pytest.raises(AssertionError, match="input 1 at"):
        gradcheck(lambda a, b: [a * b, operation(lambda x: (-x, lambda g: g))(b)], [A, B])


def test_random_numbers_are_noticed():
    with pytest.raises(AssertionError, match="fix its random numbers"):
        gradcheck(lambda a: ops.dropout(a, 0.5), [A])


def test_the_same_seed_says_the_same():
    def message(seed):
        with pytest.raises(AssertionError) as error:
            gradcheck(operation(_one_wrong_entry), [A], fast_mode=True, seed=seed)
        return str(error.value)

    assert message(1) == message(1) != message(2)
