"""The `minidist` command and text that is not ours: names, prompts, streams that lack letters."""

import io
import subprocess
import sys

import numpy as np
import pytest

from minidist.cli import main
from minidist.models.gpt import GPT
from minidist.train.config import TrainConfig, write_toml

SMALL = ["--model", "gpt-nano", "--batch", "4", "--seq", "16", "--sample", "9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that has been started, and nothing more."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    folder.mkdir()
    write_toml(TrainConfig(model="gpt-nano"), folder / "config.toml")
    return folder


@pytest.fixture
def typed(monkeypatch):
    """Run the command in this process, with streams like those that a shell gives it."""

    def run(*args, encoding="utf-8"):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
        monkeypatch.setattr(sys, "argv", ["minidist", *map(str, args)])
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(encoding))
        return code, *texts

    return run


LONG = "x" * 300


@pytest.mark.parametrize(
    "args",
    [
        ["train", "--data", LONG], ["train", "--out", LONG, *SMALL], ["train", "--config", LONG],
        ["train", "--resume", "--out", LONG], ["train", "--schedule", LONG, *SMALL],
        ["sample", LONG], ["schedule", LONG], ["schedule", f"{LONG}.csv"],
        ["schedule", "gpipe", "--draw", f"{LONG}.svg"], ["schedule", "gpipe", "--csv", LONG],
        ["train", "--data", "a\udcff.txt"], ["sample", "{folder}", "--prompt", "\udcff"],
        ["schedule", "\udcff"], ["doctor", "\udcff"], ["train", "--data", "a\nb.txt"],
        ["train", "--model", "[/b]"],
    ],
    ids=ascii,
)  # fmt: skip
def test_any_name_gives_one_line_and_exit_code_2(typed, folder, args):
    code, out, err = typed(*(arg.replace("{folder}", str(folder)) for arg in args))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("minidist: error: ")


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "latin-1"])
def test_what_a_stream_cannot_write_is_escaped(typed, folder, monkeypatch, encoding):
    monkeypatch.setattr("minidist.train.sample.sample_run", lambda *_: "天é €\ufffd")
    code, out, err = typed("sample", folder, encoding=encoding)
    assert (code, err) == (0, "")
    assert out.strip() == "天é €\ufffd".encode(encoding, "backslashreplace").decode(encoding)
    assert "rank 3" in typed("schedule", "1f1b", encoding=encoding)[1]
    monkeypatch.setattr(GPT, "generate", lambda *_: np.frombuffer("天é €".encode(), np.uint8))
    with monkeypatch.context() as patch:
        patch.chdir(folder.parent)
        code, out, err = typed(
            "train", *SMALL, "--steps", "1", "--out", encoding, encoding=encoding
        )
    assert (code, err) == (0, "")
    assert "天é €".encode(encoding, "backslashreplace").decode(encoding) in out


def test_a_closed_output_is_said_and_nothing_is_lost():
    command = f"exec {sys.executable} -m minidist.cli schedule gpipe >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "minidist: standard output is closed, so nothing is shown\n"


def test_the_encoding_of_a_text_that_is_new_in_a_resumed_run_is_guessed_anew(monkeypatch, tmp_path):
    write_toml(TrainConfig(data="a.txt", encoding="gb18030"), tmp_path / "config.toml")
    for data, encoding in (([], "gb18030"), (["--data", "b.txt"], None)):
        given: list[TrainConfig] = []
        monkeypatch.setattr("minidist.cli.train", given.append)
        words = ["minidist", "train", "--resume", "--out", str(tmp_path), *data]
        monkeypatch.setattr(sys, "argv", words)
        main()
        assert given[0].encoding == encoding
