"""A run through a pipeline has the metrics, weights and moments of one without, bit by bit."""

import shutil
from dataclasses import replace

import pytest
from support.pipeline_runs import read, train
from support.proofs import keeping, proofs

from minidist.comm import simulate
from minidist.errors import UserError
from minidist.parallel import clip_grad as clip
from minidist.parallel.pipeline.run import tied
from minidist.train import step
from minidist.train.config import TrainConfig, check, read_toml, resumed, write_toml
from minidist.train.run import run


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """Runs without a pipeline, each made once."""
    made = {}

    def of(**layout):
        key = tuple(sorted(layout.items()))
        if key not in made:
            made[key] = train(tmp_path_factory.mktemp("runs") / "run", **layout)
        return made[key]

    return of


PIPELINES = [
    {"pp": 2, "schedule": "gpipe"}, {"pp": 4, "schedule": "1f1b"}, {"pp": 3, "split": (1, 2, 1)},
    {"pp": 2, "schedule": "interleaved"}, {"pp": 4, "schedule": "zb-h1"},
    {"pp": 2, "schedule": "zb-h1", "chunks": 2}, {"pp": 3, "schedule": "zb-h2"},
    {"pp": 2, "schedule": "zbv"}, {"pp": 2, "schedule": "dualpipev"},
]  # fmt: skip
AROUND = [
    ({"pp": 2, "schedule": "zb-h1"}, {"dp": 2, "microbatches": 3}),
    ({"pp": 2, "schedule": "zbv"}, {"dp": 2, "microbatches": 4, "sync": "overlapped"}),
    ({"pp": 2, "schedule": "interleaved"}, {"dp": 2, "microbatches": 4, "sync": "naive"}),
    ({"pp": 2}, {"tp": 2, "microbatches": 3}),
    ({"pp": 2, "schedule": "zb-h1"}, {"tp": 2, "microbatches": 2, "sequence_parallel": True}),
    ({"pp": 2, "schedule": "zb-h2"}, {"dp": 2, "tp": 2, "microbatches": 2}),
]


@pytest.mark.parametrize("layout", keeping(PIPELINES[1:4] + PIPELINES[6:], PIPELINES), ids=str)
def test_every_schedule_trains_as_one_process(layout, without, tmp_path):
    assert train(tmp_path / "run", **layout) == without()


@pytest.mark.parametrize("layout, around", keeping(AROUND[1:6:2], AROUND), ids=str)
def test_with_other_parallelism_around(layout, around, without, tmp_path):
    assert train(tmp_path / "run", **layout, **around) == without(**around)


def test_zero_1_around_clips_nothing_else(without, tmp_path):
    """A shard's piece of a matrix is squared on its own, so the norm may round otherwise."""
    around = {"dp": 2, "microbatches": 3, "zero": 1, "clip": 1e9}
    piped, alone = train(tmp_path / "run", pp=2, **around), without(**around)
    assert piped[1:] == alone[1:]
    for (loss, norm, _), (want, wanted, _) in zip(piped[0], alone[0]):
        assert loss == want and norm == pytest.approx(wanted, rel=1e-6)


def counted_twice(params, max_norm, *groups):
    return clip.clip_grad_norm_(params, max_norm, *groups[:-1])


CONTROLS = {
    "the tied embedding's gradient stays apart": (tied.Tied, "sum_gradients", lambda self: None),
    "the tied embedding is counted twice": (step, "clip_grad_norm_", counted_twice),
    "a norm of each stage": (
        step, "clip_grad_norm_", lambda params, most, *groups: clip.clip_one_process(params, most)),
    "one mask for all micro-batches": (
        step, "place", lambda c, batch, i, real=step.place: real(c, batch, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROLS)
def test_a_planted_fault_is_seen(name, without, tmp_path, monkeypatch):
    whole = without()
    place, attribute, mutant = CONTROLS[name]
    monkeypatch.setattr(place, attribute, mutant)
    assert train(tmp_path / "run", pp=2) != whole


@pytest.mark.parametrize("first, then", [
    *proofs(({"pp": 4}, {"pp": 1})), ({"pp": 1}, {"pp": 2, "schedule": "zbv"}),
    *proofs(({"pp": 2, "dp": 2, "zero": 1}, {"pp": 4, "schedule": "gpipe"})),
    ({"pp": 3}, {"pp": 2, "tp": 2}),
], ids=str)  # fmt: skip
def test_another_layout_goes_on(first, then, tmp_path):
    """A checkpoint is of the whole model, by its global layers: any split reads it."""
    a, b = tmp_path / "a", tmp_path / "b"
    train(a, **first, steps=2, warmup=1)
    shutil.copytree(a, b)
    ours, wanted = gone_on(b, then), gone_on(a, first)
    assert ours[1].keys() == wanted[1].keys() and ours[2].keys() == wanted[2].keys()
    if "dp" not in first and "tp" not in then:
        assert ours == wanted
    for (loss, *_), (want, *_) in zip(ours[0], wanted[0], strict=True):
        assert loss == pytest.approx(want, rel=1e-5)


def gone_on(folder, layout):
    c = replace(resumed(folder / "config.toml", str(folder)), **layout, steps=4)
    simulate(lambda comm: run(c, comm), c.pp * (c.dp or 1) * c.tp)
    return read(folder)


# Refusals


def refused(ranks, **choices):
    with pytest.raises(UserError) as error:
        check(TrainConfig(**{"batch": 16, "seq": 8, **choices}), ranks)
    return str(error.value)


def test_impossible_combinations_say_why():
    assert "pp 3 × dp 1 needs 3 ranks, but there are 4 ranks" in refused(4, pp=3)
    assert "--pp 2 --dp 2" in refused(4, pp=3)
    assert "8 stages (pp 8, 1 chunks a rank) of gpt-tiny's 4 layers" in refused(8, pp=8)
    assert "at least one" in refused(8, pp=8)
    assert "8 stages (pp 4, 2 chunks" in refused(4, pp=4, schedule="zbv")
    assert "3 micro-batches" in refused(2, pp=2, batch=2, microbatches=3)
    assert "raise --batch to at least 8" in refused(2, pp=2, batch=6, microbatches=8)
    text = refused(2, pp=2, schedule="interleaved", microbatches=5)
    assert "--microbatches" in text and "4" in text and "6" in text
    assert "--chunks 3" in refused(2, pp=2, schedule="zbv", chunks=3)
    assert "did you mean 1f1b?" in refused(2, pp=2, schedule="1f1")
    assert "split 1,1" in refused(2, pp=2, split=(1, 1))
    assert "split 4,0" in refused(2, pp=2, split=(4, 0))
    assert "zero 2 with pp 2" in refused(2, pp=2, zero=2)
    assert "pp = 0: want at least 1" in refused(1, pp=0)
    assert "--microbatches 0" in refused(2, pp=2, microbatches=0)


def test_a_schedule_of_ones_own(tmp_path, without):
    """Written by hand: it runs if it is right, and is refused with the reason if it is not."""
    path = tmp_path / "mine.csv"
    good = "0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3\n1F0,1F1,1B0,1B1,1F2,1I2,1F3,1I3,1W2,1W3\n"
    path.write_text(good)
    assert train(tmp_path / "run", pp=2, schedule=str(path)) == without()
    path.write_text(good.replace("1W2,1W3", "1W3,1W2"))
    assert "ascending" in refused(2, pp=2, schedule=str(path), microbatches=4)
    path.write_text(good)
    assert "is for --pp 2, not 4" in refused(4, pp=4, schedule=str(path))
    assert "is for --microbatches 4, not 2" in refused(2, pp=2, schedule=str(path), microbatches=2)
    assert "nowhere.csv" in refused(2, pp=2, schedule=str(tmp_path / "nowhere.csv"))


def test_the_file_of_a_run_keeps_its_split(tmp_path):
    config = TrainConfig(pp=2, split=(1, 3), microbatches=4, chunks=1)
    write_toml(config, tmp_path / "c.toml")
    assert read_toml(tmp_path / "c.toml") == config
    (tmp_path / "c.toml").write_text("split = [1, 2.5]\n")
    with pytest.raises(UserError, match="split"):
        read_toml(tmp_path / "c.toml")


def test_bytes_are_those_of_the_formulas_on_every_stage(tmp_path, capsys):
    for k, layout in enumerate([{"pp": 2}, {"pp": 4, "schedule": "gpipe"},
                                {"pp": 2, "schedule": "interleaved"}, {"pp": 2, "tp": 2},
                                {"pp": 2, "dp": 2, "zero": 1}]):  # fmt: skip
        train(tmp_path / str(k), **layout, steps=1)
        rows = [line for line in capsys.readouterr().out.splitlines() if line.count(" =") == 4]
        assert len(rows) == layout["pp"] * layout.get("dp", 1) * layout.get("tp", 1), layout
