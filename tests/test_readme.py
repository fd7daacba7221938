"""What the README and the pages of docs/ show works: Python snippets, and commands in small."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BIN = Path(sys.executable).parent
SMALL = ["--model", "gpt-nano", "--steps", "3", "--seq", "16", "--sample", "9"]
COMMAND = (ROOT / "docs" / "command.md").read_text("utf-8")
DOCS = ("communication.md", "gpu.md", "parallel.md", "pipeline.md")
PAGES = README + "".join((ROOT / "docs" / page).read_text("utf-8") for page in DOCS)
SNIPPETS = [s for s in re.findall(r"```python\n(.*?)```", PAGES, re.S) if "import" in s]
COMMANDS = [
    shlex.split(line, comments=True)
    for line in re.findall(r"^\$ (.*(?:minidist).*)$", README + COMMAND, re.M)
]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_python_snippets_run(snippet):
    exec(compile(snippet, "README.md", "exec"), {})


def test_the_readme_shows_snippets_and_commands():
    assert len(SNIPPETS) == 9
    assert {c[0] for c in COMMANDS} == {"mpirun", "minidist"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what the README's commands expect: a text, and a run to go on with."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "my_book.txt").write_text("It was a dark and stormy night.\n" * 99)
    start = [BIN / "minidist", "train", *SMALL, "--out", "runs/my-run"]
    subprocess.run(start, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_do_what_the_readme_says(mpirun, desk, command):
    words = [str(BIN / w) if w in ("minidist", "mpirun") else w for w in command]
    wrong = "--batch" in command  # the one that shows a mistake
    if "train" in command and not wrong:
        words += ["--steps", "5"] if "--resume" in command else SMALL
    done = subprocess.run(words, cwd=desk, capture_output=True, text=True, timeout=90)
    assert done.returncode == (2 if wrong else 0), done.stderr
    if wrong:
        assert done.stderr in COMMAND
    if "schedule" in command:
        assert done.stdout.strip() in COMMAND


def test_make_knows_the_two_commands():
    for target in ("train", "test"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "    make train" in README and "    make test" in README
