"""The algorithm that `algorithm="auto"` stands for: the table AUTO, read by `choose`.

The choice depends on the number of ranks and on the bytes of the whole buffer. The first two
columns were measured with benchmarks/collectives.py at 2 and 4 ranks on 2 cores, where messages go
through shared memory and a round costs more than a byte. The other two columns follow the formulas
of plan/collectives.py for more ranks than could be measured, where log2(n) rounds pay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

Algorithm = str | Callable[..., None]  # a name, or a function of the user

SMALL = 1 << 18  # bytes: up to this size the latency of a message counts for more than its content
FEW = 8  # ranks: up to this number n - 1 short rounds are faster than log2(n) longer ones

AUTO = {
    # collective       up to 8 ranks: small, large   more ranks: small, large
    "all_gather":     ("ring",        "ring",        "bruck",         "ring"),
    "all_reduce":     ("doubling",    "ring",        "doubling",      "ring"),
    "all_to_all":     ("pairwise",    "pairwise",    "pairwise",      "pairwise"),
    "barrier":        ("dissemination",) * 4,
    "broadcast":      ("linear",      "linear",      "tree",          "chain"),
    "gather":         ("linear",      "linear",      "tree",          "linear"),
    "reduce":         ("tree",        "tree",        "tree",          "chain"),
    "reduce_scatter": ("pairwise",    "pairwise",    "halving",       "pairwise"),
    "scan":           ("chain",       "chain",       "doubling",      "doubling"),
    "scatter":        ("linear",      "linear",      "tree",          "linear"),
}  # fmt: skip


def choose(collective: str, algorithm: str, size: int, nbytes: int) -> str:
    """`algorithm` itself, or the choice of "auto" for so many ranks and bytes.

    Every rank must get the same answer, or they would run different algorithms and deadlock:
    `nbytes` is a number that all ranks know.

    >>> choose("all_reduce", "auto", size=4, nbytes=1_000_000)
    'ring'
    """
    if algorithm != "auto":
        return algorithm
    return AUTO[collective][2 * (size > FEW) + (nbytes > SMALL)]


def function_of(
    collective: str, algorithms: Mapping[str, Callable[..., None]], algorithm: Algorithm, size: int,
    nbytes: int,
) -> Callable[..., None]:  # fmt: skip
    """The function for `algorithm`: one of `algorithms`, or the user's own."""
    if callable(algorithm):
        return partial(_run_own, collective, algorithm, next(iter(algorithms.values())))
    return algorithms[choose(collective, algorithm, size, nbytes)]


def _takes(function: Callable[..., Any], *args: Any) -> bool:
    try:
        signature(function).bind(*args)
    except TypeError:
        return False
    except ValueError:  # a function in C may not tell
        return True
    return True


def _run_own(
    collective: str, algorithm: Callable[..., Any], ours: Callable[..., None], comm: Any, *args: Any
) -> None:
    """Run the user's own function, which must leave its result in the buffer."""
    name = getattr(algorithm, "__name__", algorithm)
    if not _takes(algorithm, comm, *args):
        wanted = ", ".join(list(signature(ours).parameters)[: 1 + len(args)])
        raise TypeError(
            f"rank {comm.rank} {collective}: the algorithm {name}{signature(algorithm)} is called "
            f"with ({wanted}), as {ours.__name__} is: give it these arguments"
        )
    if algorithm(comm, *args) is not None:
        raise TypeError(
            f"rank {comm.rank} {collective}: the algorithm {name} returned a value: write the "
            "result into the flat buffer (flat[...] = result), and return nothing"
        )
