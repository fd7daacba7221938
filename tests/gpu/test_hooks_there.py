"""Hooks and changes in place on a GPU (its double), whose arrays know no read-only flag."""

import pytest
from support.double import gpu

import minidist as md


def test_hooks_see_and_replace_gradients():
    with gpu() as copies:
        x, seen = md.ones(3, device="cuda").requires_grad_(), []
        x.register_hook(lambda g: seen.append(g.device.type) or g * 2)
        x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.device.type))
        (x * 3).sum().backward()
        assert seen == ["cuda", "cuda"] and not +copies
        assert x.grad.tolist() == [6, 6, 6]


def test_changes_in_place_and_their_errors():
    with gpu() as copies:
        x = md.zeros(2, 3, device="cuda")
        x[0, 1:] = 5.0
        x[1] = md.ones(3, device="cuda")
        x.add_(1).mul_(x)
        assert not +copies and x.tolist() == [[1, 36, 36], [4, 4, 4]]
        with pytest.raises(RuntimeError, match=r"setitem: into \(2, 3\)"):
            x[0] = md.ones(2, device="cuda")
        w = md.ones(3, device="cuda").requires_grad_()
        y = w.exp()
        y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_a_view_there_is_written_through():
    with gpu():
        x = md.zeros(4, device="cuda")
        x.reshape(2, 2)[1].fill_(7.0)
        assert x.tolist() == [0, 0, 7, 7] and x._version == 1
