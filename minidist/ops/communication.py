"""Collectives that gradients go through, each beside its transpose.

The convention, once: a value that all ranks hold alike (replicated) has a cotangent that all ranks
hold alike, and that is the cotangent of the one value. So the transpose of an all-reduce, whose sum
is replicated, is the identity, and the transpose of handing a replicated value to ranks that go on
differently is the all-reduce (g and f of Shoeybi et al. 2019, 3). A value that differs by rank has
a cotangent of its own on each. ⟨F x, y⟩ = ⟨x, F* y⟩ holds with replicated values counted once.

Every rank calls them in the same order, and so does backward.
"""

from ..comm import all_gather as gathered
from ..comm import all_reduce as summed
from ..comm import all_to_all as exchanged
from ..comm import broadcast as spread
from ..comm import reduce as reduced
from ..comm import reduce_scatter as scattered
from ..comm import shard_bounds, shard_range
from ..comm.collectives.all_gather import all_gather_counts
from ..comm.collectives.all_to_all import row_counts
from ..kernels import arrays as xp
from .op import axes_of, differentiable


def _first(collective, comm, x, dim, *args):
    """A collective along a dimension: they work on rows."""
    y = collective(comm, xp.ascontiguousarray(xp.moveaxis(x, dim, 0)), *args)
    return xp.moveaxis(y, 0, dim)


def _part(x, comm, dim):
    rows = slice(*shard_range(x.shape[dim], comm.size, comm.rank))
    return x[(slice(None),) * dim + (rows,)]


def _counts(x, comm, dim):
    """Everyone's share of a dimension: known to all, so that nobody has to ask."""
    return [b - a for a, b in shard_bounds(x.shape[dim], comm.size)]


def _dim(x, dim):
    return axes_of((dim,), x.ndim)[0]


@differentiable(autocast="fallthrough")
def _reduce(x, comm):
    return summed(comm, x), lambda g: g


def reduce(x, comm):
    """The sum over ranks, replicated; backward hands the cotangent on (Megatron's g)."""
    return _reduce(x, comm)


@differentiable(autocast="fallthrough", moves_only=True)
def _copy(x, comm):
    return x.copy(), lambda g: summed(comm, g)


def copy(x, comm):
    """A replicated value to ranks that go on differently; backward sums (Megatron's f)."""
    return _copy(x, comm)


@differentiable(autocast="fallthrough", moves_only=True)
def _scatter(x, comm, dim):
    counts = _counts(x, comm, dim)
    return _part(x, comm, dim).copy(), lambda g: _first(gathered, comm, g, dim, counts)


def scatter(x, comm, dim=0):
    """This rank's part of a replicated value; backward joins the parts."""
    return _scatter(x, comm, _dim(x, dim))


@differentiable(autocast="fallthrough", moves_only=True)
def _gather(x, comm, dim):
    sizes = all_gather_counts(comm, x.shape[dim])
    start = sum(sizes[: comm.rank])
    mine = (slice(None),) * dim + (slice(start, start + sizes[comm.rank]),)
    return _first(gathered, comm, x, dim, sizes), lambda g: g[mine]


def gather(x, comm, dim=0):
    """All parts joined, replicated; backward takes this rank's part. Parts may be uneven."""
    return x if comm.size == 1 else _gather(x, comm, _dim(x, dim))


@differentiable(autocast="fallthrough", moves_only=True)
def _all_gather(x, comm, dim):
    sizes = all_gather_counts(comm, x.shape[dim])
    back = lambda g: _first(scattered, comm, g, dim, "sum", "auto", sizes)
    return _first(gathered, comm, x, dim, sizes), back


def all_gather(x, comm, dim=0):
    """All parts joined, for ranks that go on differently; backward is reduce_scatter."""
    return _all_gather(x, comm, _dim(x, dim))


@differentiable(autocast="fallthrough")
def _reduce_scatter(x, comm, dim):
    counts = _counts(x, comm, dim)
    return _first(scattered, comm, x, dim), lambda g: _first(gathered, comm, g, dim, counts)


def reduce_scatter(x, comm, dim=0):
    """This rank's part of the sum over ranks; backward is all_gather."""
    return _reduce_scatter(x, comm, _dim(x, dim))


@differentiable(autocast="fallthrough", moves_only=True)
def _all_to_all(x, comm, counts, coming):
    y = exchanged(comm, x, counts, coming)
    return y, lambda g: exchanged(comm, g, coming, counts)


def all_to_all(x, comm, counts=None, coming=None):
    """Some rows to each rank, as comm.all_to_all; backward sends them back where they came from."""
    where = f"rank {comm.rank} all_to_all"
    return _all_to_all(x, comm, *row_counts(comm, where, x, counts, coming))


@differentiable(autocast="fallthrough", moves_only=True)
def _broadcast(x, comm, root):
    return spread(comm, x.copy(order="C"), root), lambda g: _reduced_to(comm, g, root)


def _reduced_to(comm, g, root):
    total = reduced(comm, g, root)
    return xp.zeros_like(g) if total is None else total


def broadcast(x, comm, root=0):
    """The root's value to ranks that go on differently; backward sums on the root, 0 elsewhere."""
    return _broadcast(x, comm, root)


@differentiable(autocast="fallthrough", moves_only=True)
def _sendrecv(x, comm, dest, source, tag):
    return _shifted(x, comm, dest, source, tag), lambda g: _shifted(g, comm, source, dest, tag)


def _shifted(x, comm, dest, source, tag):
    sending = None if dest is None else comm.isend(x, dest, tag)
    out = xp.zeros_like(x, order="C")
    if source is not None:
        comm.recv(out, source, tag)
    if sending is not None:
        sending.wait()
    return out


def sendrecv(x, comm, dest, source, tag=0):
    """x to `dest`, and what `source` sends, of the same shape; backward goes the other way.

    None at an end of a line: nothing is sent, or zeros arrive.
    """
    return _sendrecv(x, comm, dest, source, tag)
