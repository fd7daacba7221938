"""Right: what takes each number, row or step by itself, and the sums of an embedding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .cases import Case, below, families, normal, stored
from .checks import Entry, check
from .machine import Machine

CELLS = [(3, 5), (1, 1), (64, 700)]


NUMBERS = {"low": -0.7, "high": 1.3}  # that kernels of one element take; others are 0.8


def run(machine: Machine) -> Iterator[Entry]:
    yield from families(machine, _gelu, _swiglu, _rotary, _embedding, _dropout, _adamw, _lstm, _gru)
    yield from families(machine, _each)
    for case in _each(machine.tiny):
        if machine.mine():
            yield check(f"{case.name}: the loop's bits", 0, _other_bits, machine, case)


def _each(tiny: bool) -> Iterator[Case]:
    """Every kernel of one element at a time."""
    from minidist.kernels import functions, huber, pointwise
    from minidist.kernels.each import each, parameters

    for module in (functions, huber, pointwise):
        for k in filter(lambda value: isinstance(value, each), vars(module).values()):
            by = [NUMBERS.get(name, 0.8) for name in parameters(k.helper)[k.arrays :]]
            given = [3 * normal(1025 if tiny else 1_000_001, seed=i) for i in range(k.arrays)]
            if k.__name__.startswith("log"):
                given = [np.abs(a) for a in given]
            name = f"{module.__name__.rpartition('.')[2]}.{k.__name__}"
            run = lambda *arrays, k=k, by=by: [k(*arrays, *by)]
            yield Case(name, run, given, ("float64", "float32", "bfloat16"))


def _other_bits(machine: Machine, case: Case) -> int:
    """How many numbers of float32 differ from the loop's in any bit."""
    from minidist.kernels.dispatch import using

    given = [stored(a, "float32") for a in case.arrays]
    with using("numba"):
        (wanted,) = case.run(*given)
    (found,) = case.run(*map(machine.put, given))
    return np.count_nonzero(machine.get(found).view("int32") != wanted.view("int32"))


def _gelu(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import gelu as k

    for n in (1, 1025) if tiny else (1, 1025, 3_000_001):
        for form in ("none", "tanh"):
            run = lambda x, form=form: k.forward(x, form)  # the value and the slope
            yield Case(f"gelu {form} {n}", run, [3 * normal(n)])


def _swiglu(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import swiglu as k

    for n, h in [(5, 7), (3, 1030)] if tiny else [(1, 1), (5, 7), (3, 1030), (2049, 1365)]:
        given = [normal(n, h), 2 * normal(n, 2 * h)]
        yield Case(f"swiglu {n}x{h}", lambda g, x: [k.forward(x), k.backward(g, x)], given)


def _rotary(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import rotary as k

    sizes = (
        [(1, 2, 3, 4), (2, 3, 5, 10)] if tiny else [(1, 2, 3, 4), (2, 3, 5, 10), (2, 7, 333, 96)]
    )
    for *lead, s, d in sizes:
        turn = np.exp(1j * k.angles(np.arange(s, dtype=np.float64), d, 10000.0))
        for interleaved in (False, True):
            run = lambda x, g, t, i=interleaved: [k.rotate(x, t, i), k.backward(g, t, i)]
            given = [normal(*lead, s, d), normal(*lead, s, d, seed=1), turn]
            name = f"rotary {(*lead, s, d)} {'interleaved' if interleaved else 'halves'}"
            yield Case(name, run, given)


def _embedding(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import embedding as k

    for n, h, rows in [(9, 5, 4)] if tiny else [(0, 3, 2), (9, 5, 4), (5000, 300, 700)]:
        run = lambda table, g, index, rows=rows: [
            k.forward(table, index), k.backward(g, index, rows)
        ]  # fmt: skip
        given = [normal(rows, h), normal(n, h), below(rows, n)]
        yield Case(f"embedding {n}x{h} of {rows}", run, given)


def _dropout(tiny: bool) -> Iterator[Case]:
    """The mask too: it follows from the key."""
    from minidist.kernels import dropout as k

    drawn = (2**100 + 7, 5, 3, 0.9, 1 / 0.9)
    for n in (3 * 8, 3 * 37) if tiny else (3 * 8, 3 * 37, 3 * 100_003):

        def run(x, g):
            y, kept = k.forward(x, *drawn)
            return y, k.backward(g, kept, *drawn)

        yield Case(f"dropout {n}", run, [normal(n) + 9, normal(n, seed=1) + 9])


def _adamw(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import adamw as k

    options = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}

    def run(p, g, m, v, decoupled=True, highest=None):
        p, m, v, highest = (None if a is None else a.copy() for a in (p, m, v, highest))
        k.step_(p, g, m, v, step=3, decoupled=decoupled, highest=highest, **options)
        return [a for a in (p, m, v, highest) if a is not None]

    for n in (1, 1025) if tiny else (1, 1025, 3_000_001):
        p, g, m, v, top = (normal(n, seed=i) for i in range(5))
        given, wide = [p, g, m, v * v], ("float64", "float32")
        yield Case(f"adamw {n}", run, given, wide)
        yield Case(f"adam {n}", lambda *a: run(*a, decoupled=False), given, wide)
        half = [p, stored(g, "bfloat16"), m, v * v]
        yield Case(f"adamw {n}, gradient of bfloat16", run, half, ("float32",))
        amsgrad = lambda p, g, m, v, top: run(p, g, m, v, highest=top)
        yield Case(f"amsgrad {n}", amsgrad, [*given, top * top], wide)


def _lstm(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import lstm_cell as k

    def run(a, m, c, g, dh, dc):
        state, new = k.forward(gates := a.copy(), m, c)
        da = k.backward(g, dh, dc := dc.copy(), gates, c, new)
        return state, new, da, dc

    for n, h in CELLS[:1] if tiny else CELLS:
        wide = [normal(n, 4 * h, seed=i) for i in range(2)]
        yield Case(f"lstm cell {n}x{h}", run, [*wide, *(normal(n, h, seed=i) for i in range(4))])


def _gru(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import gru_cell as k

    def run(a, m, h, g, dh, b):
        state, hidden = k.forward(gates := a.copy(), m, h, b)
        return state, hidden, *k.backward(g, dh, gates, hidden, h)

    for n, h in CELLS[:1] if tiny else CELLS:
        wide = [normal(n, 3 * h, seed=i) for i in range(2)]
        given = [*wide, *(normal(n, h, seed=i) for i in range(3)), normal(4 * h)]
        yield Case(f"gru cell {n}x{h}", run, given)
