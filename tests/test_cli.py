"""The `minidist` command as a user types it: help, a run, a sample, mistakes."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import in_process
from support.proofs import proofs

from minidist.train import checkpoint

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


@pytest.fixture
def here(monkeypatch, capfd):
    return in_process(monkeypatch, capfd)


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
        (["train", "--resume", "--out", ".", "--out", "/no/run"], "out '/no/run' holds no run"),
        (
            ["train", "--resume", "--out", "/no/run", "--config", "x.toml"],
            "config x.toml with --resume: a resumed run uses its own config.toml",
        ),
        (["schedule", "gpipe", "--messages"], "--messages has no effect without --csv"),
        (["schedule", "gpipe", "--beta", "2"], "--beta 2 with --bytes 0"),
        (["schedule", "gpipe", "--bytes", "2"], "--beta 0 with --bytes 2"),
        (["schedule", "gpipe", "--overlap", "2"], "--overlap has no effect: gpipe never"),
        (["sample", "/no/run"], "run '/no/run' holds no run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(here, args, message):
    code, _, errors = here(*args)
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("minidist: error: ")
    assert message in line


def test_no_memory_is_one_line(here, monkeypatch):
    def full(*_):
        raise MemoryError("Unable to allocate 2 TiB")

    monkeypatch.setattr("minidist.cli.train", full)
    code, _, errors = here("train")
    assert code == 1 and errors.startswith(
        "minidist: error: out of memory: Unable to allocate 2 TiB"
    )


def test_bad_input_from_a_shell():
    done = minidist("train", "--ranks", "4")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_configuration_that_names_another_file(here, tmp_path):
    (tmp_path / "a.toml").write_text('config = "b.toml"')
    code, _, errors = here("train", "--config", tmp_path / "a.toml")
    assert (code, "has the key config = 'b.toml'" in errors) == (2, True)


def test_simulate_alone_says_that_it_means_one_rank(here, monkeypatch):
    monkeypatch.setattr("minidist.cli.launch", lambda fn, ranks: print("ranks", ranks))
    code, shown, errors = here("train", "--simulate")
    assert (code, shown) == (0, "ranks 1\n")
    assert "--simulate without --ranks means one rank" in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
@pytest.mark.parametrize(
    ("args", "wanted"),
    [(["schedule", "gpipe"], 1), (["train", *SMALL, "--steps", "99", "--out", "{out}"], 141)],
)
def test_an_output_on_a_full_disk_is_one_line(here, tmp_path, monkeypatch, args, wanted):
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        code, _, errors = here(*(arg.format(out=tmp_path / "a") for arg in args))
    (line,) = filter(None, errors.splitlines())
    assert (code, "No space left on device" in line) == (wanted, True)
    assert "--out" not in args or checkpoint.steps(tmp_path / "a" / "checkpoints")


@pytest.mark.parametrize(
    "args",
    [["--help"], ["train", "--help"], ["schedule", "gpipe"], ["sample", "{folder}"],
     ["train", *SMALL, "--steps", "99", "--out", "{out}"], *proofs(["doctor"])],
    ids=lambda args: " ".join(args[:2]),
)  # fmt: skip
def test_a_reader_that_leaves_is_no_error(here, folder, tmp_path, monkeypatch, args):
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does once it has read enough
    names = {"folder": folder, "out": tmp_path / "a"}
    with open(writing, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        code, _, errors = here(*(arg.format(**names) for arg in args))
    assert (code, errors) == (1 if args == ["doctor"] else 141, "")
    if "--out" in args:  # nothing that was learned is lost
        assert checkpoint.steps(tmp_path / "a" / "checkpoints")


def test_an_unknown_flag_suggests_the_right_one():
    done = minidist("train", "--bacth", "8")
    assert done.returncode == 2
    assert "--batch" in done.stdout + done.stderr
