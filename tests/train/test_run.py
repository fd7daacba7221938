"""A whole run on simulated ranks: its folder, its resumption, and refusals that hang nobody."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from support.proofs import proofs

from minidist.comm import simulate
from minidist.errors import UserError
from minidist.models.gpt import GPT, GPTConfig
from minidist.train import checkpoint
from minidist.train.config import TrainConfig, read_toml, resumed
from minidist.train.metrics import MetricsFile, read
from minidist.train.run import run
from minidist.train.sample import sample_run

SMALL = TrainConfig(
    model="gpt-nano",
    steps=6,
    batch=4,
    seq=16,
    warmup=2,
    eval_every=4,
    save_every=3,
    dropout=0.1,
    sample=12,
)


def trained(config: TrainConfig, ranks: int = 2) -> Path:
    return Path(simulate(lambda comm: run(config, comm), ranks)[0]["out"])


def losses(folder: Path) -> list[float]:
    return [r["loss"] for r in read(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return trained(replace(SMALL, out=str(tmp_path_factory.mktemp("runs") / "a")))


def test_the_run_folder_is_complete(folder):
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    steps = {
        f"checkpoints/step-00000{step}/{name}"
        for step in (3, 6)
        for name in ("model.safetensors", "optimizer.safetensors", "state.json")
    }
    assert names == {"config.toml", "metrics.jsonl", "loss.png"} | steps
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_hold_every_step_with_all_digits(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert [r["tokens"] for r in records] == [64 * step for step in range(1, 7)]
    keys = {"step", "loss", "tokens", "tokens_per_s", "grad_norm", "lr"}
    assert all(keys <= r.keys() for r in records)
    assert [r["step"] for r in records if "val_loss" in r] == [4, 6]
    assert any(len(repr(r["loss"])) >= 16 for r in records)
    assert records[0]["loss"] == pytest.approx(math.log(256), rel=0.05)


def test_the_configuration_is_kept(folder):
    assert read_toml(folder / "config.toml") == replace(SMALL, out=str(folder))


def test_the_checkpoint_is_plain_safetensors(folder):
    arrays = load_file(folder / "checkpoints" / "step-000006" / "model.safetensors")
    assert arrays["wte.weight"].shape == (256, 32)


def test_what_is_shown(tmp_path, capsys):
    trained(replace(SMALL, out=str(tmp_path / "a")))
    shown = capsys.readouterr().out
    for text in ("ranks   2 (simulated)", "step    1/6", "step    6/6", "tokens/s", "perplexity",
                 "sample", "The ", "loss.png"):  # fmt: skip
        assert text in shown


@pytest.mark.parametrize("length", [0, 5])
def test_the_sample_has_the_length_asked_for(tmp_path, capsys, length):
    trained(replace(SMALL, steps=1, sample=length, out=str(tmp_path / "a")))
    _, rule, shown = capsys.readouterr().out.partition("sample ─")
    assert bool(rule) == bool(length)
    if length:
        text = shown.partition("\n")[2].rpartition("\n───")[0]
        text = re.sub(r"\\x[0-9a-f]{2}", ".", text)  # control characters are escaped
        assert text.startswith("The ") and len(text) <= len("The ") + length


@pytest.mark.parametrize("ranks", [1, 3])
def test_interrupted_and_resumed_equals_uninterrupted(folder, tmp_path, ranks):
    """Also on another number of ranks: then within rounding, with the same number to the bit."""
    whole = trained(replace(SMALL, out=str(tmp_path / "whole")), ranks)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-000006")
    trained(resumed(cut / "config.toml", str(cut)), ranks)
    assert losses(cut) == losses(whole)
    last = "checkpoints/step-000006/model.safetensors"
    assert (cut / last).read_bytes() == (whole / last).read_bytes()
    assert losses(whole) == pytest.approx(losses(folder), rel=1e-4)


def test_a_run_can_be_made_longer(folder, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(folder, longer)
    trained(replace(resumed(longer / "config.toml", str(longer)), steps=8))
    assert [r["step"] for r in read(longer / "metrics.jsonl")] == list(range(1, 9))


def test_the_scale_of_float16_is_saved_and_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr("minidist.train.run.loss_curve", lambda *_, **__: None)
    out = tmp_path / "a"
    trained(replace(SMALL, steps=1, sample=0, precision="float16", out=str(out)), 1)
    path = out / "checkpoints" / "step-000001" / "state.json"
    state = json.loads(path.read_text())
    assert state["scaler"]["scale"] == read(out / "metrics.jsonl")[0]["scale"] == 2.0**16
    state["scaler"]["scale"] = 1024.0
    path.write_text(json.dumps(state))
    trained(replace(resumed(out / "config.toml", str(out)), steps=2), 1)
    assert [r["scale"] for r in read(out / "metrics.jsonl")] == [2.0**16, 1024.0]


def test_a_crash_in_the_middle_of_a_line_loses_that_line_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    MetricsFile(path, after=2).close()
    for spoiled in (b"", b"\xff\xfe\n", b"\x00\x00", b"5\n", b"[1]\n", b"{}\n"):
        path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + spoiled)
        assert read(path) == [{"step": 1}, {"step": 2}]


def test_sampling_is_reproducible(folder):
    one, two = (sample_run(folder, "def ", 20, 0.8, 5, seed=1) for _ in range(2))
    assert one == two
    assert one.startswith("def ")
    assert one != sample_run(folder, "def ", 20, 0.8, 5, seed=2)
    assert sample_run(folder, "x", 9, 0, 0, 1) == sample_run(folder, "x", 9, 0, 0, 2)


@pytest.mark.parametrize(
    "bad", [{"prompt": ""}, {"tokens": -1}, {"top_k": -1}, {"temperature": -1.0}]
)
def test_bad_sampling_is_refused(folder, bad):
    given = {"prompt": "a", "tokens": 1, "temperature": 1.0, "top_k": 0, "seed": 0, **bad}
    with pytest.raises(UserError, match=r"none may be negative|prompt is empty"):
        sample_run(folder, **given)


def damaged(folder: Path, tmp_path: Path) -> TrainConfig:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "checkpoints" / "step-000006" / "model.safetensors").write_bytes(b"junk")
    return replace(resumed(broken / "config.toml", str(broken)), steps=9)


def without_hashes(folder: Path, tmp_path: Path) -> TrainConfig:
    config = damaged(folder, tmp_path)
    state = {"step": 6, "tokens": 1, "sha256": {}}
    (Path(config.out) / "checkpoints" / "step-000006" / "state.json").write_text(json.dumps(state))
    return config


REFUSED = {
    "holds a run": (lambda f, t: replace(SMALL, out=str(f)), "already holds a run.*--resume"),
    "nothing to resume": (
        lambda f, t: replace(SMALL, out=str(t), resume=True), "holds no run .*nothing to resume"),
    "done already": (
        lambda f, t: resumed(f / "config.toml", str(f)), "has done 6 steps already: raise --steps"),
    "other model": (
        lambda f, t: replace(SMALL, out=str(f), resume=True, steps=9, seq=8), "of another model"),
    "corrupt": (damaged, "is corrupt .*delete that folder"),
    "no hashes": (without_hashes, "is corrupt .state.json: KeyError.*delete that folder"),
    "no file": (lambda f, t: replace(SMALL, data=str(t / "x")), "is no file"),
    "not writable": (
        lambda f, t: replace(SMALL, out=str(f / "config.toml" / "x")), "cannot be written"),
    "no MPI": (lambda f, t: replace(SMALL, allreduce="native"), "use --allreduce ring"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("ranks", [1, 3])
def test_refusals_come_before_training_and_change_nothing(folder, tmp_path, case, ranks):
    make, message = REFUSED[case]
    config = make(folder, tmp_path)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message):
        trained(config, ranks)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_diverging_run_stops_and_says_so(tmp_path):
    config = replace(SMALL, lr=1e30, warmup=0, steps=30, out=str(tmp_path / "a"))
    with pytest.raises(UserError, match=r"loss is (nan|inf) at step \d+: .* lower --lr"):
        trained(config, 2)
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "a"))


def test_ranks_with_different_texts_are_refused(tmp_path, monkeypatch):
    (tmp_path / "0.txt").write_text("a" * 999)
    (tmp_path / "1.txt").write_text("b" * 999)

    def rank(comm):
        return run(replace(SMALL, data=str(tmp_path / f"{comm.rank}.txt")), comm)

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="rank 1: data differs between ranks"):
        simulate(rank, 2)


# What a resumed run no longer has as it was


def resume(folder: Path, ranks: int = 2, **flags) -> None:
    config = replace(resumed(folder / "config.toml", str(folder)), **flags)
    simulate(lambda comm: run(config, comm), ranks)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "copied")


def test_what_a_resume_changes_is_said_and_the_old_configuration_kept(copied, tmp_path, capsys):
    text = tmp_path / "b.txt"
    text.write_text("to be or not to be\n\nthat is the question\n\n" * 9 + "x" * 400)
    old = (copied / "config.toml").read_text()
    resume(copied, 2, steps=12, lr=1e-3, data=str(text), tp=2, dropout=0.0)
    shown = "".join(capsys.readouterr().out.split())  # a long path is folded
    for said in (
        "from step 6", f"changed data docs -> {text}", "changed steps 6 -> 12", "lr 0.004 -> 0.001",
        "learning rate 0.0002 at step 6 -> 0.000607 at step 7: its cosine ends at step 12",
        "changed dropout 0.1 -> 0.0", "changed layout dp 2 -> dp 1 x tp 2",
    ):  # fmt: skip
        assert said.replace(" ", "") in shown
    assert (copied / "config-step-6.toml").read_text() == old
    text.write_text("another text under the same name, which nobody would notice\n" * 20)
    resume(copied, 2, steps=13, tp=2)
    shown = "".join(capsys.readouterr().out.split())
    assert f"changed data {text}: the contents of the file have changed".replace(" ", "") in shown
    assert {p.name for p in copied.glob("*.toml")} == {
        "config.toml", "config-step-6.toml", "config-step-12.toml"}  # fmt: skip


def test_nothing_changed_is_nothing_said(copied, capsys):
    shutil.rmtree(copied / "checkpoints" / "step-000006")
    resume(copied)
    rows = [line.split()[:1] for line in capsys.readouterr().out.splitlines()]
    assert ["data"] in rows and ["changed"] not in rows
    assert len(list(copied.glob("*.toml"))) == 1


@pytest.mark.parametrize("flags", [{"model": "gpt-tiny"}, {"seq": 8}])
def test_another_model_is_one_line(copied, flags):
    with pytest.raises(UserError, match=r"of another model: .*\d, not \d.*; leave") as error:
        resume(copied, steps=9, **flags)
    assert len(str(error.value)) < 400
    with pytest.raises(UserError, match="of another model: ") as error:
        checkpoint.load(checkpoint.last(copied / "checkpoints"), GPT(GPTConfig(9, 8, 2, 4, 256)))
    assert len(str(error.value)) < 400


def test_a_run_without_a_checkpoint_starts_afresh(copied, capsys):
    """It was interrupted before its first: --resume and its absence pointed at each other."""
    whole = losses(copied)
    shutil.rmtree(copied / "checkpoints")
    resume(copied)
    assert "no checkpoint was saved yet: starting from step 0" in capsys.readouterr().out
    assert losses(copied) == whole


@pytest.mark.parametrize(
    "flags", [{}, {"pp": 2}, *proofs({"tp": 2}, {"zero": 1}, {"zero": 3})], ids=str
)
def test_another_dtype_is_that_of_the_moments_too(copied, monkeypatch, flags):
    monkeypatch.setattr("minidist.train.run.loss_curve", lambda *_, **__: None)
    for steps, dtype, size in ((7, "float64", 8), (8, "float32", 4)):
        resume(copied, 2, steps=steps, dtype=dtype, save_every=1, **flags)
        arrays = load_file(copied / "checkpoints" / f"step-00000{steps}" / "optimizer.safetensors")
        assert {a.dtype.itemsize for a in arrays.values()} == {size}


def test_held_out_windows_that_do_not_divide_among_the_replicas(tmp_path):
    """33 windows are 3 passes on one of two replicas and 1 less on the other: ZeRO-3 hung."""
    text = tmp_path / "a.txt"
    text.write_text("".join(f"{i} " for i in range(1900))[: 16 * 33 * 10 + 10])
    config = replace(SMALL, data=str(text), steps=1, sample=0)
    held_out = []
    for zero in (0, 3):
        out = trained(replace(config, zero=zero, out=str(tmp_path / str(zero))))
        held_out.append(read(out / "metrics.jsonl")[-1]["val_loss"])
    assert held_out[0] == held_out[1]
