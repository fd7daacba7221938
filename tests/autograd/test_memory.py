"""The tape's depth, memory and order: no recursion, nothing held too long, the last first."""

import gc
import tracemalloc
import weakref

import numpy as np

from minidist import Tensor, ops

operation = ops.op.differentiable(autocast="fallthrough")


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


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

    @operation
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
    assert y.grad_fn.sources == (), "nor does the end hold the way"


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
        y = operation(lambda a: (a * 1, lambda g: pulled.append(len(finished)) or g))(y)
        y = y * w
    y.backward()
    assert finished == [2, 1, 0, 3], "3 has its first use at the very start"
    assert pulled == [0, 1, 2, 3], "each before the rest of the way was walked"


def test_what_was_computed_last_is_walked_first():
    pulled = []

    def named(name):
        return operation(lambda a: (a * 1, lambda g: pulled.append(name) or g))

    x = leaf(1.0)
    parts = [named(i)(x) for i in range(5)]
    (parts[3] + parts[0] + parts[4] + parts[1] + parts[2]).backward()
    assert pulled == [4, 3, 2, 1, 0]
