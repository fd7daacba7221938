"""Schedules against published ones: identical to PyTorch's, and as long as the papers say."""

import hashlib
from fractions import Fraction

import pytest

from minidist.parallel.pipeline.actions import Action, Schedule
from minidist.parallel.pipeline.schedules import dualpipev as dual
from minidist.parallel.pipeline.schedules import make, zb_h1
from minidist.parallel.pipeline.text import dumps, loads

# SHA-256 of the canonical texts of PyTorch's zb1p_2rank_2stagep_compute.csv, with I as in its
# older files and B as in its newer ones, and of its dualpipev_4rank_10mb.csv
ZB1P = "1ff2d422c04cbc8d2618864cac110b29cd6be5b95d7854755b9ecfd49be31041"
ZB1P_NEWER = "d56036845c10efc4e21ea83335991e9fbc6185071f42eade4c9d74cf8e3eec69"
DUALPIPEV = "e3e483bfb9948590199527e3ffd0baa6865a273b99a8383ee640cda1414ade92"


def sha256(schedule, pytorch=False):
    return hashlib.sha256(dumps(schedule, pytorch).encode()).hexdigest()


def zb1p():
    return make("zb-h1", ranks=2, microbatches=8, chunks=2)


def dualpipev():
    return make("dualpipev", ranks=4, microbatches=10)


def test_zb_h1_is_pytorchs():
    assert sha256(zb1p()) == ZB1P
    assert sha256(zb1p(), pytorch=True) == ZB1P_NEWER


def test_what_pytorch_writes_is_read_back():
    assert sha256(loads(dumps(zb1p(), pytorch=True))) == ZB1P


def test_dualpipev_is_pytorchs():
    assert sha256(dualpipev()) == DUALPIPEV
    assert len(dumps(dualpipev())) == 1260


def plant(monkeypatch, schedule, name, fault):
    """Put fault(original, *arguments) in the place of a helper that a schedule's file uses."""
    original = schedule.__globals__[name]
    monkeypatch.setitem(schedule.__globals__, name, lambda *a, **k: fault(original, *a, **k))


@pytest.mark.parametrize("more, later", [(1, 0), (-1, 0), (0, 1)])
def test_zb_h1_fails_off_by_one(monkeypatch, more, later):
    fault = lambda alternate, f, b, w, delay: alternate(f, b, w + more, delay + later)
    plant(monkeypatch, zb_h1, "alternate", fault)
    assert sha256(zb1p()) != ZB1P


@pytest.mark.parametrize("more, later", [(1, 0), (0, 1)])
def test_dualpipev_fails_off_by_one(monkeypatch, more, later):
    fault = lambda drain, down, up, rank, after: drain(down, up, rank + more, after + later)
    plant(monkeypatch, dual, "_drain", fault)
    assert sha256(dualpipev()) != DUALPIPEV


# Lengths: a rank does its next step as soon as what it needs is there, messages take no time

UNIT = {"F": 1, "I": 1, "W": 1, "B": 2, "OVERLAP_F_B": 3}


def needs(action: Action, stages: int):
    """What must be done before, as (stage, F or I, micro-batch)."""
    stage, kind, microbatch = action
    if kind == "F":
        return [(stage - 1, "F", microbatch)] if stage else []
    if kind == "W":
        return [(stage, "I", microbatch)]
    above = [(stage + 1, "I", microbatch)] if stage + 1 < stages else []
    return [(stage, "F", microbatch), *above]


def spans(schedule: Schedule, cost=UNIT):
    """(Start, end) of every rank."""
    done, ends, starts = {}, [0] * schedule.ranks, [None] * schedule.ranks
    todo = [list(reversed(order)) for order in schedule.orders]
    ready = lambda a: all(n in done for n in needs(a, schedule.stages))
    while any(todo):
        rank = next(r for r, steps in enumerate(todo) if steps and all(map(ready, steps[-1].parts)))
        step = todo[rank].pop()
        needed = [done[n] for part in step.parts for n in needs(part, schedule.stages)]
        start = max([ends[rank], *needed])
        ends[rank] = start + cost[step.kind]
        starts[rank] = start if starts[rank] is None else starts[rank]
        for stage, kind, microbatch in step.parts:
            done[stage, "I" if kind == "B" else kind, microbatch] = ends[rank]
    return list(zip(starts, ends))


def bubble(schedule, cost=UNIT):
    """Makespan less what a rank computes."""
    work = sum(cost[action.kind] for action in schedule.actions(0))
    return max(end for _, end in spans(schedule, cost)) - work


def waits(schedule, cost=UNIT):
    """By rank: its span less what it computes."""
    work = [sum(cost[a.kind] for a in schedule.actions(r)) for r in range(schedule.ranks)]
    return [end - start - w for (start, end), w in zip(spans(schedule, cost), work)]


@pytest.mark.parametrize("p, m, makespan", [(4, 4, 21), (4, 8, 33), (4, 16, 57), (8, 32, 117)])
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_gpipe_and_1f1b_are_as_long(name, p, m, makespan):
    assert max(end for _, end in spans(make(name, p, m))) == makespan == 3 * (m + p - 1)


INTERLEAVED = [
    (4, 8, 2, "4.5"), (4, 8, 4, "2.25"), (4, 16, 2, "4.5"), (2, 8, 2, "1.5"), (8, 32, 4, "5.25"),
]  # fmt: skip


@pytest.mark.parametrize("p, m, v, printed", INTERLEAVED)
def test_interleaving_divides_the_bubble(p, m, v, printed):
    chunk = {kind: Fraction(time, v) for kind, time in UNIT.items()}
    assert bubble(make("interleaved", p, m, v), chunk) == Fraction(printed)
    assert bubble(make("1f1b", p, m)) == v * Fraction(printed)


COSTS = [(1, 1, 1), (1, 1.2, 0.8), (1, 1, 0.5), (1, 2, 1)]


@pytest.mark.parametrize("p", [4, 8])
@pytest.mark.parametrize("f, i, w", COSTS)
def test_zb_h1(p, f, i, w):
    cost = {"F": f, "I": i, "W": w}
    assert bubble(make("zb-h1", p, 4 * p), cost) == pytest.approx((p - 1) * (f + i - w))


def test_zb_h1_of_two_chunks():
    """PyTorch's: a makespan of 49, where 48 is ideal and interleaved 1F1B takes 51."""
    assert (bubble(zb1p()), bubble(make("interleaved", 2, 8))) == (1, 3)


@pytest.mark.parametrize("p", [1, 2, 4, 8])
def test_zb_h2_does_not_wait(p):
    schedule = make("zb-h2", p, 4 * p)
    assert waits(schedule) == [0] * p
    assert bubble(schedule) == p - 1


def test_zb_h2_waits_where_zb_h1_does():
    assert any(waits(make("zb-h1", 4, 16)))


@pytest.mark.parametrize("p, m", [(p, m) for p in (2, 4, 8) for m in range(2 * p - 1, 17)])
def test_zbv_does_not_wait(p, m):
    schedule = make("zbv", p, m)
    assert waits(schedule) == [0] * p
    assert bubble(schedule) == p - 1  # chunks' forwards, half a stage's


@pytest.mark.parametrize("p", [2, 4, 8])
def test_zbv_waits_with_fewer_microbatches(p):
    assert any(waits(make("zbv", p, 2 * p - 2)))


@pytest.mark.parametrize(
    "f, i, w, overlap, printed",
    [(1, 1, 1, 3, 6), (1, 1, 1, 2.5, 4.5), (1, 1, 1, 2, 3), (1, 1, 0.5, 2.5, 7.5)],
)
def test_dualpipev(f, i, w, overlap, printed):
    """The rank that waits most waits (PP/2 - 1)(F&B + B - 3W)."""
    cost = {"F": f, "I": i, "W": w, "B": i + w, "OVERLAP_F_B": overlap}
    steps = dualpipev().orders
    work = [sum(cost[step.kind] for step in order) for order in steps]
    makespan = max(end for _, end in spans(dualpipev(), cost))
    assert makespan - min(work) == printed == 3 * (overlap + (i + w) - 3 * w)
