"""Checkpointing: the same bits as without, less memory, and clear errors."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import minidist as md
from minidist import Tensor, nn, ops, random
from minidist.autograd import grad
from minidist.comm import simulate

operation = ops.op.differentiable(autocast="fallthrough")


def block(x, w):
    h = ops.dropout(x @ w, 0.25, name="block")
    h = h.tanh() * w.sum()
    view = h[0]
    view += 1
    h *= 2
    return h + x


def bits(*tensors):
    return tuple(t.data.tobytes() for t in tensors)


def run(step, rows=4):
    """The output and gradients of three blocks that share one weight, used outside too."""
    rng = np.random.default_rng(0)
    x, w = (Tensor(rng.standard_normal(s), requires_grad=True) for s in ((rows, 3), (3, 3)))
    y = x
    for _ in range(3):
        y = step(y, w)
    noise = md.randn(1).item()
    ((y * y).sum() * noise + (w * w).sum()).backward()
    return *bits(y, x.grad, w.grad), noise, md.randn(1).item()


NESTED = {
    "once": lambda x, w: md.checkpoint(block, x, w),
    "with keywords": lambda x, w: md.checkpoint(block, x, w=w, use_reentrant=False),
    "weights from outside": lambda x, w: md.checkpoint(lambda x: block(x, w), x),
    "in another": lambda x, w: md.checkpoint(lambda x: md.checkpoint(block, x, w), x),
    "twice in another": lambda x, w: md.checkpoint(
        lambda x: md.checkpoint(block, md.checkpoint(block, x, w), w), x
    ),
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("placed", [False, True], ids=["default stream", "random.at"])
def test_bitwise_equal(name, placed):
    plain = (lambda x, w: block(block(x, w), w)) if name == "twice in another" else block
    results = []
    for step in (plain, NESTED[name]):
        md.manual_seed(3)
        if placed:
            with random.at(5, 1, 0):
                results.append(run(step))
        else:
            results.append(run(step))
    assert results[0] == results[1]


def test_the_place_of_the_forward_pass_holds_in_backward():
    rng = np.random.default_rng(0)
    arrays, results = (rng.standard_normal((4, 3)), rng.standard_normal((3, 3))), []
    for step in (block, NESTED["once"]):
        x, w = (Tensor(a, requires_grad=True) for a in arrays)
        with random.at(5, 1, 0):
            y = step(x, w)
        with random.at(5, 2, 0):
            y.sum().backward()
            results.append((*bits(y, x.grad, w.grad), bits(md.randn(2))))
        md.manual_seed(0)
    assert results[0][:3] == results[1][:3]


def test_without_the_stream_the_bits_differ(monkeypatch):
    """What the comparison would say if masks were drawn anew."""
    md.manual_seed(3)
    right = run(block)
    replayed = random.replayed
    monkeypatch.setattr(random, "replayed", lambda state: replayed(state._replace(calls=99)))
    md.manual_seed(3)
    assert run(NESTED["once"]) != right


def test_a_module_whose_input_needs_no_gradient():
    layer, x = nn.Linear(3, 2), md.randn(4, 3)
    md.checkpoint(layer, x).sum().backward()
    first = bits(layer.weight.grad, layer.bias.grad)
    layer.zero_grad()
    layer(x).sum().backward()
    assert first == bits(layer.weight.grad, layer.bias.grad)


def test_several_outputs_and_other_arguments():
    x = Tensor(np.ones(3), requires_grad=True)
    a, (b, note) = md.checkpoint(lambda x, k: (x * k, (x.exp(), "note")), x, 3)
    assert note == "note"
    (a.sum() + b.sum()).backward()
    np.testing.assert_allclose(x.grad.data, 3 + np.e)


def test_backward_twice_grad_and_hooks():
    x, seen = Tensor(np.ones(3), requires_grad=True), []

    def square(x):
        h = x * x
        h.register_hook(seen.append)
        return h.exp()

    y = md.checkpoint(square, x)
    y.sum().backward(retain_graph=True)
    y.sum().backward(retain_graph=True)
    (by_x,) = grad(y.sum(), x)
    np.testing.assert_allclose(x.grad.data, 4 * np.e)
    np.testing.assert_allclose(by_x.data, 2 * np.e)
    assert len(seen) == 3
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_nothing_is_recorded_without_gradients():
    with md.no_grad():
        assert not md.checkpoint(lambda x: x * 2, md.ones(1, requires_grad=True)).requires_grad
    assert not md.checkpoint(lambda x: x * 2, md.ones(1)).requires_grad


# Memory

N, DEPTH = 50_000, 10


def deep(x):
    for _ in range(DEPTH):
        x = x.tanh()
    return x


def peak(step, blocks=10) -> float:
    """Of forward and backward, in arrays."""
    x = y = Tensor(np.full(N, 0.5), requires_grad=True)
    g = np.ones(N)
    tracemalloc.start()
    for _ in range(blocks):
        y = step(y)
    held = tracemalloc.get_traced_memory()[0] / x.data.nbytes
    y.backward(g)
    top = tracemalloc.get_traced_memory()[1] / x.data.nbytes
    tracemalloc.stop()
    return held, top


def test_memory_is_that_of_the_boundaries_and_one_block():
    held, top = peak(deep)
    assert held == pytest.approx(100, abs=1) and top < 105
    held, top = peak(lambda x: md.checkpoint(deep, x))
    assert held == pytest.approx(10, abs=1), "one array a block"
    assert top < 10 + DEPTH + 5
    two = lambda x: md.checkpoint(deep, md.checkpoint(deep, x))
    held, top = peak(lambda x: md.checkpoint(two, x), blocks=5)
    assert held == pytest.approx(5, abs=1) and top < 5 + 1 + DEPTH + 5


def test_arrays_go_as_backward_passes_them():
    alive, saved = [], []

    @operation
    def spy(a):
        array = a * 1
        saved.append(weakref.ref(array))

        def vjp(g):
            alive.append(sum(r() is not None for r in saved))
            return g * (array.size > 0)

        return a + 1, vjp

    def five(x):
        for _ in range(5):
            x = spy(x)
        return x

    x = Tensor(np.ones(2), requires_grad=True)
    y = md.checkpoint(five, x)
    assert not any(r() is not None for r in saved)
    y.sum().backward()
    assert alive == [5, 4, 3, 2, 1]
    md.checkpoint(lambda x: md.checkpoint(five, md.checkpoint(five, x)), x).sum().backward()
    assert alive[5:] == [5, 4, 3, 2, 1] * 2, "in an inner one as well"


def test_a_checkpointed_graph_dies_without_the_garbage_collector():
    gc.disable()
    try:
        x = Tensor(np.ones(3), requires_grad=True)
        h = x * 1
        alive = weakref.ref(h.data)
        y = md.checkpoint(lambda t: md.checkpoint(deep, t).exp(), h)
        del h, y
        assert alive() is None
        h = x * 1
        alive = weakref.ref(h.data)
        y = md.checkpoint(deep, h)
        y.sum().backward(retain_graph=True)
        del h, y
        assert alive() is None
    finally:
        gc.enable()


# Errors


def test_another_second_run_is_refused():
    x, calls = Tensor(np.ones(3), requires_grad=True), []

    def fickle(x):
        calls.append(1)
        return x.exp() if len(calls) == 1 else x.exp().tanh()

    with pytest.raises(RuntimeError, match="recorded 'tanh' where the first had 'nothing'"):
        md.checkpoint(fickle, x).sum().backward()


def test_an_input_that_was_changed_since_is_refused():
    x = Tensor(np.ones(3), requires_grad=True)
    h = x * 1
    y = md.checkpoint(lambda t: t * 2, h)
    h += 1
    with pytest.raises(RuntimeError, match=r"an input of shape \(3,\) was changed in place"):
        y.sum().backward()

    def change(h):
        h += 1
        return h * h

    with pytest.raises(RuntimeError, match="was changed in place"):
        md.checkpoint(change, x * 1).sum().backward()


def test_saved_arrays_are_watched_inside_too():
    def wrong(x):
        y = x.exp()
        y += 1
        return y

    with pytest.raises(RuntimeError, match=r"backward of 'exp' .* modified by an inplace"):
        md.checkpoint(wrong, Tensor(np.ones(3), requires_grad=True)).sum().backward()


def test_options_that_mean_something_else_are_refused():
    with pytest.raises(ValueError, match="use_reentrant=False"):
        md.checkpoint(deep, md.ones(1), use_reentrant=True)


def test_simulated_ranks_draw_their_masks_again_each_on_its_own():
    """Ranks change in the middle of the second run: places and streams stay apart."""

    def rank(comm, checkpointed):
        md.manual_seed(comm.rank)

        def talk(x):
            y = ops.dropout(x, 0.5)
            buffer = np.zeros(1)
            request = comm.irecv(buffer, (comm.rank + 1) % comm.size)
            comm.send(np.ones(1), (comm.rank - 1) % comm.size)
            request.wait()
            return ops.dropout(y * buffer.item(), 0.5)

        x = Tensor(np.ones(50), requires_grad=True)
        y = md.checkpoint(talk, x) if checkpointed else talk(x)
        y.sum().backward()
        return bits(y, x.grad, md.randn(3))

    assert simulate(lambda c: rank(c, True), 3) == simulate(lambda c: rank(c, False), 3)
