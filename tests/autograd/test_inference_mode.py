"""inference_mode: nothing is recorded, and its tensors stay out of autograd, as in PyTorch."""

import math

import pytest

import minidist as md
from minidist import nn

LINES = """
    x.is_inference()
    (w * 2).requires_grad
    made.is_inference()
    made.requires_grad
    view_of_w.is_inference()
    view_of_x.is_inference()
    x.detach().is_inference()
    x.clone().is_inference()
    (x + 1).is_inference()
    (x.clone() * w).requires_grad
    (x + w).requires_grad
    x * w
    w * x
    m.matmul(w, x)
    x[:1] * w[:1]
    x.reshape(2, 1) * w
    view_of_x * w
    x.requires_grad_()
    setattr(x, 'requires_grad', True)
    nn.Parameter(x)
    x.add_(1)
    x.zero_()
    x[:1].add_(1)
    x.__setitem__(0, 1.0)
    n.add_(x).is_inference()
    [inside.is_inference(), inside.requires_grad, again.requires_grad, again.is_inference()]
    [enabled_inside, inference_inside, m.is_grad_enabled(), m.is_inference_mode_enabled()]
    m.inference_mode(lambda: m.ones(1).is_inference())()
    m.inference_mode()(lambda: m.ones(1).is_inference())()
    [m.inference_mode(False)(lambda: (w * 2).requires_grad)(), x.is_leaf, x.grad_fn is None]
"""


def meanings(m, nn):
    """What each line gives in one library, or the class of its error."""
    w, n = m.ones(2, requires_grad=True), m.ones(2)
    with m.inference_mode():
        x, made, view_of_w = m.ones(2), w * 2, w[:1]
        view_of_x = x[:1]
        x.add_(1)  # written to inside: allowed
        x.sub_(1), n.mul_(1)
        with m.enable_grad():
            inside = w * 3
        inference_inside = m.is_inference_mode_enabled()
        with m.inference_mode(False):
            again, enabled_inside = w * 3, m.is_grad_enabled()
    names = {**locals(), "math": math}
    for line in filter(None, map(str.strip, LINES.splitlines())):
        try:
            yield line, eval(line, names)
        except Exception as error:
            yield line, type(error)


def test_it_means_what_it_means_in_pytorch():
    torch = pytest.importorskip("torch")
    plain = lambda value: "a tensor" if hasattr(value, "backward") else value
    ours = {line: plain(value) for line, value in meanings(md, nn)}
    assert ours == {line: plain(value) for line, value in meanings(torch, torch.nn)}
    assert list(ours.values()).count(RuntimeError) == 13


@pytest.mark.parametrize(
    "use, words",
    [
        (lambda x, w: x * w, "mul saves a tensor .* created in inference mode: clone"),
        (lambda x, w: x.requires_grad_(), "created in inference mode: clone"),
        (lambda x, w: x.add_(1), "add_: a tensor created in inference mode .* into a clone"),
    ],
)
def test_an_error_says_what_to_do(use, words):
    with md.inference_mode():
        x = md.ones(2)
    with pytest.raises(RuntimeError, match=words):
        use(x, md.ones(2, requires_grad=True))


def test_a_model_evaluated_in_it_trains_on():
    model = nn.Linear(2, 1)
    with md.inference_mode():
        metric = model(md.ones(3, 2)).mean().item()
    loss = model(md.ones(3, 2)).mean()
    loss.backward()
    assert loss.item() == metric and model.weight.grad.tolist() == [[1, 1]]
