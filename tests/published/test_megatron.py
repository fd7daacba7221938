"""Parameters, FLOPs, training times and messages of Megatron-LM's papers, digit by digit."""

from dataclasses import replace
from fractions import Fraction as Q

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.models.gpt import GPT, GPTConfig
from minidist.plan import flops
from minidist.plan.gpt import gpt_parameters
from minidist.plan.traffic import (
    Call,
    replicated_parameters,
    sent_by_all,
    sent_by_rank,
    sequence_parallel,
    tensor_parallel,
)


def rounded(value, printed):
    """The value with as many digits after the point as printed."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


# Narayanan et al. 2021 (arXiv 2104.04473), Table 1, V = 51,200 and s = 2048

TABLE_1 = [  # l, h, a, P in billions, TFLOP/s a GPU, % of 312
    (24, 2304, 24, "1.7", 137, "44"),
    (30, 3072, 32, "3.6", 138, "44"),
    (36, 4096, 32, "7.5", 142, "46"),
    (40, 6144, 48, "18.4", 135, "43"),
    (48, 8192, 64, "39.1", 138, "44"),
    (60, 10240, 80, "76.1", 140, "45"),
    (80, 12288, 96, "145.6", 148, "47"),
    (96, 16384, 128, "310.1", 155, "50"),
    (105, 20480, 128, "529.6", 163, "52"),
    (128, 25600, 160, "1008.0", 163, "52"),
]
by_row = pytest.mark.parametrize("layers, h, a, billions, tera, percent", TABLE_1)


def published(layers, h, a):
    return GPTConfig(layers, h, a, positions=2048, vocab=51_200)


@by_row
def test_parameters(layers, h, a, billions, tera, percent):
    c = published(layers, h, a)
    assert rounded(flops.megatron_parameters(c) / 1e9, billions) == billions
    assert rounded(gpt_parameters(c) / 1e9, billions) == billions


MUTANTS = {
    "no embedding": lambda c: 12 * c.layers * c.hidden**2 + 13 * c.layers * c.hidden,
    "an untied head": lambda c: flops.megatron_parameters(c) + c.vocab * c.hidden,
    "11 h²": lambda c: flops.megatron_parameters(c) - c.layers * c.hidden**2,
    "BERT's vocabulary": lambda c: flops.megatron_parameters(replace(c, vocab=30_522)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_parameters_fail_a_wrong_formula(name):
    assert any(
        rounded(MUTANTS[name](published(layers, h, a)) / 1e9, billions) != billions
        for layers, h, a, billions, *_ in TABLE_1
    )


@by_row
def test_utilization(layers, h, a, billions, tera, percent):
    assert rounded(100 * flops.utilization(tera * 1e12, 1, 1, 312e12), percent) == percent


@by_row
def test_utilization_fails_a_wrong_peak(layers, h, a, billions, tera, percent):
    assert rounded(100 * flops.utilization(tera * 1e12, 1, 1, 280e12), percent) != percent


DAYS = [  # P, T, n, X, days as printed and to one digit more
    (175e9, 300e9, 1024, 140e12, "34", "33.9"),
    (1008e9, 450e9, 3072, 163e12, "84", "83.9"),
]


@pytest.mark.parametrize("parameters, tokens, devices, rate, printed, digit", DAYS)
def test_training_days(parameters, tokens, devices, rate, printed, digit):
    days = flops.training_days(parameters, tokens, devices, rate)
    assert (rounded(days, printed), rounded(days, digit)) == (printed, digit)


def test_84_days_are_of_1008_billion_parameters():
    """The paper says "1 trillion" and 84 days; 1.000 trillion would be 83.2."""
    assert rounded(flops.training_days(1e12, *DAYS[1][1:4]), "83.2") == "83.2"


@pytest.mark.parametrize("parameters, tokens, devices, rate, printed, digit", DAYS)
def test_training_days_fail_6_flops_a_parameter(parameters, tokens, devices, rate, printed, digit):
    days = flops.training_days(parameters, tokens, devices, rate) * 6 / 8
    assert rounded(days, printed) != printed


cases = st.builds(
    lambda layers, width, heads, positions, vocab: GPTConfig(
        layers, width * heads, heads, positions, vocab
    ),
    st.integers(1, 99), st.integers(1, 64), st.integers(1, 16), st.integers(1, 999),
    st.integers(1, 9999),
)  # fmt: skip


@given(cases)
def test_parameters_exactly(c):
    h, weights = c.hidden, 12 * c.layers * c.hidden**2
    formula = weights * (1 + Q(13, 12 * h) + Q(c.vocab + c.positions, 12 * c.layers * h))
    assert flops.megatron_parameters(c) == formula == gpt_parameters(c) - 2 * h


@given(cases, st.integers(1, 64))
def test_iteration_flops_exactly(c, b):
    """As printed, with all recomputed and (Korthikanti et al. 2022) with nothing."""
    h, s, v = c.hidden, c.positions, c.vocab
    unit = b * s * c.layers * h**2
    all_anew = 96 * unit * (1 + Q(s, 6 * h) + Q(v, 16 * c.layers * h))
    nothing = 72 * unit * (1 + Q(s, 6 * h) + Q(v, 12 * c.layers * h))
    assert flops.iteration_flops(c, b, recompute=True) == all_anew
    assert flops.iteration_flops(c, b) == nothing == b * s * flops.token_flops(c)


@given(cases, st.integers(1, 64))
def test_what_8_flops_a_parameter_and_token_leave_out(c, b):
    """8TP leaves out attention's matrices, and recomputes the head, which is not recomputed."""
    attention = 16 * c.layers * c.hidden * c.positions
    weights = flops.megatron_parameters(c) - (13 * c.layers + c.positions) * c.hidden
    counted = flops.iteration_flops(c, b, recompute=True) / (b * c.positions)
    assert counted == pytest.approx(8 * weights + attention - 2 * c.vocab * c.hidden)


# Qi et al. 2023 (arXiv 2401.10241), Table 1


@given(st.integers(1, 9), st.integers(1, 99), st.integers(1, 99))
def test_flops_of_a_layer_in_three_parts(b, s, h):
    sbh = s * b * h
    parts = flops.layer_flops(b, s, h)
    assert parts == (sbh * (24 * h + 4 * s), sbh * (24 * h + 8 * s), 24 * sbh * h)
    assert parts.input_gradient + parts.weight_gradient == 2 * parts.forward


def test_parts_are_alike_for_short_sequences():
    parts = flops.layer_flops(1, 1, 10**6)
    assert parts == pytest.approx([parts.weight_gradient] * 3, rel=1e-6)


def test_parts_are_not_alike_for_long_ones():
    """Attention's two products have no weights: the weights' part is a third only without them."""
    forward, input_gradient, weight_gradient = flops.layer_flops(1, 2048, 6144)
    assert weight_gradient < forward < input_gradient
    assert Q(forward, weight_gradient) == 1 + Q(2048, 6 * 6144)


@given(cases, st.integers(1, 9))
def test_layers_and_the_head_are_a_step(c, b):
    head = 6 * b * c.positions * c.hidden * c.vocab
    layer = sum(flops.layer_flops(b, c.positions, c.hidden))
    assert flops.iteration_flops(c, b) == c.layers * layer + head


# Messages of tensor parallelism: L layers, A = b·s·h and b·s in bytes

L, A, ROW, NORMS = 3, 1 << 20, 1 << 10, 512


def test_calls_of_tensor_parallelism():
    reduced = Call("all_reduce", 2 * L + 1, A)
    assert tensor_parallel(L, A, ROW) == ([reduced, ("all_reduce", 3, ROW)], [reduced], [])


def test_calls_of_sequence_parallelism():
    gathers, scatters = Call("all_gather", 2 * L + 1, A), Call("reduce_scatter", 2 * L + 1, A)
    again = Call("all_gather", 2 * (2 * L + 1), A)
    loss, norms = Call("all_reduce", 3, ROW), Call("all_reduce", 1, NORMS)
    calls = sequence_parallel(L, A, ROW, NORMS)
    assert calls == ([gathers, scatters, loss], [again, scatters], [norms])
    calls = sequence_parallel(L, A, ROW, NORMS, regather=False)
    assert calls.backward == [gathers, scatters]


@pytest.mark.parametrize("microbatches", [1, 5])
def test_micro_batches_repeat_all_but_the_step(microbatches):
    once = sequence_parallel(L, A, ROW, NORMS)
    calls = sequence_parallel(L, A, ROW, NORMS, microbatches)
    assert sum(c.times for c in calls.forward) == microbatches * (4 * L + 5)
    assert sum(c.times for c in calls.backward) == microbatches * (6 * L + 3)
    assert calls.step == once.step


def a_layer(make, *rest, n, **options):
    """What one more layer sends of A, in both directions, by a rank."""
    two, one = (make(layers, A, ROW, *rest, **options).all for layers in (2, 1))
    return (sent_by_rank(two, n) - sent_by_rank(one, n)) / A


@pytest.mark.parametrize("n", [2, 4, 8])
def test_a_layer_sends_8bsh(n):
    """8bsh(t-1)/t elements a layer and micro-batch (Narayanan et al. 2021, 3.2)."""
    assert a_layer(tensor_parallel, n=n) == 8 * (n - 1) / n


@pytest.mark.parametrize("n", [2, 4, 8])
def test_sequence_parallelism_sends_as_much_and_what_it_regathers(n):
    """Korthikanti et al. 2022 print the same 8; with the input gathered again it is 10."""
    assert a_layer(sequence_parallel, 0, n=n, regather=False) == 8 * (n - 1) / n
    assert a_layer(sequence_parallel, 0, n=n) == 10 * (n - 1) / n


@given(st.integers(1, 9), st.integers(1, 10**6), st.integers(1, 17))
def test_an_all_reduce_is_its_two_halves(layers, activation, n):
    whole = sent_by_all(tensor_parallel(layers, activation, 0).all, n).bytes
    halves = sent_by_all(sequence_parallel(layers, activation, 0, 0, regather=False).all, n).bytes
    assert whole == halves == (4 * layers + 2) * 2 * (n - 1) * activation


@pytest.mark.parametrize("layers, hidden", [(1, 4), (3, 8)])
def test_parameters_that_sequence_parallel_ranks_all_hold(layers, hidden):
    names = ".ln_", ".c_proj.bias", ".mlp_proj.bias"
    model = GPT(GPTConfig(layers, hidden, 2, 5, 7))
    held = [p.numel() for k, p in model.named_parameters() if any(n in f".{k}" for n in names)]
    assert sum(held) == replicated_parameters(layers, hidden)
