"""Changes in place: values, gradients, versions, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import arrays, distinct, numbers

import minidist as md
from minidist import Tensor, ops
from minidist.autograd.versions import versions
from minidist.testing import gradcheck


def leaf(*values: float) -> Tensor:
    return md.tensor(list(values), dtype="float64", requires_grad=True)


# Gradients

INDICES = {
    "an int": 1,
    "negative": -1,
    "a slice": slice(0, 2),
    "a step back": slice(None, None, -1),
    "a tuple": (1, slice(1, 3)),
    "an ellipsis": (..., 2),
    "a new axis": (None, 0),
    "an array": np.array([2, 0]),
    "a repeated array": np.array([1, 1, 0, 1]),
    "a list": [0, 2],
    "two arrays": (np.array([0, 0, 2]), np.array([1, 1, 3])),
    "a mask": np.arange(12).reshape(3, 4) % 3 == 0,
    "a mask of rows": np.array([True, False, True]),
    "a mask and a slice": (np.array([True, False, True]), slice(1, 3)),
    "a tensor": Tensor(np.array([2, 1])),
    "everything": ...,
    "nothing": slice(2, 2),
}


@pytest.mark.parametrize("name", INDICES)
def test_setitem(name):
    index = INDICES[name]
    x, array_index = numbers((3, 4), 0), getattr(index, "data", index)

    def assign(x, value):
        y = x * 1
        y[index] = value
        return y * y

    shape = x[array_index].shape
    for value in (numbers(shape, 1), numbers(shape[-1:], 2), np.array(0.5)):
        assert gradcheck(assign, [x, value])
        expected = x.copy()
        expected[array_index] = value
        np.testing.assert_array_equal(assign(Tensor(x), Tensor(value)).data, expected**2)
    assert gradcheck(lambda x: assign(x, 2.0), [x])


def test_setitem_takes_leading_ones_and_other_dtypes():
    def assign(x, value):
        x = x * 1
        x[0] = value
        return x * 3

    assert gradcheck(assign, [numbers((2, 3), 0), numbers((1, 1, 3), 1)])
    x, value = md.zeros(2), Tensor(np.array(1.5), requires_grad=True)
    x[0] = value
    x.sum().backward()
    assert x.dtype == md.float32 and value.grad.dtype == md.float64 and value.grad.item() == 1


MIXED = st.sampled_from([0, -1, [1, 0], slice(None), slice(1), None, np.array([1, 1]), [[0], [1]],
                         np.array([True, False]), slice(None, None, 2)])  # fmt: skip


@given(index=st.lists(MIXED, min_size=1, max_size=4), dots=st.none() | st.integers(0, 4))
@settings(max_examples=150)
def test_setitem_writes_where_getitem_reads(index, dots):
    """Ints, slices and arrays in any order mean what they mean in PyTorch."""
    torch = pytest.importorskip("torch")
    if dots is not None:
        index.insert(dots, ...)
    x = np.arange(16.0).reshape(2, 2, 2, 2)
    theirs = torch.from_numpy(x.copy())
    index = tuple(index)
    as_theirs = tuple(torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in index)
    try:
        there = theirs[as_theirs].numpy().copy()
    except (IndexError, TypeError):
        return
    value = np.asarray(-np.arange(1.0, 1 + there.size).reshape(there.shape))
    once = len(np.unique(there)) == there.size  # else which value stays is unsaid
    ours = Tensor(x.copy())
    ours[index] = Tensor(value)
    theirs[as_theirs] = torch.from_numpy(value)
    if once:
        np.testing.assert_array_equal(ours.data, theirs.numpy())

    def assign(x, value):
        y = x * 1
        y[index] = value
        return y * y

    assert gradcheck(assign, [x, value], fast_mode=True)


def test_numpys_order_is_killed():
    x, value = md.zeros(2, 3, 4), np.arange(6.0).reshape(3, 2)
    x[0, :, [1, 2]] = Tensor(value)
    np.testing.assert_array_equal(x.data[0][:, [1, 2]], value)
    with pytest.raises(ValueError, match="shape mismatch"):
        np.zeros((2, 3, 4))[0, :, [1, 2]] = value


IN_PLACE = [n[:-1] for n in vars(Tensor) if n[0] != "_" and n[-1] == "_" and hasattr(ops, n[:-1])]
WITH_OTHERS = {"clip", "lerp", "scatter", "index_add", "masked_fill", "addmm", "baddbmm"}
IN_PLACE = sorted(set(IN_PLACE) - WITH_OTHERS)


@pytest.mark.parametrize("name", IN_PLACE)
def test_every_operation_in_place_is_the_operation(name):
    positive = np.abs(numbers((2, 3), 0))
    dtype = "int64" if name.startswith("bitwise") else "float64"
    three = lambda x: (x * 2, Tensor(positive + 0.7))
    more = {"scatter_add": lambda x: (0, Tensor(np.array([[0, 1, 1]])), x * 2)}
    more |= {"addcmul": three, "addcdiv": three}
    two = lambda x: (Tensor((positive + 0.7).astype(dtype)),)
    pairs = ("add", "div", "floor_divide", "mul", "pow", "remainder", "sub")
    arguments = more.get(
        name,
        two if name in pairs or dtype == "int64" else lambda x: (0.5,) * name.startswith("clamp"),
    )

    def changed(x):
        y = x * 1
        assert getattr(y, f"{name}_")(*arguments(x)) is y
        return y

    plain = lambda x: getattr(ops, name)(x, *arguments(x)).to(x.dtype)
    x = (positive * 3).astype(dtype)
    np.testing.assert_array_equal(changed(Tensor(x)).data, plain(Tensor(x)).data)
    if dtype == "float64" and name != "logical_not":
        assert gradcheck(changed, [x])


def test_a_named_argument_has_its_gradient_too():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    h = x * 1
    h.add_(other=y * 2)
    h.sum().backward()
    assert y.grad.tolist() == [2, 2] and x.grad.tolist() == [1, 1]


IN_PLACE = {
    "add_": (lambda x, y: x.add_(y), lambda x, y: x + y),
    "sub_": (lambda x, y: x.sub_(y), lambda x, y: x - y),
    "mul_": (lambda x, y: x.mul_(y), lambda x, y: x * y),
    "div_": (lambda x, y: x.div_(y), lambda x, y: x / y),
    "copy_": (lambda x, y: x.copy_(y), lambda x, y: y + x * 0),
    "tanh_": (lambda x, y: x.tanh_(), lambda x, y: x.tanh()),
    "zero_": (lambda x, y: x.zero_(), lambda x, y: x * 0),
    "fill_": (lambda x, y: x.fill_(y.sum()), lambda x, y: x * 0 + y.sum()),
    "clamp_": (lambda x, y: x.clamp_(-1, 1), lambda x, y: x.clamp(-1, 1)),
    "with itself": (lambda x, y: x.mul_(x), lambda x, y: x * x),
    "with a view of itself": (lambda x, y: x.sub_(x[:1]), lambda x, y: x - x[:1]),
    "masked_fill_": (
        lambda x, y: x.masked_fill_(Tensor(np.arange(x.shape[-1]) % 2 == 0), y.sum()),
        lambda x, y: x * (np.arange(x.shape[-1]) % 2) + y.sum() * (1 - np.arange(x.shape[-1]) % 2),
    ),
}


@pytest.mark.parametrize("name", IN_PLACE)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_a_change_in_place_is_the_operation(name, data):
    shape = data.draw(st.sampled_from([(3, 4), (1, 2), (2, 0), (5,)]))
    x, y = data.draw(distinct(shape)) - 0.55, data.draw(arrays(shape[-1:]))
    changed, pure = IN_PLACE[name]

    def on_a_copy(x, y):
        return changed(x * 1, y) * 2

    def on_a_view(x, y):
        whole = ops.cat([x, x])
        part = whole[: x.shape[0]]
        changed(part, y)
        return whole * 2 + ops.cat([part, part])

    expected = pure(Tensor(x), Tensor(y)).data
    np.testing.assert_allclose(on_a_copy(Tensor(x), Tensor(y)).data, expected * 2, rtol=1e-14)
    assert gradcheck(on_a_copy, [x, y])
    assert gradcheck(on_a_view, [x, y])


def test_operators_keep_the_tensor():
    x = y = md.ones(2)
    x += 1
    x -= 3
    x *= 4
    x /= 2
    assert x is y and y.tolist() == [-2, -2]
    x[0] += 5
    assert y.tolist() == [3, -2]
    x[np.array([True, False])] *= 2
    assert y.tolist() == [6, -2]


def test_filling_a_buffer_step_by_step():
    """How a loop over time writes its outputs."""

    def loop(x):
        out, h = md.zeros(4, 3, dtype="float64"), x[0] * 0
        for t in range(4):
            h = (h + x[t]).tanh()
            out[t] = h
        return out

    assert gradcheck(loop, [numbers((4, 3), 0)])


def test_a_leaf_without_gradient_becomes_computed():
    out, x = md.zeros(3), md.ones(3, requires_grad=True)
    view = out[1:]
    out += x
    assert out.requires_grad and not out.is_leaf and out.grad_fn.name == "add_"
    assert view.requires_grad, "what it was a view of has a gradient now"
    view.sum().backward()
    assert x.grad.tolist() == [0, 1, 1]


def test_views_of_views():
    def f(x):
        h = x * 2
        inner = h[1:].T[0]
        inner *= x[0, 0]
        return h * h

    assert gradcheck(f, [numbers((3, 2), 0)])


# Refusals


@pytest.mark.parametrize(
    "change", [lambda x: x.add_(1), Tensor.zero_, lambda x: x.__setitem__(0, 7)]
)
def test_a_leaf_that_requires_grad_keeps_its_value(change):
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"a leaf that requires grad .* no_grad"):
        change(x)
    with pytest.raises(RuntimeError, match="a view of a leaf that requires grad"):
        change(x[:1])
    assert x.tolist() == [1, 2] and x._version == 0
    with md.no_grad():
        change(x)
    assert x.tolist() != [1, 2] and x._version == 1 and x.is_leaf and x.requires_grad


def test_results_that_do_not_fit():
    with pytest.raises(RuntimeError, match=r"add_: output with shape \(3,\) .* \(2, 3\)"):
        md.zeros(3).add_(md.zeros(2, 3))
    with pytest.raises(RuntimeError, match="float32 can't be cast to int64"):
        md.arange(3).add_(0.5)
    with pytest.raises(RuntimeError, match=r"setitem: into \(2, 3\)"):
        md.zeros(2, 3)[0] = md.zeros(2)
    with pytest.raises(IndexError, match=r"into a tensor of shape \(2,\)"):
        md.zeros(2)[2] = 1
    with pytest.raises(RuntimeError, match="single memory location"):
        md.zeros(1).expand(3).add_(1)
    with pytest.raises(RuntimeError, match="one number"):
        md.zeros(2).fill_(md.zeros(2))
    with pytest.raises(RuntimeError, match="want bool"):
        md.zeros(2).masked_fill_(md.zeros(2), 1)
    x = md.zeros(2)
    x += np.float64(1)
    x.add_(md.ones(2, dtype="float64"))
    assert x.dtype == md.float32 and x.tolist() == [2, 2]


# Saved tensors

SAVED = {  # operation, and whether it needs its input, its output
    "exp": (lambda x: x.exp(), False, True),
    "tanh": (lambda x: x.tanh(), False, True),
    "log": (lambda x: x.log(), True, False),
    "square": (lambda x: x * x, True, False),
    "add": (lambda x: x + x, False, False),
    "scale": (lambda x: x * 3.0, False, False),
    "sum": (lambda x: x.sum(), False, False),
    "matmul": (lambda x: x @ x, True, False),
    "transposed, then squared": (lambda x: x.T * x.T, True, False),
    "softmax": (lambda x: x.softmax(0), False, True),
}


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("which", [0, 1], ids=["input", "output"])
def test_a_changed_array_is_refused_if_it_was_saved(name, which):
    function, *needs = SAVED[name]
    x = Tensor(np.full((2, 2), 0.5), requires_grad=True)
    h = x * 1
    y = function(h)
    g = np.ones(y.shape)
    total = (y * 1).sum()
    (h, y)[which].detach().add_(1)
    if needs[which]:
        with pytest.raises(RuntimeError, match=r"modified by an inplace .*'add_', version"):
            total.backward()
    else:
        total.backward()
        expected = Tensor(np.full((2, 2), 0.5), requires_grad=True)
        function(expected).backward(g)
        np.testing.assert_allclose(x.grad.data, expected.grad.data, rtol=1e-15)


def test_the_error_names_the_operation_and_a_view_counts():
    x = leaf(1.0, 2.0)
    h = x * 1
    y = h.log()
    row = h.detach()[1:]
    assert h._version == row._version == 0
    row.mul_(2)
    row.zero_()
    assert h._version == row._version == 2
    with pytest.raises(RuntimeError, match=r"backward of 'log' .*shape \(2,\).*'zero_', version 2"):
        y.sum().backward()


def test_a_change_before_the_operation_is_no_matter():
    x = leaf(1.0, 2.0)
    h = x * 1
    h += 1
    y = (h * h).sum()
    md.zeros(2).add_(1)
    y.backward()
    assert x.grad.tolist() == [4, 6]


def test_a_weight_changed_between_forward_and_backward():
    w, x = leaf(1.0), leaf(3.0)
    y = w * x
    with md.no_grad():
        w -= 0.5
    with pytest.raises(RuntimeError, match="'mul' needs an array"):
        y.backward()


def test_versions_are_forgotten_with_their_memory():
    before = len(versions.changes)
    for _ in range(5):
        md.zeros(3).add_(1)
    assert len(versions.changes) == before


def test_hooks_and_retained_gradients_of_a_changed_tensor():
    x = leaf(1.0, 2.0)
    h, seen = x * 2, []
    h.retain_grad()
    h.register_hook(lambda g: seen.append(g.tolist()))
    h *= 3
    (h * h).sum().backward()
    assert h.retains_grad and h.grad.tolist() == [12, 24], "of the new value"
    assert seen == [[36, 72]], "a hook stays where it was registered"


def test_a_long_chain_of_views():
    x = Tensor(np.ones((2, 2)), requires_grad=True)
    h = y = x * 1
    for _ in range(3000):
        y = y.T
    y.sum().backward()
    assert h.requires_grad and x.grad.tolist() == [[1, 1], [1, 1]]
