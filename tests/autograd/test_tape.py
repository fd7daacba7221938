"""The tape: graphs, shared gradients, switches, and errors that say what to do."""

import numpy as np
import pytest

import minidist as md
from minidist import Tensor, autograd, ops

operation = ops.op.differentiable(autocast="fallthrough")


def leaf(*values: float) -> Tensor:
    return md.tensor(list(values), dtype="float64", requires_grad=True)


# Graphs


def test_a_diamond_and_a_leaf_of_many_uses():
    x = leaf(3.0)
    a, b = x * 2, x * x
    (a * b + x).sum().backward()  # 2x³ + x
    assert x.grad.item() == 6 * 9 + 1


def test_a_ladder_of_diamonds_is_walked_once():
    """2¹⁰⁰ paths, 100 nodes."""
    x = y = leaf(1.0)
    for _ in range(100):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**100


def test_two_backwards_add_up():
    x = leaf(1.0, 2.0)
    for factor in (2, 3):
        (x * factor).sum().backward()
    assert x.grad.tolist() == [5, 5]
    x.grad = None
    (x * 4).sum().backward()
    assert x.grad.tolist() == [4, 4]


def test_a_leaf_backwards_from_itself():
    x, g = leaf(1.0, 2.0), np.ones(2)
    x.backward(g)
    g += 1
    assert x.grad.tolist() == [1, 1], "a copy"
    x = md.ones(2, requires_grad=True)
    x.backward(g)
    assert x.grad.dtype == md.float32, "in its own dtype"


@pytest.mark.parametrize("op", [Tensor.amax, lambda x: x.softmax(0), lambda x: ops.dropout(x, 0.5)])
def test_sums_of_gradients_without_dimensions(op):
    """Arithmetic on 0-d arrays gives NumPy's scalars, which nothing can be added to in place."""
    x = md.tensor(2.0, requires_grad=True)
    (op(x) + op(x) + op(x) * 2).backward()
    assert x.grad.shape == () and isinstance(x.grad.data, np.ndarray)


def test_only_what_asks_for_gradients_gets_them():
    x, c = leaf(1.0), md.tensor([2.0], dtype="float64")
    y = x * c
    y.backward()
    assert c.grad is None and x.grad.tolist() == [2]
    assert not (c * c).requires_grad and (c * c).node is None


# Who owns a gradient


def own_memory(*tensors: Tensor) -> bool:
    arrays = [t.grad.data for t in tensors] + [t.data for t in tensors]
    return not any(
        np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[i + 1 :]
    ) and all(t.grad.data.flags.writeable for t in tensors)


SHARED = {
    "one sum": lambda a, b: a + b,
    "a sum of sums": lambda a, b: (a + b) + (a + b),
    "views": lambda a, b: a.reshape(4) + b.transpose(0, 1).reshape(4),
    "both of a view": lambda a, b: a.T + b.T,
    "broadcast": lambda a, b: (a + b).sum(),
    "cat": lambda a, b: md.cat([a, b, a]),
    "clones": lambda a, b: a.clone() + b.clone().clone(),
    "twice": lambda a, b: a + a + b,
}


@pytest.mark.parametrize("name", SHARED)
def test_gradients_share_no_memory(name):
    a, b = (Tensor(np.arange(4.0).reshape(2, 2), requires_grad=True) for _ in range(2))
    y = SHARED[name](a, b)
    g = np.random.default_rng(0).standard_normal(y.shape)
    kept = g.copy()
    y.backward(g, retain_graph=True)
    assert own_memory(a, b) and not np.shares_memory(a.grad.data, g)
    first = a.grad.data.copy(), b.grad.data.copy()
    a.grad.data[...] = 77  # an optimiser or a clip in place
    np.testing.assert_array_equal(b.grad.data, first[1])
    np.testing.assert_array_equal(g, kept)
    a.grad = b.grad = None
    y.backward(g)
    assert (a.grad.data.tobytes(), b.grad.data.tobytes()) == tuple(f.tobytes() for f in first)


def test_the_check_of_shared_memory_sees_it():
    a, b = leaf(1.0), leaf(2.0)
    a.grad = b.grad = md.tensor([1.0], dtype="float64")
    assert not own_memory(a, b)


# Switches


def test_no_grad_and_enable_grad():
    x = leaf(1.0)
    with md.no_grad():
        assert not (x * 2).requires_grad and not md.is_grad_enabled()
        with md.enable_grad():
            assert (x * 2).requires_grad
        assert not md.is_grad_enabled()
    assert md.is_grad_enabled() and (x * 2).requires_grad

    @md.no_grad()
    def double(t):
        return t * 2

    assert not double(x).requires_grad and not double(x).requires_grad
    with pytest.raises(KeyError), md.no_grad():
        raise KeyError
    assert md.is_grad_enabled(), "after an exception too"


def test_detach_cuts_and_shares():
    x = leaf(2.0)
    d = (x * 3).detach()
    assert not d.requires_grad and d.is_leaf
    (x * d).sum().backward()
    assert x.grad.item() == 6
    assert np.shares_memory(x.detach().data, x.data)


# Errors


def test_backward_twice_needs_retain_graph():
    x = leaf(1.0)
    y = x.exp().sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == pytest.approx(2 * np.e)
    with pytest.raises(RuntimeError, match=r"second time through 'sum'.*retain_graph=True"):
        y.backward()


def test_a_freed_part_of_another_graph_is_an_error():
    h = leaf(1.0).exp()
    h.sum().backward()
    with pytest.raises(RuntimeError, match=r"through 'exp'.*retain_graph=True"):
        (h * 2).sum().backward()


def test_backward_without_gradients():
    with pytest.raises(RuntimeError, match="does not require grad"):
        md.ones(1).backward()
    with md.no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()


def test_backward_of_many_elements_wants_a_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"one element, not shape \(2,\)"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match=r"shape \(1,\) for a tensor of shape \(2,\)"):
        (x * 2).backward(np.ones(1))
    assert x.grad is None
    (x * 2).backward(md.ones(2))
    assert x.grad.tolist() == [2, 2] and x.grad.dtype == md.float64
    y = Tensor(np.ones((1, 1)), requires_grad=True)
    (y * 2).backward()
    assert y.grad.tolist() == [[2]], "one element of any rank needs none"


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_only_floats_have_gradients(dtype):
    with pytest.raises(RuntimeError, match=rf"not {dtype}: convert with .float\(\)"):
        md.zeros(2, dtype=dtype, requires_grad=True)


def test_a_computed_tensor_does_not_give_up_its_gradient():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2).requires_grad_(False)
    assert not x.requires_grad_(False).requires_grad


def test_a_vjp_that_gives_nothing_is_named():
    broken = operation(lambda x: (x * 1, autograd.tape.Joint(lambda g: [None])))
    with pytest.raises(AssertionError, match="gave no cotangent"):
        broken(leaf(1.0)).backward()
