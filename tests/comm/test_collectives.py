"""Collectives on simulated ranks: NumPy's values, one order of summation, exact bytes."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.comm import Ledger, MpiError, all_gather, all_reduce, barrier, broadcast, simulate
from minidist.comm.collectives.all_reduce import ALGORITHMS, ring
from minidist.comm.collectives.reductions import OPS
from minidist.comm.collectives.ring import ring_all_gather, ring_reduce_scatter
from minidist.comm.shards import shard_bounds

SIZES = st.integers(1, 8)
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
SEEDS = st.none() | st.integers(0, 99)
DTYPES = ["int32", "uint8", "bool", "float16", "float32", "float64", "complex128"]


def inputs(size, shape, dtype, seed=0):
    rng = np.random.default_rng([seed, size, *shape])
    if np.dtype(dtype).kind in "iub":
        return [rng.integers(0, 9, shape).astype(dtype) for _ in range(size)]
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for _ in range(size)]


def run(arrays, call, seed=None):
    """`call(comm, array)` on each rank: results, bytes that each rank sent."""

    def main(comm):
        with Ledger(comm) as ledger:
            result = call(comm, arrays[comm.rank])
        return result, ledger.bytes

    results, sent = zip(*simulate(main, len(arrays), seed=seed))
    return results, sent


def ring_fold(arrays, op):
    """Chunk k folded from the left, from rank k+1 round to rank k."""
    size, flats = len(arrays), [a.reshape(-1) for a in arrays]
    result = np.empty_like(flats[0])
    for k, (start, stop) in enumerate(shard_bounds(result.size, size)):
        chunks = [flats[(k + 1 + i) % size][start:stop] for i in range(size)]
        result[start:stop] = reduce(OPS[op], chunks)
    return result.reshape(arrays[0].shape)


def rank_fold(arrays, op):
    return reduce(OPS[op], arrays)


FOLDS = {"ring": ring_fold, "naive": rank_fold}


def assert_same_bits(actual, expected):
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == expected.tobytes()


def assert_all_reduces(arrays, op="sum", algorithm="ring", seed=None):
    """The gate: right bits on every rank, untouched inputs, exact bytes."""
    before = [a.copy() for a in arrays]
    results, sent = run(arrays, lambda comm, a: all_reduce(comm, a, op, algorithm), seed)
    expected = FOLDS[algorithm](before, op)
    for result, array, old in zip(results, arrays, before):
        assert_same_bits(result, expected)
        assert_same_bits(array, old)
    assert sum(sent) == 2 * (len(arrays) - 1) * arrays[0].nbytes


@settings(max_examples=60)
@given(SIZES, SHAPES, st.sampled_from(DTYPES), st.sampled_from(["sum", "max", "prod"]), SEEDS)
@pytest.mark.parametrize("algorithm", ["ring", "naive"])
def test_all_reduce_is_the_fold_with_exact_bytes(algorithm, size, shape, dtype, op, seed):
    assert_all_reduces(inputs(size, shape, dtype), op, algorithm, seed)


@settings(max_examples=30)
@given(SIZES, SHAPES)
@pytest.mark.parametrize("algorithm", ["ring", "naive"])
def test_all_reduce_of_whole_numbers_is_numpys(algorithm, size, shape):
    arrays = inputs(size, shape, "int64")
    for op, expected in [("sum", np.sum), ("min", np.min), ("max", np.max), ("prod", np.prod)]:
        results, _ = run(arrays, lambda comm, a, op=op: all_reduce(comm, a, op, algorithm))
        for result in results:
            assert_same_bits(result, np.asarray(expected(np.stack(arrays), axis=0)))


def stops_one_step_early(comm, flat, combine):
    bounds = shard_bounds(flat.size, comm.size)
    ring_reduce_scatter(comm, flat, bounds, combine)
    ring_all_gather(comm, flat, [*bounds[:-1], (0, 0)], 1)


def adds_in_another_order(comm, flat, combine):
    ALGORITHMS["naive"](comm, flat, combine)


def sends_everything_to_everyone(comm, flat, combine):
    ring(comm, flat, combine)
    ring_all_gather(comm, np.tile(flat, comm.size), shard_bounds(flat.size, comm.size), 1)


def reduces_nothing(comm, flat, combine):
    del comm, flat, combine


MUTANTS = [
    stops_one_step_early,
    adds_in_another_order,
    sends_everything_to_everyone,
    reduces_nothing,
]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_all_reduce_gate_catches(mutant, monkeypatch):
    arrays = inputs(4, (3, 5), "float32")
    assert_all_reduces(arrays)
    monkeypatch.setitem(ALGORITHMS, "ring", mutant)
    with pytest.raises(AssertionError):
        assert_all_reduces(arrays)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("algorithm", ["ring", "naive"])
def test_all_reduce_into_out_in_place_and_out_of_strided_memory(size, algorithm):
    arrays = inputs(size, (4, 6), "float32")
    views = [a[::2, ::-2] for a in arrays]
    expected = FOLDS[algorithm]([v.copy() for v in views], "sum")

    def main(comm):
        mine = views[comm.rank]
        strided = np.full((2, 6), np.nan, np.float32)[:, ::2]
        assert all_reduce(comm, mine, "sum", algorithm, out=strided) is strided
        packed = mine.copy()
        assert all_reduce(comm, packed, "sum", algorithm, out=packed) is packed
        inside = np.asfortranarray(mine)
        assert all_reduce(comm, inside, "sum", algorithm, out=inside) is inside
        return strided.copy(), packed, inside.copy()

    for results in simulate(main, size):
        for result in results:
            assert_same_bits(result, expected)


def test_the_mean_divides_once():
    arrays = inputs(3, (7,), "float32")
    results, _ = run(arrays, lambda comm, a: all_reduce(comm, a, "mean", "ring"))
    assert_same_bits(results[0], ring_fold(arrays, "sum") / np.float32(3))


@settings(max_examples=60)
@given(SIZES, SHAPES, st.sampled_from(DTYPES), st.data())
def test_broadcast_gives_everyone_the_roots_array(size, shape, dtype, data):
    root = data.draw(st.integers(0, size - 1))
    arrays = inputs(size, shape, dtype)
    expected = arrays[root].copy()
    call = lambda comm, a: broadcast(comm, a, root, "tree")
    results, sent = run(arrays, call, data.draw(SEEDS))
    for result, array in zip(results, arrays):
        assert result is array
        assert_same_bits(result, expected)
    assert sum(sent) == (size - 1) * expected.nbytes
    assert sent[root] == (size - 1).bit_length() * expected.nbytes


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), SHAPES, st.booleans(), SEEDS)
def test_all_gather_joins_uneven_shards(rows, tail, known, seed):
    arrays = [inputs(1, (n, *tail), "float32", seed=i)[0] for i, n in enumerate(rows)]
    counts = rows if known else None
    results, sent = run(arrays, lambda comm, a: all_gather(comm, a, counts), seed)
    for result in results:
        assert_same_bits(result, np.concatenate(arrays))
    n = len(rows)
    finding_out = 0 if known else 8 * n * (n - 1)
    assert sum(sent) == (n - 1) * sum(a.nbytes for a in arrays) + finding_out


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("seed", [None, 3, 4, 5])
def test_nobody_leaves_a_barrier_before_all_have_come(size, seed):
    come = []

    def main(comm):
        come.append(comm.rank)
        barrier(comm)
        return len(come)

    assert simulate(main, size, seed=seed) == [size] * size


WRONG = [
    (lambda comm, x: all_reduce(comm, x, op="avg"), ValueError, "sum, prod, max, min, mean"),
    (
        lambda comm, x: all_reduce(comm, x, algorithm="rign"),
        ValueError,
        "use auto, ring, naive, tree",
    ),
    (lambda comm, x: all_reduce(comm, x, algorithm="native"), MpiError, "use algorithm='auto'"),
    (lambda comm, x: all_reduce(comm, [1]), TypeError, "needs a NumPy array, got list"),
    (lambda comm, x: all_reduce(comm, x.astype(int), op="mean"), TypeError, "mean of int64"),
    (lambda comm, x: all_reduce(comm, x, out=np.ones(4)), ValueError, r"float64 \(4,\)"),
    (lambda comm, x: all_reduce(comm, x, out=[0]), TypeError, "can be written"),
    (lambda comm, x: broadcast(comm, x, root=2), ValueError, "root=2 does not exist"),
    (lambda comm, x: broadcast(comm, [1]), TypeError, "needs a NumPy array, got list"),
    (lambda comm, x: broadcast(comm, np.broadcast_to(x, (2, 3)), 1), ValueError, "read-only"),
    (lambda comm, x: all_gather(comm, x[:1].reshape(())), ValueError, "0-d"),
    (lambda comm, x: all_gather(comm, x, [3]), ValueError, "must hold 2 numbers"),
    (lambda comm, x: all_gather(comm, x, [2, 3]), ValueError, "this rank's 3 rows"),
]


@pytest.mark.parametrize("call, error, text", WRONG)
def test_wrong_arguments_are_refused_before_any_message(call, error, text):
    sent = []

    def main(comm):
        with Ledger(comm) as ledger:
            try:
                call(comm, np.ones(3))
            finally:
                sent.append(ledger.messages)

    with pytest.raises(error, match=text):
        simulate(main, 2)
    assert sent == [0]
