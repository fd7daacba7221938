"""How a run ends early: by a signal on any rank, by a full disk, because it has diverged."""

import errno
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.proofs import keeping

from minidist.cli import main
from minidist.comm import simulate
from minidist.errors import UserError
from minidist.train import checkpoint, stop
from minidist.train import run as run_module
from minidist.train.config import TrainConfig, resumed
from minidist.train.loop import Trainer
from minidist.train.metrics import MetricsFile, read
from minidist.train.run import run
from minidist.train.sample import sample_run

SMALL = TrainConfig(
    model="gpt-nano", steps=5, batch=4, seq=16, warmup=2, eval_every=2, save_every=3, sample=9
)
TERM = int(signal.SIGTERM)


@pytest.fixture
def curves(monkeypatch) -> list:
    """The curves that runs draw: matplotlib takes longer than the runs."""
    drawn: list = []
    monkeypatch.setattr(
        run_module, "loss_curve", lambda records, path, *_, **__: drawn.append(path)
    )
    return drawn


def refused(config: TrainConfig, ranks: int) -> str:
    """The error that every rank raises: raised by one alone, it would leave the others waiting."""

    def rank(comm):
        with pytest.raises(UserError) as error:
            run(config, comm)
        return str(error.value)

    said = simulate(rank, ranks)
    assert len(set(said)) == 1
    return said[0]


def saved(out: Path) -> list[int]:
    return sorted(checkpoint.steps(out / "checkpoints"))


# Where the signal comes, and the step after which the run ends
PLACES = {
    "first step": (Trainer, "batch", 1, 1),
    "second step": (Trainer, "batch", 2, 2),
    "evaluation": (Trainer, "evaluate", 1, 3),  # that after step 2
    "saving": (run_module, "_save", 1, 4),  # that after step 3
    "saving the last": (run_module, "_save", 2, 5),
    "sampling": (Trainer, "sample", 1, 5),
}
LAYOUTS = {
    "alone": (1, {}), "dp": (3, {}), "tp": (2, {"tp": 2}), "pp": (2, {"pp": 2}),
    "zero": (2, {"zero": 3}), "all": (8, {"tp": 2, "pp": 2, "batch": 8}),
}  # fmt: skip
CASES = [(place, layout) for place in PLACES for layout in LAYOUTS]
KEPT = [*((place, "dp") for place in PLACES), *(("second step", x) for x in ("alone", "tp", "pp"))]


@pytest.mark.parametrize(("place", "layout"), keeping(dict.fromkeys(KEPT), CASES))
def test_a_signal_on_one_rank_stops_all_after_the_step(
    tmp_path, monkeypatch, capsys, curves, place, layout
):
    (ranks, flags), (owner, name, which, ends) = LAYOUTS[layout], PLACES[place]
    signals, calls, real = [stop.Signals() for _ in range(ranks)], [0] * ranks, getattr(owner, name)
    hit = ranks - 1  # the rank that the signal comes to

    def interrupted(*args, **options):
        rank = args[0].comm.rank  # the trainer's
        calls[rank] += 1
        if rank == hit and calls[rank] == which:
            signals[hit].number = TERM
        return real(*args, **options)

    monkeypatch.setattr(owner, name, interrupted)
    config, out = replace(SMALL, **flags, out=str(tmp_path / "a")), tmp_path / "a"
    simulate(lambda comm: run(config, comm, signals[comm.rank]), ranks)
    assert len(read(out / "metrics.jsonl")) == ends
    assert saved(out) == sorted({ends, *([3] if ends >= 3 else [])})
    assert curves == [out / "loss.png"]
    codes, shown = {each.exit_code for each in signals}, capsys.readouterr().out
    if place == "sampling":  # there is nothing left to agree on
        assert (signals[hit].exit_code, "sample ─" in shown) == (143, True)
        return
    assert codes == {143}
    assert f"stopped after step {ends} of 5; its checkpoint" in shown and "sample ─" not in shown
    assert ("to resume: minidist train --resume --out" in shown) == (ends < 5)


def test_stopped_and_resumed_equals_uninterrupted(tmp_path, curves):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    simulate(lambda comm: run(replace(SMALL, out=str(whole)), comm), 2)
    signals = stop.Signals()
    signals.number = TERM
    simulate(lambda comm: run(replace(SMALL, out=str(cut)), comm, signals), 2)
    assert saved(cut) == [1]
    simulate(lambda comm: run(resumed(cut / "config.toml", str(cut)), comm), 2)
    timeless = lambda r: {k: v for k, v in r.items() if k != "tokens_per_s"}
    for a, b in zip(read(whole / "metrics.jsonl"), read(cut / "metrics.jsonl"), strict=True):
        assert timeless(a) == timeless(b)
    last = "checkpoints/step-000005/model.safetensors"
    assert (whole / last).read_bytes() == (cut / last).read_bytes()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]
)
def test_the_command_ends_with_the_shells_code(tmp_path, monkeypatch, capfd, curves, number, code):
    before, real = signal.getsignal(number), Trainer.evaluate

    def evaluate(*args):
        os.kill(os.getpid(), number)
        return real(*args)

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    monkeypatch.setattr(run_module, "warm_up", lambda *_: None)
    flags = "--model gpt-nano --steps 99 --batch 4 --seq 16 --eval-every 2 --ranks 2 --simulate"
    monkeypatch.setattr(
        "sys.argv", ["minidist", "train", *flags.split(), "--out", str(tmp_path / "a")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    shown, errors = capfd.readouterr()
    assert ended.value.code == code
    assert f"--resume --out {tmp_path / 'a'} --ranks 2 --simulate" in shown
    assert "a second signal stops" in errors and "Traceback" not in errors
    assert saved(tmp_path / "a") == [3]
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_at_once(monkeypatch, capfd):
    with stop.Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # timeout(1) sends two: these are one
        assert signals.exit_code == 130
        monkeypatch.setattr(stop, "AGAIN", 0)
        with pytest.raises(SystemExit, match="130"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_once_all_is_saved_the_first_signal_ends_at_once(tmp_path, monkeypatch, curves, capfd):
    monkeypatch.setattr(Trainer, "sample", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    config = replace(SMALL, steps=1, out=str(tmp_path / "a"))
    with stop.Signals() as signals, pytest.raises(SystemExit, match="130"):
        simulate(lambda comm: run(config, comm, signals), 1)
    assert saved(tmp_path / "a") == [1] and "finishing the step" not in capfd.readouterr().err


# A model that has diverged

DIVERGED = {
    "at once": ({"steps": 1, "lr": 1e30}, "held-out loss is nan at step 1: training diverged"),
    "unevaluated": (
        {"steps": 6, "lr": 1e30, "save_every": 1, "eval_every": 9},
        "held-out loss is nan at step 1: training diverged",
    ),
    "without clipping": (
        {"steps": 1, "lr": 1e30, "clip": 0.0},
        "1e+30), clip the gradient (--clip 1; now off), or",
    ),
    "without a perplexity": ({"steps": 9, "lr": 1e3}, "training diverged; lower --lr"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("case", DIVERGED)
def test_a_diverged_model_is_an_error_and_is_not_saved(tmp_path, curves, case, ranks):
    changes, message = DIVERGED[case]
    config = replace(SMALL, warmup=0, **changes, out=str(tmp_path / "a"))
    assert message in refused(config, ranks)
    assert saved(tmp_path / "a") == []
    assert curves == [tmp_path / "a" / "loss.png"]
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    assert lines
    for line in lines:
        json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


@pytest.mark.parametrize(("layout", "which"), [("dp", 0), ("tp", 1), ("pp", 1), ("zero", 1)])
def test_a_weight_that_is_not_finite_on_one_rank_is_not_saved(
    tmp_path, monkeypatch, curves, layout, which
):
    ranks, flags = LAYOUTS[layout]
    real = Trainer.check_weights

    def poisoned(self, step):
        if self.comm.rank == which:
            own = (
                self.optimizer.pieces[0].own if flags.get("zero") else next(self.model.parameters())
            )
            own.data[..., 0] = np.inf
        real(self, step)

    monkeypatch.setattr(Trainer, "check_weights", poisoned)
    said = refused(replace(SMALL, **flags, out=str(tmp_path / "a")), ranks)
    assert said.startswith("weights are not finite after step 3: training diverged")
    assert saved(tmp_path / "a") == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "holds weights that are not finite"), (1e30, "logits are not")]
)
def test_a_bad_checkpoint_is_one_line(tmp_path, monkeypatch, curves, value, message):
    real = checkpoint.save

    def spoiled(folder, step, model, *args, **options):
        for p in model.parameters():
            p.data[...] = value
        return real(folder, step, model, *args, **options)

    monkeypatch.setattr(checkpoint, "save", spoiled)
    out = tmp_path / "a"
    simulate(lambda comm: run(replace(SMALL, steps=1, sample=0, out=str(out)), comm), 1)
    with pytest.raises(UserError, match=message):
        sample_run(out, "The ", 3, 0.8, 40, 0)
    if value != value:
        with pytest.raises(UserError, match=f"step-000001' {message}.*delete that folder"):
            config = replace(resumed(out / "config.toml", str(out)), steps=3)
            simulate(lambda comm: run(config, comm), 2)


# A disk that is full

WRITERS = {
    "config.toml": ("minidist.train.changes", "write_toml"),
    "metrics.jsonl": (MetricsFile, "write"),
    "step-000003": ("minidist.train.checkpoint", "save_file"),
    "loss.png": (run_module, "loss_curve"),
}


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("file", WRITERS)
def test_a_full_disk_is_one_line_on_every_rank(tmp_path, monkeypatch, curves, file, ranks):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner, name = WRITERS[file]
    monkeypatch.setattr(*(f"{owner}.{name}",) if isinstance(owner, str) else (owner, name), full)
    said = refused(replace(SMALL, out=str(tmp_path / "a")), ranks)
    line = "rank 0: " * (ranks > 1) + f"'{tmp_path}.*' cannot be written: No space left on device"
    assert re.fullmatch(line, said)
    assert not list((tmp_path / "a").glob("checkpoints/.*"))
