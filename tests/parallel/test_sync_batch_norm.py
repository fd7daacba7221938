"""Batch norm over ranks: outputs, gradients, running statistics of one process on any shares."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.double import gpu
from support.replicas import slices

import minidist as md
from minidist import nn
from minidist.comm import Ledger, simulate
from minidist.parallel.data import sync_batch_norm as module
from minidist.parallel.data.sync_batch_norm import SyncBatchNorm, convert_sync_batchnorm
from minidist.tensor.tensor import Tensor

SHARES = st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(lambda c: sum(c) > 1)
COUNTS = [3, 0, 1, 5]
OPTIONS = [
    {},
    {"affine": False},
    {"momentum": None},
    {"track_running_stats": False},
    {"eps": 0.1, "momentum": 0.3, "bias": False},
]


def whole(counts, shape, offset=0.0):
    """Two batches of inputs and of cotangents."""
    rng = np.random.default_rng([sum(counts), *shape])
    x = rng.standard_normal((2, sum(counts), *shape)) * np.arange(1, shape[0] + 1).reshape(
        -1, *(1,) * (len(shape) - 1)
    )
    return x + offset, rng.standard_normal(x.shape)


def run(comm, counts, shape, make, dtype="float64", offset=0.0):
    """Two steps of a layer, then evaluation: all that it computed on this rank's rows, by name."""
    norm, rows, found = make(shape[0], comm).to(dtype), slices(counts)[comm.rank], {}
    for p in norm.parameters():
        p.data[...] = np.linspace(0.5, 2, p.numel())
    for step, (x, g) in enumerate(zip(*whole(counts, shape, offset))):
        x = Tensor(x[rows].astype(dtype), requires_grad=True)
        y = norm(x)
        y.backward(Tensor(g[rows].astype(dtype)))
        found |= {f"rows {step} y": y.data, f"rows {step} dx": x.grad.data}
    found |= {f"sum {k}": p.grad.data for k, p in norm.named_parameters()}
    found |= {f"same {k}": b.data.copy() for k, b in norm.named_buffers()}
    if norm.track_running_stats:  # else evaluation takes the statistics of this rank's own rows
        found["rows eval"] = norm.eval()(x.detach()).data
    return found


def joined(results):
    """Of all ranks: rows one after the other, gradients summed, and what must be the same."""
    whole = {}
    for name in results[0]:
        each = [found[name] for found in results]
        if name.startswith("rows"):
            whole[name] = np.concatenate(each)
        elif name.startswith("sum"):
            whole[name] = sum(each)
        else:
            assert all(a.tobytes() == each[0].tobytes() for a in each), f"{name} differs by rank"
            whole[name] = each[0]
    return whole


def plain(c, comm, ndim=4, **options):
    return (nn.BatchNorm2d if ndim == 4 else nn.BatchNorm1d)(c, **options)


def synchronised(c, comm, ndim=4, **options):
    return SyncBatchNorm(c, comm=comm, **options)


def excess(
    counts, shape, options=OPTIONS[0], make=synchronised, dtype="float64", offset=0.0, seed=None
):
    """The largest difference to one process with the whole batch, in 1e-10 of each array."""
    ndim = len(shape) + 1
    reference = partial(plain, ndim=ndim, **options)
    one = joined([run(None_rank(), [sum(counts)], shape, reference, offset=offset)])
    program = partial(
        run, counts=counts, shape=shape, make=partial(make, ndim=ndim, **options), dtype=dtype,
        offset=offset,
    )  # fmt: skip
    many = joined(simulate(program, len(counts), seed=seed))
    assert one.keys() == many.keys()
    return max(
        np.abs(many[k] - v).max() / max(np.abs(v).max(), 1e-300) / 1e-10
        for k, v in one.items()
        if v.size
    )


class None_rank:
    """The only rank, which has no one to talk to."""

    rank, size = 0, 1


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(3, 2, 5), (2,), (4, 3)])
def test_equals_one_process(shape, options):
    assert excess(COUNTS, shape, options) < 1


@settings(max_examples=30)
@given(
    counts=SHARES, c=st.integers(1, 4), length=st.integers(1, 3),
    options=st.sampled_from(OPTIONS), seed=st.none() | st.integers(0, 99),
)  # fmt: skip
def test_any_shares(counts, c, length, options, seed):
    # Of two values a channel the gradient is 0 but for eps: what is compared is rounding alone.
    counts = [*counts, 2] if sum(counts) * length == 2 else counts
    assert excess(counts, (c, length), options, seed=seed) < 1


def test_a_large_mean_takes_no_digits_from_the_variance():
    assert excess(COUNTS, (3, 4), offset=1e4) < 100, "of E[x²] - E[x]² 1e-8 is lost"


def test_float32_fails_that_bound():
    assert 1 < excess(COUNTS, (3, 4), dtype="float32") < 1e6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_stay_sixteen_bits(dtype):
    def rank(comm):
        norm = SyncBatchNorm(3, comm=comm).to(dtype)
        x = md.tensor(whole([4], (3, 2))[0][0][2 * comm.rank :][:2], dtype=getattr(md, dtype))
        y = norm(x)
        y.sum().backward()
        return y.dtype == x.dtype == norm.weight.grad.dtype, y.float().data

    same, rows = zip(*simulate(rank, 2))
    exact = nn.BatchNorm1d(3, dtype="float64")(Tensor(whole([4], (3, 2))[0][0])).data
    assert all(same)
    assert np.abs(np.concatenate(rows) - exact).max() < 0.03


def test_on_a_gpu_it_is_the_same():
    def rank(comm, device):
        norm = SyncBatchNorm(3, comm=comm).to(device)
        x = Tensor(whole([5], (3, 2))[0][0].astype("f")[slices([3, 2])[comm.rank]]).to(device)
        y = norm(x)
        (y * y * x).sum().backward()
        found = (y, norm.weight.grad, norm.running_mean, norm.running_var)
        return [t.cpu().detach().numpy() for t in found]

    here = simulate(partial(rank, device="cpu"), 2)
    with gpu():
        there = simulate(partial(rank, device="cuda"), 2)
    for a, b in zip(here[0] + here[1], there[0] + there[1]):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_it_sends():
    """One all-gather of 3c numbers forward, one all-reduce of 2c backward, nothing in eval."""

    def rank(comm):
        norm, x = SyncBatchNorm(5, comm=comm), md.ones(2, 5)
        with Ledger(comm) as ledger:
            norm(x).sum().backward()
        with Ledger(comm) as quiet:
            norm.eval()(x)
        return ledger.by("collective"), quiet.messages

    for sent, quiet in simulate(rank, 2):
        assert quiet == 0
        assert sent == {("all_gather",): (1, 3 * 5 * 8), ("all_reduce",): (1, 2 * 5 * 4)}


@pytest.mark.parametrize("counts", [[1, 0], [0, 0, 0]])
def test_too_few_values_on_all_ranks_together(counts):
    def rank(comm):
        with pytest.raises(ValueError, match=f"{sum(counts)} values a channel on all"):
            SyncBatchNorm(2, comm=comm)(md.ones(counts[comm.rank], 2))

    simulate(rank, len(counts))


def test_wrong_inputs_are_refused_before_any_message():
    def rank(comm):
        norm = SyncBatchNorm(2, comm=comm)
        with Ledger(comm) as ledger:
            for shape in [(2,), (4, 3), (1, 1, 2)]:
                with pytest.raises(ValueError, match=r"input .* want \(n, c, …\) of 2 channels"):
                    norm(md.ones(*shape))
            with pytest.raises(RuntimeError, match="dtypes float32 and float64"):
                norm(md.ones(2, 2).double())
        return ledger.messages

    assert simulate(rank, 2) == [0, 0]


# Conversion


def test_conversion_keeps_the_model():
    def rank(comm):
        norm = nn.BatchNorm1d(4, eps=0.01, momentum=None).double().eval()
        model = nn.Sequential(nn.Linear(2, 4), norm, nn.Sequential(norm, nn.BatchNorm2d(3)))
        names = {k: id(v) for k, v in model.named_parameters()}
        state = list(model.state_dict())
        assert convert_sync_batchnorm(model, comm) is model
        assert {k: id(v) for k, v in model.named_parameters()} == names
        assert list(model.state_dict()) == state
        sync = model[1]
        assert type(sync) is SyncBatchNorm and model[2][0] is sync and model[2][1].training
        assert (sync.eps, sync.momentum, sync.training) == (0.01, None, False)
        assert sync.running_mean is norm.running_mean and sync.comm is comm
        assert convert_sync_batchnorm(model, comm)[1] is sync, "a second time changes nothing"
        return repr(convert_sync_batchnorm(norm, comm))

    assert (
        simulate(rank, 2)
        == [
            "SyncBatchNorm(4, eps=0.01, momentum=None, affine=True, bias=True, "
            "track_running_stats=True)"
        ]
        * 2
    )


# Planted faults


def test_statistics_of_each_rank_alone_are_caught():
    with pytest.raises(AssertionError, match="differs by rank"):
        excess([3, 2, 5], (3, 2, 5), make=plain)


def mean_of_means(x, comm):
    """Mutant: statistics averaged over ranks, however many rows each has."""
    mean, var = x.mean((0, 2)), x.var((0, 2))
    sums = module.all_reduce(comm, np.stack([mean, var, np.full_like(mean, x[:, 0].size)]))
    return int(sums[2, 0]), sums[0] / comm.size, sums[1] / comm.size


def no_spread_of_means(x, comm, moments=module.moments):
    """Mutant: the variances of the ranks are averaged, the means' own spread is left out."""
    total, mean, _ = moments(x, comm)
    squares = x.shape[0] * x.shape[2] * x.var((0, 2))
    return total, mean, module.all_reduce(comm, squares) / total


@pytest.mark.parametrize("mutant", [mean_of_means, no_spread_of_means])
def test_wrongly_merged_statistics_are_caught(monkeypatch, mutant):
    monkeypatch.setattr(module, "moments", mutant)
    assert excess([3, 2, 5], (3, 2)) > 1


def test_sums_of_this_rank_alone_in_backward_are_caught(monkeypatch):
    monkeypatch.setattr(module, "all_reduce", lambda comm, sums: sums)
    assert excess([3, 2, 5], (3, 2)) > 1
