"""Training a GPT on a GPU (its double): the CPU's losses, and how often the host is asked."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from support.double import copies, gpu
from support.proofs import keeping, proofs

import minidist as md
from minidist import Tensor, optim, random
from minidist.amp import GradScaler
from minidist.comm import simulate
from minidist.models.gpt import GPT, GPTConfig
from minidist.train import loop
from minidist.train import run as runs
from minidist.train.config import TrainConfig

SIZES = GPTConfig(layers=2, hidden=32, heads=2, positions=12, vocab=40, dropout=0.1)
NEAR = {None: 1e-5, "float16": 2e-3, "bfloat16": 2e-2}


def losses(device, precision=None, steps=4):
    """The losses of training steps, and the copies to the host that the last step took."""
    model = GPT(SIZES, seed=1).to(device)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    scaler = GradScaler(init_scale=256.0, enabled=precision == "float16")
    rng, found = np.random.default_rng(0), []
    for step in range(steps):
        x, y = (Tensor(rng.integers(0, 40, (2, 12))).to(device) for _ in range(2))
        copies.clear()
        lowered = md.autocast(device, precision) if precision else contextlib.nullcontext()
        with random.at(0, step, 0), lowered:
            loss = model.loss(x, y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        optim.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        asked = +copies
        found.append(loss.item())
    assert all(p.dtype == "float32" for p in model.parameters())
    return np.array(found), asked


@pytest.mark.parametrize("precision", keeping([None, "float16"], NEAR))
def test_the_losses_are_those_of_the_cpu(precision):
    exact, _ = losses("cpu")
    here, _ = losses("cpu", precision)
    with gpu():
        there, asked = losses("cuda", precision)
    assert np.abs(there - here).max() < NEAR[precision]
    assert np.abs(here - exact).max() < NEAR[precision]
    assert asked == ({"float": 1} if precision == "float16" else {}), "whether it overflowed"


def test_sixteen_bits_are_seen():
    exact, _ = losses("cpu")
    for precision in ("float16", "bfloat16"):
        assert np.abs(losses("cpu", precision)[0] - exact).max() > NEAR[None]


SMALL = TrainConfig(
    model="gpt-nano",
    steps=4,
    batch=2,
    seq=8,
    eval_every=4,
    save_every=2,
    warmup=1,
    dropout=0.1,
    sample=2,
)


@pytest.fixture
def short(monkeypatch):
    """Little to evaluate: the interpreter is slow."""
    monkeypatch.setattr(loop.Trainer.evaluate, "__defaults__", (2,))


def curve(tmp_path, name, **changes):
    config = replace(SMALL, out=str(tmp_path / name), **changes)
    ranks = config.dp or 1
    simulate(lambda comm: runs.run(config, comm), ranks)
    rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    return [float(row.split('"loss": ')[1].split(",")[0]) for row in rows]


@pytest.mark.parametrize("dp", [1, *proofs(2)])
def test_a_whole_run_there(tmp_path, dp, short, capsys):
    here = curve(tmp_path, "here", dp=dp)
    with gpu():
        there = curve(tmp_path, "there", dp=dp, device="cuda")
    np.testing.assert_allclose(there, here, rtol=1e-5)
    assert "float32 on a GPU" in capsys.readouterr().out


@pytest.mark.proof
def test_a_run_there_goes_on_from_a_checkpoint(tmp_path, short, capsys):
    whole = curve(tmp_path, "whole", precision="float16")
    with gpu():
        curve(tmp_path, "part", precision="float16", device="cuda", steps=2)
        on = curve(tmp_path, "part", precision="float16", device="cuda", resume=True)
    np.testing.assert_allclose(on, whole, rtol=1e-3)
    assert on != whole, "there the sums of 16 bits are others"
    assert "float16 in products" in capsys.readouterr().out
