"""Configuration: TOML there and back, and every impossible value refused with its flag."""

import shlex
from dataclasses import replace

import pytest

from minidist.cli import main
from minidist.errors import UserError
from minidist.plan.gpt import gpt_parameters
from minidist.train.config import (
    PRESETS,
    TrainConfig,
    check,
    read_toml,
    resumed,
    resuming,
    write_toml,
)


def test_toml_there_and_back(tmp_path):
    config = TrainConfig(lr=1.23e-4, data='a "b".txt', dp=4, simulate=True)
    write_toml(config, tmp_path / "config.toml")
    assert read_toml(tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bacth = 8", "unknown key 'bacth': did you mean 'batch'"),
        ("zzz = 8", "unknown key 'zzz': known keys: model, layers"),
        ('batch = "8"', "batch = '8': want int"),
        ("batch = true", "batch = True: want int"),
        ("dp = 1.5", "dp = 1.5: want int"),
        ("batch = ", "is not TOML"),
    ],
)
def test_bad_toml_is_refused(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_toml(path)


@pytest.mark.parametrize(("text", "clip"), [("0", 0.0), ('"none"', 0.0), ("0.5", 0.5)])
def test_a_file_with_a_byte_order_mark_and_clipping_off(tmp_path, text, clip):
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbfclip = " + text.encode())
    config = read_toml(path)
    assert config == TrainConfig(clip=clip)
    check(config, ranks=1)


def test_whole_numbers_serve_as_floats(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("clip = 2")
    assert read_toml(path).clip == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "gpt5"}, "model 'gpt5' is unknown: choose gpt-nano, gpt-tiny"),
        ({"lr": -1.0}, "lr = -1.0: want more than 0; change --lr"),
        ({"lr": float("nan")}, "lr = nan: want more than 0"),
        ({"steps": 0}, "steps = 0: want more than 0"),
        ({"seq": 0}, "seq = 0"),
        ({"batch": 0}, "batch = 0"),
        ({"batch": 3}, "batch 3 is smaller than the 4 ranks.*raise --batch to at least 4"),
        ({"final_lr": 2.0}, "final_lr = 2.0: want a part of --lr, at most 1; change --final-lr"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"warmup": -1}, "warmup = -1"),
        ({"clip": -1.0}, "clip = -1.0: want at least 0; change --clip"),
        ({"encoding": "hex"}, "encoding 'hex' is unknown: use a name that Python knows"),
        ({"batch": 10**20}, "batch = 100000000000000000000: want less than 2147483648"),
        ({"encoding": "idna"}, "encoding 'idna' is unknown"),
        ({"encoding": "klingon"}, "encoding 'klingon' is unknown"),
        ({"dtype": "float16"}, "dtype = 'float16' is unknown: choose float32, float64"),
        ({"allreduce": "star"}, "allreduce = 'star' is unknown: choose auto, ring, ordered"),
        ({"dp": 2}, "dp 2 needs 2 ranks, but there are 4 ranks: choose --dp 4"),
        ({"resume": True}, "resume needs the run folder: add --out DIR"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        check(replace(TrainConfig(), **change), ranks=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sync": "naive", "zero": 1}, "--sync naive has no effect: --zero 1 .* at bucketed"),
        ({"sync": "overlapped", "zero": 3}, "--sync overlapped has no effect: --zero 3"),
        ({"bucket_mib": 2.0, "zero": 3}, "--bucket-mib 2.0 has no effect: --zero 3 .* at 4.0"),
        ({"bucket_mib": 2.0, "sync": "naive"}, "--bucket-mib 2.0 has no effect: --sync naive"),
        ({"schedule": "gpipe"}, "--schedule gpipe has no effect: without --pp"),
        ({"chunks": 2}, "1f1b has 1 chunk a rank"),
        ({"split": (2, 2)}, "split 2,2: want 1 numbers"),
        ({"sequence_parallel": True}, "want --tp of at least 2"),
    ],
)
def test_an_option_that_another_switches_off_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        check(replace(TrainConfig(), **change), ranks=4)


@pytest.mark.parametrize(
    "change",
    [
        {"bucket_mib": 2.0, "zero": 1}, {"bucket_mib": 2.0, "sync": "overlapped"},
        {"schedule": "gpipe", "pp": 2}, {"schedule": "zbv"}, {"microbatches": 2},
        {"allreduce": "tree", "dp": 1, "tp": 4},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_that_has_an_effect_passes(change):
    check(replace(TrainConfig(), **change), ranks=4)


def test_the_command_that_resumes_is_read_as_the_same_layout(monkeypatch, tmp_path):
    layout = {"ranks": 4, "simulate": True, "pp": 2, "schedule": "gpipe", "split": (1, 3)}
    config = TrainConfig(**layout, zero=1, out="a b", steps=7)
    write_toml(config, tmp_path / "config.toml")
    words = shlex.split(resuming(config, tmp_path))
    seen = []
    monkeypatch.setattr("minidist.cli.train", seen.append)
    monkeypatch.setattr("sys.argv", words)
    main()
    assert seen == [replace(config, out=str(tmp_path), resume=True)]


def test_the_defaults_pass():
    check(TrainConfig(), ranks=4)


def test_resuming_forgets_how_the_run_was_started(tmp_path):
    path = tmp_path / "config.toml"
    write_toml(TrainConfig(steps=7, dp=4, ranks=4, simulate=True, out="old"), path)
    assert resumed(path, "new") == TrainConfig(steps=7, out="new", resume=True)


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("gpt-nano", 0.036), ("gpt-tiny", 0.83), ("gpt-mini", 4.8), ("gpt2", 85.3)],
)
def test_presets_are_as_big_as_the_help_says(preset, millions):
    config = replace(TrainConfig(), model=preset, seq=64).gpt(256)
    assert gpt_parameters(config) / 1e6 == pytest.approx(millions, rel=0.02)
    assert preset in PRESETS
