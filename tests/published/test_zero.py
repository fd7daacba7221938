"""ZeRO's published memory and traffic, and what two implementations hold, digit by digit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.comm import Ledger, all_gather, all_reduce, reduce_scatter, shard_bounds, simulate
from minidist.plan import traffic, zero
from minidist.plan.traffic import Call, sent_by_all, sent_by_rank
from minidist.plan.zero import FLOAT32, MEGATRON, MIXED, StateBytes, rank_bytes, zero_bytes


def rounded(value, printed):
    """The value with as many digits after the point as printed."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


# Rajbhandari et al. 2020 (arXiv 1910.02054)

FIGURE_1 = ["120", "31.4", "16.6", "1.9"]  # GB, psi = 7.5e9, n = 64


@pytest.mark.parametrize("stage, printed", list(enumerate(FIGURE_1)))
def test_figure_1(stage, printed):
    assert rounded(zero_bytes(stage, 7.5e9, 64).total / 1e9, printed) == printed


@pytest.mark.parametrize("stage, gigabytes", list(enumerate([120, 31.40625, 16.640625, 1.875])))
def test_figure_1_exactly(stage, gigabytes):
    assert rank_bytes(stage, 7_500_000_000, 64, 0).total == gigabytes * 1e9


# Table 1, to more digits than the paper prints; a row is n, columns are stages 1, 2, 3 of each size
MODELS = {"7.5B": 7.5e9, "128B": 128e9, "1T": 1e12}
TABLE_1 = {
    1: "120 120 120 2048 2048 2048 16000 16000 16000",
    4: "52.5 41.25 30 896 704 512 7000 5500 4000",
    16: "35.625 21.5625 7.5 608 368 128 4750 2875 1000",
    64: "31.406 16.641 1.875 536 284 32 4187.5 2218.75 250",
    256: "30.352 15.410 0.469 518 263 8 4046.9 2054.7 62.5",
    1024: "30.088 15.103 0.117 513.5 257.75 2 4011.7 2013.7 15.6",
}
COLUMNS = [(model, stage) for model in MODELS for stage in (1, 2, 3)]
CELLS = [
    (n, *column, printed)
    for n, row in TABLE_1.items()
    for column, printed in zip(COLUMNS, row.split(), strict=True)
]


def wrong(cells, table):
    """Cells of Table 1 that a formula does not give."""
    return [c for c in cells if rounded(table(c[2], MODELS[c[1]], c[0]) / 1e9, c[3]) != c[3]]


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c[1]}-stage{c[2]}-n{c[0]}")
def test_table_1(cell):
    assert not wrong([cell], lambda *case: zero_bytes(*case).total)


MUTANTS = {
    "no float32 copy, K = 8": lambda *case: zero_bytes(*case, StateBytes(2, 2, 8)).total,
    "float32": lambda *case: zero_bytes(*case, FLOAT32).total,
    "a stage too low": lambda stage, psi, n: zero_bytes(stage - 1, psi, n).total,
    "a rank too many": lambda stage, psi, n: zero_bytes(stage, psi, n + 1).total,
    "gradients kept whole": lambda stage, psi, n: zero_bytes(min(stage, 1), psi, n).total,
    "GiB": lambda *case: zero_bytes(*case).total * 1e9 / 2**30,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_table_1_fails_a_wrong_formula(name):
    assert wrong(CELLS, MUTANTS[name])


@pytest.mark.parametrize("stage, volume", list(enumerate([2, 2, 2, 3])))
def test_volume(stage, volume):
    assert zero.zero_volume(stage, 7.5e9) == volume * 7.5e9


def test_volume_of_stage_3_is_half_as_much_again():
    assert zero.zero_volume(3, 1e9) / zero.zero_volume(0, 1e9) == 1.5


def test_zero_plus_plus_sends_a_quarter():
    assert zero.zero_plus_plus_volume(1e9) == 0.75e9 == zero.zero_volume(3, 1e9) / 4
    assert zero.zero_plus_plus_volume(1e9, gradient_bits=8) == 1e9


@pytest.mark.parametrize("stage", [-1, 4])
def test_there_are_four_stages(stage):
    with pytest.raises(ValueError, match="want 0, 1, 2 or 3"):
        zero_bytes(stage, 1e9, 4)


# Exactly, for any sizes

sizes = st.integers(0, 10**6)
ranks = st.integers(1, 17)
each = st.sampled_from([MIXED, FLOAT32, *MEGATRON.values()])


@given(st.integers(0, 3), sizes, ranks, each)
def test_ranks_hold_every_state_once_or_everywhere(stage, psi, n, each):
    held = [rank_bytes(stage, psi, n, rank, each) for rank in range(n)]
    sharded = zero.is_sharded(stage)
    whole = zero_bytes(0, psi, n, each)
    for kind, of_all, once in zip(zip(*held), whole, sharded):
        assert sum(kind) == of_all * (1 if once else n)
        assert max(kind) - min(kind) in (0, of_all // psi if psi else 0)


@given(st.integers(0, 3), sizes, ranks, each)
def test_the_formula_is_exact_where_n_divides(stage, psi, n, each):
    psi *= n
    assert all(
        rank_bytes(stage, psi, n, r, each) == zero_bytes(stage, psi, n, each) for r in range(n)
    )


@pytest.mark.parametrize("rank, total", list(enumerate([48, 48, 32])))
def test_uneven_shards(rank, total):
    assert rank_bytes(3, 8, 3, rank).total == total
    assert zero_bytes(3, 8, 3).total == pytest.approx(128 / 3)


def test_data_parallel_float32_is_what_a_run_reports():
    assert zero_bytes(0, 834_304, 4, FLOAT32).total == 4 * 4 * 834_304


# What implementations hold

# Bytes a parameter for d = 1, 2, 4, 8, 64 (Megatron Core's guide, "Distributed Optimizer")
MEGATRON_TABLE = {
    "bf16, fp32 gradients": "18 12 9 7.5 6.19",
    "fp16, fp16 gradients": "20 12 8 6 4.25",
    "fp32, fp32 gradients": "16 12 10 9 8.125",
}
MEGATRON_CELLS = [
    (kind, d, printed)
    for kind, row in MEGATRON_TABLE.items()
    for d, printed in zip((1, 2, 4, 8, 64), row.split(), strict=True)
]


@pytest.mark.parametrize("kind, d, printed", MEGATRON_CELLS)
def test_megatron(kind, d, printed):
    assert rounded(zero_bytes(1, 1, d, MEGATRON[kind]).total, printed) == printed


@pytest.mark.parametrize("kind, printed", list(zip(MEGATRON_TABLE, (18, 20, 16))))
def test_megatron_not_distributed(kind, printed):
    assert zero_bytes(0, 1, 8, MEGATRON[kind]).total == printed


@pytest.mark.parametrize("d", [2, 4, 8, 64])
@pytest.mark.parametrize("kind", MEGATRON)
def test_megatron_holds_more_than_the_paper(kind, d):
    assert zero_bytes(1, 1, d, MEGATRON[kind]).total > zero_bytes(1, 1, d).total == 4 + 12 / d


T5_3B = 2_851_598_336, 32_899_072  # parameters, and those of the largest layer
NAMED = 2_851_000_000, 32_000_000  # the same as the page names them, "2851M" and "32M"
T5_LARGE = 737_668_096, 32_899_072


@pytest.mark.parametrize("psi", [T5_3B[0], NAMED[0]])
@pytest.mark.parametrize("offload, printed", [(False, "15.93"), (True, "5.31")])
def test_deepspeed_zero_2(psi, offload, printed):
    """DeepSpeed's "GB" are GiB."""
    assert rounded(zero.deepspeed_zero2_bytes(psi, 8, offload) / 2**30, printed) == printed


@pytest.mark.parametrize(
    "model, offload, printed",
    [
        (T5_3B, "none", "6.10"), (T5_3B, "optimizer", "0.79"), (T5_3B, "all", "0.12"),
        (NAMED, "none", "6.09"), (NAMED, "optimizer", "0.78"), (NAMED, "all", "0.12"),
    ],
)  # fmt: skip
def test_deepspeed_zero_3(model, offload, printed):
    assert rounded(zero.deepspeed_zero3_bytes(*model, 8, offload) / 2**30, printed) == printed


@pytest.mark.parametrize("offload, mib", [("none", 3291), ("optimizer", 477), ("all", 125)])
def test_deepspeed_zero_3_of_t5_large(offload, mib):
    """The page cuts to whole MiB: "all" is 125.5."""
    assert zero.deepspeed_zero3_bytes(*T5_LARGE, 4, offload) >> 20 == mib


@pytest.mark.parametrize("stage, printed", [(2, "15.93"), (3, "6.09")])
def test_deepspeed_is_not_the_paper(stage, printed):
    paper = zero_bytes(stage, NAMED[0], 8).total
    assert rounded(paper / 2**30, printed) != printed


# What a step calls, by four ranks and any number

BUCKETS = [40, 60, 100]  # elements
PSI = sum(BUCKETS)


def sent(calls, n=4):
    """In units of the parameters' bytes."""
    return sent_by_rank(calls, n) / (PSI * 4)


STRATEGIES = {  # forward, backward, step, a rank of four
    "data_parallel": (0, 1.5, 0),
    "zero_1": (0, 0.75, 0.75),
    "zero_2": (0, 0.75, 0.75),
    "zero_3": (0.75, 1.5, 0),
}
by_strategy = pytest.mark.parametrize("stage, name", list(enumerate(STRATEGIES)))


@by_strategy
def test_bytes_of_four_ranks(stage, name):
    calls = getattr(traffic, name)(BUCKETS)
    assert tuple(map(sent, calls)) == STRATEGIES[name]


@by_strategy
@given(n=ranks)
def test_bytes_of_n_ranks(stage, name, n):
    calls = getattr(traffic, name)(BUCKETS).all
    volume = zero.zero_volume(stage, PSI) * 4
    assert sent_by_all(calls, n).bytes == (n - 1) * volume
    assert sent_by_rank(calls, n) == pytest.approx((n - 1) / n * volume)


def test_calls_of_data_parallel():
    reductions = [Call("all_reduce", 1, 4 * b) for b in BUCKETS]
    assert traffic.data_parallel(BUCKETS) == ([], reductions, [])
    assert traffic.data_parallel(BUCKETS, 2).backward[0] == ("all_reduce", 1, 80)


def test_calls_of_zero_1_and_2():
    scatters = [Call("reduce_scatter", 1, 4 * b) for b in BUCKETS]
    gather = [Call("all_gather", 1, 2 * PSI)]
    assert traffic.zero_1(BUCKETS, parameter=2) == ([], scatters, gather)
    scatters = [Call("reduce_scatter", 3, 4 * b) for b in BUCKETS]
    assert traffic.zero_2(BUCKETS, parameter=2, microbatches=3) == ([], scatters, gather)


@pytest.mark.parametrize("keep_last", [False, True])
def test_calls_of_zero_3(keep_last):
    gathers = [Call("all_gather", 2, 2 * b) for b in BUCKETS]
    scatters = [Call("reduce_scatter", 2, 4 * b) for b in BUCKETS]
    again = gathers[: len(BUCKETS) - keep_last]
    calls = traffic.zero_3(BUCKETS, 4, 2, microbatches=2, keep_last=keep_last)
    assert calls == (gathers, again + scatters, [])


def make(comm, name, nbytes):
    """One call of so many bytes, in float32."""
    if name == "all_gather":
        counts = [stop - start for start, stop in shard_bounds(nbytes // 4, comm.size)]
        all_gather(comm, np.ones(counts[comm.rank], np.float32), counts, "ring")
    else:
        collective = {"all_reduce": all_reduce, "reduce_scatter": reduce_scatter}[name]
        collective(comm, np.ones(nbytes // 4, np.float32), algorithm="ring")


def play(comm, calls):
    """Make the calls of a step and return the (messages, bytes) that all ranks sent."""
    with Ledger(comm) as ledger:
        for name, times, nbytes in calls:
            for _ in range(times):
                make(comm, name, nbytes)
    together = ledger.of_all_ranks()
    return together.messages, together.bytes


@by_strategy
def test_ranks_send_what_is_foretold(stage, name):
    calls = getattr(traffic, name)(BUCKETS).all
    for n in (1, 3, 4):
        assert simulate(lambda comm: play(comm, calls), n)[0] == sent_by_all(calls, n)
