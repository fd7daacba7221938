"""Every algorithm of every collective: NumPy's values, any number of ranks, exact bytes."""

import math
from itertools import pairwise as neighbours

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist import comm as c
from minidist.comm import Ledger, simulate
from minidist.comm.collectives import (
    bruck,
    chain,
    doubling,
    exchange,
    gathering,
    pairwise,
    reduction,
    rooted,
)
from minidist.comm.collectives.doubling import power
from minidist.comm.collectives.tree import children
from minidist.comm.shards import shard_bounds

SIZES, SEEDS, ROOTS = st.integers(1, 9), st.none() | st.integers(0, 99), st.integers(0, 8)
SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)
LOG = lambda n: math.ceil(math.log2(n)) if n > 1 else 0


def whole(size, shape, seed=0):
    """Whole numbers in float64: every order of summation gives the same bits."""
    rng = np.random.default_rng([seed, size, *shape])
    return [rng.integers(-99, 99, shape).astype("float64") for _ in range(size)]


def on_ranks(size, call, seed=None):
    """call(comm) on each rank: results, and the bytes and messages that all sent."""

    def main(comm):
        with Ledger(comm) as ledger:
            return call(comm), ledger.bytes, ledger.messages

    results, sent, messages = zip(*simulate(main, size, seed=seed))
    return results, sum(sent), sum(messages)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def split(array, counts=None):
    """Rows as counts say, or by the rule of shards."""
    return [array[a:b] for a, b in neighbours(np.cumsum([0, *counts]))]


def even(rows, size):
    return [b - a for a, b in shard_bounds(rows, size)]


# All-reduce


@pytest.mark.parametrize("algorithm", ["tree", "doubling", "rabenseifner"])
@settings(max_examples=40)
@given(size=SIZES, shape=SHAPES, seed=SEEDS, op=st.sampled_from(["sum", "max", "min", "mean"]))
def test_all_reduce(algorithm, size, shape, seed, op):
    arrays = whole(size, shape)
    before = [a.copy() for a in arrays]
    call = lambda comm: c.all_reduce(comm, arrays[comm.rank], op, algorithm)
    results, sent, _ = on_ranks(size, call, seed)
    stack = np.stack(before)
    expected = {"sum": stack.sum(0), "max": stack.max(0), "min": stack.min(0)}
    wanted = expected["sum"] / size if op == "mean" else expected[op]
    assert all(same(r, wanted) for r in results)
    assert all(same(a, b) for a, b in zip(arrays, before)), "inputs stay as they are"
    p, nbytes = power(size), arrays[0].nbytes
    assert sent == nbytes * {
        "tree": 2 * (size - 1), "doubling": p * LOG(p) + 2 * (size - p),
        "rabenseifner": 2 * (p - 1) + 2 * (size - p),
    }[algorithm]  # fmt: skip


@pytest.mark.parametrize("algorithm", ["tree", "doubling", "rabenseifner"])
@settings(max_examples=20)
@given(size=SIZES, shape=SHAPES)
def test_all_ranks_have_the_same_bits(algorithm, size, shape):
    rng = np.random.default_rng([size, *shape])
    arrays = [rng.standard_normal(shape).astype("float32") for _ in range(size)]
    results, *_ = on_ranks(
        size, lambda comm: c.all_reduce(comm, arrays[comm.rank], "sum", algorithm)
    )
    assert all(same(r, results[0]) for r in results)
    np.testing.assert_allclose(results[0], np.sum(arrays, 0), rtol=1e-4, atol=1e-5)


def test_auto_goes_by_the_size():
    def sent(numbers):
        arrays = whole(4, (numbers,))
        call = lambda comm: c.all_reduce(comm, arrays[comm.rank], algorithm="auto")
        results, nbytes, _ = on_ranks(4, call)
        assert all(same(r, sum(arrays)) for r in results)
        return nbytes / arrays[0].nbytes

    assert sent(reduction.SMALL // 8) == 4 * 2, "doubling"
    assert sent(reduction.SMALL // 8 + 8) == 2 * 3, "ring"


# With a root


@pytest.mark.parametrize("algorithm", rooted.BROADCAST)
@settings(max_examples=30)
@given(size=SIZES, shape=SHAPES, root=ROOTS, seed=SEEDS, dense=st.booleans())
def test_broadcast(algorithm, size, shape, root, seed, dense):
    root, value = root % size, whole(1, shape)[0]

    def call(comm):
        mine = value.copy() if comm.rank == root else np.full_like(value, np.nan)
        mine = mine if dense else np.asfortranarray(mine)
        return c.broadcast(comm, mine, root, algorithm)

    results, sent, _ = on_ranks(size, call, seed)
    assert all((r == value).all() for r in results) and sent == (size - 1) * value.nbytes


@pytest.mark.parametrize("algorithm", rooted.REDUCE)
@settings(max_examples=30)
@given(size=SIZES, shape=SHAPES, root=ROOTS, seed=SEEDS)
def test_reduce(algorithm, size, shape, root, seed):
    root, arrays = root % size, whole(size, shape)
    call = lambda comm: c.reduce(comm, arrays[comm.rank], root, "sum", algorithm)
    results, sent, _ = on_ranks(size, call, seed)
    assert same(results[root], sum(arrays)) and sent == (size - 1) * arrays[0].nbytes
    assert all(r is None for k, r in enumerate(results) if k != root)


def hops(size, root, parts):
    """Bytes of a binomial scatter or gather: each subtree's part, once an edge."""

    def below(place):
        return [place, *(p for child in children(place, size) for p in below(child))]

    rank = lambda place: (place + root) % size
    return sum(parts[rank(p)].nbytes for place in range(1, size) for p in below(place))


@pytest.mark.parametrize("algorithm", rooted.SCATTER)
@settings(max_examples=40)
@given(size=SIZES, shape=SHAPES, root=ROOTS, seed=SEEDS, uneven=st.booleans(), data=st.data())
def test_scatter_and_gather(algorithm, size, shape, root, seed, uneven, data):
    root, value = root % size, whole(1, shape)[0]
    counts = even(len(value), size)
    if uneven:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(value)), min_size=size - 1,
                                         max_size=size - 1)))  # fmt: skip
        counts = np.diff([0, *cuts, len(value)]).tolist()
    parts, told = split(value, counts), counts if uneven else None

    def there(comm):
        return c.scatter(comm, value if comm.rank == root else None, root, told, algorithm)

    results, sent, _ = on_ranks(size, there, seed)
    assert all(map(same, results, parts))
    header = (size - 1) * rooted.HEADER * 8
    moved = (hops(size, root, parts) if algorithm == "tree"
             else sum(p.nbytes for k, p in enumerate(parts) if k != root))  # fmt: skip
    assert sent == moved + header
    back = lambda comm: c.gather(comm, parts[comm.rank], root, counts, algorithm)
    results, sent, _ = on_ranks(size, back, seed)
    assert same(results[root], value) and sent == moved
    assert all(r is None for k, r in enumerate(results) if k != root)
    found, *_ = on_ranks(size, lambda comm: c.gather(comm, parts[comm.rank], root))
    assert same(found[root], value), "without counts they are asked for"


# Where everyone gets a part


@pytest.mark.parametrize("algorithm", gathering.ALGORITHMS)
@settings(max_examples=30)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=9), seed=SEEDS)
def test_all_gather(algorithm, counts, seed):
    size = len(counts)
    parts = [np.full((n, 3), k + 0.5) for k, n in enumerate(counts)]
    call = lambda comm: c.all_gather(comm, parts[comm.rank], counts, algorithm)
    results, sent, messages = on_ranks(size, call, seed)
    assert all(same(r, np.concatenate(parts)) for r in results)
    total, p = sum(x.nbytes for x in parts), power(size)
    if algorithm == "doubling":
        assert sent == total * (p - 1) + sum(x.nbytes for x in parts[p:]) + (size - p) * total
    else:
        assert sent == (size - 1) * total
    assert messages <= {"ring": size * (size - 1), "bruck": size * LOG(size),
                        "doubling": p * LOG(p) + 2 * (size - p)}[algorithm]  # fmt: skip


@pytest.mark.parametrize("algorithm", exchange.REDUCE_SCATTER)
@settings(max_examples=30)
@given(size=SIZES, shape=SHAPES, seed=SEEDS, op=st.sampled_from(["sum", "max", "mean"]))
def test_reduce_scatter(algorithm, size, shape, seed, op):
    arrays = whole(size, shape)
    call = lambda comm: c.reduce_scatter(comm, arrays[comm.rank], op, algorithm)
    results, sent, _ = on_ranks(size, call, seed)
    stack = np.stack(arrays)
    total = {"sum": stack.sum(0), "max": stack.max(0), "mean": stack.sum(0) / size}[op]
    assert all(map(same, results, split(total, even(len(total), size))))
    if algorithm != "halving" or size == power(size):
        assert sent == (size - 1) * total.nbytes


@settings(max_examples=40)
@given(size=SIZES, seed=SEEDS, data=st.data())
def test_all_to_all_of_any_counts(size, seed, data):
    row = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    counts = data.draw(st.lists(row, min_size=size, max_size=size))
    going = [np.arange(sum(r) * 2).reshape(-1, 2) + 1000 * k for k, r in enumerate(counts)]
    parts = [split(a, r) for a, r in zip(going, counts)]
    call = lambda comm: c.all_to_all(comm, going[comm.rank], counts[comm.rank])
    results, sent, _ = on_ranks(size, call, seed)
    for k, found in enumerate(results):
        assert same(found, np.concatenate([parts[source][k] for source in range(size)]))
    away = sum(p.nbytes for k, row in enumerate(parts) for j, p in enumerate(row) if j != k)
    assert sent == away + size * (size - 1) * 8, "and one number to each, for the counts"


@settings(max_examples=20)
@given(size=SIZES, each=st.integers(0, 3), seed=SEEDS)
def test_all_to_all_by_bruck(size, each, seed):
    going = [np.arange(size * each * 2.0).reshape(size * each, 2) + 100 * k for k in range(size)]
    by = lambda algorithm: on_ranks(
        size, lambda comm: c.all_to_all(comm, going[comm.rank], algorithm=algorithm), seed
    )
    (pairs, *_), (hopped, sent, messages) = by("pairwise"), by("bruck")
    assert all(map(same, hopped, pairs)) and messages == size * LOG(size)
    block = 8 * 2 * each
    assert sent == size * block * sum(bin(d).count("1") for d in range(size))


@pytest.mark.parametrize("algorithm", exchange.SCAN)
@settings(max_examples=30)
@given(size=SIZES, shape=SHAPES, seed=SEEDS)
def test_scan(algorithm, size, shape, seed):
    arrays = whole(size, shape)
    call = lambda comm: c.scan(comm, arrays[comm.rank], "sum", algorithm)
    results, sent, _ = on_ranks(size, call, seed)
    assert all(map(same, results, np.cumsum(arrays, 0)))
    edges = {
        "chain": max(size - 1, 0),
        "doubling": sum(max(size - 2**k, 0) for k in range(LOG(size))),
    }
    assert sent == edges[algorithm] * arrays[0].nbytes


def test_chains_go_a_segment_at_a_time(monkeypatch):
    monkeypatch.setattr(chain, "SEGMENT", 16)
    value = np.arange(7.0)

    def call(comm):
        mine = value if comm.rank == 1 else np.zeros(7)
        return c.broadcast(comm, mine, 1, "chain"), c.reduce(comm, value, 2, "sum", "chain")

    results, _, messages = on_ranks(3, call)
    assert all((r[0] == value).all() for r in results) and (results[2][1] == 3 * value).all()
    assert messages == 2 * 2 * 4


# The controls: planted faults that the assertions above must see


def forgets_the_last_ranks(comm, flat, combine):
    if comm.rank < power(comm.size):
        doubling._halve(comm, flat, shard_bounds(flat.size, power(comm.size)),
                        [[k] for k in range(power(comm.size))], combine)  # fmt: skip


def sends_its_own_again(comm, flat, bounds, tag):
    bruck.all_gather_flat(comm, flat, bounds, tag)
    flat[: bounds[0][1]] = flat[slice(*bounds[comm.rank])][: bounds[0][1]]


def hands_out_shifted(comm, flat, bounds, root):
    rooted.linear.scatter_flat(comm, flat, [*bounds[1:], bounds[0]], root)


def swaps_operands(comm, flat, combine):
    chain.scan_flat(comm, flat, lambda a, b, out: np.copyto(out, b))


def leaves_one_out(comm, flat, bounds, combine):
    theirs = np.empty_like(flat[slice(*bounds[comm.rank])])
    pairwise.reduce_scatter_flat(comm, flat, bounds, combine)
    del theirs
    flat[slice(*bounds[comm.rank])] -= 1.0


def waits_for_nobody(comm, flat, root):
    del comm, flat, root


FAULTS = [
    (rooted.BROADCAST, "tree", waits_for_nobody, test_broadcast),
    (rooted.SCATTER, "linear", hands_out_shifted, test_scatter_and_gather),
    (gathering.ALGORITHMS, "bruck", sends_its_own_again, test_all_gather),
    (exchange.REDUCE_SCATTER, "pairwise", leaves_one_out, test_reduce_scatter),
    (exchange.SCAN, "chain", swaps_operands, test_scan),
]


@pytest.mark.parametrize(
    "table, name, fault, gate", FAULTS, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_planted_fault_is_seen(table, name, fault, gate, monkeypatch):
    monkeypatch.setitem(table, name, fault)
    with pytest.raises(BaseException) as seen:
        gate(name)
    assert not isinstance(seen.value, KeyboardInterrupt)


# Refusals, before any message


@pytest.mark.parametrize("call, text", [
    (lambda comm: c.broadcast(comm, np.ones(2), 5), "root=5 does not exist"),
    (lambda comm: c.broadcast(comm, np.ones(2), 0, "star"), "use linear, tree, chain"),
    (lambda comm: c.reduce(comm, np.ones(2), 0, "xor"), "op='xor' is not known"),
    (lambda comm: c.scatter(comm, np.ones(3), 0, [1, 1]), r"counts=\[1, 1\].*sum to 3"),
    (lambda comm: c.gather(comm, np.ones(()), 0), "0-d array has no rows"),
    (lambda comm: c.reduce_scatter(comm, np.ones(3, int), "mean"), "mean of int64"),
    (lambda comm: c.all_to_all(comm, np.ones(3), algorithm="bruck"), "divide evenly"),
    (lambda comm: c.all_to_all(comm, np.ones(3), [1, 1]), "sum to 3"),
    (lambda comm: c.all_gather(comm, np.ones(3), None, "star"), "use one of ring, doubling, bruck"),
    (lambda comm: c.scan(comm, np.ones(3), algorithm="ring"), "use chain, doubling"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, text):
    with pytest.raises((ValueError, TypeError), match=text):
        simulate(call, 2)
