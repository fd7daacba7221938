"""The digit examples: they learn alone and on four ranks, and reach their goals (make proofs)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.proofs import keeping, proofs

pytest.importorskip("sklearn", reason="scikit-learn is not installed: it carries the digits")

FOLDER = Path(__file__).resolve().parent.parent / "tutorials" / "examples"
EXAMPLES = sorted(FOLDER.glob("*_digits.py"))
each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)


def accuracy(shown: str) -> float:
    return float(re.search(r"mean ([\d.]+)%", shown)[1])


def goal(path: Path) -> float:
    """The number after `goal=` in the example's last call."""
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    return 100 * next(k.value.value for c in calls for k in c.keywords if k.arg == "goal")


def run_alone(path: Path, *args: object, timeout: float = 120) -> subprocess.CompletedProcess:
    command = [sys.executable, str(path), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_all_six_are_here():
    assert [p.stem.split("_")[0] for p in EXAMPLES] == [
        "attention", "cnn", "gru", "lstm", "mlp", "rnn",
    ]  # fmt: skip


@pytest.mark.parametrize("path", keeping(EXAMPLES[:3], EXAMPLES), ids=lambda p: p.stem)
def test_it_learns_and_draws_its_confusion_matrix(path, tmp_path):
    done = run_alone(path, "--seeds", 1, "--epochs", 6, "--out", tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    assert accuracy(done.stdout) > 85
    (picture,) = tmp_path.iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["mlp", *proofs("gru")])
def test_four_ranks_learn_the_same(mpirun, tmp_path, name):
    path = FOLDER / f"{name}_digits.py"
    args = ["--seeds", 1, "--epochs", 3, "--out", tmp_path]
    four = mpirun(4, path, *args, timeout=120)
    assert accuracy(four.stdout) == pytest.approx(accuracy(run_alone(path, *args).stdout), abs=0.6)


@pytest.mark.proof
@each_example
def test_five_seeds_reach_the_goal(path, tmp_path):
    done = run_alone(path, "--out", tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert accuracy(done.stdout) >= goal(path) >= 96


# Of messages and collectives: with and without MPI

TALK = {
    "ping_pong": ["α = ", "GB/s"],
    "scatter_gather": ["rank 3 works on 2 of 10 samples", "total"],
    "ring_all_reduce": ["rank 3 |   abcd      abcd      abcd      abcd", "rank 3 sent 144 bytes"],
    "deadlocks": ["everybody_sends_first", "MismatchError: ranks do not call the same collective",
                  "one_rank_stays_away"],
}  # fmt: skip


@pytest.mark.parametrize("name", TALK)
def test_communication_without_mpi(name):
    path = FOLDER / f"{name}.py"
    done = run_alone(path)
    assert done.returncode == 0 and all(text in done.stdout for text in TALK[name]), done.stderr
    if name == "ping_pong":
        assert "α = 5.00 µs a message, β = 0.100 ns a byte" in done.stdout
    if name == "deadlocks":
        assert done.stdout.count("DeadlockError: deadlock: ") == 3
        assert done.stdout.count("cycle: 0 -> ") == 2
        assert (
            "rank 2 waits in all_reduce: " in done.stdout and "rank 3 has returned" in done.stdout
        )


@pytest.mark.mpi
@pytest.mark.parametrize("name", TALK)
def test_communication_on_four_real_ranks(mpirun, name):
    done = mpirun(4, FOLDER / f"{name}.py")
    assert done.returncode == 0 and all(text in done.stdout for text in TALK[name]), done.stderr
    if name == "deadlocks":
        assert done.stdout.count("DeadlineError: rank 0 has waited 2.") == 3
        assert re.search(r"rank 1 last seen \S+ s ago in ssend\(dest=2", done.stdout)
        assert re.search(r"rank 3 not in all_reduce #0 'gradients'; rank 3 last seen", done.stdout)
