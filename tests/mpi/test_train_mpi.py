"""Training on real ranks: the same bits as on simulated ones, and errors that stop them all."""

import json
import signal
import sys
from pathlib import Path

import pytest
from support.proofs import keeping, proofs

from minidist.comm import simulate
from minidist.train.config import TrainConfig
from minidist.train.run import run

pytestmark = pytest.mark.mpi
FLAGS = {
    "model": "gpt-nano",
    "steps": 4,
    "batch": 11,
    "seq": 16,
    "dropout": 0.1,
    "dtype": "float64",
    "sample": 9,
}
ARGS = [word for key, value in FLAGS.items() for word in (f"--{key}", str(value))]


def curve(folder: Path) -> list[tuple]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(r["loss"], r["grad_norm"], r.get("val_loss")) for r in records]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "1"
    simulate(lambda comm: run(TrainConfig(**FLAGS, out=str(out)), comm), 1)
    return out


@pytest.mark.parametrize("ranks", [1, 3, *proofs(2, 4, 5, 8)])
def test_real_ranks_give_the_bits_of_simulated_ones(mpirun, tmp_path, alone, ranks):
    real, simulated = tmp_path / "real", tmp_path / "simulated"
    done = mpirun(ranks, "-m", "minidist.cli", "train", *ARGS, "--out", real)
    assert done.returncode == 0, done.stderr
    simulate(lambda comm: run(TrainConfig(**FLAGS, out=str(simulated)), comm), ranks)
    assert curve(real) == curve(simulated)
    weights = "checkpoints/step-000004/model.safetensors"
    assert (real / weights).read_bytes() == (simulated / weights).read_bytes()
    for ours, reference in zip(curve(real), curve(alone), strict=True):
        assert ours[:2] == pytest.approx(reference[:2], rel=1e-10)


LAYOUTS = [
    ["--tp", "2"], ["--tp", "4", "--sequence-parallel"], ["--zero", "1"], ["--zero", "2"],
    ["--zero", "3", "--tp", "2", "--sequence-parallel"], ["--sync", "overlapped"],
]  # fmt: skip


def changes(args: list[str]) -> dict:
    """Flags as fields of the configuration."""
    found: dict = {}
    for word, value in zip(args, [*args[1:], "--"]):
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            found[name] = (
                True if value.startswith("--") else int(value) if value.isdigit() else value
            )
    return found


@pytest.mark.parametrize("args", keeping(LAYOUTS[4:5], LAYOUTS), ids=" ".join)
def test_every_layout_on_real_ranks_has_the_bits_of_simulated_ones(mpirun, tmp_path, args):
    flags = {**FLAGS, "model": "gpt-tiny", "steps": 2}
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    real, simulated = tmp_path / "real", tmp_path / "simulated"
    done = mpirun(4, "-m", "minidist.cli", "train", *words, *args, "--out", real)
    assert done.returncode == 0, done.stderr
    config = TrainConfig(**flags, **changes(args), out=str(simulated))
    simulate(lambda comm: run(config, comm), 4)
    assert curve(real) == curve(simulated)
    for name in ("model", "optimizer"):
        file = f"checkpoints/step-000002/{name}.safetensors"
        assert (real / file).read_bytes() == (simulated / file).read_bytes()


def test_native_all_reduce_agrees_to_rounding(mpirun, tmp_path, alone):
    done = mpirun(3, "-m", "minidist.cli", "train", *ARGS, "--allreduce", "native",
                  "--out", tmp_path / "native")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for ours, reference in zip(curve(tmp_path / "native"), curve(alone), strict=True):
        assert ours[:2] == pytest.approx(reference[:2], rel=1e-10)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--batch", "3"], "batch 3 is smaller than the 4 ranks"),
        *proofs(
            (["--lr", "-1"], "lr = -1.0: want more than 0"),
            (["--data", "/no/such/file"], "data '/no/such/file' is no file"),
            (["--simulate"], "simulate under mpirun"),
            (["--ranks", "3"], "ranks 3, but mpirun started 4"),
        ),
        (["--dp", "2"], "dp 2 needs 2 ranks, but there are 4 ranks: choose --dp 4"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(mpirun, args, message):
    done = mpirun(4, "-m", "minidist.cli", "train", *args, timeout=30)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("minidist: error: ")
    assert message in line
    assert done.stdout == ""


def test_an_unknown_flag_is_said_once(mpirun):
    done = mpirun(4, "-m", "minidist.cli", "train", "--bacth", "8", timeout=30)
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("--bacth") == 1


@pytest.mark.parametrize("args", [["--simulate"], *proofs(["--bacth", "8"])])
def test_what_a_late_rank_0_has_to_say_is_heard(mpirun, args):
    """Open MPI ends all ranks once one has exited with another code than 0."""
    program = Path(__file__).parent / "programs" / "late_command.py"
    done = mpirun(4, program, "train", *args, timeout=30)
    assert done.returncode == 2
    assert args[0][2:] in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("number", "to", "layout"),
    [
        (signal.SIGINT, "rank 1", []),
        *proofs(
            (signal.SIGINT, "mpirun", []), (signal.SIGTERM, "mpirun", []),
            (signal.SIGTERM, "rank 0", ["--tp", "2"]), (signal.SIGTERM, "rank 1", ["--pp", "2"]),
        ),
    ],
)  # fmt: skip
def test_a_signal_saves_the_step_on_all_ranks(mpirun, tmp_path, number, to, layout):
    """It comes to mpirun, which passes it on, or to one rank alone."""
    if to == "mpirun" and Path(sys.executable).with_name("prterun").exists():  # Open MPI's mpirun
        number = signal.SIGUSR1  # is passed on; after the others it kills its ranks
    program, out = Path(__file__).parent / "programs" / "interrupted.py", tmp_path / "run"
    done = mpirun(2, program, int(number), to, "train", *ARGS, "--steps", "99999", *layout,
                  "--out", out, timeout=60)  # fmt: skip
    assert done.returncode == 128 + number
    assert "Traceback" not in done.stderr
    (saved,) = (out / "checkpoints").iterdir()
    assert int(saved.name[5:]) == len(curve(out))
    assert (out / "loss.png").exists()
    words = "".join(done.stdout.split())  # on Open MPI rank 0 has a terminal, which folds lines
    assert f"mpirun -n 2 minidist train --resume --out {out}".replace(" ", "") in words


def test_a_command_that_trains_nothing_is_run_once(mpirun, tmp_path):
    done = mpirun(3, "-m", "minidist.cli", "schedule", "gpipe", "--csv", tmp_path / "a.csv")
    assert (done.returncode, done.stdout.count("makespan"), done.stderr) == (0, 1, "")


@pytest.mark.proof
def test_a_sample_is_written_once(mpirun, alone):
    done = mpirun(3, "-m", "minidist.cli", "sample", alone, "--prompt", "Once", "--tokens", "1")
    assert (done.returncode, done.stdout.count("Once"), done.stderr) == (0, 1, "")
    done = mpirun(3, "-m", "minidist.cli", "sample", "/no/run")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_an_error_on_one_rank_stops_all_with_its_traceback(mpirun, tmp_path):
    program = Path(__file__).parent / "programs" / "train_breaks.py"
    done = mpirun(4, program, tmp_path / "run", timeout=30)
    assert done.returncode not in (0, 2)
    assert "ZeroDivisionError: planted on rank 2 at step 3" in done.stderr
    assert "rank 2 of 4 |" in done.stderr
