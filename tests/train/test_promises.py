"""What a run promises (README, --help), checked from outside: by its files and what it reads.

Each expected value is computed here, from the text and the checkpoints, not by the trainer.
"""

import math
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from minidist import cli, no_grad, random
from minidist.comm import simulate
from minidist.models.gpt import GPT
from minidist.tensor.tensor import Tensor
from minidist.train import run as run_module
from minidist.train.config import TrainConfig, read_toml
from minidist.train.metrics import read
from minidist.train.run import run
from minidist.train.sample import sample_run

SEQ = 8
CONFIG = TrainConfig(
    model="gpt-nano", data="text.txt", steps=5, batch=3, seq=SEQ, lr=0.01, final_lr=0.1, warmup=2,
    weight_decay=0.5, clip=0.0, eval_every=2, save_every=2, sample=0, seed=3, dtype="float64",
)  # fmt: skip
DRAWN = np.random.default_rng(0)
TRAIN = "".join(DRAWN.choice(list("abcdefghijklm"), 900)).encode()  # the first nine tenths
HELD_OUT = "".join(DRAWN.choice(list("nopqrstuvwxyz"), 100)).encode()


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch):
    """Forward passes of the run alone are counted, without those of the little model before it."""
    monkeypatch.setattr(run_module, "warm_up", lambda *_: None)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    (folder / "text.txt").write_bytes(TRAIN + HELD_OUT)
    return folder


def trained(desk: Path, ranks: int = 1, **changes) -> Path:
    """The folder of a run with these changes to CONFIG."""
    out = desk / f"run{len(list(desk.iterdir()))}"
    config = replace(CONFIG, data=str(desk / "text.txt"), out=str(out), **changes)
    simulate(lambda comm: run(config, comm), ranks)
    return out


def records(folder: Path) -> list[dict]:
    return read(folder / "metrics.jsonl")


def arrays(folder: Path, step: int, file: str = "model") -> dict[str, np.ndarray]:
    return load_file(folder / "checkpoints" / f"step-{step:06d}" / f"{file}.safetensors")


@pytest.fixture(scope="module")
def folder(desk):
    return trained(desk)


@pytest.fixture(scope="module")
def start(desk):
    """The weights before the first step: those of a run whose learning rate is next to nothing."""
    return arrays(trained(desk, steps=1, lr=1e-300), 1)


def model_of(weights: dict[str, np.ndarray]) -> GPT:
    model = GPT(CONFIG.gpt(256))
    model.to("float64")
    model.load_state_dict(weights)
    return model.eval()


@no_grad()
def next_logits(model: GPT, rows: np.ndarray) -> np.ndarray:
    return model(Tensor(rows)).data  # (b, s, V)


def mean_loss(weights: dict[str, np.ndarray], rows: np.ndarray) -> float:
    """Mean cross-entropy in nats of every next byte of these rows (b, s + 1)."""
    logits = next_logits(model_of(weights), rows[:, :-1])
    log_sums = np.log(np.exp(logits).sum(-1))
    chosen = np.take_along_axis(logits, rows[:, 1:, None], -1)[..., 0]
    return float((log_sums - chosen).mean())


@pytest.fixture
def seen(monkeypatch):
    """All that a model is asked to learn or to be measured on: (training?, inputs, targets)."""
    found = []
    loss = GPT.loss

    def watched(self, tokens, targets, reduction="mean"):
        found.append((self.training, tokens.data.copy(), targets.data.copy()))
        return loss(self, tokens, targets, reduction)

    monkeypatch.setattr(GPT, "loss", watched)
    return found


def test_it_learns_from_the_first_nine_tenths_and_is_measured_on_the_rest(desk, seen):
    """Without dropout where it is measured, and with it again in the next step."""
    trained(desk)
    assert [training for training, *_ in seen] == [
        True,
        True,
        False,
        True,
        True,
        False,
        True,
        False,
    ]
    for training, tokens, targets in seen:
        assert np.array_equal(targets[:, :-1], tokens[:, 1:])
        for row in np.concatenate([tokens, targets[:, -1:]], 1):
            assert bytes(row.astype(np.uint8)) in (TRAIN if training else HELD_OUT)
        if training:
            assert tokens.shape == (CONFIG.batch, SEQ)
    measured = np.concatenate([tokens.ravel() for training, tokens, _ in seen if not training])
    assert bytes(measured[: len(measured) // 3].astype(np.uint8)) == HELD_OUT[:96], "all, once"


def test_held_out_losses_are_those_of_the_checkpoints(folder):
    held = np.frombuffer(HELD_OUT, np.uint8).astype(np.int64)
    rows = np.stack([held[at : at + SEQ + 1] for at in range(0, len(held) - SEQ, SEQ)])
    told = {r["step"]: r["val_loss"] for r in records(folder) if "val_loss" in r}
    assert sorted(told) == [2, 4, 5]
    for step, loss in told.items():
        assert loss == pytest.approx(mean_loss(arrays(folder, step), rows), rel=1e-9)


def test_a_training_loss_is_that_of_the_weights_before_the_step(folder, start, desk, seen):
    again = trained(desk)
    rows = [np.concatenate([x, y[:, -1:]], 1) for training, x, y in seen if training]
    losses = [r["loss"] for r in records(again)]
    assert losses == [r["loss"] for r in records(folder)], "the same seed, the same run"
    assert losses[0] == pytest.approx(mean_loss(start, rows[0]), rel=1e-9)
    assert losses[2] == pytest.approx(mean_loss(arrays(folder, 2), rows[2]), rel=1e-9)


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine(folder, start, desk):
    cosine = [0.5 * (1 + math.cos(math.pi * part)) for part in (0, 0.5, 1)]
    wanted = [0.005, 0.01, *(0.001 + 0.009 * c for c in cosine)]
    assert [r["lr"] for r in records(folder)] == pytest.approx(wanted, rel=1e-12)
    first = arrays(trained(desk, steps=1, warmup=2, weight_decay=0.0), 1)
    most = max(np.abs(first[name] - start[name]).max() for name in start)
    assert most == pytest.approx(0.005, rel=1e-4), "Adam's first step is lr long"


def test_matrices_are_decayed_and_biases_and_norms_are_not(start, desk):
    """Decoupled: what decay takes from a weight in a step is lr · weight_decay · weight."""
    with_decay, without = (
        arrays(trained(desk, steps=1, weight_decay=decay), 1) for decay in (0.5, 0.0)
    )
    assert {array.ndim for array in start.values()} == {1, 2}
    for name, weight in start.items():
        taken = 0.005 * 0.5 * weight if weight.ndim == 2 else 0 * weight
        np.testing.assert_allclose(without[name] - with_decay[name], taken, 0, 1e-15, err_msg=name)


def test_the_gradient_is_clipped_to_the_norm_and_its_own_norm_is_told(desk):
    """Seen in Adam's first moments: exp_avg is 0.1 g and exp_avg_sq 0.05 g² after one step."""
    free = trained(desk, steps=1)
    (norm,) = (r["grad_norm"] for r in records(free))
    for clip in (0.0, norm / 3, 3 * norm):
        folder = trained(desk, steps=1, clip=clip)
        assert records(folder)[0]["grad_norm"] == norm
        state = arrays(folder, 1, "optimizer")
        gradient = {k.split(".", 1)[1]: v / 0.1 for k, v in state.items() if "exp_avg." in k}
        length = math.sqrt(sum((g**2).sum() for g in gradient.values()))
        assert length == pytest.approx(min(norm, clip or math.inf), rel=1e-5)
        for name, g in gradient.items():
            np.testing.assert_allclose(state[f"exp_avg_sq.{name}"], 0.05 * g**2, rtol=1e-9)


def test_the_seed_chooses_weights_batches_dropout_and_sample(desk, seen, monkeypatch):
    keys, sampled = [], []
    at, generate = random.at, GPT.generate
    monkeypatch.setattr(random, "at", lambda *key: keys.append(key) or at(*key))
    monkeypatch.setattr(GPT, "generate", lambda *how: sampled.append(how[1:]) or generate(*how))
    change = {"steps": 2, "sample": 5, "dropout": 0.2, "lr": 1e-300}
    folders = [trained(desk, seed=seed, **change) for seed in (3, 4)]
    weights = [arrays(folder, 2)["wte.weight"] for folder in folders]
    assert np.isclose(*weights).mean() < 0.01
    batches = [tokens for training, tokens, _ in seen if training]
    assert len({batch.tobytes() for batch in batches}) == 4
    assert keys == [(3, 0, 0), (3, 1, 0), (4, 0, 0), (4, 1, 0)], "seed, step, first row"
    assert [(bytes(how[0]), *how[1:5]) for how in sampled] == [
        (b"The ", 5, 0.8, 40, seed) for seed in (3, 4)
    ]


def test_dropout_changes_training_and_not_measuring(desk, start):
    plain, dropped = (records(trained(desk, steps=1, lr=1e-300, dropout=p)) for p in (0.0, 0.5))
    assert plain[0]["val_loss"] == dropped[0]["val_loss"]
    assert abs(plain[0]["loss"] - dropped[0]["loss"]) > 1e-5


def test_ranks_share_out_one_batch(desk, seen):
    trained(desk, steps=1)
    alone = seen[0][1]
    seen.clear()
    trained(desk, ranks=3, steps=1)
    rows = [tokens for training, tokens, _ in seen if training]
    assert [len(tokens) for tokens in rows] == [1, 1, 1]
    assert sorted(map(bytes, np.concatenate(rows))) == sorted(map(bytes, alone))


def test_a_sample_is_drawn_from_the_last_checkpoint_as_asked(folder):
    model = model_of(arrays(folder, 5))
    byte = np.frombuffer(b"abcabcabcabc", np.uint8).astype(np.int64)
    logits = next_logits(model, byte[None, -SEQ:])[0, -1]
    likely = [chr(b) for b in np.argsort(-logits) if b < 128]
    draw = lambda *how, tokens=1: sample_run(folder, "abcabcabcabc", tokens, *how)
    order = np.argsort(-logits)
    assert order[:3].max() < 128, "the text is ASCII, and so is what the model has learnt"
    assert likely[:3] == [chr(b) for b in order[:3]]
    assert {draw(0.0, 0, seed)[-1] for seed in range(3)} == {likely[0]}
    assert {draw(1e-6, 0, seed)[-1] for seed in range(3)} == {likely[0]}
    assert {draw(100.0, 1, seed)[-1] for seed in range(3)} == {likely[0]}
    assert {draw(100.0, 3, seed)[-1] for seed in range(25)} == set(likely[:3])
    assert len({draw(1e6, 0, seed)[12:] for seed in range(25)}) > 9
    assert len(draw(0.0, 0, 0, tokens=7)) == 12 + 7


def test_what_the_end_says_is_in_the_metrics(desk, capsys):
    told = records(trained(desk, steps=3, batch=2))
    shown = " ".join(capsys.readouterr().out.split())
    loss = told[-1]["val_loss"]
    assert (
        f"held-out: {loss:.4f} nats a byte = {loss / math.log(2):.4f} bits a byte, "
        f"perplexity {math.exp(loss):.3f} a byte"
    ) in shown
    assert f"loss {told[0]['loss']:.4f} -> {told[-1]['loss']:.4f}" in shown
    for step in (1, 3):
        assert f"step {step}/3 loss {told[step - 1]['loss']:.4f}" in shown
    assert f"{len(TRAIN)} bytes to train on, {len(HELD_OUT)} held out" in shown
    assert [r["tokens"] for r in told] == [16, 32, 48]


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 32), ("float64", 64)])
def test_parameters_and_moments_are_of_the_dtype_asked_for(desk, start, dtype, bits):
    drawn = start["wte.weight"]
    assert (drawn.astype(np.float32) != drawn).mean() > 0.99, "float64 weights have all digits"
    folder = trained(desk, steps=1, dtype=dtype)
    for file in ("model", "optimizer"):
        assert {8 * array.itemsize for array in arrays(folder, 1, file).values()} == {bits}


def test_repeats_and_the_encoding_are_as_asked(desk, capsys):
    (desk / "again.txt").write_bytes((TRAIN + b"\n\n") * 3)
    for changes, size in (({}, 2706), ({"drop_repeats": True, "encoding": "latin-1"}, 902)):
        folder = desk / f"again{size}"
        config = replace(CONFIG, data=str(desk / "again.txt"), steps=1, out=str(folder), **changes)
        simulate(lambda comm, config=config: run(config, comm), 1)
        shown = " ".join(capsys.readouterr().out.split())
        cut = size * 9 // 10
        assert f"{cut:,} bytes to train on, {size - cut} held out" in shown
        assert ("2 repeated paragraphs (1,804 bytes) left out" in shown) == bool(changes)
        assert read_toml(folder / "config.toml").encoding == changes.get("encoding")


def test_how_gradients_are_summed_is_as_asked(desk, capsys):
    """By what rank 0 sends: 271,360 bytes of gradients in one bucket, in several, one by one."""
    ways = [{}, {"bucket_mib": 0.1}, {"sync": "naive"}, {"allreduce": "tree"}, {"zero": 1}]
    sent = []
    for way in ways:
        trained(desk, ranks=3, steps=1, **way)
        sent.append(
            re.search("rank 0 sent ([0-9.]+) MiB in ([0-9,]+) mess", capsys.readouterr().out)
        )
    counts = [int(found[2].replace(",", "")) for found in sent]
    assert len(set(counts)) == len(ways) and counts[0] < counts[1] < counts[2], counts


def test_the_picture_shows_the_metrics(folder, desk, monkeypatch):
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: kept.append(figure))
    told = records(trained(desk))
    curve, held, uniform = kept[0].axes[0].lines
    assert [*zip(*curve.get_data())] == [(r["step"], r["loss"]) for r in told]
    assert [*zip(*held.get_data())] == [(r["step"], r["val_loss"]) for r in told if "val_loss" in r]
    assert uniform.get_ydata()[0] == pytest.approx(math.log(256))


FLAGS = {
    "config": None, "layers": 33, "hidden": 34, "heads": 35, "positions": 36, "prompt": "Ab",
    "model": "gpt2", "data": "b.txt", "drop_repeats": True, "encoding": "gbk",
    "steps": 11, "batch": 12, "seq": 13, "lr": 0.14, "final_lr": 0.15, "warmup": 16,
    "weight_decay": 0.17, "clip": 0.18, "dropout": 0.19, "seed": 20, "dtype": "float64",
    "precision": "bfloat16", "device": "cuda", "dp": 21, "tp": 22, "pp": 23, "schedule": "zbv",
    "microbatches": 24, "chunks": 25, "split": (26, 27), "zero": 2, "sequence_parallel": True,
    "ranks": 28, "simulate": True, "allreduce": "tree", "sync": "naive", "bucket_mib": 0.29,
    "eval_every": 30, "save_every": 31, "sample": 32, "out": "there", "resume": False,
}  # fmt: skip


def command(monkeypatch, name: str, arguments: list[str]):
    """What the command line hands to one of its commands."""
    given = []
    monkeypatch.setattr(cli, name, given.append)
    monkeypatch.setattr("sys.argv", ["minidist", name, *arguments])
    cli.main()
    return given[0]


def test_every_flag_arrives_where_it_belongs(monkeypatch):
    words = []
    for name, value in FLAGS.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value not in (None, False):
            words += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    config = command(monkeypatch, "train", words)
    assert set(FLAGS) == {field.name for field in fields(TrainConfig)}
    for field in fields(TrainConfig):
        assert getattr(config, field.name) == FLAGS[field.name], field.name
        default = FLAGS[field.name] == field.default
        assert not default or field.name in ("config", "resume"), "no flag left at its default"


def test_sample_passes_its_flags_on(monkeypatch, capsys):
    asked = []
    sampled = lambda *how: asked.append(how) or "text"
    monkeypatch.setattr("minidist.train.sample.sample_run", sampled)
    words = ["sample", "runs/a", "--prompt", "Ab", "--tokens", "2", "--temperature", "0.3"]
    words += ["--top-k", "4", "--seed", "5"]
    monkeypatch.setattr("sys.argv", ["minidist", *words])
    cli.main()
    assert asked == [(Path("runs/a"), "Ab", 2, 0.3, 4, 5)]
    assert capsys.readouterr().out == "text\n"
