"""Random programs of views, changes in place and arithmetic, here and in PyTorch."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.parity import torch

import minidist as md
from minidist.tensor.views import View
from minidist.testing import gradcheck

# Each step names up to two of the tensors so far and what to do: (framework, tensors) -> new one
VIEWS = {
    "row": lambda f, a, b: a[1] if a.ndim == 2 else a[1:],
    "columns": lambda f, a, b: a[..., 1:],
    "transposed": lambda f, a, b: a.transpose(0, -1),
    "flat": lambda f, a, b: a.reshape(-1),
    "grown": lambda f, a, b: a.unsqueeze(0),
}
PURE = {
    "mul": lambda f, a, b: a * b.sum(),
    "square": lambda f, a, b: a * a,
    "add": lambda f, a, b: a + 1,
    "tanh": lambda f, a, b: a.tanh(),
    "copy": lambda f, a, b: a.clone(),
}


def _in_no_grad(f, a, b):
    with f.no_grad():
        a.mul_(0.5)


def _assign(f, a, b):
    a[..., 0] = b.sum()


def _mask(f, a, b):
    a[(a.detach() > 0)] = 0.25


IN_PLACE = {
    "add_": lambda f, a, b: a.add_(b.sum()),
    "mul_": lambda f, a, b: a.mul_(b.sum()),
    "mul_ itself": lambda f, a, b: a.mul_(a.clone()),
    "scale_": lambda f, a, b: a.mul_(0.5),
    "tanh_": lambda f, a, b: a.tanh_(),
    "zero_": lambda f, a, b: a.zero_(),
    "fill_": lambda f, a, b: a.fill_(0.5),
    "assign": _assign,
    "mask": _mask,
    "no_grad": _in_no_grad,
}
STEPS = {**VIEWS, **PURE, **IN_PLACE}
LEAVES = [np.linspace(-0.9, 0.8, 12).reshape(3, 4), np.linspace(-0.5, 0.6, 3)]


def run(f, leaves, program):
    """The sum of all tensors, each weighed differently."""
    first, second = leaves
    tensors = [first * 1, second * 1, f.zeros(3, 4, dtype=f.float64), first * 2, first]
    for name, i, j in program:
        new = STEPS[name](f, tensors[i % len(tensors)], tensors[j % len(tensors)])
        if name not in IN_PLACE:
            tensors.append(new)
    total = 0
    for k, t in enumerate(tensors):
        total = total + t.sum() * (k + 1)
    return total


def outcome(f, leaves, program):
    """(value, gradients) or where it failed."""
    try:
        total = run(f, leaves, program)
    except (RuntimeError, IndexError):
        return "forward refused"
    try:
        total.backward()
    except RuntimeError:
        return total.item(), "backward refused"
    grads = [np.zeros(x.shape) if x.grad is None else np.array(x.grad.tolist()) for x in leaves]
    return total.item(), grads


def verdict(result):
    return next((part for part in (result, result[1]) if isinstance(part, str)), "fine")


steps = st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=7))
def test_random_programs(program):
    theirs = outcome(torch, [torch.tensor(a, requires_grad=True) for a in LEAVES], program)
    ours = outcome(md, [md.tensor(a, requires_grad=True) for a in LEAVES], program)
    if "refused" in verdict(ours):
        assert verdict(ours) == verdict(theirs), "refused here alone"
        return
    if theirs != "forward refused":
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
        if not isinstance(theirs[1], str):
            np.testing.assert_allclose(ours[1][0], theirs[1][0], rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(ours[1][1], theirs[1][1], rtol=1e-10, atol=1e-12)
            return
    # PyTorch refuses it and we do not: then our gradients must be right all the same
    if not {"mask", "no_grad"} & {name for name, *_ in program}:
        gradcheck(lambda *xs: run(md, xs, program), LEAVES, rtol=1e-5)


def test_a_view_whose_history_is_old_is_seen(monkeypatch):
    """The comparison fails if a view does not notice that its memory was written to."""
    program = [("row", 0, 0), ("mul_", 0, 1), ("square", 5, 0)]
    theirs = outcome(torch, [torch.tensor(a, requires_grad=True) for a in LEAVES], program)
    monkeypatch.setattr(View, "stale", lambda self: False)
    ours = outcome(md, [md.tensor(a, requires_grad=True) for a in LEAVES], program)
    assert np.isclose(ours[0], theirs[0]) and not np.allclose(ours[1][0], theirs[1][0])
