"""autograd.grad, hooks, retained gradients, and the modes that switch recording."""

import gc
import weakref

import numpy as np
import pytest

import minidist as md
from minidist import Tensor, ops
from minidist.autograd import grad
from minidist.autograd.modes import current
from minidist.comm import simulate

operation = ops.op.differentiable(autocast="fallthrough")


def leaf(*values: float) -> Tensor:
    return md.tensor(list(values), dtype="float64", requires_grad=True)


# autograd.grad


def test_gradients_by_leaves_and_inner_tensors():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    h = x * w
    y = (h * h).sum()
    by_h, by_x = grad(y, (h, x), retain_graph=True)
    assert by_h.tolist() == [6, 16] and by_x.tolist() == [18, 64]
    assert x._grad is None and w._grad is None, "nothing is stored"
    (by_w,) = grad([y, h], [w], [None, md.ones(2)])
    assert by_w.tolist() == [2 * 3 + 1, 2 * 2 * 8 + 2]
    assert not by_w.requires_grad


def test_gradients_own_their_memory():
    x = leaf(1.0, 2.0)
    g = np.ones(2)
    h = x * 1
    a, b = grad(h + 1, [x, h], g)
    a += 1
    assert b.tolist() == [1, 1] and g.tolist() == [1, 1]


def test_an_output_behind_another_one_and_the_output_itself():
    x = leaf(2.0)
    h = x * x
    by_x, by_h = grad([h, h * 3], [x, h])
    assert (by_x.item(), by_h.item()) == (16, 4)
    assert grad(x, x, md.tensor([5.0]))[0].tolist() == [5]


def test_only_the_way_to_the_inputs_is_walked():
    x, w, pulled = leaf(1.0), leaf(2.0), []
    spy = operation(lambda a: (a * 1, lambda g: pulled.append("spy") or g))
    h = x * 2
    y = spy(w) * h
    assert grad(y, h)[0].item() == 2 and not pulled
    h.backward()
    assert x.grad.item() == 2, "what lies behind h was not freed"


def test_unused_inputs():
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(RuntimeError, match=r"not depend on input 1.*allow_unused=True"):
        grad(x * 2, [x, y])
    assert grad(x * 2, [y, x], allow_unused=True)[0] is None
    with pytest.raises(RuntimeError, match="input 0 of backward does not require grad"):
        grad(x * 2, [md.ones(1)])
    with pytest.raises(RuntimeError, match="2 gradients for 1 outputs"):
        grad(x * 2, x, [md.ones(1)] * 2)
    z = x * 2
    z.backward()
    with pytest.raises(RuntimeError, match="second time"):
        grad(z, x)


def test_backward_of_chosen_leaves():
    x, w = leaf(1.0), leaf(2.0)
    (x * w).backward(inputs=[w], retain_graph=True)
    assert x.grad is None and w.grad.item() == 1


@pytest.mark.parametrize(
    "call", [lambda y, x: y.backward(create_graph=True), lambda y, x: grad(y, x, create_graph=True)]
)
def test_second_derivatives_are_refused(call):
    x = leaf(1.0)
    with pytest.raises(NotImplementedError, match="second derivatives are not supported"):
        call(x * x, x)
    assert x.grad is None


# grad


def test_reading_the_gradient_of_a_computed_tensor_warns():
    h = leaf(1.0) * 2
    with pytest.warns(UserWarning, match="retain_grad"):
        assert h.grad is None


def test_retained_gradients():
    x = leaf(1.0, 2.0)
    h = x * 3
    assert not h.retains_grad
    h.retain_grad()
    h.retain_grad()
    y = (h * h).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert h.retains_grad and h.grad.tolist() == [12, 24] and x.grad.tolist() == [36, 72]
    x.retain_grad()
    assert not x.retains_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        md.ones(1).retain_grad()


def test_a_gradient_is_a_tensor_of_the_same_shape():
    x = leaf(1.0, 2.0)
    with pytest.raises(TypeError, match="not ndarray"):
        x.grad = np.ones(2)
    with pytest.raises(RuntimeError, match=r"shape \(3,\) for a tensor of shape \(2,\)"):
        x.grad = md.ones(3)


def test_requires_grad_can_be_assigned():
    x = md.ones(2)
    x.requires_grad = True
    assert x.requires_grad and x.is_leaf
    with pytest.raises(RuntimeError, match="int64"):
        md.arange(2).requires_grad = True


def test_detach_in_place():
    x = leaf(1.0)
    h = x * 2
    assert h.detach_() is h and h.is_leaf and not h.requires_grad
    with pytest.raises(RuntimeError, match="view"):
        (x * 2)[:1].detach_()


# Hooks


def test_hooks_see_and_replace_gradients():
    x, seen = leaf(1.0, 2.0), []
    h = x * 2
    h.register_hook(lambda g: seen.append(g.tolist()))
    h.register_hook(lambda g: g * 10)
    h.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g + 1)
    h.retain_grad()
    (h * 3 + h).sum().backward()
    assert seen == [[4, 4], [40, 40]], "once, when it is complete"
    assert h.grad.tolist() == [40, 40] and x.grad.tolist() == [81, 81]
    assert grad((x * 1).sum(), x)[0].tolist() == [2, 2], "for autograd.grad too"


def test_a_removed_hook_is_silent():
    x, seen = leaf(1.0), []
    handle = x.register_hook(seen.append)
    (x * 2).backward()
    handle.remove()
    handle.remove()
    (x * 2).backward()
    with x.register_hook(seen.append):
        (x * 2).backward()
    (x * 2).backward()
    assert len(seen) == 2 and x.grad.item() == 8


def test_what_a_hook_keeps_stays_as_it_was():
    x, kept = leaf(1.0), []
    x.register_hook(kept.append)
    for _ in range(2):
        (x * 2).backward()
    assert [g.item() for g in kept] == [2, 2] and x.grad.item() == 4
    x.register_hook(lambda g: g.add_(1))
    with pytest.raises(RuntimeError, match="read-only"):
        (x * 2).backward()


@pytest.mark.parametrize("wrong", [np.ones(1), md.ones(1), md.ones(2, dtype="float64")])
def test_a_hook_that_returns_something_else(wrong):
    x = leaf(1.0)
    x.register_hook(lambda g: wrong)
    with pytest.raises((TypeError, RuntimeError), match="a gradient hook return"):
        (x * 2).backward()


def test_hooks_of_finished_leaves_fire_in_the_middle_of_backward():
    weights, log = [leaf(float(i + 2)) for i in range(3)], []
    mark = operation(lambda a, n: (a * 1, lambda g: log.append(f"layer {n}") or g))
    for i, w in enumerate(weights):
        w.register_post_accumulate_grad_hook(lambda t, i=i: log.append(f"w{i}: {t.grad.item():g}"))
    y = leaf(1.0)
    for i, w in enumerate(weights):
        y = mark(y * w, i) * w  # twice: complete only after its second use
    y.backward()
    assert log == ["layer 2", "w2: 288", "layer 1", "w1: 384", "layer 0", "w0: 576"]
    log.clear()
    grad(y * 1 if False else weights[0] * 2, weights[0])
    assert not log, "autograd.grad fills no leaf"


def test_an_optimiser_inside_backward():
    w = leaf(1.0)

    def step(p):
        p -= p.grad * 0.5
        p.grad = None

    handle = w.register_post_accumulate_grad_hook(step)
    (w * 3).backward()
    assert w.item() == -0.5 and w.grad is None
    handle.remove()
    with pytest.raises(RuntimeError, match="leaves alone"):
        (w * 2).register_post_accumulate_grad_hook(step)
    with pytest.raises(RuntimeError, match="does not require grad"):
        md.ones(1).register_hook(step)


def test_a_hooked_graph_dies_without_the_garbage_collector():
    gc.disable()
    try:
        x = leaf(1.0)
        h = x * 2
        h.register_hook(lambda g: None)
        h.retain_grad()
        view = h[:1]
        view += 1
        alive = weakref.ref(h.data)
        del h, view
        assert alive() is None
    finally:
        gc.enable()


# Modes


def test_set_grad_enabled():
    x = leaf(1.0)
    md.set_grad_enabled(False)
    assert not (x * 2).requires_grad
    md.set_grad_enabled(True)
    with md.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert md.is_grad_enabled()

    @md.set_grad_enabled(False)
    def double(t):
        return t * 2

    assert md.is_grad_enabled() and not double(x).requires_grad and md.is_grad_enabled()


def test_decorators_of_functions_and_generators():
    x = leaf(1.0)

    @md.no_grad
    def double(t):
        return t * 2

    @md.no_grad()
    def doubles(t):
        yield t * 2
        yield t * 2

    assert not double(x).requires_grad
    for y in doubles(x):
        assert not y.requires_grad and md.is_grad_enabled()


MODES = {
    "no_grad": (md.no_grad, lambda: not md.is_grad_enabled()),
    "no_grad()": (md.no_grad(), lambda: not md.is_grad_enabled()),
    "enable_grad": (md.enable_grad(), md.is_grad_enabled),
    "inference_mode": (md.inference_mode(), lambda: not md.is_grad_enabled()),
    "set_grad_enabled": (lambda f: md.set_grad_enabled(False)(f), lambda: not md.is_grad_enabled()),
    "autocast": (md.autocast("cpu"), md.is_autocast_enabled),
    "detect_anomaly": (md.autograd.detect_anomaly(), lambda: current().anomaly == "nan"),
}


@pytest.mark.parametrize("name", MODES)
def test_a_decorated_generator_is_sent_to_thrown_into_and_closed(name):
    decorate, is_on = MODES[name]
    heard = []

    @decorate
    def talk(first):
        try:
            heard.append((yield first))
            try:
                yield is_on()
            except KeyError as error:
                heard.append(error)
            yield is_on()
            return "end"
        finally:
            heard.append(is_on())

    def through():
        result = yield from talk(1)
        heard.append(result)

    before = current()
    talking = through()
    assert next(talking) == 1 and talking.send("word") is True
    assert current() == before
    wrong = KeyError("thrown")
    assert talking.throw(wrong) is True
    assert next(talking, None) is None and heard == ["word", wrong, True, "end"]
    closed = talk(2)
    assert next(closed) == 2
    closed.close()
    assert heard[-1] is True and len(heard) == 5 and current() == before
    with pytest.raises(ValueError, match="out of it"):
        gone = talk(3)
        next(gone)
        gone.throw(ValueError("out of it"))


def test_simulated_ranks_have_modes_and_hooks_of_their_own():
    """Ranks switch in the middle of a block, and of backward."""

    def rank(comm):
        x, told = leaf(float(comm.rank + 1)), []
        buffer = np.zeros(1)

        def exchange(t):
            request = comm.irecv(buffer, (comm.rank - 1) % comm.size)
            comm.send(t.grad.data, (comm.rank + 1) % comm.size)
            request.wait()
            told.append((buffer.item(), md.is_grad_enabled()))

        x.register_post_accumulate_grad_hook(exchange)
        y = x * x
        if comm.rank == 0:
            with md.no_grad():
                comm.send(np.zeros(1), 1)
                assert not (x * 2).requires_grad
        elif comm.rank == 1:
            comm.recv(buffer, 0)
        assert (x * 2).requires_grad
        y.backward()
        return told

    assert simulate(rank, 3) == [[(6, False)], [(2, False)], [(4, False)]]


def test_an_input_without_a_gradient_rule_is_named():
    op = operation(lambda a, b: (a * b, lambda g: g))
    assert op(leaf(1.0), md.ones(1)).requires_grad
    with pytest.raises(RuntimeError, match="knows no gradient by"):
        op(leaf(1.0), leaf(1.0))
