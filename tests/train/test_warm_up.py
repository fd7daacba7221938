"""Before its first step a run has compiled every loop that it calls: none compiles later."""

from dataclasses import replace

import numpy as np
import pytest
from minidist.kernels import loops, softmax

from minidist import data
from minidist.comm import simulate
from minidist.train import warm_up as module
from minidist.train.config import TrainConfig
from minidist.train.run import run
from minidist.train.warm_up import little, warm_up

SMALL = TrainConfig(
    model="gpt-nano", steps=2, batch=8, seq=16, warmup=1, eval_every=2, save_every=2, sample=3
)
LAYOUTS = {
    "alone": (1, {}),
    "data parallel": (2, {"sync": "overlapped"}),
    "tensor and sequence parallel": (2, {"tp": 2, "sequence_parallel": True, "dropout": 0.1}),
    "pipeline": (2, {"pp": 2, "schedule": "zb-h1"}),
    "ZeRO-1": (2, {"zero": 1}),
    "ZeRO-3": (2, {"zero": 3, "microbatches": 2}),
    "bfloat16": (1, {"precision": "bfloat16"}),
    "float16": (1, {"precision": "float16"}),
    "float64": (1, {"dtype": "float64", "clip": 0.0}),
}


@pytest.fixture
def compiled(monkeypatch):
    """The loops that are compiled, or read from disk, from now on; at first none is there."""
    made, compile_ = [], loops.Loop.compile

    def noted(loop, dtype):
        made.append((loop.__name__, dtype.name))
        return compile_(loop, dtype)

    for loop in loops.LOOPS:
        monkeypatch.setattr(loop, "_compiled", {})
    monkeypatch.setattr(loops.Loop, "compile", noted)
    monkeypatch.setattr(module, "_done", set())
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_step_waits_for_a_compiler(layout, compiled, tmp_path):
    ranks, options = LAYOUTS[layout]
    config = replace(SMALL, **options)
    warm_up(config, data.load(config.data, config.seq), lambda line: None)
    before = set(compiled)
    assert before, "the little model calls loops"
    simulate(lambda comm: run(replace(config, out=str(tmp_path / "run")), comm), ranks)
    assert set(compiled) == before


def test_a_loop_that_the_little_model_misses_is_seen(compiled, tmp_path, monkeypatch):
    """The control: a little model that neither trains nor is evaluated."""
    monkeypatch.setattr(module.Trainer, "step", lambda trainer, step: None)
    warm_up(SMALL, data.load(SMALL.data, SMALL.seq), lambda line: None)
    before = set(compiled)
    monkeypatch.undo()
    for loop in loops.LOOPS:
        monkeypatch.setattr(loop, "_compiled", {})
    seen, compile_ = [], loops.Loop.compile
    monkeypatch.setattr(loops.Loop, "compile", lambda loop, dtype: (
        seen.append((loop.__name__, dtype.name)), compile_(loop, dtype))[1])  # fmt: skip
    simulate(lambda comm: run(replace(SMALL, out=str(tmp_path / "run")), comm), 1)
    assert not set(seen) <= before


class OneLoop:
    """In place of a little model: it calls one loop."""

    def __init__(self, *args):
        softmax.forward(np.ones((2, 3), np.float32), 1)

    def step(self, *args):
        """Nothing more to compile."""

    evaluate = sample = step


def test_the_first_run_says_that_it_compiles(tmp_path, monkeypatch):
    from numba.core import config

    corpus, said = data.load(SMALL.data, SMALL.seq), []
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "Trainer", OneLoop)
    for _ in range(2):
        monkeypatch.setattr(softmax.softmax_rows, "_compiled", {})
        monkeypatch.setattr(module, "_done", set())
        said.append([])
        warm_up(SMALL, corpus, said[-1].append)
    first, second = said
    assert first[0].startswith("compiling the loops") and first[1].startswith("1 compiled in")
    assert second == [], "the second run finds it on disk"


def test_warm_up_is_done_once_for_the_same_options(compiled):
    corpus = data.load(SMALL.data, SMALL.seq)
    warm_up(SMALL, corpus, lambda line: None)
    del compiled[:]
    for loop in loops.LOOPS:
        loop._compiled.clear()
    warm_up(replace(SMALL, pp=2, steps=2), corpus, lambda line: None)
    assert not compiled and little(SMALL) == little(replace(SMALL, dp=4))
