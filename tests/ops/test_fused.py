"""Layer norm, embedding, cross-entropy and dropout: operations on top of kernels."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, arrays, numbers, tiny_tiles

import minidist as md
from minidist import ops, random
from minidist.testing import gradcheck

SIZES = st.integers(1, 4)


@given(data=st.data(), lead=st.lists(st.integers(0, 3), max_size=2),
       shape=st.lists(SIZES, min_size=1, max_size=2),
       affine=st.sampled_from(["wb", "w", "b", ""]))  # fmt: skip
@settings(max_examples=40)
def test_gradients_of_layer_norm(data, lead, shape, affine):
    x, w, b = (data.draw(arrays(tuple(s))) for s in (lead + shape, shape, shape))
    given_ = [x] + [w] * ("w" in affine) + [b] * ("b" in affine)

    def norm(x, *rest):
        parts = dict(zip(affine, rest))
        return ops.layer_norm(x, shape, parts.get("w"), parts.get("b"), eps=0.1)

    with tiny_tiles(5):
        gradcheck(norm, given_)


def test_layer_norm_of_equal_and_of_large_numbers():
    x = md.tensor([[5.0] * 4, [1e4, -1e4, 1e4, -1e4]])
    y = ops.layer_norm(x, 4).data
    np.testing.assert_array_equal(y[0], 0)
    np.testing.assert_allclose(y[1], [1, -1, 1, -1], rtol=1e-6)


def test_layer_norm_wants_shapes_that_fit():
    x = md.ones(2, 6)
    with pytest.raises(RuntimeError, match=r"over \(3,\): input \(2, 6\) does not end with it"):
        ops.layer_norm(x, 3)
    with pytest.raises(RuntimeError, match=r"over \(6,\): its weight has shape \(1,\)"):
        ops.layer_norm(x, 6, md.ones(1), md.ones(6))
    with pytest.raises(RuntimeError, match="dtypes float32 and float64"):
        ops.layer_norm(x, 6, md.ones(6, dtype="float64"), md.ones(6))


@given(data=st.data(), rows=SIZES, width=st.integers(0, 3),
       shape=st.lists(st.integers(0, 4), max_size=3))  # fmt: skip
@settings(max_examples=30)
def test_gradients_of_embedding(data, rows, width, shape):
    index = np.random.default_rng(data.draw(SEEDS)).integers(0, rows, shape)
    table = data.draw(arrays((rows, width)))
    gradcheck(lambda table: ops.embedding(index, table), [table])
    table = md.Tensor(table, requires_grad=True)
    ops.embedding(index, table, padding_idx=-1).sum().backward()
    assert (table.grad.data[-1] == 0).all()


def test_embedding_wants_rows_that_exist():
    table = md.ones(3, 2)
    for index, error, words in (
        ([0, 3], IndexError, "indices from 0 to 3 into a table of 3 rows"),
        ([-1], IndexError, "from -1"),
        ([0.0], RuntimeError, "integers, not float32"),
    ):
        with pytest.raises(error, match=words):
            ops.embedding(md.tensor(index), table)
    with pytest.raises(RuntimeError, match="2 dimensions"):
        ops.embedding(md.tensor([0]), md.ones(3))


@given(data=st.data(), n=SIZES, classes=SIZES, reduction=st.sampled_from(["mean", "sum", "none"]))
@settings(max_examples=30)
def test_gradients_of_cross_entropy(data, n, classes, reduction):
    target = np.random.default_rng(data.draw(SEEDS)).integers(0, classes, n)
    logits = data.draw(arrays((n, classes)))
    with tiny_tiles(3):
        gradcheck(lambda x: ops.cross_entropy(x, target, reduction=reduction), [logits])


def test_cross_entropy_of_no_rows_sums_to_nothing():
    x = md.Tensor(np.ones((0, 3)), requires_grad=True)
    loss = ops.cross_entropy(x, md.Tensor(np.zeros(0, int)), reduction="sum")
    loss.backward()
    assert loss.item() == 0 and x.grad.shape == (0, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_extremes(dtype):
    logits = md.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [7.0] * 3], dtype, requires_grad=True)
    loss = ops.cross_entropy(logits, md.tensor([0, 1, 2]), reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(loss.data, [0, 2e4, np.log(3)], rtol=1e-6)
    third = 1 / 3
    expected = [[0, 0, 0], [1, -1, 0], [third, third, third - 1]]
    np.testing.assert_allclose(logits.grad.data, expected, atol=1e-7)


def test_cross_entropy_wants_classes_that_exist():
    x = md.ones(2, 3)
    for target, error, words in (
        ([0, 3], IndexError, "targets from 0 to 3 for 3 classes"),
        ([-1, 0], IndexError, "targets from -1"),
        ([0], ValueError, r"input \(2, 3\) and target \(1,\)"),
        ([0.0, 1.0], RuntimeError, "class numbers, not float32"),
    ):
        with pytest.raises(error, match=words):
            ops.cross_entropy(x, md.tensor(target))
    with pytest.raises(ValueError, match="'max' is not 'mean'"):
        ops.cross_entropy(x, md.tensor([0, 1]), reduction="max")


# Dropout


@given(x=arrays(), p=st.sampled_from([0.0, 0.3, 0.9, 1.0]))
@example(x=np.array(1.5), p=0.5)
@settings(max_examples=20)
def test_gradients_of_dropout(x, p):
    def drop(x):
        md.manual_seed(3)
        return ops.dropout(x, p)

    gradcheck(drop, [x])


def test_dropout_keeps_the_mean_and_drops_its_share():
    md.manual_seed(0)
    y = ops.dropout(md.ones(200, 500), 0.25)
    kept = y.data != 0
    np.testing.assert_array_equal(y.data[kept], np.float32(1 / 0.75))
    share = kept.mean()  # of 100,000 draws: five deviations are 0.007
    assert abs(share - 0.75) < 0.007
    assert y.dtype == md.float32


def test_dropout_does_nothing_outside_training_and_at_0():
    x = md.ones(3)
    assert ops.dropout(x, 0.5, training=False) is x and ops.dropout(x, 0.0) is x
    assert ops.dropout(x, 1.0).tolist() == [0, 0, 0]
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="want 0 <= p <= 1"):
            ops.dropout(x, p)


def test_dropout_draws_anew_each_time_but_not_at_one_place():
    x = md.Tensor(numbers((4, 50), 0))
    assert (ops.dropout(x, 0.5).data != ops.dropout(x, 0.5).data).any()
    with random.at(seed=1, step=2, first_sample=3):
        np.testing.assert_array_equal(ops.dropout(x, 0.5).data, ops.dropout(x, 0.5).data)
