"""What collectives take beside plain numbers: any dtype and shape, and algorithms of the user."""

import numpy as np
import pytest
from minidist.kernels.half_precision import BFLOAT16
from support.ranks import ALGORITHMS

import minidist as md
from minidist import comm as c
from minidist.comm import Ledger, MismatchError, simulate
from minidist.comm.guard.fingerprint import Fingerprint
from minidist.ops import communication
from minidist.parallel import Bucketed, Zero

TABLE = np.array(
    [(1, [0.5, 1.5], b"ab"), (2, [2.5, 3.5], b"c"), (3, [4.5, 5.5], b"")],
    [("id", "<i4"), ("xy", ">f8", (2,)), ("name", "S3")],
)
ODD = [
    TABLE, TABLE[["id", "name"]], np.zeros(3, "V12"), np.rec.array([(1, 2.5)] * 3),
    np.zeros(3, [("a", "f4"), ("long names of several fields", "i8"), ("c", "U70")]),
    np.arange(2**9 * 3.0).reshape(3, *[2] * 9), np.zeros((3,) + (1,) * 60),
    np.arange(3).astype(BFLOAT16), np.arange(3).astype(">i2"), np.array(["é", "日本", ""]),
    np.array(["2020-01-01"] * 3, "M8[D]"),
]  # fmt: skip


@pytest.mark.parametrize("array", ODD, ids=lambda a: f"{a.dtype} {a.ndim}"[:40])
def test_scatter_brings_any_dtype_and_any_number_of_dimensions(array):
    parts = simulate(lambda comm: c.scatter(comm, array if comm.rank == 1 else None, 1), 2)
    for part, rows in zip(parts, (array[:2], array[2:])):
        assert part.dtype == array.dtype and part.shape == rows.shape
        assert str(part) == str(rows)


X = np.ones((2, 2))
CALLS = {
    "all_reduce": c.all_reduce, "reduce": c.reduce, "scan": c.scan, "all_gather": c.all_gather,
    "reduce_scatter": c.reduce_scatter, "all_to_all": c.all_to_all, "gather": c.gather,
    "broadcast": c.broadcast, "scatter": c.scatter,
    "isend": lambda comm, x: comm.isend(x, 1 - comm.rank),
    "sendrecv": lambda comm, x: comm.sendrecv(x, 1 - comm.rank, X, 1 - comm.rank),
    "irecv": lambda comm, x: comm.irecv(x, 1 - comm.rank),
}  # fmt: skip


def refused(call, x, error, text):
    """Every rank refuses it before a message."""
    sent = []

    def main(comm):
        with Ledger(comm) as ledger, pytest.raises(error, match=text):
            call(comm, x)
        sent.append(ledger.messages)

    simulate(main, 2)
    assert sent == [0, 0]


@pytest.mark.parametrize("name", CALLS)
def test_what_is_more_than_its_memory_is_refused_and_tensors_are_sent_to_the_differentiable(name):
    call = CALLS[name]
    if name == "scatter":
        call = lambda comm, x: c.scatter(comm, x, comm.rank)  # each takes itself for the root
    refused(call, X.view(np.matrix), TypeError, "np.matrix.*np.asarray")
    refused(call, np.ma.array(X, mask=X > 2), TypeError, "mask.*filled")
    refused(call, [1.0], TypeError, "needs a NumPy array, got list")
    refused(call, md.ones(2, 2), TypeError, r"got a Tensor: .*tensor\.data")
    refused(call, md.nn.Linear(2, 2).weight, TypeError, r"got a Parameter: .*tensor\.data")
    if name != "scan":
        with pytest.raises(
            TypeError, match=r"minidist\.ops\.communication\.(\w+)\(tensor"
        ) as found:
            simulate(lambda comm: call(comm, md.ones(2, 2)), 2)
        words = str(found.value).split("communication.")[1]
        assert callable(getattr(communication, words.split("(")[0]))


@pytest.mark.parametrize("x, op", [
    (TABLE, "sum"), (np.array(["a"]), "sum"), (np.array(["2020"], "M8[Y]"), "sum"),
    (np.array(["a"]), "prod"), (np.zeros(3, "V2"), "max"),
])  # fmt: skip
def test_a_reduction_that_the_dtype_has_not_is_refused_before_a_message(x, op):
    for call in (c.all_reduce, c.reduce_scatter, c.scan):
        reduced = lambda comm, x: call(comm, x, op=op)  # noqa: B023
        refused(reduced, x, TypeError, f"there is no {op} of")


def test_memory_maps_travel(tmp_path):
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert simulate(lambda comm: c.all_reduce(comm, x).sum(), 2) == [8, 8]


def test_a_label_of_several_lines_stays_one_field_of_a_fingerprint():
    mine = Fingerprint("0", "0 to 1", "3", "barrier", label="two\nlines", site="a.py:1 in main")
    assert Fingerprint.decode(mine.encode()).site == mine.site


# Functions of the user


def own_of(function):
    """The same function, under a name that no table has."""

    def mine(*args):
        function(*args)

    return mine


def run_on_four(name, algorithm):
    def main(comm):
        if name == "barrier":
            return c.barrier(comm, algorithm=algorithm)
        x = np.arange(comm.size * 4.0).reshape(-1, 2) + comm.rank
        x = x if name != "scatter" or comm.rank == 0 else None
        result = getattr(c, name)(comm, x, algorithm=algorithm)
        return None if result is None else result.tolist()

    return simulate(main, 4)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_collective_takes_a_function_of_the_user(name):
    for known, function in ALGORITHMS[name].items():
        if known != "native":
            assert run_on_four(name, own_of(function)) == run_on_four(name, known)


def to_rank_0(comm, flat, combine):
    """An all-reduce: everyone sends to rank 0, which adds and sends the sum back."""
    theirs = np.empty_like(flat)
    if comm.rank == 0:
        for other in range(1, comm.size):
            combine(flat, comm.recv(theirs, other), out=flat)
        for other in range(1, comm.size):
            comm.send(flat, other)
    else:
        comm.send(flat, 0)
        comm.recv(flat, 0)


def test_it_is_counted_and_works_wherever_an_algorithm_is_named():
    def main(comm):
        with Ledger(comm) as ledger:
            out = c.iall_reduce(comm, np.full(3, comm.rank + 1.0), "max", to_rank_0).wait()
        layer = md.nn.Linear(2, 1)
        sums = Bucketed(layer, comm, algorithm=to_rank_0)
        layer(md.ones(1, 2)).sum().backward()
        sums.sum_gradients()
        return out.tolist(), ledger.by("collective"), layer.weight.grad.tolist()

    for rank, (out, counted, grad) in enumerate(simulate(main, 3)):
        assert out == [3.0] * 3 and grad == [[3.0, 3.0]]
        assert counted == {("all_reduce",): (2, 48) if rank == 0 else (1, 24)}


def test_ranks_compare_its_name_and_a_result_that_is_returned_is_refused():
    other = lambda comm, flat, combine: None
    with pytest.raises(MismatchError, match=r"algorithm is to_rank_0 on rank 0, but .*<lambda>"):
        simulate(lambda comm: c.all_reduce(comm, X, "sum", [to_rank_0, other][comm.rank]), 2)
    with pytest.raises(TypeError, match=r"algorithm sums returned a value.*flat"):
        sums = lambda comm, flat, combine: flat * comm.size
        sums.__name__ = "sums"
        simulate(lambda comm: c.all_reduce(comm, X, algorithm=sums), 2)
    for call, wanted in [(c.all_reduce, "comm, flat, combine"), (c.broadcast, "comm, flat, root")]:
        with pytest.raises(TypeError, match=rf"<lambda>\(x\) is called with \({wanted}\), as"):
            simulate(lambda comm, call=call: call(comm, X, algorithm=lambda x: None), 2)
    with pytest.raises(ValueError, match=r"algorithm=5 is not known.*a function like these"):
        simulate(lambda comm: c.all_reduce(comm, X, algorithm=5), 2)


def test_zero_takes_a_reduce_scatter_of_the_user():
    own = own_of(ALGORITHMS["reduce_scatter"]["ordered"])

    def main(comm):
        layer = md.nn.Linear(2, 2, bias=False)
        zero = Zero(layer, comm, md.optim.SGD, algorithm=own, lr=1.0)
        layer.weight.detach().fill_(1.0)
        layer(md.ones(1, 2)).sum().backward()
        zero.sum_gradients()
        zero.step()
        return layer.weight.tolist()

    assert simulate(main, 2) == [[[-1.0, -1.0]] * 2] * 2


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
@pytest.mark.parametrize("name", ["ring", "doubling", "rabenseifner", "ordered", "tree", "naive"])
def test_sums_of_16_bit_numbers_are_rounded_after_each_addition(dtype, name):
    parts = np.random.default_rng(0).standard_normal((3, 40)).astype(dtype)
    sums = simulate(lambda comm: c.all_reduce(comm, parts[comm.rank], algorithm=name), 3)
    orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]  # whose sum comes first, then the other number
    possible = [((parts[i] + parts[j]) + parts[k]).view(np.uint16) for i, j, k in orders]
    assert sums[0].dtype == dtype and all(np.array_equal(s, sums[0]) for s in sums)
    assert (sums[0].view(np.uint16) == possible).any(0).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("op", ["max", "min", "sum"])
def test_a_nan_of_bfloat16_passes_without_a_warning(op):
    parts = np.array([[np.nan, 1, 2], [0, np.nan, 3]], BFLOAT16)
    for found in simulate(lambda comm: c.all_reduce(comm, parts[comm.rank], op), 2):
        assert np.isnan(found.astype(float)).tolist() == [True, True, False]
