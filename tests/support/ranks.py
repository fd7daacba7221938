"""What tests of collectives share: whole numbers, poisoned buffers, all ranks' traffic."""

import contextlib
from importlib import import_module
from itertools import pairwise
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from minidist.kernels import arrays

from minidist.comm import Ledger, shard_bounds, simulate
from minidist.plan.collectives import Traffic

SIZES, SEEDS, ROOTS = st.integers(1, 9), st.none() | st.integers(0, 99), st.integers(0, 8)


def collective_module(name):
    """The file of a collective; `minidist.comm.collectives.all_reduce` is its function."""
    return import_module(f"minidist.comm.collectives.{name}")


COLLECTIVES = (
    "all_gather", "all_reduce", "all_to_all", "barrier", "broadcast", "gather", "reduce",
    "reduce_scatter", "scan", "scatter",
)  # fmt: skip
ALGORITHMS = {name: collective_module(name).ALGORITHMS for name in COLLECTIVES}
SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)


def whole(size, shape, seed=0):
    """Whole numbers in float64, read-only: every order of summation gives the same bits."""
    rng = np.random.default_rng([seed, size, *shape])
    return [frozen(rng.integers(-99, 99, shape).astype("float64")) for _ in range(size)]


def frozen(array):
    """The array, and an error for whoever writes into it."""
    array.flags.writeable = False
    return array


@contextlib.contextmanager
def poisoned():
    """New buffers hold NaN, or a number nobody means: what is read before it came is seen."""

    def poison(make):
        def made(*args, **options):
            array = make(*args, **options)
            array.fill(np.nan if array.dtype.kind in "fc" else 77)
            return array

        return made

    with (
        mock.patch.object(arrays, "empty_like", poison(np.empty_like)),
        mock.patch.object(arrays, "empty", poison(np.empty)),
        mock.patch("numpy.empty", poison(np.empty)),
    ):
        yield


def on_ranks(size, call, seed=None, eager_limit=0):
    """call(comm) on each rank: the results, and the traffic of all."""

    def main(comm):
        with Ledger(comm) as ledger:
            return call(comm), ledger.messages, ledger.bytes

    with poisoned():
        results, messages, sent = zip(*simulate(main, size, seed=seed, eager_limit=eager_limit))
    return results, Traffic(sum(messages), sum(sent))


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def split(array, counts=None):
    """Rows as counts say."""
    return [array[a:b] for a, b in pairwise(np.cumsum([0, *counts]))]


def even(rows, size):
    return [b - a for a, b in shard_bounds(rows, size)]
