"""Gradients through collectives: each against its transpose, on any number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.double import gpu

import minidist as md
from minidist.comm import all_gather, all_reduce, all_to_all, shard_range, simulate
from minidist.ops import communication as c

SIZES, SEEDS = st.integers(1, 5), st.none() | st.integers(0, 9)


def whole(shape, *key):
    """Whole numbers in float64: sums are exact in any order."""
    return np.random.default_rng([*key, *shape]).integers(-9, 10, shape).astype("float64")


class Case:
    """An operation; whether its input and its output are the same on all ranks; shapes."""

    def __init__(self, call, alike_in, alike_out, shape):
        self.call, self.alike_in, self.alike_out, self.shape = call, alike_in, alike_out, shape


PART = lambda n: lambda comm: (2, (3 * comm.rank + n) % 4)
CASES = {
    "reduce": Case(lambda x, comm: c.reduce(x, comm), False, True, lambda comm: (3, 4)),
    "copy": Case(lambda x, comm: c.copy(x, comm), True, False, lambda comm: (3, 4)),
    "scatter": Case(lambda x, comm: c.scatter(x, comm, 1), True, False, lambda comm: (2, 7)),
    "gather": Case(lambda x, comm: c.gather(x, comm, 1), False, True, PART(1)),
    "all_gather": Case(lambda x, comm: c.all_gather(x, comm, -1), False, False, PART(2)),
    "reduce_scatter": Case(lambda x, comm: c.reduce_scatter(x, comm, 1), False, False,
                           lambda comm: (2, 7)),
    "all_to_all": Case(lambda x, comm: c.all_to_all(x, comm), False, False,
                       lambda comm: (5 + comm.rank, 2)),
    "broadcast": Case(lambda x, comm: c.broadcast(x, comm, comm.size - 1), False, False,
                      lambda comm: (3,)),
    "ring": Case(lambda x, comm: c.sendrecv(x, comm, (comm.rank + 1) % comm.size,
                                            (comm.rank - 1) % comm.size), False, False,
                 lambda comm: (2, 3)),
    "line": Case(lambda x, comm: c.sendrecv(
        x, comm, comm.rank + 1 if comm.rank + 1 < comm.size else None,
        comm.rank - 1 if comm.rank else None), False, False, lambda comm: (2, 3)),
}  # fmt: skip


def products(case, size, seed=None, device="cpu"):
    """⟨F x, y⟩ and ⟨x, F* y⟩ over all ranks, what is replicated counted once."""

    def rank(comm):
        mine = lambda alike: 0 if alike else comm.rank
        x = md.tensor(whole(case.shape(comm), 1, mine(case.alike_in))).to(device).requires_grad_()
        z = case.call(x, comm)
        y = whole(z.shape, 2, mine(case.alike_out))
        z.backward(md.tensor(y).to(device))
        once = lambda alike: 1.0 if not alike or comm.rank == 0 else 0.0
        forward = (z.detach().cpu().data * y).sum()
        backward = (x.detach().cpu().data * x.grad.cpu().data).sum()
        return forward * once(case.alike_out), backward * once(case.alike_in)

    return np.sum(simulate(rank, size, seed=seed), 0)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=20)
@given(size=SIZES, seed=SEEDS)
def test_backward_is_the_transpose(name, size, seed):
    forward, backward = products(CASES[name], size, seed)
    assert forward == backward


@pytest.mark.parametrize("name", CASES)
def test_what_is_replicated_is_the_same_on_all_ranks(name):
    case = CASES[name]

    def rank(comm):
        x = md.tensor(whole(case.shape(comm), 1, 0 if case.alike_in else comm.rank))
        z = case.call(x.requires_grad_(), comm)
        z.backward(md.tensor(whole(z.shape, 2, 0 if case.alike_out else comm.rank)))
        return z.detach().tolist(), x.grad.tolist()

    values, gradients = zip(*simulate(rank, 3))
    assert not case.alike_out or values[0] == values[1] == values[2]
    assert not case.alike_in or gradients[0] == gradients[1] == gradients[2]


def test_values_are_those_of_the_collectives():
    def rank(comm):
        x = whole((4, 3), comm.rank)
        assert (c.reduce(md.tensor(x), comm).data == all_reduce(comm, x)).all()
        joined = all_gather(comm, x)
        assert (c.gather(md.tensor(x), comm).data == joined).all()
        assert (c.all_gather(md.tensor(x.T.copy()), comm, 1).data == joined.T).all()
        part = slice(*shard_range(4, comm.size, comm.rank))
        total = all_reduce(comm, x)
        assert (c.reduce_scatter(md.tensor(x), comm).data == total[part]).all()
        assert (c.scatter(md.tensor(total), comm).data == total[part]).all()

    simulate(rank, 3)


def test_a_linear_layer_cut_in_two_ways_is_the_whole():
    """Column-parallel, then row-parallel: f before, g after; every gradient is one process's."""
    x, w, v = whole((2, 4), 1), whole((6, 4), 2), whole((3, 6), 3)
    lone = [md.tensor(a).requires_grad_() for a in (x, w, v)]
    y = (lone[0] @ lone[1].T).square() @ lone[2].T
    y.sum().backward()

    def rank(comm):
        rows = slice(*shard_range(6, comm.size, comm.rank))
        mine = [md.tensor(a).requires_grad_() for a in (x, w[rows], v[:, rows].copy())]
        h = (c.copy(mine[0], comm) @ mine[1].T).square()
        z = c.reduce(h @ mine[2].T, comm)
        z.sum().backward()
        assert (z.data == y.data).all()
        wanted = (lone[0].grad.data, lone[1].grad.data[rows], lone[2].grad.data[:, rows])
        assert all((m.grad.data == g).all() for m, g in zip(mine, wanted))

    for size in (1, 2, 3, 4):
        simulate(rank, size)


def test_arrays_of_a_gpu_go_by_the_host():
    with gpu():
        for name in ("reduce", "copy", "gather", "all_gather", "reduce_scatter", "ring"):
            forward, backward = products(CASES[name], 3, device="cuda")
            assert forward == backward


# The controls: a transpose that is not one


SHIFTED = c._shifted
MUTANTS = {
    "reduce": ("summed", lambda comm, x, *rest: x * 1.0),
    "copy": ("summed", lambda comm, x, *rest: x * 1.0),
    "gather": ("gathered", lambda comm, x, *rest: np.roll(all_gather(comm, x, *rest), 1, 0)),
    "ring": ("_shifted", lambda x, comm, dest, source, tag: SHIFTED(
        x, comm, (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size, tag)),
    "line": ("_shifted", lambda x, comm, dest, source, tag: 0.5 * SHIFTED(
        x, comm, dest, source, tag) if dest is None else SHIFTED(x, comm, dest, source, tag)),
    "scatter": ("gathered", lambda comm, x, *rest: all_gather(comm, x, *rest)[::-1]),
    "all_gather": ("scattered", lambda comm, x, *rest: all_gather(comm, x)[: rest[-1][comm.rank]]),
    "reduce_scatter": ("gathered", lambda comm, x, *rest: 2 * all_gather(comm, x, *rest)),
    "all_to_all": ("exchanged", lambda comm, x, *rest: all_to_all(
        comm, x[::-1] if x.dtype.kind == "f" else x, *rest)),
    "broadcast": ("reduced", lambda comm, g, root: g if comm.rank == root else None),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_transpose_is_seen(name, monkeypatch):
    target, mutant = MUTANTS[name]
    monkeypatch.setattr(c, target, mutant)
    forward, backward = products(CASES[name], 4)
    wrong_value = name == "reduce" and forward != products_of_the_sum(CASES[name])
    assert forward != backward or wrong_value


def test_every_operation_has_its_wrong_transpose():
    assert set(MUTANTS) == set(CASES)


def products_of_the_sum(case):
    """⟨F x, y⟩ of an all-reduce, worked out by hand for four ranks."""
    total = sum(whole((3, 4), 1, k) for k in range(4))
    return (total * whole((3, 4), 2, 0)).sum()
