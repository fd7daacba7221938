"""The tape: long chains, memory, order, shared gradients, and errors that say what to do."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import minidist as md
from minidist import Tensor, autograd, ops


def leaf(*values: float) -> Tensor:
    return md.tensor(list(values), dtype="float64", requires_grad=True)


# Depth and memory


def test_a_chain_of_100_000_operations():
    x = y = leaf(1.0)
    for _ in range(100_000):
        y = y + 1
    y.backward(retain_graph=True)
    assert (y.item(), x.grad.item()) == (100_001, 1)
    del y  # the whole chain dies here, without recursion


def test_backward_frees_what_it_has_passed():
    """At the start of the way, the arrays saved at its end are gone."""
    x, saved, alive = leaf(1.0), [], []

    @ops.op.differentiable
    def spy(a):
        array = a * 1
        saved.append(weakref.ref(array))

        def vjp(g):
            alive.append(sum(r() is not None for r in saved))
            return g * (array.size > 0)

        return a + 1, vjp

    y = x
    for _ in range(10):
        y = spy(y)
    y.backward()
    assert alive == list(range(10, 0, -1))
    assert not any(r() is not None for r in saved)


def peak_of_backward(steps: int, retain_graph: bool) -> float:
    """Peak memory of backward over a chain, in arrays, counted from its start."""
    x = y = Tensor(np.ones(10_000), requires_grad=True)
    for _ in range(steps):
        y = y.tanh()
    tracemalloc.start()
    tracemalloc.reset_peak()
    y.backward(np.ones(10_000), retain_graph=retain_graph)
    peak = tracemalloc.get_traced_memory()[1] / x.data.nbytes
    tracemalloc.stop()
    return peak


def test_the_peak_of_backward_does_not_grow_with_the_chain():
    assert peak_of_backward(100, False) < peak_of_backward(10, False) + 1 < 7


def test_a_graph_dies_without_the_garbage_collector():
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = (x * x).exp()
        arrays = [weakref.ref(t) for t in (x.data, y.data)]
        y.backward(np.ones(2), retain_graph=True)
        del x, y
        assert [r() for r in arrays] == [None, None]
    finally:
        gc.enable()


def test_a_leaf_that_nobody_holds_is_skipped():
    y = leaf(1.0, 2.0) * leaf(3.0, 4.0)
    y.backward(np.ones(2))


def test_each_leaf_is_finished_as_soon_as_it_can_be():
    """Last layer first: so its gradients can be sent while the others are computed."""
    finished = []

    class Watched(Tensor):
        def accumulate_grad(self, cotangent, owned):
            finished.append(self.number)
            super().accumulate_grad(cotangent, owned)

    weights = [Watched(np.ones(()), requires_grad=True) for _ in range(4)]
    for i, w in enumerate(weights):
        w.number = i
    pulled = []
    y = weights[3] * 1
    for w in weights:
        y = ops.op.differentiable(lambda a: (a * 1, lambda g: pulled.append(len(finished)) or g))(y)
        y = y * w
    y.backward()
    assert finished == [2, 1, 0, 3], "3 has its first use at the very start"
    assert pulled == [0, 1, 2, 3], "each before the rest of the way was walked"


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


def test_only_what_asks_for_gradients_gets_them():
    x, c = leaf(1.0), md.tensor([2.0], dtype="float64")
    y = x * c
    y.backward()
    assert c.grad is None and y.grad is None and x.grad.tolist() == [2]
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
    a.grad = b.grad = md.tensor([1.0])
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
    with pytest.raises(RuntimeError, match="second time through 'sum'.*retain_graph=True"):
        y.backward()


def test_a_freed_part_of_another_graph_is_an_error():
    h = leaf(1.0).exp()
    h.sum().backward()
    with pytest.raises(RuntimeError, match="through 'exp'.*retain_graph=True"):
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
    with pytest.raises(RuntimeError, match=r"gradient of shape \(1,\) for a tensor of shape \(2,\)"):
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
    broken = ops.op.differentiable(lambda x: (x * 1, autograd.Joint(lambda g: [None])))
    with pytest.raises(AssertionError, match="gave no cotangent"):
        broken(leaf(1.0)).backward()
