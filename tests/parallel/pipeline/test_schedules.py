"""Every schedule computes every micro-batch once, in order, to its end, in the memory it says."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.parallel.pipeline.actions import Overlap, Schedule
from minidist.parallel.pipeline.schedules import NAMES, forward_only, make
from minidist.parallel.pipeline.schedules.order import alternate, numbered

V_SHAPED = "zbv", "dualpipev"
SPLIT = "zb-h1", "zb-h2", "zbv"  # every backward is I and W


@st.composite
def cases(draw):
    """(Name, p, m, v) of a schedule that there is."""
    name = draw(st.sampled_from(NAMES))
    p = draw(st.integers(1, 6))
    m = draw(st.integers(2 * p if name == "dualpipev" else 1, 20))
    v = 2 if name in V_SHAPED else 1
    if name in ("interleaved", "zb-h1"):
        v = draw(st.integers(2 if name == "interleaved" else 1, 4))
        m -= m % max(1, m // p) if v > 1 else 0
    return name, p, m, v


def placement(name, p, v):
    """The rank of every stage, as the papers have it."""
    down = list(range(p))
    return down + down[::-1] if name in V_SHAPED else down * v


# What must hold of every one


def faults(schedule, m, rank_of, backward=True):
    """What is computed too often, or not at all, or elsewhere, or in another order."""
    found = [] if dict(enumerate(rank_of)) == schedule.rank_of else ["placement"]
    for rank in range(schedule.ranks):
        for stage in {a.stage for a in schedule.actions(rank)}:
            if schedule.rank_of[stage] != rank:
                found.append(f"stage {stage} on rank {rank}")
            for kinds in ("F", "IB", "WB"):
                order = [
                    a.microbatch
                    for a in schedule.actions(rank)
                    if a.stage == stage and a.kind in kinds
                ]
                if order != (list(range(m)) if kinds == "F" or backward else []):
                    found.append(f"{stage}{kinds}: {order}")
    return found


def left(schedule):
    """What is never computed when ranks go on as soon as they can: empty if it ends."""
    done, todo = set(), [list(reversed(order)) for order in schedule.orders]
    last, moved = schedule.stages - 1, True
    while moved:
        moved = False
        for steps in todo:
            while steps and all(can(part, done, last) for part in steps[-1].parts):
                done.update(made(steps.pop()))
                moved = True
    return [str(step) for steps in todo for step in steps]


def can(action, done, last):
    stage, kind, m = action
    if kind == "F":
        return stage == 0 or (stage - 1, "F", m) in done
    if kind == "W":
        return (stage, "I", m) in done
    return (stage, "F", m) in done and (stage == last or (stage + 1, "I", m) in done)


def made(step):
    return [(a.stage, "I" if a.kind == "B" else a.kind, a.microbatch) for a in step.parts]


def peaks(schedule):
    """By rank: the most chunks whose activations are held, from F until B or W."""
    found = []
    for rank in range(schedule.ranks):
        held, most = 0, 0
        for action in schedule.actions(rank):
            held += {"F": 1, "I": 0, "W": -1, "B": -1}[action.kind]
            most = max(most, held)
        found.append(most)
    return found


@given(cases())
def test_computes_everything_once_and_in_order(case):
    name, p, m, v = case
    schedule = make(name, p, m, v)
    assert faults(schedule, m, placement(name, p, v)) == []
    assert (schedule.ranks, schedule.stages, schedule.microbatches) == (p, p * v, m)
    assert schedule.name == name and not schedule.has_messages


@given(cases())
def test_runs_to_its_end(case):
    assert left(make(*case)) == []


@given(cases())
def test_counts(case):
    name, p, m, v = case
    kinds = Counter(a.kind for r in range(p) for a in make(*case).actions(r))
    assert kinds["F"] == kinds["I"] + kinds["B"] == kinds["W"] + kinds["B"] == p * v * m
    if name != "dualpipev":
        assert kinds["W"] == (p * v * m if name in SPLIT else 0)


@given(cases())
def test_the_default_chunks(case):
    name, p, m, v = case
    default = 2 if name in (*V_SHAPED, "interleaved") else 1
    assert (make(name, p, m) == make(name, p, m, v)) == (v == default)


@given(st.permutations([0, 1, 2, 0, 1, 2, 2]), st.integers(1, 6))
def test_forward_only(rank_of, m):
    schedule = forward_only(tuple(rank_of), m)
    assert faults(schedule, m, rank_of, backward=False) == [] == left(schedule)
    assert not schedule.has_backward


@given(cases())
def test_forward_only_of_a_schedules_stages(case):
    schedule = make(*case)
    evaluation = forward_only(tuple(schedule.rank_of.values()), schedule.microbatches)
    assert evaluation.rank_of == schedule.rank_of


def changed(schedule, rank, change):
    """With change(steps) in place of a rank's steps."""
    orders = list(schedule.orders)
    orders[rank] = change(list(orders[rank]))
    return Schedule.of(orders)


FAULTS = {
    "forgotten": lambda steps: steps[:-1],
    "twice": lambda steps: [*steps, steps[-1]],
    "descending": lambda steps: [*steps[:-2], steps[-1], steps[-2]],
    "elsewhere": lambda steps: [*steps, "0F0"],
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name):
    mutant = changed(make("1f1b", 3, 5), 1, FAULTS[name])
    assert faults(mutant, 5, [0, 1, 2])


def test_a_w_before_its_i_does_not_run():
    mutant = changed(make("zb-h1", 2, 4), 0, lambda s: [s[0], s[1], s[3], s[2], *s[4:]])
    assert [str(s) for s in make("zb-h1", 2, 4).orders[0][2:4]] == ["0I0", "0W0"]
    assert left(mutant)


@pytest.mark.parametrize("p, m, v", [(2, 4, 2), (4, 8, 3)])
def test_too_short_a_warm_up_does_not_run(p, m, v):
    schedule = make("interleaved", p, m, v)
    forwards, backwards = (
        [a.stage for a in schedule.actions(p - 1) if a.kind == k] for k in "FB"
    )  # fmt: skip
    again = lambda warmup: changed(
        schedule, p - 1, lambda _: numbered(alternate(forwards, backwards, warmup))
    )
    assert again((v - 1) * p) == Schedule(schedule.orders)
    assert left(again((v - 1) * p - 1))


def test_forward_stage_by_stage_of_a_rank_does_not_run_where_stages_come_back():
    mutant = changed(forward_only((0, 1, 0), 2), 0, lambda steps: steps[::-1])
    assert left(mutant)


# By hand


@pytest.mark.parametrize(
    "name, order",
    [
        ("gpipe", "0F0 0F1 0B0 0B1"),
        ("1f1b", "0F0 0B0 0F1 0B1"),
        ("interleaved", "0F0 1F0 1B0 0F1 0B0 1F1 1B1 0B1"),
        ("zb-h1", "0F0 0I0 0W0 0F1 0I1 0W1"),
        ("zb-h2", "0F0 0I0 0W0 0F1 0I1 0W1"),
        ("zbv", "0F0 1F0 1I0 1W0 0F1 0I0 0W0 1F1 1I1 1W1 0I1 0W1"),
        ("dualpipev", "0F0 1F0 0F1 1B0 (1F1;0B0)OVERLAP_F_B 1B1 0I1 0W1"),
    ],
)
def test_one_rank(name, order):
    assert " ".join(map(str, make(name, 1, 2).orders[0])) == order


def test_one_f_one_b_of_two_ranks():
    orders = [" ".join(map(str, order)) for order in make("1f1b", 2, 3).orders]
    assert orders == ["0F0 0F1 0B0 0F2 0B1 0B2", "1F0 1B0 1F1 1B1 1F2 1B2"]


@pytest.mark.parametrize("p, m", [(2, 4), (3, 9)])
def test_what_overlaps_are_different_microbatches(p, m):
    pairs = [s for o in make("dualpipev", p, m).orders for s in o if isinstance(s, Overlap)]
    assert pairs and all(a.microbatch != b.microbatch for a, b in pairs)


# Memory

BOUNDS = {  # chunks that rank r of p holds where m is large; g micro-batches a round, p if p | m
    "gpipe": lambda p, r, m, v, g: m,
    "1f1b": lambda p, r, m, v, g: p - r,
    "interleaved": lambda p, r, m, v, g: v * g + 2 * (p - r) - 1 - g,
    "zb-h1": lambda p, r, m, v, g: v * g + p - g,
    "zb-h2": lambda p, r, m, v, g: 2 * p - 1,
    "zbv": lambda p, r, m, v, g: 2 * p,
    "dualpipev": lambda p, r, m, v, g: 2 * p + 1,
}


def bounds(name, p, m, v):
    in_rounds = v > 1 and name not in V_SHAPED
    g = m // max(1, m // p) if in_rounds else p
    return [min(m * v, BOUNDS[name](p, r, m, v, g)) for r in range(p)]


@given(cases())
def test_memory(case):
    held = peaks(make(*case))
    assert all(most <= bound for most, bound in zip(held, bounds(*case), strict=True))
    if case[2] >= 3 * case[1]:
        assert held == bounds(*case)


@pytest.mark.parametrize("p", [1, 2, 4, 8])
def test_memory_of_rank_0(p):
    first = lambda name, v: peaks(make(name, p, 4 * p, v))[0]
    assert first("gpipe", 1) == 4 * p
    assert first("1f1b", 1) == first("zb-h1", 1) == p
    assert first("interleaved", 2) == 2 * p + p - 1
    assert first("interleaved", 4) == 4 * p + p - 1
    assert first("zb-h1", 2) == first("zbv", 2) == 2 * p
    assert first("zb-h2", 1) == 2 * p - 1
    assert first("dualpipev", 2) == 2 * p + 1


def test_interleaving_holds_no_more_than_there_is():
    assert peaks(make("interleaved", 4, 4))[0] == 8


@pytest.mark.parametrize("more, later", [(1, 0), (0, 1)])
def test_memory_tells_one_more(more, later):
    turns = [0] * 8
    orders = [numbered(alternate(turns, turns, 3 + more, delay=later))]
    assert peaks(Schedule.of(orders)) == [5]
