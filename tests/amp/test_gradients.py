"""Every operation and layer in float16 and bfloat16: its values and gradients are float32's."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from minidist.kernels.half_precision import BFLOAT16
from support.catalogue import CASES, OURS, outputs
from support.catalogue_layers import LAYERS, RUNS

import minidist as md
from minidist import Tensor, nn, ops
from minidist.ops.op import differentiable
from minidist.tensor.dtypes import DTYPES

ROOT = Path(__file__).parents[2]
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half of a unit in the last place, relative
few = settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
# Rounding in between moves these over a jump, so that a number differs by as much as there is
JUMPS = {"floor_divide", "remainder"}


def cast_to_float32(x):
    """The one case that returns float32 on purpose."""
    return CASES["cast"].call(OURS, x)


def rounded(array, dtype):
    """The same numbers in float32, each rounded to the dtype."""
    if array.dtype.kind != "f":
        return array
    return array.astype(BFLOAT16 if dtype == "bfloat16" else dtype).astype(np.float32)


def computed(call, arrays, dtype):
    """Values and gradients of the inputs (None: it has no gradient), all as float32."""
    xs = [md.tensor(a) for a in arrays]
    xs = [x.to(dtype).requires_grad_() if x.is_floating_point() else x for x in xs]
    ys = [y for y in outputs(call(*xs)) if isinstance(y, Tensor)]
    tracked = [y for y in ys if y.requires_grad]
    if call is not cast_to_float32:
        assert {y.dtype for y in tracked} <= {np.dtype(DTYPES[dtype])}, "a result of another dtype"
    rng = np.random.default_rng(7)
    upstream = [rng.integers(1, 5, y.shape) / 4 for y in tracked]  # exact in all of the dtypes
    md.autograd.backward(tracked, [md.tensor(g).to(y.dtype) for g, y in zip(upstream, tracked)])
    assert all(x.grad is None or x.grad.dtype == x.dtype for x in xs)
    grads = [x.grad for x in xs if x.is_floating_point()]
    return [None if t is None else t.detach().float().data for t in (*ys, *grads)]


def excess(found, exact, eps, steps=16):
    """The largest difference, as a multiple of what some roundings of the largest number make."""
    assert len(found) == len(exact)
    worst = 0.0
    for a, b in zip(found, exact):
        assert (a is None) == (b is None) and (a is None or a.shape == b.shape)
        if a is None or not a.size:
            continue
        assert (np.isfinite(a) == np.isfinite(b)).all()
        largest = max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0))
        off = np.abs(np.where(np.isfinite(b), a, 0) - np.where(np.isfinite(b), b, 0))
        worst = max(worst, off.max() / (steps * eps * largest))
    return worst


def of_case(case, arrays, options, dtype):
    call = cast_to_float32 if case is CASES["cast"] else lambda *xs: case.call(OURS, *xs, **options)
    low = [rounded(a, dtype) for a in arrays]
    return computed(call, low, dtype), computed(call, low, "float32")


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", sorted(CASES.keys() - JUMPS))
def test_operations(name, dtype):
    @few
    @given(CASES[name].draw)
    def check(drawn):
        assert excess(*of_case(CASES[name], *drawn, dtype), EPS[dtype]) < 1

    check()


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype):
    """Inputs and parameters alike are in 16 bits."""

    @settings(few, max_examples=2)
    @given(LAYERS[name])
    def check(drawn):
        make, arrays = drawn
        found = []
        for kind in (dtype, "float32"):
            md.manual_seed(0)
            layer = make(nn).to(dtype).to(kind)
            run = lambda *xs, layer=layer: RUNS.get(name, lambda m, *xs: m(*xs))(layer, *xs)
            numbers = computed(run, [rounded(a, dtype) for a in arrays], kind)
            grads = [None if p.grad is None else p.grad.float().data for p in layer.parameters()]
            found.append([*numbers, *grads])
        assert excess(*found, EPS[dtype], steps=32) < 1

    check()


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", sorted(JUMPS))
def test_operations_that_jump(name, dtype):
    """On numbers that all dtypes hold, so that none is moved over a jump."""

    @few
    @given(CASES[name].draw)
    def check(drawn):
        arrays, options = drawn
        arrays = [np.ceil(np.abs(a) * 4) * np.sign(a) for a in arrays]
        assert excess(*of_case(CASES[name], arrays, options, dtype), EPS[dtype]) < 1

    check()


IN_PLACE = sorted(n for n in vars(Tensor) if n[0] != "_" and n[-1] == "_" and n[-2] != "_")
NO_DIFFERENTIABLE_VALUE = {"requires_grad_", "detach_", "uniform_", "normal_", "logical_not_",
                           "bitwise_and_", "bitwise_or_", "bitwise_xor_", "baddbmm_"}  # fmt: skip
INDEX = md.tensor([[1, 0, 1]])
ARGUMENTS = {  # of the others: none
    "copy_": lambda y: (y,),
    "fill_": lambda y: (y[0, 1],),
    "clamp_": lambda y: (0.5, 1.5),
    "clip_": lambda y: (0.5, 1.5),
    "clamp_min_": lambda y: (0.6,),
    "clamp_max_": lambda y: (1.1,),
    "addcmul_": lambda y: (y, y + 1),
    "addcdiv_": lambda y: (y, y + 1),
    "addmm_": lambda y: (y[:, :2], y),
    "lerp_": lambda y: (y, 0.25),
    "masked_fill_": lambda y: (y.detach() > 1, y[0, 0]),
    "scatter_": lambda y: (0, INDEX, y),
    "scatter_add_": lambda y: (0, INDEX, y),
    "index_add_": lambda y: (0, md.tensor([1, 0]), y),
} | {n: lambda y: (y,) for n in ("add_", "div_", "floor_divide_", "mul_", "pow_", "remainder_",
                                 "sub_")}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(IN_PLACE) - NO_DIFFERENTIABLE_VALUE))
def test_changes_in_place(name):
    """A change of a whole tensor, and of a row of another."""
    x, y = np.array([[0.75, 1.25, 0.5], [1.5, 0.25, 1.75]]), np.array([[1.25, 2, 1], [1, 3, 2.5]])

    def changed(x, y):
        z = md.stack([x, x])
        for part in (z[1], x * 1):
            assert getattr(part, name)(*ARGUMENTS.get(name, lambda y: ())(y)) is part
        return z, part

    for dtype in EPS:
        low = [rounded(a, dtype) for a in (x, y)]
        found, exact = (computed(changed, low, d) for d in (dtype, "float32"))
        assert excess(found, exact, EPS[dtype]) < 1


@pytest.mark.parametrize("dtype", EPS)
def test_writes_into_elements(dtype):
    def changed(x, y):
        z = x * 1
        z[0, 1] = y[1, 0]
        z[1, 1].mul_(y[0, 0])
        z[z > 1.5] = y.sum()
        z[[0, 1], [0, 0]] = y[:, 1]
        return z

    low = [np.array([[0.75, 1.25], [1.5, 1.0]]), np.array([[1.25, 0.5], [1.0, 0.25]])]
    assert excess(computed(changed, low, dtype), computed(changed, low, "float32"), EPS[dtype]) < 1


# No cast by bits


READ_OLD_FILES = {"minidist/nn/module.py", "minidist/train/checkpoint.py"}  # bits, as uint16
NAMES_ALONE = {"minidist/absent/names.py"}
CONVERTERS = {"kernels/half_precision.py", "kernels/loops.py"}  # loops that read and write bits
BITS = re.compile(r"uint16|\.view\((BFLOAT16|[\w.]*float16)")


def test_no_text_takes_the_bits_of_16_bit_numbers_for_others():
    """astype() and an assignment convert; a view of another dtype, or uint16, would not."""
    files = [f for folder in ("minidist", "kernels") for f in (ROOT / folder).rglob("*.py")]
    found = {str(f.relative_to(ROOT)) for f in files if BITS.search(f.read_text())}
    assert len(files) > 200 and found == READ_OLD_FILES | NAMES_ALONE | CONVERTERS


@pytest.mark.parametrize("text", ["g.astype(xp.uint16)", "x.view(BFLOAT16)", "y.view(xp.float16)",
                                  'a.astype("uint16")'])  # fmt: skip
def test_such_a_text_is_found(text):
    assert BITS.search(text)


# Gradients that were lost while bfloat16 stood in arrays of uint16: 1 became 9.2e-41


LOST = {
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.T.contiguous(),
    "contiguous, then a view": lambda x: x.transpose(0, 1).contiguous().view(-1),
    "repeat": lambda x: x.repeat(1, 1),
    "tile": lambda x: x.tile((1, 1)),
    "scatter": lambda x: x.scatter(0, md.tensor([[0, 0]]), value=0.0),
    "cumsum of one number": lambda x: x[0, 0].cumsum(0),
    "index_select of one number": lambda x: x[0, 0].index_select(0, md.tensor([0])),
}


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", LOST)
def test_gradients_are_not_lost(name, dtype):
    grads = []
    for kind in (dtype, "float32"):
        x = md.tensor([[1.0, 2.0], [3.0, 4.0]]).to(kind).requires_grad_()
        LOST[name](x).sum().backward()
        grads.append(x.grad.tolist())
    assert grads[0] == grads[1] and np.max(grads[0]) == 1


@pytest.mark.parametrize("dtype", EPS)
def test_gradients_of_a_copy_that_is_written_to(dtype):
    x = md.tensor([1.0, 2.0, 3.0]).to(dtype).requires_grad_()
    y = x.clone()
    y[0] = 0
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1]


# Negative controls


def test_float16s_bound_fails_bfloat16():
    """Three bits fewer are seen in most operations."""
    x = np.random.default_rng(0).standard_normal((40, 30))
    seen = []
    for operation in (ops.exp, ops.tanh, lambda x: x @ x.T, lambda x: x.softmax(1) * 30):
        low, exact = (
            computed(operation, [rounded(x, "bfloat16")], d) for d in ("bfloat16", "float32")
        )
        seen.append(excess(low, exact, EPS["float16"], steps=3))
    assert min(seen) > 1


@pytest.mark.parametrize("dtype", EPS)
def test_a_cotangent_whose_bits_are_taken_for_a_number_is_seen(dtype):
    bits = lambda g: g.astype(np.uint16).view(BFLOAT16 if dtype == "bfloat16" else np.float16)
    broken = differentiable(autocast="fallthrough")(lambda x: (x.copy(), bits))
    x = np.ones((2, 3))
    assert excess(computed(broken, [x], dtype), computed(ops.clone, [x], "float32"), EPS[dtype]) > 1
