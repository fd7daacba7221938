"""Every layout trains the same: losses, norms, weights, moments; and reads every other's."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.proofs import keeping

from minidist.comm import simulate
from minidist.errors import UserError
from minidist.parallel import clip_grad as clip
from minidist.parallel import sequence
from minidist.train import step
from minidist.train.config import TrainConfig, check, resumed
from minidist.train.run import run

SIZES = {"model": "gpt-tiny", "steps": 3, "batch": 5, "seq": 10, "dropout": 0.2,
         "dtype": "float64", "clip": 0.3, "eval_every": 3, "save_every": 2,
         "sample": 12}  # fmt: skip
LAYOUTS = [
    {"dp": 2, "tp": 2}, {"dp": 1, "tp": 4}, {"dp": 1, "tp": 3}, {"dp": 3, "tp": 2},
    {"dp": 2, "tp": 4}, {"dp": 5, "tp": 1},
    *({"dp": 3, "tp": 1, "zero": stage} for stage in (1, 2, 3)),
    {"dp": 2, "tp": 2, "sync": "overlapped"}, {"dp": 3, "tp": 1, "sync": "naive"},
    *({"dp": 2, "tp": 3, "zero": stage} for stage in (1, 2, 3)),
]  # fmt: skip
KEPT = [LAYOUTS[i] for i in (0, 2, 5, 8, 9, 10, 13)]  # each axis, stage 3 and way to sum
BOUND = 1e-9  # Adam's divisions widen the rounding of the smallest gradients


def train(folder: Path, **layout) -> tuple[list, dict, dict]:
    """The curve, the last weights and the last moments."""
    config = TrainConfig(**SIZES, **layout, out=str(folder))
    simulate(lambda comm: run(config, comm), (config.dp or 1) * config.tp)
    return read(folder)


def read(folder: Path) -> tuple[list, dict, dict]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    curve = [(r["loss"], r["grad_norm"], r.get("val_loss", 0.0)) for r in records]
    last = sorted((folder / "checkpoints").iterdir())[-1]
    return curve, *(load_file(last / f"{name}.safetensors") for name in ("model", "optimizer"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "alone", dp=1)


def far(ours, alone):
    """The largest relative difference of losses, norms, weights and moments."""
    assert len(ours[0]) == len(alone[0]) and ours[1].keys() == alone[1].keys()
    assert ours[2].keys() == alone[2].keys()
    found = [np.abs(np.array(ours[0]) / np.maximum(alone[0], 1e-9) - 1)[:, :2].max()]
    for mine, theirs in zip(ours[1:], alone[1:]):
        for name, wanted in theirs.items():
            found.append(np.abs(mine[name] - wanted).max() / (np.abs(wanted).max() + 1e-2))
    return max(found)


@pytest.mark.parametrize("sp", [False, True])
@pytest.mark.parametrize(
    "layout", keeping(KEPT, LAYOUTS), ids=lambda d: "x".join(map(str, d.values()))
)
def test_a_layout_trains_as_one_process(layout, sp, alone, tmp_path):
    if sp and layout["tp"] == 1:
        pytest.skip("sequence parallelism is for tensor-parallel ranks")
    ours = train(tmp_path / "run", **layout, sequence_parallel=sp)
    assert far(ours, alone) < BOUND
    assert ours[0][-1][2] == pytest.approx(alone[0][-1][2], rel=1e-10), "held-out loss"


def test_what_one_layout_saved_another_goes_on_with(alone, tmp_path):
    folder = tmp_path / "run"
    train(folder, dp=1, tp=2, sequence_parallel=True)
    longer = {"steps": 5, "dp": 2, "tp": 1, "zero": 3}
    config = resumed(folder / "config.toml", str(folder))
    simulate(lambda comm: run(TrainConfig(**{**vars(config), **longer}), comm), 2)
    straight = TrainConfig(**{**SIZES, "steps": 5}, out=str(tmp_path / "straight"))
    simulate(lambda comm: run(straight, comm), 1)
    # The schedule of rates is that of 5 steps from step 4 on, as after any change of --steps.
    assert [r[0] for r in read(folder)[0][:4]] == pytest.approx(
        [r[0] for r in alone[0]] + [read(folder)[0][3][0]], rel=1e-9
    )
    assert len(read(folder)[0]) == 5


def own_norm(params, max_norm, *groups):
    return clip.clip_one_process(list(params), max_norm)


def every_rank_counts(params, max_norm, comm, shared_out, *others):
    return clip.clip_grad_norm_(params, max_norm, comm, list(params), *others)


CONTROLS = {
    "a norm of one's own": ("clip_grad_norm_", own_norm),
    "replicated parameters counted once a rank": ("clip_grad_norm_", every_rank_counts),
    "partial gradients forgotten": ("sum_partial", lambda params, comm: None),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_planted_fault_is_seen(name, alone, tmp_path, monkeypatch):
    target, mutant = CONTROLS[name]
    monkeypatch.setattr(step, target, mutant)
    ours = train(tmp_path / "run", dp=1, tp=2, sequence_parallel=True)
    assert far(ours, alone) > 100 * BOUND


def test_float32_fails_that_bound(alone, tmp_path):
    config = TrainConfig(**{**SIZES, "dtype": "float32"}, dp=1, tp=2, out=str(tmp_path / "run"))
    simulate(lambda comm: run(config, comm), 2)
    assert far(read(tmp_path / "run"), alone) > 100 * BOUND


def test_the_coefficient_is_the_same_bits_on_all_ranks():
    rng = np.random.default_rng(0)
    from minidist.nn import Parameter
    from minidist.tensor.tensor import Tensor

    grads = rng.normal(size=(4, 3, 5))

    def main(comm):
        mine, whole = Parameter(Tensor(grads[comm.rank])), Parameter(Tensor(grads[0]))
        mine.grad, whole.grad = Tensor(grads[comm.rank].copy()), Tensor(grads[0].copy())
        norm = clip.clip_grad_norm_([mine, whole], 0.1, comm, [mine])
        return norm.item(), whole.grad.data.tobytes()

    results = simulate(main, 4, seed=1)
    assert len(set(results)) == 1
    expected = np.sqrt((grads**2).sum() + (grads[0] ** 2).sum())
    assert results[0][0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("change, ranks, message", [
    ({"tp": 3}, 4, "mesh dp 1 × tp 3 needs 3 ranks.*choose --dp 1 --tp 4 or --dp 2 --tp 2"),
    ({"tp": 8}, 8, "gpt-tiny has 4 heads, and a rank needs at least one: use --tp 4"),
    ({"sequence_parallel": True}, 2, "want --tp of at least 2"),
    ({"tp": 0}, 2, "tp = 0: want at least 1"),
    ({"sync": "never"}, 2, "sync = 'never' is unknown: choose naive, bucketed, overlapped"),
    ({"zero": 4}, 2, "zero = '4' is unknown: choose 0, 1, 2, 3"),
    ({"zero": 2, "allreduce": "tree"}, 2, "zero 2 scatters its sums: --allreduce tree does not"),
    ({"tp": 2, "batch": 1}, 4, "batch 1 is smaller than the 2 data-parallel ranks"),
])  # fmt: skip
def test_impossible_layouts_are_refused(change, ranks, message):
    with pytest.raises(UserError, match=message):
        check(TrainConfig(**change), ranks)


def test_partial_parameters_are_those_that_are_whole():
    from minidist.models.gpt import GPT, GPTConfig

    def main(comm):
        model = GPT(GPTConfig(1, 4, 2, 3, 5), tp=comm, sequence_parallel=True)
        partial = {id(p) for p in sequence.partial_parameters(model)}
        return sorted(n for n, p in model.named_parameters() if id(p) in partial)

    assert simulate(main, 2)[0] == [
        "h.0.c_proj.bias", "h.0.ln_1.bias", "h.0.ln_1.weight", "h.0.ln_2.bias", "h.0.ln_2.weight",
        "h.0.mlp_proj.bias", "ln_f.bias", "ln_f.weight", "wpe.weight",
    ]  # fmt: skip
