"""What NumPy's flash attention is made of: blocks, heads that share a tile, tiles of scores."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator

from numpy.lib import introspect

from . import arrays as xp
from .arrays import on_gpu
from .half_precision import wide

Array = xp.ndarray

ELEMENTS = 1 << 17  # of a tile, 512 KiB in float32
FEWEST, MOST = 64, 256  # rows of a block: few skip more of the masked half, many feed the GEMM
ALONG = 512  # keys that forward takes at once, queries that backward does
NEAR = 40.0  # |score · log2(e)| that needs no maximum: 2⁴⁰, and its square, are far from overflow
FAR = 1e15  # the longest value that 2⁴⁰ may multiply
LOG2E = math.log2(math.e)


def block_size(length: int, parts: int, causal: bool) -> int:
    """Rows of a block: of about `parts` blocks if some are skipped, else of few and alike ones."""
    if causal:
        return min(MOST, max(FEWEST, length // parts))
    return max(1, -(-length // max(1, -(-length // MOST))))


def blocks(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def group(q: Array, k: Array) -> int:
    """How many heads of queries share one of keys."""
    return q.shape[1] // max(k.shape[1], 1)


def heads(q: Array, k: Array, elements: int) -> Iterator[tuple[tuple, list[tuple]]]:
    """Where keys of a few heads lie, and, for each member of their groups, the queries.

    `elements` are a head's in a tile: few of them go together with those of more heads.
    """
    few, members = max(1, ELEMENTS // max(elements, 1)), group(q, k)
    for batch in range(len(k)):
        for of in blocks(0, k.shape[1], few):
            start, stop = of.start * members, of.stop * members
            yield (batch, of), [(batch, slice(start + i, stop, members)) for i in range(members)]


# Cauchy-Schwarz: where queries times keys are short enough, all scores lie near 0, and no maximum
# need be taken off. For a query that asks for the keys that it sees alone: else the future would
# reach, by rounding, into the past.


def dots(x: Array, y: Array) -> Array:
    """The dot product of each pair of rows: (n, s, d) twice -> (n, s)."""
    return xp.einsum("hqd,hqd->hq", x, y)


def lengths(x: Array) -> Array:
    """The Euclidean length of each row: (n, s, d) -> (n, s)."""
    with xp.errstate(over="ignore", invalid="ignore"):
        return xp.sqrt(dots(x, x))


def all_near(queries: Array, keys: Array, scale: float) -> bool:
    """Whether no score of these lengths, (n, s) and (n, t), can be far from 0."""
    with xp.errstate(over="ignore", invalid="ignore"):
        most = queries.max(1) * keys.max(1) * abs(scale * LOG2E)
    return bool((most <= NEAR).all())


def near_queries(queries: Array, keys: Array, scale: float, causal: bool) -> Array:
    """Whether all scores that a query sees must lie near 0: (n, s)."""
    longest = xp.maximum.accumulate(keys, 1)
    last = xp.arange(queries.shape[1]) if causal else xp.full(1, keys.shape[1])
    longest = longest[:, xp.minimum(last, keys.shape[1] - 1)]
    with xp.errstate(over="ignore", invalid="ignore"):
        return queries * longest * abs(scale * LOG2E) <= NEAR


def fit(keys: Array, values: Array | None = None) -> Array:
    """Lengths of keys (n, t), infinite if their values (n, t, e) may overflow times 2^NEAR."""
    found = lengths(keys)
    return found if values is None else xp.where(lengths(values) < FAR, found, xp.inf)


@functools.cache
def power_of_2(dtype: xp.dtype) -> bool:
    """Whether NumPy's exp2 works in vectors here: it then takes half the time of exp."""
    found = introspect.opt_func_info(func_name="^exp2$")["exp2"]
    return "baseline" not in found[2 * dtype.char]["current"]


def edge(rows: int, keys: int, ahead: int, like: Array, factor: bool) -> Array:
    """The causal mask, as a factor (1 where a query sees a key, else 0) or for fmin (inf or -inf).

    (Adding -inf to the score of a hidden key would leave NaN if that score is inf or NaN.)
    """
    make = _edge if rows * keys <= MOST * ALONG else _edge.__wrapped__
    with xp.beside(like):
        return make(rows, keys, ahead, like.dtype, factor, on_gpu(like))


@functools.lru_cache(maxsize=16)
def _edge(rows, keys, ahead, dtype, factor, there):
    """`there` is whether it lies on the GPU: what is cached for a CPU must not turn up there."""
    seen = xp.tri(rows, keys, ahead, dtype=xp.bool_)
    yes, no = (1, 0) if factor else (xp.inf, -xp.inf)
    return xp.where(seen, yes, no).astype(dtype)


def widened(*outputs: int) -> Callable[[Callable], Callable]:
    """Arrays of 16 bits go in as float32; the arguments of these places are stored afterwards."""

    def of(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*args, **options):
            if options:
                args = inspect.signature(function).bind(*args, **options).args
            if args[0].dtype.itemsize > 2:
                return function(*args)
            inner = [wide(a) if getattr(a, "ndim", 0) else a for a in args]
            results = [i for i in outputs if i < len(args) and args[i] is not None]
            for i in results:
                inner[i] = xp.empty_like(args[i], xp.float32)
            returned = function(*inner)
            for i in results:
                args[i][...] = inner[i]
            return returned

        return call

    return of


class Scratch:
    """Arrays of any shape in memory that is used again, one for each name."""

    def __init__(self, like: Array):
        self.like, self.memory = like, dict[str, Array]()

    def __call__(self, name: str, *shape: int) -> Array:
        size = math.prod(shape)
        if name not in self.memory or self.memory[name].size < size:
            self.memory.pop(name, None)  # both at once would be more than a tile
            self.memory[name] = xp.empty_like(self.like, shape=size)
        return self.memory[name][:size].reshape(shape)

    def dense(self, name: str, x: Array) -> Array:
        """x (n, s, d), copied if its rows lie apart: BLAS would read them again and again."""
        if x.strides[1:] == (x.shape[2] * x.itemsize, x.itemsize):
            return x
        y = self(name, *x.shape)
        y[...] = x
        return y

    def product(self, name: str, a: Array, b: Array) -> Array:
        return xp.matmul(a, b, out=self(name, *a.shape[:-1], b.shape[-1]))

    def put(self, into: Array, a: Array, b: Array, fresh: bool) -> None:
        """into = a b, or += a b."""
        if fresh:
            xp.matmul(a, b, out=into)
        else:
            into += self.product("part", a, b)


class Tiles:
    """Tiles of scores of a few heads, and their exponentials, one way of three.

    All scores near 0: powers of 2 of scores times `unit`, log2(e); what is causally hidden is
    multiplied by 0. Else the same, kept within the range where NumPy's exp2 is fast. With a mask,
    which may be -inf: powers of e.
    """

    def __init__(self, scratch: Scratch, causal: bool, masked: bool):
        self.scratch, self.causal, self.masked, self.near = scratch, causal, masked, False
        by_2 = not masked and power_of_2(scratch.like.dtype)
        self.power: Callable = xp.exp2 if by_2 else xp.exp
        self.unit = LOG2E if by_2 else 1.0
        self.least = math.log2(xp.finfo(scratch.like.dtype).tiny) / LOG2E * self.unit + 1

    def measure(self, q: Array, of_keys: Array, scale: float) -> Array | None:
        """Chooses the way for queries (n, s, d) and keys of some lengths; tells which queries need
        no maximum (n, s), unless none does or, with a mask, all do."""
        of_queries = lengths(q)
        self.near = not self.masked and all_near(of_queries, of_keys, scale)
        if self.near or self.masked:
            return None
        return near_queries(of_queries, of_keys, scale, self.causal)

    def scores(self, q: Array, kt: Array, mask: Array | None, rows: slice, keys: slice) -> Array:
        """q (n, s, d) times kt (n, d, t), a tile of them, and what is added to it."""
        p = self.scratch.product("scores", q[:, rows], kt[..., keys])
        if mask is not None:
            p += mask[:, rows, keys]
        if not self.near:
            self._hide(xp.fmin, p, rows, keys)
        return p

    def exponentials(self, p: Array, rows: slice, keys: slice) -> Array:
        """In place."""
        if not self.near and not self.masked:
            xp.maximum(p, self.least, out=p)
        self.power(p, out=p)
        if not self.masked:
            self._hide(xp.multiply, p, rows, keys)
        return p

    def _hide(self, by: xp.ufunc, p: Array, rows: slice, keys: slice) -> None:
        first = max(rows.start, keys.start)  # no key before it is hidden from any of these queries
        if self.causal and keys.stop > rows.start + 1:
            of = p[..., first - keys.start :]
            hidden = edge(of.shape[1], of.shape[2], rows.start - first, p, by is xp.multiply)
            by(of, hidden, out=of)
