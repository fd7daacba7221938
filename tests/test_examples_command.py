"""`minidist examples`: listed, run, copied; in the wheel too, and without scikit-learn."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.command import in_process

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tutorials" / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def minidist(*args: object, path: Path = ROOT, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "minidist.cli", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, **options)


@pytest.fixture
def here(monkeypatch, capsys):
    return in_process(monkeypatch, capsys, "examples")


def test_they_are_listed_with_a_sentence_each(here):
    code, shown, _ = here()
    lines = shown.split("\n\n")[0].splitlines()
    assert code == 0 and [line.split()[0] for line in lines] == NAMES and len(NAMES) == 20
    assert all(line.split("  ", 1)[1].strip()[0].isalnum() for line in lines)
    assert "pip install scikit-learn" in shown


def test_one_is_run_as_python_would_and_is_given_what_stands_after_the_dashes(here):
    code, shown, err = here("scatter_gather")
    assert code == 0 and "rank 3 works on 2 of 10 samples" in shown, err
    assert "usage: " in (usage := here("mlp_digits", "--", "--help")[1]) and "--seeds" in usage


def test_they_are_copied_and_nothing_is_written_over(here, tmp_path):
    assert here("gpipe", "--copy", tmp_path / "one")[:2] == (
        0, f"copied into {tmp_path / 'one'}: gpipe.py\n",
    )  # fmt: skip
    assert (tmp_path / "one" / "gpipe.py").read_bytes() == (FOLDER / "gpipe.py").read_bytes()
    assert here("--copy", tmp_path / "all")[0] == 0
    assert sorted(path.stem for path in (tmp_path / "all").iterdir()) == NAMES
    code, _, err = here("--copy", tmp_path / "one")
    assert code == 2 and "gpipe.py is there already: choose another folder" in err
    assert len(list((tmp_path / "one").iterdir())) == 1
    for folder in ("x" * 300, "a\0b"):
        code, _, err = here("--copy", tmp_path / folder)
        assert code == 2 and "cannot be written: " in err and len(err.splitlines()) == 1, err


def test_under_mpirun_one_rank_lists_and_copies(here, tmp_path, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "1")
    assert here() == here("--copy", tmp_path / "all") == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_what_comes_after_the_dashes_needs_a_program(here):
    assert "give its NAME before --" in here("--", "--seeds", "1")[2]


@pytest.mark.parametrize("name", ["mlp_digits", "gpipe", "naive_pipeline"])
def test_without_scikit_learn_an_example_says_so_in_one_line_or_does_without(
    here, name, monkeypatch
):
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    code, shown, err = here(name)
    if name.endswith("digits"):
        wanted = "mlp: the digits come with scikit-learn: pip install scikit-learn\n"
        assert (code, err) == (2, wanted), shown
    else:
        assert code == 0 and "of one process, to the bit" in shown, err


def test_the_wheel_carries_them(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="setuptools 77 builds the wheel")
    source = tmp_path / "source"
    for folder in ("minidist", "kernels", "tutorials"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    code = "import setuptools.build_meta as build; build.build_wheel('..')"
    built = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        classifiers = archive.read(metadata).decode().count("\nClassifier: ")
    found = sorted(path.stem for path in (tmp_path / "installed/minidist/examples").glob("*.py"))
    assert found == NAMES and classifiers >= 8, built.stderr
    done = minidist("examples", "ring_all_reduce", path=tmp_path / "installed", cwd=tmp_path)
    assert "rank 3 sent 144 bytes" in done.stdout, done.stderr
