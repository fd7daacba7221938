"""Stages are cut where the dearest one is cheapest; what cannot be cut is refused."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist import nn
from minidist.errors import UserError
from minidist.models.gpt import GPTConfig
from minidist.parallel.pipeline.cut import balance, cut, ranges
from minidist.parallel.pipeline.schedules import make
from minidist.plan.flops import layer_costs
from minidist.tensor.tensor import Tensor


def all_cuts(n, stages):
    for inner in combinations(range(1, n), stages - 1):
        yield [b - a for a, b in pairwise((0, *inner, n))]


def stage_costs(costs, split):
    edges = np.cumsum([0, *split])
    return [sum(costs[a:b]) for a, b in pairwise(edges)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).flatmap(
    lambda costs: st.tuples(st.just(costs), st.integers(1, len(costs)))))  # fmt: skip
def test_no_cut_has_a_cheaper_dearest_stage(given_):
    costs, stages = given_
    split = balance(costs, stages)
    assert len(split) == stages and min(split) >= 1 and sum(split) == len(costs)
    key = lambda s: (max(stage_costs(costs, s)), sum(c * c for c in stage_costs(costs, s)))
    assert key(split) == min(map(key, all_cuts(len(costs), stages)))


def rank_costs(costs, split, rank_of):
    each = stage_costs(costs, split)
    return [
        sum(c for s, c in enumerate(each) if rank_of[s] == rank) for rank in {*rank_of.values()}
    ]


PLACES = [make("zbv", 2, 4), make("zbv", 3, 6), make("interleaved", 2, 2, 3), make("1f1b", 3, 3)]
each_place = pytest.mark.parametrize("schedule", PLACES, ids=lambda s: f"{s.name}-{s.ranks}")


@each_place
@pytest.mark.parametrize("last", [1.0, 1.3])
def test_of_layers_alike_no_cut_has_a_cheaper_dearest_rank(schedule, last):
    """As in a GPT, whose last layer has the head: of all cuts the best, by trying all."""
    for n in range(schedule.stages, 11):
        costs = [1.0] * (n - 1) + [last]
        found = balance(costs, schedule.stages, schedule.rank_of)
        dearest = [max(rank_costs(costs, s, schedule.rank_of)) for s in all_cuts(n, len(found))]
        assert max(rank_costs(costs, found, schedule.rank_of)) == pytest.approx(min(dearest))


@each_place
@given(costs=st.lists(st.integers(0, 9), min_size=6, max_size=12))
def test_ranks_are_never_worse_for_it(schedule, costs):
    owners, stages = schedule.rank_of, schedule.stages
    dearest = lambda split: max(rank_costs(costs, split, owners))
    split = balance(costs, stages, owners)
    assert len(split) == stages and min(split) >= 1 and sum(split) == len(costs)
    assert dearest(split) <= dearest(balance(costs, stages))
    if schedule.ranks == stages:
        assert split == balance(costs, stages)


def test_a_v_whose_stages_alone_are_balanced_is_not():
    """Six layers, the last with a head: two layers on one rank, four on the other."""
    costs, owners = [1, 1, 1, 1, 1, 1.1], PLACES[0].rank_of
    assert rank_costs(costs, balance(costs, 4), owners) == [2.1, 4]
    assert rank_costs(costs, balance(costs, 4, owners), owners) == [3.1, 3]


def test_the_mean_hides_the_dearest_stage():
    """Megatron-Bridge #5077: 6792 a stage on average, 9952 on the heaviest of [1, 2, 2, 3]."""
    costs = [1.0, 1.0, 1.0, 5.0]
    even = stage_costs(costs, [2, 2])
    assert max(even) == 6 > sum(even) / 2 == 4
    assert max(stage_costs(costs, balance(costs, 2))) == 5
    assert pytest.approx(0.318, abs=5e-4) == 1 - 6792 / 9952


def test_a_large_vocabulary_makes_the_last_stage_shorter():
    config = GPTConfig(layers=12, hidden=256, heads=4, positions=128, vocab=50_000)
    split = balance(layer_costs(config, 128), 4)
    assert split[-1] < split[0] and sum(split) == 12
    assert balance(layer_costs(GPTConfig(12, 256, 4, 128, 256), 128), 4) == [3, 3, 3, 3]


def test_many_layers_at_once():
    split = balance([1.0] * 500, 64)
    assert max(split) == 8 and sum(split) == 500
    assert balance([0.0] * 4, 4, PLACES[0].rank_of) == [1, 1, 1, 1]


@pytest.mark.parametrize("call, text", [
    (lambda: balance([1, 1], 3), "2 layers in 3 stages"),
    (lambda: balance([1, 1], 0), "2 layers in 0 stages"),
    (lambda: balance([1, -1], 1), "at least 0"),
    (lambda: balance([1, float("nan")], 1), "at least 0"),
    (lambda: ranges(4, 2, [3, 2]), "split 3,2"),
    (lambda: ranges(4, 2, [4]), "want 2 numbers"),
    (lambda: ranges(4, 2, [5, -1]), "at least 1 each"),
    (lambda: cut(nn.Sequential(nn.Tanh()), ranges(2, 2), [0]), "of a model of 1"),
])  # fmt: skip
def test_what_cannot_be_is_refused(call, text):
    with pytest.raises(UserError, match=text):
        call()


def test_a_cut_model_keeps_the_names_of_the_whole():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    layers = ranges(5, 3, [1, 2, 2])
    kept, stages = cut(model, layers, [0, 2])
    assert [n for n, _ in kept.named_parameters()] == [
        f"{i}.{kind}" for i in (0, 3, 4) for kind in ("weight", "bias")
    ]
    x = Tensor(np.ones((1, 2), "f4"))
    assert (stages[2](x).data == model[4](model[3](x)).data).all()
    assert kept[0] is model[0]
