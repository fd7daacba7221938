"""The `minidist` command as a user types it: help, a run, a sample, mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ["--model", "gpt-nano", "--steps", "3", "--batch", "4", "--seq", "16", "--sample", "9"]


def minidist(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "minidist.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    done = minidist("train", *SMALL, "--ranks", 4, "--simulate", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "ranks   4 (simulated)" in done.stdout
    return out


def test_help_names_the_commands_and_every_flag():
    assert all(name in minidist("--help").stdout for name in ("train", "sample", "doctor"))
    shown = minidist("train", "--help").stdout
    for flag in ("model", "data", "steps", "batch", "seq", "lr", "seed", "dtype", "dp", "ranks",
                 "simulate", "allreduce", "out", "resume", "config"):  # fmt: skip
        assert f"--{flag}" in shown


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("minidist")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0


def test_without_mpirun_it_trains_on_one_rank_in_a_new_folder(tmp_path):
    for _ in range(2):  # a second run finds a folder of its own
        done = minidist("train", *SMALL, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "ranks   1 (one process)" in done.stdout
    assert len(list((tmp_path / "runs").glob("*-gpt-nano-docs*/loss.png"))) == 2


def test_sample_continues_the_prompt(folder):
    done = minidist("sample", folder, "--prompt", "def f", "--tokens", "5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("def f")


def test_resume_takes_everything_from_the_folder(folder):
    done = minidist("train", "--resume", "--out", folder, "--steps", "5")
    assert done.returncode == 0, done.stderr
    assert "gpt-nano" in done.stdout
    assert "from step 3" in done.stdout


def test_a_toml_file_and_a_flag_over_it(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('model = "gpt-nano"\nsteps = 2\nseq = 16\nbatch = 2\n')
    done = minidist("train", "--config", path, "--batch", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 x 16 = 48 tokens a step" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["train", "--ranks", "4"],
            "ranks 4 in one process: add --simulate, or start with 'mpirun",
        ),
        (["train", "--ranks", "0", "--simulate"], "ranks 0: want at least 1"),
        (["train", "--ranks", "4", "--simulate", "--batch", "2"], "batch 2 is smaller than the 4"),
        (["train", "--allreduce", "native"], "native is MPI's own: start with mpirun"),
        (["train", "--config", "/no/file"], "config '/no/file' cannot be read"),
        (["train", "--resume", "--out", "/no/run"], "out '/no/run' holds no run"),
        (["sample", "/no/run"], "run '/no/run' holds no run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, message):
    done = minidist(*args)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("minidist: error: ")
    assert message in line


def test_an_unknown_flag_suggests_the_right_one():
    done = minidist("train", "--bacth", "8")
    assert done.returncode == 2
    assert "--batch" in done.stdout + done.stderr
