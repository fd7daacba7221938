"""A fixed table of messages and collectives; every rank writes SHA-256s of what it got and sent."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

from minidist.comm import (  # fmt: skip
    Ledger,
    agree,
    all_gather,
    all_reduce,
    all_to_all,
    barrier,
    broadcast,
    gather,
    iall_gather,
    iall_reduce,
    iall_to_all,
    ibarrier,
    ibroadcast,
    ireduce_scatter,
    mpi_world,
    reduce,
    reduce_scatter,
    scan,
    scatter,
)

from minidist.kernels.half_precision import BFLOAT16

COLLECTIVES = (
    "all_reduce", "broadcast", "reduce", "scatter", "gather", "all_gather", "reduce_scatter",
    "scan",
)  # fmt: skip
TABLES = {n: import_module(f"minidist.comm.collectives.{n}").ALGORITHMS for n in COLLECTIVES}
BY_HAND = lambda collective: [name for name in TABLES[collective] if name != "native"]

DTYPES = ["bool", "uint8", "int64", "float16", "float32", "float64", "complex64", ">f4"]
SHAPES = [(), (0,), (1,), (2, 3), (37, 5)]


def given(result):
    """An array for what only the root gets."""
    return np.zeros(0, np.uint8) if result is None else result


def draw(rank, shape, dtype):
    rng = np.random.default_rng([rank, *shape])
    return np.asarray(rng.standard_normal(shape) * 3).astype(dtype)


def digest(array):
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()


def reductions(comm):
    for dtype in DTYPES:
        for shape in SHAPES:
            mine = draw(comm.rank, shape, dtype)
            yield f"ring {dtype} {shape}", all_reduce(comm, mine, algorithm="ring")
            yield f"naive {dtype} {shape}", all_reduce(comm, mine, "max", "naive")
            yield f"broadcast {dtype} {shape}", broadcast(comm, mine, comm.size - 1)
    big = draw(comm.rank, (301, 1003), "float32")
    yield "ring strided", all_reduce(comm, big[::2, ::-3])
    yield "ring in place", all_reduce(comm, big, out=big)
    yield "broadcast strided", broadcast(comm, big[1::2, ::7])
    yield "mean", all_reduce(comm, big, "mean")


def shards(comm):
    for rows in [comm.rank, (comm.size - comm.rank) % 3, 400]:
        yield f"all_gather {rows}", all_gather(comm, draw(comm.rank, (rows, 3), "float32"))


def algorithms(comm):
    """Every algorithm of every collective, on rows that do not divide evenly."""
    last = comm.size - 1
    for dtype in ("float32", "int64"):
        mine = draw(comm.rank, (37, 5), dtype)
        for name in BY_HAND("all_reduce"):
            yield f"all_reduce {name} {dtype}", all_reduce(comm, mine, "sum", name)
        for name in BY_HAND("broadcast"):
            yield f"broadcast {name} {dtype}", broadcast(comm, mine.copy(), last, name)
            yield f"reduce {name} {dtype}", given(reduce(comm, mine, last, "sum", name))
        for name in BY_HAND("scatter"):
            whole = draw(99, (37, 5), dtype) if comm.rank == last else None
            yield f"scatter {name} {dtype}", scatter(comm, whole, last, algorithm=name)
            yield f"gather {name} {dtype}", given(gather(comm, mine, last, algorithm=name))
        for name in BY_HAND("all_gather"):
            rows = draw(comm.rank, (comm.rank, 3), dtype)
            yield f"all_gather {name} {dtype}", all_gather(comm, rows, algorithm=name)
        for name in BY_HAND("reduce_scatter"):
            yield f"reduce_scatter {name} {dtype}", reduce_scatter(comm, mine, "sum", name)
        for name in BY_HAND("scan"):
            yield f"scan {name} {dtype}", scan(comm, mine, "sum", name)
        yield f"all_to_all {dtype}", all_to_all(comm, mine)
        even = draw(comm.rank, (4 * comm.size, 3), dtype)
        yield f"all_to_all bruck {dtype}", all_to_all(comm, even, algorithm="bruck")


def at_once(comm):
    """Collectives that go on beside each other and beside messages, waited for in another order."""
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    mine = [draw(comm.rank + k, (50 + k, 3), "float32") for k in range(6)]
    going = [
        iall_reduce(comm, mine[0], algorithm="ring"),
        ibroadcast(comm, mine[1].copy(), comm.size - 1),
        iall_gather(comm, mine[2], algorithm="bruck"),
        ibarrier(comm),
        iall_to_all(comm, mine[3]),
        ireduce_scatter(comm, mine[4]),
        iall_reduce(comm, mine[5], "max", "rabenseifner"),
    ]
    sent = comm.issend(mine[0], right, tag=4)
    yield "beside: recv", comm.recv(np.zeros_like(mine[0]), left, tag=4)
    yield "beside: all_reduce", all_reduce(comm, mine[0], "min")
    sent.wait()
    while not going[2].is_completed():
        pass
    for number in (6, 0, 3, 1, 5, 4, 2):
        result = going[number].wait()
        yield f"beside: {number}", np.zeros(0) if result is None else result


def messages(comm):
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    out = np.zeros((4, 50, 50), np.float64)[1:3, ::-1, ::2]
    mine = draw(comm.rank, (50, 25, 2), "float64").transpose(2, 0, 1)
    yield "sendrecv strided", comm.sendrecv(mine, right, out, left, tag=9)
    group = comm.split(comm.rank % 2 if comm.rank < 3 else None, key=-comm.rank)
    if group is not None:
        inner = all_reduce(group, draw(comm.rank, (11,), "float32"))
        yield f"split {group.rank} of {group.size}", inner
    error = f"no file on {comm.rank}" if comm.rank > 0 else None
    yield "agree", np.frombuffer((agree(comm, error) or "fine").encode(), np.uint8)


def even_tree(comm, flat, combine):
    """An all-reduce as a teacher would write it: pairs of pairs, for powers of two; else a ring."""
    if comm.size & (comm.size - 1):
        TABLES["all_reduce"]["ring"](comm, flat, combine)
        return
    distance, theirs = 1, np.empty_like(flat)
    while distance < comm.size:
        comm.sendrecv(flat, comm.rank ^ distance, theirs, comm.rank ^ distance)
        combine(flat, theirs, out=flat)
        distance *= 2


ODD = np.dtype([("id", "<i4"), ("xy", "f8", (2,)), ("name", "S3"), ("sub", [("a", ">u2")])])


def anything(comm):
    """Arrays of any dtype and number of dimensions, and algorithms of the user."""
    last = comm.size - 1
    made = np.arange(len(NAMES := "abcdefghij")).astype("i4")
    table = np.zeros(10, ODD)
    table["id"], table["name"], table["xy"][:, 1] = made, list(NAMES), made * 0.5
    table["sub"]["a"] = made + comm.rank
    many = draw(comm.rank, (3,) + (1, 2) * 5, "float32")
    odd = {"table": table, "many": many, "bfloat16": draw(comm.rank, (5,), BFLOAT16),
           "date": np.arange("2020-01", "2020-08", dtype="M8[M]"), "void": np.zeros(4, "V3"),
           "text": np.array(["né", "日本"]), "record": np.rec.array([(1, 2.5)] * 3)}  # fmt: skip
    for name, array in odd.items():
        yield f"scatter {name}", scatter(comm, array if comm.rank == last else None, last)
        yield f"gather {name}", given(gather(comm, array, last))
        yield f"all_gather {name}", all_gather(comm, array)
        yield f"broadcast {name}", broadcast(comm, array.copy())
    mine = draw(comm.rank, (37, 5), "float64")
    yield "own all_reduce", all_reduce(comm, mine, algorithm=even_tree)
    yield "own, beside", iall_reduce(comm, mine, "max", even_tree).wait()
    for name in ("reduce_scatter", "all_gather", "scan"):
        call = globals()[name]
        own = TABLES[name][next(iter(TABLES[name]))]
        yield f"own {name}", call(comm, mine, algorithm=lambda *a, own=own: own(*a))


def results(comm):
    """{case: digest} of this rank, and every message it sent."""
    found = {}
    for part in (reductions, shards, algorithms, at_once, messages, anything):
        cases = part(comm)
        with Ledger(comm, log=True) as ledger:
            for name, array in cases:
                found[name] = digest(array)
                if part is not at_once:  # whose messages may leave in any order
                    log = str(ledger.messages_sent).encode()
                    found[f"{name}: messages"] = hashlib.sha256(log).hexdigest()
        found[f"{part.__name__}: ledger"] = ledger.table()
    barrier(comm)
    return found


if __name__ == "__main__":
    comm = mpi_world()
    if "mutant" in sys.argv:
        TABLES["all_reduce"]["ring"] = TABLES["all_reduce"]["naive"]
    # A file a rank: mpirun may mix long lines of several ranks.
    Path(sys.argv[1], f"{comm.rank}.json").write_text(json.dumps(results(comm)))
