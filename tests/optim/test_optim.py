"""Optimisers: steps by the formula, groups, state, clipping, and refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import adamw, vector_norm
from support.cases import numbers

import minidist as md
from minidist import Tensor, nn, optim


def parameters(*shapes) -> list[nn.Parameter]:
    params = [nn.Parameter(numbers(s, i)) for i, s in enumerate(shapes)]
    for i, p in enumerate(params):
        p.grad = Tensor(numbers(p.shape, i + 50))
    return params


def test_adamw_steps_by_the_formula():
    (p,) = parameters((3, 2))
    hyper = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-6, "lr": 0.1, "weight_decay": 0.3}
    optimizer = optim.AdamW([p], lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    expected, m, v = p.data.copy(), np.zeros((3, 2)), np.zeros((3, 2))
    for step in range(1, 6):
        p.grad = Tensor(numbers((3, 2), step))
        optimizer.step()
        adamw.step_.formula(expected, p.grad.data, m, v, step=step, **hyper)
        np.testing.assert_allclose(p.data, expected, rtol=1e-13)


def test_lion_steps_by_the_formula():
    (p,) = parameters((3, 2))
    optimizer = optim.Lion([p], lr=0.1, betas=(0.8, 0.95), weight_decay=0.3)
    expected, m = p.data.copy(), np.zeros((3, 2))
    for step in range(50):
        g = numbers((3, 2), step)
        p.grad = Tensor(g)
        optimizer.param_groups[0]["lr"] *= 0.97
        optimizer.step()
        lr = optimizer.param_groups[0]["lr"]
        expected = expected - lr * (np.sign(0.8 * m + 0.2 * g) + 0.3 * expected)
        m = 0.95 * m + 0.05 * g
        np.testing.assert_allclose(p.data, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(optimizer.state[p]["exp_avg"], m, rtol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [{"betas": (0.95, 0.8)}, {"weight_decay": 0.31}, {"lr": 0.1001}, {"betas": (0.79, 0.95)}],
    ids=str,
)
def test_a_lion_of_other_numbers_is_seen(wrong):
    p, q = parameters((9, 9)) + parameters((9, 9))
    right = {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.3}
    for x, options in (p, right), (q, {**right, **wrong}):
        optimizer = optim.Lion([x], **options)
        for step in range(50):
            x.grad = Tensor(numbers((9, 9), step))
            optimizer.step()
    assert np.abs(p.data - q.data).max() > 1e-4


def test_sgd_steps_by_the_formula():
    (p,) = parameters((3,))
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.2)
    expected, velocity = p.data.copy(), 0
    for step in range(5):
        p.grad = Tensor(numbers((3,), step))
        optimizer.step()
        velocity = 0.9 * velocity + (p.grad.data + 0.2 * expected)
        expected = expected - 0.1 * velocity
        np.testing.assert_allclose(p.data, expected, rtol=1e-13)


MAKERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "momentum and decay": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "Adagrad": lambda p: optim.Adagrad(p, weight_decay=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, momentum=0.9, centered=True),
    "Adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.1),
    "Lion": lambda p: optim.Lion(p, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_is_in_place_and_leaves_gradients_alone(name):
    params = parameters((3, 2), (), (0,), (1,))
    arrays, grads = [p.data for p in params], [p.grad.data.copy() for p in params]
    optimizer = MAKERS[name](params)
    for _ in range(3):
        optimizer.step()
    assert all(p.data is a for p, a in zip(params, arrays))
    for p, g in zip(params, grads):
        np.testing.assert_array_equal(p.grad.data, g)
        assert not any(np.shares_memory(p.grad.data, s) for s in optimizer.state[p].values()
                       if isinstance(s, np.ndarray))  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_in_any_layout_and_parameters_without_one(name, dtype):
    p, frozen = nn.Parameter(numbers((3, 2), 0, dtype)), nn.Parameter(numbers((2,), 1, dtype))
    q = nn.Parameter(p.data.copy())
    before = frozen.data.copy()
    p.grad, q.grad = Tensor(numbers((2, 3), 2, dtype).T), Tensor(numbers((2, 3), 2, dtype).T.copy())
    optimizer = MAKERS[name]([p, frozen, q])
    optimizer.step()
    np.testing.assert_array_equal(p.data, q.data)
    np.testing.assert_array_equal(frozen.data, before)
    assert optimizer.state[frozen].get("step", 0) == 0 and p.dtype == dtype
    assert name == "Adagrad" or not optimizer.state[frozen], "Adagrad's sum is there from the start"
    optimizer.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize("name", MAKERS)
def test_a_parameter_in_any_layout(name):
    """Not every tensor is an nn.Parameter, whose memory is contiguous."""
    a, b = numbers((2, 3), 0), numbers((2, 3), 0).T.copy()
    p, q = Tensor(a.T, requires_grad=True), Tensor(b, requires_grad=True)
    optimizer = MAKERS[name]([p, q])
    for step in range(3):
        p.grad, q.grad = Tensor(numbers((3, 2), step)), Tensor(numbers((3, 2), step))
        optimizer.step()
    np.testing.assert_array_equal(p.data, q.data)
    assert np.shares_memory(p.data, a), "the array itself was updated"


def test_a_closure_is_called_first_and_gradients_can_be_zeroed():
    p = nn.Parameter([1.0, 2.0])
    optimizer = optim.SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with md.no_grad():
        assert optimizer.step(closure).item() == 5
    assert p.tolist() == [0, 0] and optimizer.step() is None
    array = p.grad.data
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.data is array and array.tolist() == [0, 0]


def test_backward_after_a_step_is_refused():
    """The loss was computed from parameters that are no more, as PyTorch says too."""
    p = nn.Parameter([1.0, 2.0])
    optimizer = optim.SGD([p], lr=0.5)
    loss = (p * p).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"inplace operation since \('SGD.step'"):
        loss.backward()
    (p * p).sum().backward()


def test_muon_refuses_what_is_no_matrix_and_stays_as_it_was():
    a, b = parameters((2, 3), (4,))
    optimizer = optim.Muon([a])
    with pytest.raises(ValueError, match=r"shapes \[\(4,\)\]: give the others to AdamW"):
        optimizer.add_param_group({"params": [b]})
    assert len(optimizer.param_groups) == 1
    with pytest.raises(ValueError, match="want one of original, match_rms_adamw"):
        optim.Muon([a], adjust_lr_fn="kimi")


def test_a_state_of_another_shape_is_refused():
    a, b = parameters((2,), (3,))
    optimizer, other = optim.Adam([a]), optim.Adam([b])
    optimizer.step()
    with pytest.raises(ValueError, match=r"exp_avg of shape \(2,\) for a parameter of \(3,\)"):
        other.load_state_dict(optimizer.state_dict())
    assert not other.state, "nothing was loaded"


def test_groups_have_their_own_options():
    a, b = parameters((2,), (2,))
    optimizer = optim.SGD([{"params": [a], "lr": 0.0}, {"params": [b]}], lr=1.0)
    before = a.data.copy(), b.data - b.grad.data
    optimizer.step()
    np.testing.assert_array_equal((a.data, b.data), before)


@pytest.mark.parametrize("name", MAKERS)
def test_state_saved_and_loaded_continues_to_the_bit(name):
    def run(params, optimizer, steps):
        for step in steps:
            for i, p in enumerate(params):
                p.grad = Tensor(numbers(p.shape, 10 * step + i))
            optimizer.step()

    a, b = parameters((3, 2), (4,)), parameters((3, 2), (4,))
    whole, first, second = MAKERS[name](a), MAKERS[name](b), MAKERS[name](b)
    run(a, whole, range(6))
    run(b, first, range(3))
    first.param_groups[0]["lr"] = whole.param_groups[0]["lr"]
    saved = first.state_dict()
    second.load_state_dict(saved)
    run(b, second, range(3, 6))
    for p, q in zip(a, b):
        assert p.data.tobytes() == q.data.tobytes()
    before = repr(second.state_dict())
    run(b, first, range(1))
    assert repr(second.state_dict()) == before, "what was loaded is a copy"


def test_a_state_of_other_groups_is_refused():
    a, b = parameters((2,), (2,))
    with pytest.raises(ValueError, match=r"groups of other sizes: \[2\], here \[1\]"):
        optim.SGD([a]).load_state_dict(optim.SGD([a, b]).state_dict())


def test_what_an_optimizer_refuses():
    (p,) = parameters((2,))
    for make, error, words in (
        (lambda: optim.SGD([]), ValueError, "no parameters"),
        (lambda: optim.SGD(p), TypeError, "not a tensor"),
        (lambda: optim.SGD(nn.Linear(1, 1)), TypeError, r"a Linear: .* model.parameters\(\)"),
        (lambda: optim.SGD([p.data]), TypeError, "parameter 0 is a ndarray"),
        (lambda: optim.SGD([p, p * 2]), ValueError, "parameter 1 was computed"),
        (lambda: optim.AdamW([p, p]), ValueError, "given twice"),
        (lambda: optim.AdamW([{"params": [p]}, {"params": [p]}]), ValueError, "given twice"),
        (lambda: optim.SGD([p], lr=-1), ValueError, "lr = -1"),
        (lambda: optim.SGD([p], momentum=math.nan), ValueError, "momentum = nan"),
        (lambda: optim.AdamW([p], betas=(0.9, 1.0)), ValueError, r"want two numbers in \[0, 1\)"),
        (lambda: optim.AdamW([p], weight_decay=-0.1), ValueError, "weight_decay = -0.1"),
    ):
        with pytest.raises(error, match=words):
            make()
    with pytest.raises(NotImplementedError):
        optim.Optimizer([p], {}).step()


# Clipping: see test_clip.py for PyTorch's word on it


@given(scale=st.floats(1e-3, 1e3), most=st.floats(1e-3, 1e3))
@settings(max_examples=40)
def test_clipping_by_the_global_norm(scale, most):
    params = [*parameters((3, 2), (), (0,), (5,)), nn.Parameter([1.0])]
    for p in params[:-1]:
        p.grad = Tensor(np.asarray(p.grad.data * scale))
    before = np.concatenate([p.grad.data.reshape(-1) for p in params[:-1]])
    norm = optim.clip_grad_norm_((p for p in params), most).item()
    after = np.concatenate([p.grad.data.reshape(-1) for p in params[:-1]])
    assert norm == pytest.approx(np.linalg.norm(before), rel=1e-14)
    expected = before if norm <= most else before * (most / (norm + 1e-6))
    np.testing.assert_allclose(after, expected, rtol=1e-14)
    assert np.linalg.norm(after) <= most or norm <= most


def test_the_norm_of_many_float32_numbers_is_near_float64s():
    p = nn.Parameter(np.zeros(1_000_003, "float32"))
    p.grad = Tensor(np.full(1_000_003, 0.1, "float32"))
    exact = math.sqrt(1_000_003) * float(np.float32(0.1))
    assert optim.clip_grad_norm_([p], 1e9).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("square", [None, lambda x: (x * x).reshape(-1, 7).sum(1).tolist()])
def test_the_norm_of_float32_numbers_is_as_exact_as_it_says(square, monkeypatch):
    """On any processor; the mutant adds squares in float32."""
    if square is not None:
        monkeypatch.setattr(vector_norm, "square_sum", square)
    x = np.full(7 * 14_287, 0.1, "float32")
    exact = math.sqrt(math.fsum(float(v) ** 2 for v in x))
    error = abs(vector_norm.vector_norm([x], 2.0) / exact - 1)
    assert (error < 2**-52) == (square is None), error


# Learning rates


def test_warmup_and_cosine():
    lr = [optim.warmup_cosine(s, 100, 10, 1.0, 0.1) for s in range(100)]
    assert lr[0] == 0.1 and lr[9] == lr[10] == 1.0 and lr[-1] == pytest.approx(0.1)
    assert lr[:10] == sorted(lr[:10]) and lr[10:] == sorted(lr[10:], reverse=True)
    assert optim.warmup_cosine(0, 1, 0, 1.0, 0.1) == 1.0


def test_the_last_rates_are_numbers_that_stay_where_the_rate_is_a_tensor():
    p, rate = nn.Parameter(np.zeros(3)), Tensor(0.5)
    schedule = optim.lr_scheduler.StepLR(optim.AdamW([p], lr=rate), step_size=1, gamma=0.1)
    schedule.step()
    last = schedule.get_last_lr()
    schedule.step()
    assert [type(lr) for lr in last] == [float] and last == pytest.approx([0.05])
    assert rate.item() == pytest.approx(0.005)
