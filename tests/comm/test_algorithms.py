"""Every algorithm of every collective: NumPy's values, any number of ranks, exact traffic."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ranks import (
    ALGORITHMS,
    ROOTS,
    SEEDS,
    SHAPES,
    SIZES,
    even,
    frozen,
    on_ranks,
    same,
    split,
    whole,
)

from minidist import comm as c
from minidist.comm import simulate
from minidist.comm.collectives import auto, chunks
from minidist.comm.collectives.binomial import children
from minidist.comm.collectives.recursive import largest_power_of_two
from minidist.comm.collectives.reductions import OPS as UFUNCS
from minidist.plan.collectives import asking, traffic
from minidist.plan.collectives import exchange as exchanged

BY_HAND = lambda collective: [name for name in ALGORITHMS[collective] if name != "native"]
OPS = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod, "mean": np.mean}


@pytest.mark.parametrize("algorithm", BY_HAND("all_reduce"))
@settings(max_examples=40)
@given(size=SIZES, shape=SHAPES, seed=SEEDS, op=st.sampled_from(["sum", "max", "min", "mean"]))
def test_all_reduce(algorithm, size, shape, seed, op):
    arrays = whole(size, shape)
    call = lambda comm: c.all_reduce(comm, arrays[comm.rank], op, algorithm)
    results, sent = on_ranks(size, call, seed)
    stack = np.stack(arrays)
    wanted = stack.sum(0) / size if op == "mean" else OPS[op](stack, 0)
    assert all(same(r, wanted) for r in results)
    assert sent == traffic("all_reduce", algorithm, [arrays[0].nbytes] + [0] * (size - 1))


def by_tree(v, op, place=0):
    total = v[place]
    for child in reversed(children(place, len(v))):
        total = op(total, by_tree(v, op, child))
    return total


def to_a_power_of_two(v, op):
    p = largest_power_of_two(len(v))
    return [op(v[k], v[k + p]) if k + p < len(v) else v[k] for k in range(p)]


def neighbours_first(v, op):
    v = to_a_power_of_two(v, op)
    while len(v) > 1:
        v = [op(a, b) for a, b in zip(v[::2], v[1::2])]
    return v[0]


def halves_first(v, op):
    v = to_a_power_of_two(v, op)
    while len(v) > 1:
        v = [op(a, b) for a, b in zip(v[: len(v) // 2], v[len(v) // 2 :])]
    return v[0]


def in_rank_order(v, op):
    return reduce(op, v)


ORDERS = {
    "ordered": in_rank_order,
    "tree": by_tree,
    "doubling": neighbours_first,
    "rabenseifner": halves_first,
}


@pytest.mark.parametrize("algorithm", ORDERS)  # ring and naive: test_collectives
@settings(max_examples=40)
@given(size=SIZES, shape=SHAPES, seed=SEEDS, op=st.sampled_from(["sum", "prod"]))
def test_floats_are_added_in_the_algorithms_own_order_on_all_ranks(
    algorithm, size, shape, seed, op
):
    rng = np.random.default_rng([size, *shape])
    arrays = [frozen(rng.standard_normal(shape).astype("float32")) for _ in range(size)]
    call = lambda comm: c.all_reduce(comm, arrays[comm.rank], op, algorithm)
    wanted = ORDERS[algorithm](arrays, UFUNCS[op])
    assert all(same(r, wanted) for r in on_ranks(size, call, seed)[0])


@settings(max_examples=40)
@given(size=SIZES, cuts=st.lists(st.integers(0, 30), min_size=8, max_size=8), seed=SEEDS)
def test_ordered_sums_do_not_depend_on_how_the_buffer_is_cut(size, cuts, seed):
    rng = np.random.default_rng(size)
    arrays = [frozen(rng.standard_normal(30).astype("float32")) for _ in range(size)]
    counts = np.diff([0, *sorted(cuts[: size - 1]), 30]).tolist()
    reference = lambda comm: c.all_reduce(comm, arrays[comm.rank], "sum", "ordered")
    total = simulate(reference, size)[0]
    call = lambda comm: c.reduce_scatter(comm, arrays[comm.rank], "sum", "ordered", counts)
    assert all(map(same, on_ranks(size, call, seed)[0], split(total, counts)))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float16", "complex128", ">f4"])
@pytest.mark.parametrize("algorithm", BY_HAND("all_reduce"))
def test_all_reduce_of_every_dtype(algorithm, dtype):
    arrays = [a.astype(dtype) for a in whole(5, (3, 4))]
    for op in ("sum", "prod") if dtype != "float16" else ("sum", "max"):
        call = lambda comm, op=op: c.all_reduce(comm, arrays[comm.rank], op, algorithm)
        for result in on_ranks(5, call)[0]:
            native = result.dtype.newbyteorder("=")
            wanted = OPS[op](np.stack(arrays).astype(native), 0).astype(native)
            np.testing.assert_allclose(result, wanted, rtol=1e-3)
            assert result.dtype == dtype


def test_auto_goes_by_the_size():
    def sent(numbers):
        arrays = whole(4, (numbers,))
        results, sent = on_ranks(4, lambda comm: c.all_reduce(comm, arrays[comm.rank]))
        assert all(same(r, sum(arrays)) for r in results)
        return sent.bytes / arrays[0].nbytes

    assert sent(auto.SMALL // 8) == 4 * 2, "doubling"
    assert sent(auto.SMALL // 8 + 8) == 2 * 3, "ring"
    assert auto.choose("all_gather", "auto", 4, 10) == "ring"
    assert auto.choose("all_gather", "auto", 9, 10) == "bruck"
    assert auto.choose("all_gather", "doubling", 9, 10) == "doubling"
    assert set(auto.AUTO) == set(ALGORITHMS)
    assert all(set(auto.AUTO[name]) <= set(BY_HAND(name)) for name in ALGORITHMS)


# With a root


@pytest.mark.parametrize("algorithm", ["auto", *BY_HAND("broadcast")])
@settings(max_examples=30)
@given(size=SIZES, shape=SHAPES, root=ROOTS, seed=SEEDS, dense=st.booleans())
def test_broadcast(algorithm, size, shape, root, seed, dense):
    root, value = root % size, whole(1, shape)[0]

    def call(comm):
        mine = value.copy() if comm.rank == root else np.full_like(value, np.nan)
        mine = mine if dense else np.asfortranarray(mine)
        found = c.broadcast(comm, mine, root, algorithm).copy()
        mine[...] = np.nan  # it is the caller's again: a message still under way would show
        return found

    results, sent = on_ranks(size, call, seed)
    assert all((r == value).all() for r in results) and sent.bytes == (size - 1) * value.nbytes


@pytest.mark.parametrize("algorithm", BY_HAND("reduce"))
@settings(max_examples=30)
@given(size=SIZES, shape=SHAPES, root=ROOTS, seed=SEEDS)
def test_reduce(algorithm, size, shape, root, seed):
    root, arrays = root % size, whole(size, shape)
    call = lambda comm: c.reduce(comm, arrays[comm.rank], root, "sum", algorithm)
    results, sent = on_ranks(size, call, seed)
    assert same(results[root], sum(arrays))
    assert sent == traffic("reduce", algorithm, [arrays[0].nbytes] + [0] * (size - 1), root, 8)
    assert all(r is None for k, r in enumerate(results) if k != root)


@pytest.mark.parametrize("algorithm", BY_HAND("scatter"))
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

    nbytes = [p.nbytes for p in parts]
    results, sent = on_ranks(size, there, seed)
    assert all(map(same, results, parts))
    assert sent == traffic("scatter", algorithm, nbytes, root)
    back = lambda comm: c.gather(comm, parts[comm.rank], root, counts, algorithm)
    results, sent = on_ranks(size, back, seed)
    assert same(results[root], value) and sent == traffic("gather", algorithm, nbytes, root)
    assert all(r is None for k, r in enumerate(results) if k != root)
    found, asked = on_ranks(
        size, lambda comm: c.gather(comm, parts[comm.rank], root, None, algorithm)
    )
    assert same(found[root], value) and asked == sent + asking(size), "counts are asked for"


# Where everyone gets a part


@pytest.mark.parametrize("algorithm", BY_HAND("all_gather"))
@settings(max_examples=30)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=9), seed=SEEDS)
def test_all_gather(algorithm, counts, seed):
    size = len(counts)
    parts = [np.full((n, 3), k + 0.5) for k, n in enumerate(counts)]
    call = lambda comm: c.all_gather(comm, parts[comm.rank], counts, algorithm)
    results, sent = on_ranks(size, call, seed)
    assert all(same(r, np.concatenate(parts)) for r in results)
    assert sent == traffic("all_gather", algorithm, [x.nbytes for x in parts])


@pytest.mark.parametrize("algorithm", BY_HAND("reduce_scatter"))
@settings(max_examples=30)
@given(size=SIZES, shape=SHAPES, seed=SEEDS, op=st.sampled_from(["sum", "max", "mean"]))
def test_reduce_scatter(algorithm, size, shape, seed, op):
    arrays = whole(size, shape)
    call = lambda comm: c.reduce_scatter(comm, arrays[comm.rank], op, algorithm)
    results, sent = on_ranks(size, call, seed)
    stack = np.stack(arrays)
    total = {"sum": stack.sum(0), "max": stack.max(0), "mean": stack.sum(0) / size}[op]
    parts = split(total, even(len(total), size))
    assert all(map(same, results, parts))
    assert sent == traffic("reduce_scatter", algorithm, [p.nbytes for p in parts])


@settings(max_examples=40)
@given(size=SIZES, seed=SEEDS, data=st.data(), known=st.booleans())
def test_all_to_all_of_any_counts(size, seed, data, known):
    row = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    counts = data.draw(st.lists(row, min_size=size, max_size=size))
    going = [np.arange(sum(r) * 2).reshape(-1, 2) + 1000 * k for k, r in enumerate(counts)]
    parts = [split(a, r) for a, r in zip(going, counts)]
    coming = list(zip(*counts))
    call = lambda comm: c.all_to_all(
        comm, going[comm.rank], counts[comm.rank], coming[comm.rank] if known else None
    )
    results, sent = on_ranks(size, call, seed)
    for k, found in enumerate(results):
        assert same(found, np.concatenate([parts[source][k] for source in range(size)]))
    wanted = exchanged("pairwise", [[p.nbytes for p in row] for row in parts])
    assert sent == (wanted if known else wanted + asking(size))


@settings(max_examples=20)
@given(size=SIZES, each=st.integers(0, 3), seed=SEEDS)
def test_all_to_all_by_bruck(size, each, seed):
    going = [np.arange(size * each * 2.0).reshape(size * each, 2) + 100 * k for k in range(size)]
    by = lambda algorithm: on_ranks(
        size, lambda comm: c.all_to_all(comm, going[comm.rank], algorithm=algorithm), seed
    )
    (pairs, _), (hopped, sent) = by("pairwise"), by("bruck")
    assert all(map(same, hopped, pairs))
    assert sent == exchanged("bruck", [[16 * each] * size] * size)


@pytest.mark.parametrize("algorithm", BY_HAND("scan"))
@settings(max_examples=30)
@given(size=SIZES, shape=SHAPES, seed=SEEDS)
def test_scan(algorithm, size, shape, seed):
    arrays = whole(size, shape)
    call = lambda comm: c.scan(comm, arrays[comm.rank], "sum", algorithm)
    results, sent = on_ranks(size, call, seed)
    assert all(map(same, results, np.cumsum(arrays, 0)))
    assert sent == traffic("scan", algorithm, [arrays[0].nbytes] + [0] * (size - 1))


@settings(max_examples=20)
@given(size=SIZES, seed=SEEDS)
def test_the_traffic_of_a_barrier(size, seed):
    assert on_ranks(size, c.barrier, seed)[1] == traffic("barrier", "dissemination", [0] * size)


def test_chains_go_a_segment_at_a_time(monkeypatch):
    monkeypatch.setattr(chunks, "SEGMENT", 16)
    value = np.arange(7.0)

    def call(comm):
        mine = value if comm.rank == 1 else np.zeros(7)
        return c.broadcast(comm, mine, 1, "chain"), c.reduce(comm, value, 2, "sum", "chain")

    results, sent = on_ranks(3, call)
    assert all((r[0] == value).all() for r in results) and (results[2][1] == 3 * value).all()
    each = traffic("broadcast", "chain", [56, 0, 0], itemsize=8)
    assert each.messages == 2 * 4 and sent == each + each


# In groups


@pytest.mark.parametrize("size", [2, 5, 6])
def test_every_collective_works_in_a_split(size):
    def main(comm):
        group = comm.split(comm.rank % 2, key=-comm.rank)
        members = [r for r in reversed(range(size)) if r % 2 == comm.rank % 2]
        mine = np.array([comm.rank, 1.0])
        rows = np.arange(2.0 * len(members)).reshape(-1, 2) + 10 * comm.rank
        assert c.all_reduce(group, mine).tolist() == [sum(members), len(members)]
        assert c.all_gather(group, mine[:1]).tolist() == members
        assert c.broadcast(group, mine.copy(), 0)[0] == members[0]
        total = c.reduce(group, mine, 0)
        assert (total is None) == (group.rank > 0)
        assert c.all_to_all(group, rows)[:, 0].tolist() == [
            2 * group.rank + 10 * m for m in members
        ]
        assert c.scan(group, mine)[1] == group.rank + 1
        gathered = c.gather(group, mine[:1], 0)
        back = c.scatter(group, gathered, 0)
        assert back.tolist() == [comm.rank]
        assert c.reduce_scatter(group, np.ones((len(members), 1))).tolist() == [[len(members)]]
        c.barrier(group)

    for seed in (None, 1, 2):
        simulate(main, size, seed=seed)


# Refusals, before any message


@pytest.mark.parametrize("call, text", [
    (lambda comm: c.broadcast(comm, np.ones(2), 5), "root=5 does not exist"),
    (lambda comm: c.broadcast(comm, np.ones(2), 0, "star"), "use auto, linear, tree, chain"),
    (lambda comm: c.reduce(comm, np.ones(2), 0, "xor"), "op='xor' is not known"),
    (lambda comm: c.scatter(comm, np.ones(3), 0, [1, 1]), r"counts=\[1, 1\].*sum to 3"),
    (lambda comm: c.scatter(comm, None, 0), "needs a NumPy array, got NoneType"),
    (lambda comm: c.gather(comm, np.ones(()), 0), "0-d array has no rows"),
    (lambda comm: c.reduce_scatter(comm, np.ones(3, int), "mean"), "mean of int64"),
    (lambda comm: c.all_to_all(comm, np.ones(3), algorithm="bruck"), "divide evenly"),
    (lambda comm: c.all_to_all(comm, np.ones(3), [1, 1]), "sum to 3"),
    (lambda comm: c.all_gather(comm, np.ones(3), None, "star"), "auto, ring, doubling, bruck"),
    (lambda comm: c.scan(comm, np.ones(3), algorithm="ring"), "auto, chain, doubling"),
    (lambda comm: c.barrier(comm, "ring"), "auto, dissemination, native"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, text):
    with pytest.raises((ValueError, TypeError), match=text):
        on_ranks(2, call)


@pytest.mark.parametrize("call", [
    lambda comm, x: c.broadcast(comm, x, algorithm="native"),
    lambda comm, x: c.reduce(comm, x, algorithm="native"),
    lambda comm, x: c.scatter(comm, x, algorithm="native"),
    lambda comm, x: c.gather(comm, x, algorithm="native"),
    lambda comm, x: c.all_gather(comm, x, algorithm="native"),
    lambda comm, x: c.reduce_scatter(comm, x, algorithm="native"),
    lambda comm, x: c.all_to_all(comm, x, algorithm="native"),
    lambda comm, x: c.scan(comm, x, algorithm="native"),
    lambda comm, x: c.barrier(comm, "native"),
])  # fmt: skip
def test_simulated_ranks_have_no_native_collectives(call):
    with pytest.raises(c.MpiError, match="use algorithm='auto'"):
        simulate(lambda comm: call(comm, np.ones(4)), 2)
