"""Every operation declares what autocast does with it, and does that: all operations are walked."""

from __future__ import annotations

import importlib
import pkgutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels.half_precision import as_dtype, is_half, wide
from support.catalogue import EVERY, OURS, Case
from support.double import gpu

import minidist as md
from minidist import Tensor, nn
from minidist.amp.autocast import POLICIES, Precision
from minidist.comm import simulate
from minidist.nn import functional as F
from minidist.ops import communication
from minidist.ops.op import composite, differentiable, elementwise
from minidist.ops.recurrent import put_rows
from minidist.parallel.data.sync_batch_norm import SyncBatchNorm
from minidist.parallel.layout import Shard
from minidist.parallel.tensor.cross_entropy import vocab_parallel_cross_entropy
from minidist.parallel.tensor.linear import ColumnParallelLinear

BF = md.bfloat16

# https://docs.pytorch.org/docs/stable/amp.html, "Autocast Op Reference", for CUDA: the names that
# minidist has too. (`dot` and `tensordot` are not among them: here they are a matmul, and lowered.)
PYTORCH = {
    "lower_precision_fp": "addmm conv conv_transpose linear matmul prelu",
    "fp32": """acos asin binary_cross_entropy_with_logits cosh cosine_similarity cross_entropy
        cumsum exp expm1 kl_div l1_loss layer_norm log log10 log1p log2 log_softmax mse_loss norm
        smooth_l1_loss
        pow prod reciprocal rsqrt sinh softmax softplus sum tan""",
    "promote": "addcdiv addcmul atan2",
}  # fmt: skip


def attributes():
    """All that the modules of minidist define, by "module.name"."""
    for found in pkgutil.walk_packages(md.__path__, "minidist."):
        if found.name.startswith("minidist.kernels") or found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == found.name:
                yield f"{found.name}.{name}", value


DECLARED = {
    name: value
    for name, value in attributes()
    if isinstance(getattr(value, "precision", 0), Precision)
}
OPERATIONS = {  # each under its first name: `multiply` is `mul`
    name: op for op, name in {
        op: name for name, op in reversed(DECLARED.items())
        if "operation" in op.__code__.co_freevars
    }.items()
}  # fmt: skip


def test_pytorchs_table_is_followed():
    found = {(op.__name__.strip("_"), op.precision.autocast) for op in DECLARED.values()}
    for policy, names in PYTORCH.items():
        for name in names.split():
            assert [p for n, p in found if n == name] == [policy], name
    assert ("losses", "fp32") in found, "the vocabulary-parallel cross-entropy"
    assert {op.precision.autocast for op in OPERATIONS.values()} == set(POLICIES)
    modules = {name.rpartition(".")[0] for name in OPERATIONS}
    elsewhere = "data.sync_batch_norm", "tensor.cross_entropy", "tensor.linear"
    assert {"minidist.ops.communication", *(f"minidist.parallel.{m}" for m in elsewhere)} < modules


@pytest.mark.parametrize("decorator", [differentiable, elementwise])
def test_an_operation_without_a_policy_is_refused(decorator):
    def frobnicate(x):
        return x, lambda g: g

    for declare in (decorator, decorator(), decorator(autocast=None), decorator(autocast="fp33")):
        with pytest.raises(TypeError, match="'frobnicate' declares no autocast policy"):
            declare(frobnicate)
    with pytest.raises(TypeError, match="'frobnicate' declares no autocast policy"):
        composite(autocast="float32")(frobnicate)
    assert decorator(autocast="fp32")(frobnicate).precision == Precision("fp32")


# What is computed


class Watched:
    """Inside, every call of an operation is noted: (arguments, arguments cast, arrays seen)."""

    def __init__(self, operation):
        self.cells = dict(zip(operation.__code__.co_freevars, operation.__closure__))
        self.own = {name: self.cells[name].cell_contents for name in ("function", "precision")}
        self.calls: list[tuple] = []

    def __enter__(self):
        function, precision = self.own["function"], self.own["precision"]

        def cast_inputs(args):
            self.cast = args, precision.cast_inputs(args)
            return self.cast[1]

        def watched(*arrays, **options):
            if md.is_autocast_enabled():
                self.calls.append((*self.cast, arrays))
            return function(*arrays, **options)

        watched.__name__ = function.__name__
        self.cells["precision"].cell_contents = SimpleNamespace(
            **vars(precision), cast_inputs=cast_inputs
        )
        self.cells["function"].cell_contents = watched
        return self

    def __exit__(self, *error):
        for name, value in self.own.items():
            self.cells[name].cell_contents = value


def mistakes(precision: Precision, calls: list, lower=BF) -> list[str]:
    """Each call that was not computed as the operation declares."""
    found = []
    for before, after, seen in calls:
        low = [isinstance(a, Tensor) and (is_half(a.data) or a.dtype == "float32") for a in before]
        dtypes = {a.dtype for a, cast in zip(before, low) if cast}
        for a, b, array, cast in zip(before, after, seen, low):
            if not isinstance(a, Tensor):
                continue
            wanted = a.dtype
            if cast:
                wanted = {
                    "lower_precision_fp": lower, "fp32": md.float32, "fallthrough": a.dtype,
                    "promote": md.float32 if len(dtypes) > 1 else a.dtype,
                }[precision.autocast]  # fmt: skip
            numbers = as_dtype(a.data, np.dtype(wanted))
            numbers = numbers if precision.moves_only else wide(numbers)
            if b.dtype != wanted or array.dtype != numbers.dtype:
                found.append(f"{a.dtype} became {b.dtype} and {array.dtype}, not {wanted}")
            elif not np.array_equal(array, numbers, equal_nan=array.dtype.kind == "f"):
                found.append(f"{a.dtype} was not rounded to {wanted}")
    return found


def in_autocast(call, arrays, how):
    """Run a case on float32, bfloat16, or both in turn."""
    dtypes = {"float32": ["float32"], "bfloat16": ["bfloat16"], "mixed": ["bfloat16", "float32"]}
    xs = []
    for i, array in enumerate(arrays):
        x = md.tensor(array)
        kind = dtypes[how][i % len(dtypes[how])]
        xs.append(x.to(kind) if x.is_floating_point() else x)
    with md.autocast("cpu", BF):
        call(*xs)


def ranks(job):
    """A case on two simulated ranks: job(comm, x)."""

    def call(x):
        def rank(comm):
            with md.autocast("cpu", BF):
                job(comm, x.detach().requires_grad_())

        simulate(rank, 2)

    return call


def vocabulary(comm, x):
    part = Shard((6,), 0, np.arange(6).reshape(2, 3)[comm.rank], comm)
    vocab_parallel_cross_entropy(x[:, :3], md.tensor([0, 5]), part)


def packed(x):
    rows = nn.utils.rnn.pack_padded_sequence(x, md.tensor([2, 1]), enforce_sorted=False)
    nn.utils.rnn.pad_packed_sequence(nn.LSTM(4, 2)(rows)[0])


def on_gpu(x):
    with gpu():
        x.cuda()


X = np.random.default_rng(0).standard_normal((2, 4)).astype("f")
ROWS = np.random.default_rng(1).standard_normal((2, 2, 4)).astype("f")
OTHERS = {
    "reduce": (ranks(lambda c, x: communication.reduce(x, c)), X),
    "copy": (ranks(lambda c, x: communication.copy(x, c)), X),
    "scatter": (ranks(lambda c, x: communication.scatter(x, c)), X),
    "gather": (ranks(lambda c, x: communication.gather(x, c)), X),
    "all_gather": (ranks(lambda c, x: communication.all_gather(x, c)), X),
    "reduce_scatter": (ranks(lambda c, x: communication.reduce_scatter(x, c)), X),
    "all_to_all": (ranks(lambda c, x: communication.all_to_all(x, c)), X),
    "broadcast": (ranks(lambda c, x: communication.broadcast(x, c)), X),
    "sendrecv": (
        ranks(lambda c, x: communication.sendrecv(x, c, 1 - c.rank, 1 - c.rank)), X),
    "vocabulary": (ranks(vocabulary), X),
    "columns": (ranks(lambda c, x: ColumnParallelLinear(4, 4, comm=c)(x)), X),
    "sync_batch_norm": (ranks(lambda c, x: SyncBatchNorm(4, comm=c)(x)), X),
    "recurrent": (packed, ROWS),
    "put_rows": (lambda x: put_rows(x, np.array([2, 0]), 3, 0.5), X),
    "placed": (on_gpu, X),
    "cross_entropy": (lambda x: F.cross_entropy(x, md.tensor([0, 3])), X),
    "probabilities": (lambda x: F.cross_entropy(x, x.softmax(1)), X),
    "dropout": (lambda x: F.dropout(x, 0.5), X),
    "a difference": (lambda x: x - 1.5, X),
    "without freedom": (lambda x: x.var(1, correction=9), X),
}  # fmt: skip


@pytest.fixture(scope="module")
def calls():
    """All calls of each operation, by its name, while the whole catalogue runs under autocast."""
    watches = {name: Watched(op) for name, op in OPERATIONS.items()}

    def run(case: Case):
        @settings(max_examples=2, database=None, derandomize=True)
        @given(st.data(), st.sampled_from(["float32", "bfloat16", "mixed"]))
        def once(data, how):
            arrays, options = data.draw(case.draw)
            arrays = [a.astype("f") if a.dtype.kind == "f" else a for a in arrays]
            in_autocast(lambda *xs: case.call(OURS, *xs, **options), arrays, how)

        once()

    for watch in watches.values():
        watch.__enter__()
    try:
        for case in EVERY.values():
            run(case)
        for call, array in OTHERS.values():
            for how in ("float32", "bfloat16"):
                in_autocast(call, [array], how)
    finally:
        for watch in watches.values():
            watch.__exit__()
    return {name: watch.calls for name, watch in watches.items()}


def test_every_operation_is_seen(calls):
    assert [name for name, seen in calls.items() if not seen] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_computes_in_the_dtype_that_it_declares(name, calls):
    assert mistakes(OPERATIONS[name].precision, calls[name]) == []


@pytest.mark.parametrize("truth", POLICIES)
@pytest.mark.parametrize("said", POLICIES)
def test_a_wrong_declaration_is_seen(said, truth):
    """The negative control: an operation that says one policy and follows another."""
    operation = differentiable(autocast=truth)(lambda a, b: (a + b,))
    with Watched(operation) as watch, md.autocast("cpu", BF):
        for dtypes in (("float32",) * 2, ("bfloat16",) * 2, ("float32", "bfloat16")):
            operation(*(md.tensor(X).to(d) for d in dtypes))
    assert bool(mistakes(Precision(said), watch.calls)) == (said != truth)
