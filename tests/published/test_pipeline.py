"""Published bubbles, peaks and message counts of pipeline schedules, simulated digit by digit."""

from fractions import Fraction

import pytest

from minidist.parallel.pipeline.actions import Schedule
from minidist.parallel.pipeline.schedules import make
from minidist.parallel.pipeline.study.costs import Costs
from minidist.parallel.pipeline.study.simulate import simulate


def run(name, p, m, chunks=None, times=("1", "1", "1"), overlap=None):
    """The simulation of a schedule; times are F, I and W, exactly as they are written."""
    return simulate(make(name, p, m, chunks), Costs(*map(Fraction, times), overlap))


def rounded(value, printed):
    """The value with as many digits after the point as printed, without a leading zero if so."""
    text = f"{float(value):.{len(printed.partition('.')[2])}f}"
    return text.removeprefix("0") if printed.startswith(".") else text


def excess(simulated):
    """Makespan less the ideal time: what papers call the bubble of a schedule."""
    return simulated.makespan - simulated.ideal


# GPipe (Huang et al. 2019, arXiv 1811.06965) and 1F1B (Narayanan et al. 2021, arXiv 2104.04473,
# section 2.2): the same bubble, (p - 1)(tf + tb); tf = 1, tb = 2

MAKESPANS = {(4, 4): 21, (4, 8): 33, (4, 16): 57, (8, 32): 117}
SHARES = {  # p = 4; by m: idle of all time, (p-1)/(m+p-1), and over the ideal time, (p-1)/m
    1: (".7500", "3"), 2: (".6000", "1.5"), 4: (".4286", ".75"), 8: (".2727", ".375"),
    16: (".1579", ".1875"), 32: (".0857", ".09375"),
}  # fmt: skip
flat = pytest.mark.parametrize("name", ["gpipe", "1f1b"])


@flat
def test_makespans(name):
    assert {size: run(name, *size).makespan for size in MAKESPANS} == MAKESPANS
    assert all(span == 3 * (m + p - 1) for (p, m), span in MAKESPANS.items())


def wrong_shares(simulations):
    """The m for which a bubble is not as printed, by either definition."""
    of = lambda s, printed: (
        rounded(s.idle_fraction, printed[0]),
        rounded(s.bubble_ratio, printed[1]),
    )
    return [m for m, s in simulations.items() if of(s, SHARES[m]) != SHARES[m]]


@flat
def test_both_definitions_of_the_bubble(name):
    simulations = {m: run(name, 4, m) for m in SHARES}
    assert not wrong_shares(simulations)
    assert all(s.idle_fraction == pytest.approx(3 / (m + 3)) for m, s in simulations.items())
    assert all(s.bubble_ratio == Fraction(3, m) for m, s in simulations.items())


@pytest.mark.parametrize("name, p", [("1f1b", 5), ("zb-h1", 4), ("interleaved", 4)])
def test_another_pipeline_fails_the_shares(name, p):
    assert wrong_shares({m: run(name, p, m) for m in (4, 8, 16, 32)}) == [4, 8, 16, 32]


def test_peaks():
    """1F1B keeps p - r micro-batches on rank r, GPipe all of them."""
    assert run("1f1b", 4, 8).peak_microbatches() == [4, 3, 2, 1]
    assert run("gpipe", 4, 8).peak_microbatches() == [8, 8, 8, 8]


# Interleaved 1F1B (Narayanan 2021, section 2.2): the bubble is (p - 1)(tf + tb)/v

INTERLEAVED = [  # p, m, v: bubble, makespan, rank 0's peak in micro-batches
    (4, 8, 2, "4.5", "28.5", "5.5"), (4, 8, 4, "2.25", "26.25", "4.75"),
    (4, 16, 2, "4.5", "52.5", "5.5"), (2, 8, 2, "1.5", "25.5", "2.5"),
    (8, 32, 4, "5.25", "101.25", "9.75"), (4, 4, 2, "4.5", "16.5", "4.0"),
]  # fmt: skip


@pytest.mark.parametrize("p, m, v, bubble, makespan, peak", INTERLEAVED)
def test_interleaved(p, m, v, bubble, makespan, peak):
    """The peak is p(1 + (p-1)/(pv)), but no more than m (the last row)."""
    simulated = run("interleaved", p, m, v, [Fraction(1, v)] * 3)
    assert excess(simulated) == Fraction(bubble) == Fraction(3 * (p - 1), v)
    assert simulated.makespan == Fraction(makespan)
    assert simulated.peak_microbatches()[0] == float(peak) == min(m, p + (p - 1) / v)


def test_interleaving_is_what_divides_the_bubble():
    """Control: whole stages' times are v bubbles, and 1F1B has one stage a rank."""
    assert excess(run("interleaved", 4, 8, 2)) == 9 == excess(run("1f1b", 4, 8))


# Zero bubble (Qi et al. 2023, arXiv 2401.10241, Table 1; TB is I's time alone)

H1 = [  # F, I, W: bubbles (p - 1)(F + I - W) of p = 4 and 8
    (("1", "1", "1"), "3.0", "7.0"), (("1", "1.2", ".8"), "4.2", "9.8"),
    (("1", "1", ".5"), "4.5", "10.5"), (("1", "2", "1"), "6", "14"),
]  # fmt: skip
each_h1 = pytest.mark.parametrize("times, of_4, of_8", H1)


@each_h1
def test_zb_h1(times, of_4, of_8):
    """Every rank keeps p micro-batches, as rank 0 of 1F1B does."""
    for p, printed in ((4, of_4), (8, of_8)):
        simulated = run("zb-h1", p, 2 * p, times=times)
        f, i, w = map(Fraction, times)
        assert excess(simulated) == Fraction(printed) == (p - 1) * (f + i - w)
        assert simulated.peak_live() == [p] * p


def test_zb_h1_has_a_third_of_1f1bs_bubble():
    assert [excess(run("1f1b", p, 2 * p)) for p in (4, 8)] == [9, 21]
    assert [excess(run("zb-h1", p, 2 * p)) for p in (4, 8)] == [3, 7]


@each_h1
def test_zb_h2(times, of_4, of_8):
    """Inside the span (p - 1)(F + I - 2W), and 2p - 1 micro-batches on every rank."""
    f, i, w = map(Fraction, times)
    for p in (4, 8):
        simulated = run("zb-h2", p, 4 * p, times=times)
        assert max(simulated.span_bubble) == (p - 1) * (f + i - 2 * w)
        assert simulated.peak_live() == [2 * p - 1] * p


def test_zero_bubble_is_of_the_span_not_the_makespan():
    simulated = run("zb-h2", 4, 8)
    assert simulated.span_bubble == [0, 0, 0, 0]
    assert excess(simulated) == 3.0
    assert run("zb-h1", 4, 8).span_bubble == [3, 2, 1, 0]  # control


ZBV = [(2, "0.5"), (4, "1.5"), (8, "3.5")]  # makespan - ideal = (p - 1)·(a chunk's forward)


@pytest.mark.parametrize("p, printed", ZBV)
def test_zbv(p, printed):
    """Qi et al. 2024 (arXiv 2405.15362): no bubble in the span if F = I = W, and 1F1B's memory.

    From m = 2p - 1 on, whatever m. Fewer micro-batches cannot do that: rank 0 has none left when
    the first comes back to it; and for m < p one way down and up is longer.
    """
    for m in range(2 * p - 1, 17):
        simulated = run("zbv", p, m, times=["1/2"] * 3)
        assert excess(simulated) == Fraction(printed)
        assert simulated.span_bubble == [0] * p
        assert simulated.peak_microbatches() == [p] * p
    fewer = run("zbv", p, 2 * p - 2, times=["1/2"] * 3)
    assert max(fewer.span_bubble) > 0


# Zero-bubble README (github.com/sail-sg/zero-bubble): bubble rates for F = I = W and many
# micro-batches, in 1F1B's

RATES = {"1f1b": 1, "zb-h1": Fraction(1, 3), "zb-h2": 0, "zbv": 0}


def rate(name, p=4):
    """The largest bubble in a rank's span over 1F1B's; a chunk takes its share of a stage."""
    share = Fraction(1, 2 if name == "zbv" else 1)
    return Fraction(max(run(name, p, 32, times=[share] * 3).span_bubble), 3 * (p - 1))


@pytest.mark.parametrize("name", RATES)
def test_rates(name):
    assert [rate(name, p) for p in (2, 4, 8)] == [RATES[name]] * 3


# PyTorch's golden files (torch.distributed.pipelining, test/distributed/pipelining/artifacts)


def test_zb1p_of_two_ranks():
    """zb1p_2rank_2stagep_compute.csv, chunks of time 1: the bubble is (p - 1)(F + I - W)."""
    simulated, interleaved = run("zb-h1", 2, 8, 2), run("interleaved", 2, 8, 2)
    assert (simulated.makespan, simulated.ideal, interleaved.makespan) == (49, 48, 51)
    assert simulated.peak_live() == [4, 4]
    assert interleaved.peak_live() == [5, 3]


DUALPIPEV = [  # F, I, W and F&B: idle, and what (PP/2 - 1)(F&B + B - 3W) says
    ("1", "1", "1", "3", "6", "6"), ("1", "1", "1", "2.5", "4.5", "4.5"),
    ("1", "1", "1", "2", "3.0", "3.0"), ("1", "1", ".5", "2.5", "7.5", "7.5"),
    ("1", "1.2", ".8", "3", "7.2", "7.8"), ("1", "2", "1", "4", "11", "12"),
]  # fmt: skip


@pytest.mark.parametrize("f, i, w, both, idle, formula", DUALPIPEV)
def test_dualpipev(f, i, w, both, idle, formula):
    """dualpipev_4rank_10mb.csv, and DeepSeek's formula (github.com/deepseek-ai/DualPipe).

    It is the idle time of the rank that has most, and too much where I takes longer than F. Every
    rank keeps PP + 1 chunks.
    """
    simulated = run("dualpipev", 4, 10, times=(f, i, w), overlap=Fraction(both))
    assert max(simulated.idle) == Fraction(idle)
    b = Fraction(i) + Fraction(w)
    assert 3 * (Fraction(both) + b - 3 * Fraction(w)) == Fraction(formula)
    assert simulated.peak_live() == [9, 9, 9, 9]


def test_dualpipev_takes_66():
    assert run("dualpipev", 4, 10).makespan == 66


# Messages


@pytest.mark.parametrize("p, m", [(2, 4), (4, 8), (8, 16)])
def test_messages(p, m):
    """2m(p - 1); 2m(pv - 1) interleaved; 4m(p - 1) in a V, whose fold is on one rank."""
    for name in ("gpipe", "1f1b", "zb-h1", "zb-h2"):
        assert run(name, p, m).messages == 2 * m * (p - 1)
    for v in (2, 4):
        assert run("interleaved", p, m, v).messages == 2 * m * (p * v - 1)
    for name in ("zbv", "dualpipev"):
        assert run(name, p, m).messages == 4 * m * (p - 1)


def test_interleaving_sends_more_than_v_times_as_much():
    """Narayanan 2021, section 2.2.1, says v times: that is without the boundaries in between."""
    plain = run("1f1b", 4, 8).messages
    assert Fraction(run("interleaved", 4, 8, 2).messages, plain) == Fraction(7, 3)
    assert Fraction(run("zbv", 4, 8).messages, plain) == 2


# Speed and staleness

TORCHGPIPE = [  # n, m: measured for AmoebaNet-D, bound; both relative to n = 2, m = 1
    (2, 4, 1.546, "1.600"), (2, 32, 1.780, "1.939"), (4, 4, 1.680, "2.286"),
    (4, 32, 2.711, "3.657"), (8, 4, 2.625, "2.909"), (8, 32, 4.966, "6.564"),
]  # fmt: skip


def speed(n, m):
    """How fast n stages are with m micro-batches, where one rank alone has speed 1."""
    each = Fraction(1, n * m)
    return 3 / run("gpipe", n, m, times=[each] * 3).makespan


@pytest.mark.parametrize("n, m, measured, bound", TORCHGPIPE)
def test_torchgpipe_is_no_faster_than_its_schedule(n, m, measured, bound):
    """nm/(m + n - 1) (torchgpipe's README, "Speed"; Kim et al. 2020, arXiv 2004.09910)."""
    ratio = speed(n, m) / speed(2, 1)
    assert rounded(ratio, bound) == bound
    assert ratio == Fraction(n * m, m + n - 1)
    assert measured <= ratio


@pytest.mark.parametrize("n, measured", [(4, 1.006), (8, 0.932)])
def test_one_microbatch_gains_nothing(n, measured):
    assert speed(n, 1) / speed(2, 1) == 1 == pytest.approx(measured, abs=0.07)


def test_pipedream():
    """Harlap et al. 2018 (arXiv 1806.03377): stage r keeps p - r versions of its weights.

    So many micro-batches are under way there in 1F1B. A micro-batch more takes as long as the
    slowest stage.
    """
    assert run("1f1b", 4, 32).peak_live() == [4 - r for r in range(4)]
    slow = Costs([1, 1, 3, 2], [2, 1, 3, 1], 1)
    makespan = lambda m: simulate(make("1f1b", 4, m), slow).makespan
    assert makespan(33) - makespan(32) == 3 + 3 + 1


def test_a_schedule_by_hand():
    """Two ranks, two micro-batches, one after the other: the worst order there is."""
    one_by_one = Schedule.of([[f"{r}F0", f"{r}B0", f"{r}F1", f"{r}B1"] for r in range(2)])
    simulated = simulate(one_by_one)
    assert (simulated.makespan, simulated.idle_fraction) == (12, 0.5)
