"""Matrix products of every rank, and the linear layer's function."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import arrays, numbers, tiny_tiles

import minidist as md
from minidist import ops
from minidist.testing import gradcheck

SIZES = st.integers(0, 3)
RANKS = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((3,), (4, 3, 2)),
    ((4, 2, 3), (3,)),
    ((2, 3), (4, 3, 2)),
    ((4, 2, 3), (3, 2)),
    ((4, 1, 2, 3), (5, 3, 2)),
    ((1, 2, 3), (4, 3, 1)),
    ((2, 0), (0, 3)),
    ((0, 2), (2, 3)),
    ((0, 2, 3), (3, 1)),
]


@pytest.mark.parametrize("shapes", RANKS, ids=str)
def test_gradients_of_matmul_in_every_rank(shapes):
    a, b = (numbers(s, i) for i, s in enumerate(shapes))
    np.testing.assert_allclose((md.Tensor(a) @ md.Tensor(b)).data, a @ b, rtol=1e-14)
    gradcheck(ops.matmul, [a, b])


@given(data=st.data(), m=SIZES, k=SIZES, n=SIZES)
@settings(max_examples=30)
def test_gradients_of_matmul(data, m, k, n):
    batch = data.draw(st.sampled_from([((), ()), ((2,), ()), ((2, 1), (3,)), ((1,), (2,))]))
    shapes = (*batch[0], m, k), (*batch[1], k, n)
    gradcheck(ops.matmul, [data.draw(arrays(s)) for s in shapes])


@given(data=st.data(), lead=st.lists(SIZES, max_size=2), into=SIZES, out=SIZES, bias=st.booleans())
@settings(max_examples=30)
def test_gradients_of_linear(data, lead, into, out, bias):
    shapes = [(*lead, into), (out, into), (out,)]
    inputs = [data.draw(arrays(s)) for s in shapes[: 2 + bias]]
    with tiny_tiles(4, rows=2):
        gradcheck(ops.linear, inputs)


def test_arrays_stand_beside_tensors():
    a, b = numbers((2, 3), 0), numbers((3, 2), 1)
    for y in (md.Tensor(a) @ b, a @ md.Tensor(b)):
        assert isinstance(y, md.Tensor)
        np.testing.assert_allclose(y.data, a @ b, rtol=1e-14)


def test_what_does_not_multiply():
    x = md.ones(2, 3)
    for other in (md.ones(2, 3), md.ones(2), md.tensor(1.0), md.ones(4, 2, 3)):
        with pytest.raises(RuntimeError, match=r"matmul: shapes \(2, 3\) and"):
            x @ other
    with pytest.raises(RuntimeError, match=r"leading sizes of .2, 2, 3. and .3, 3, 2. differ"):
        md.ones(2, 2, 3) @ md.ones(3, 3, 2)
    with pytest.raises(RuntimeError, match="dtypes float32 and float64"):
        x @ md.ones(3, 2, dtype="float64")
    with pytest.raises(RuntimeError, match=r"linear: input \(2, 3\) and weight \(3, 2\)"):
        ops.linear(x, md.ones(3, 2))
    with pytest.raises(RuntimeError, match=r"linear: bias \(3,\) for weight \(2, 3\)"):
        ops.linear(x, md.ones(2, 3), md.ones(3))
    with pytest.raises(RuntimeError, match="linear: dtypes float32 and float64"):
        ops.linear(x, md.ones(2, 3), md.ones(2, dtype="float64"))


# Einsum: letters drawn at random

LETTERS = "abcd"


@st.composite
def equations(draw):
    """An equation of up to three operands, and their shapes: repeats and sizes of 1 among them."""
    sizes = {c: draw(st.integers(0, 3)) for c in LETTERS}
    terms = draw(st.lists(st.text(LETTERS, max_size=3), min_size=1, max_size=3))
    every = sorted(set("".join(terms)))
    output = "".join(draw(st.lists(st.sampled_from(every), unique=True))) if every else ""
    shapes = []
    for term in terms:
        one = draw(st.sampled_from([None, *term])) if term else None
        shapes.append(tuple(1 if c == one else sizes[c] for c in term))
    return ",".join(terms) + draw(st.sampled_from(["", f"->{output}"])), shapes


@given(drawn=equations())
@settings(max_examples=80)
def test_gradients_of_einsum(drawn):
    equation, shapes = drawn
    operands = [numbers(s, i) for i, s in enumerate(shapes)]
    full = {c: max(n, 0) for t, s in zip(equation.split("->")[0].split(","), shapes)
            for c, n in sorted(zip(t, s), key=lambda pair: pair[1] != 1, reverse=True)}  # fmt: skip
    for term, x in zip(equation.split("->")[0].split(","), operands):
        for c, n in zip(term, x.shape):
            full[c] = n if full[c] == 1 else full[c]
    wide = [np.broadcast_to(x, [full[c] for c in t])
            for t, x in zip(equation.split("->")[0].split(","), operands)]  # fmt: skip
    expected = np.einsum(equation, *wide)
    np.testing.assert_allclose(md.einsum(equation, *map(md.Tensor, operands)).data, expected,
                               rtol=1e-10, atol=1e-12)  # fmt: skip
    gradcheck(lambda *x: md.einsum(equation, *x), operands)


def test_einsum_says_what_does_not_fit():
    x = md.ones(2, 3)
    with pytest.raises(RuntimeError, match=r"'ij,jk': sizes 3 and 2 for 'j'"):
        md.einsum("ij,jk", x, x)
    with pytest.raises(RuntimeError, match=r"subscripts 'ijk' for shape \(2, 3\)"):
        md.einsum("ijk", x)
    with pytest.raises(RuntimeError, match="each output letter once, and in some operand"):
        md.einsum("ij->ik", x)
