"""A run and text that is not ours: its bytes, its encoding, and names wherever they are shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minidist.comm import simulate
from minidist.errors import UserError
from minidist.models.gpt import GPT
from minidist.train import run as run_module
from minidist.train.config import TrainConfig, read_toml
from minidist.train.run import run
from minidist.train.sample import sample_run

TINY = TrainConfig(model="gpt-nano", steps=1, batch=2, seq=16, sample=9)
GB18030 = ("话说天下大势，分久必合，合久必分。\r\n" * 40).encode("gb18030")


def trained(config: TrainConfig, ranks: int = 2) -> Path:
    return Path(simulate(lambda comm: run(config, comm), ranks)[0]["out"])


def test_a_chinese_text_keeps_its_encoding(tmp_path, capsys, monkeypatch):
    """Text, prompt and sample are in the text's own encoding, and config.toml says which it is."""
    (tmp_path / "三国.txt").write_bytes(GB18030)
    asked = []

    def echo(self, prompt, tokens, *how):
        asked.append(bytes(prompt))
        return np.frombuffer("天下大势".encode("gb18030"), np.uint8)

    monkeypatch.setattr(GPT, "generate", echo)
    monkeypatch.setattr(run_module, "warm_up", lambda *_: None)
    folder = trained(replace(TINY, data=str(tmp_path / "三国.txt"), out=str(tmp_path / "a")))
    shown = capsys.readouterr().out
    assert "not UTF-8 (byte 0 is 0xBB), looks like gb18030; 40 CRLF" in " ".join(shown.split())
    assert "天下大势\n" in shown
    assert read_toml(folder / "config.toml").encoding == "gb18030"
    assert sample_run(folder, "天下", 4, 1.0, 0, 0) == "天下大势"
    assert asked == [b"The ", "天下".encode("gb18030")]
    with pytest.raises(UserError, match="cannot be written in gb18030"):
        sample_run(folder, "\udcff", 4, 1.0, 0, 0)


def test_names_are_shown_as_they_are(tmp_path, capsys, monkeypatch):
    """Neither rich's markup nor emoji, nor an escape that a terminal would obey."""
    name = "a[b] [red]:smile: $_^{$ \x1b[31m.txt"
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"hello world " * 60)
    monkeypatch.setattr(GPT, "generate", lambda *_: np.frombuffer(b"\x1b[31mred[/b]\n", np.uint8))
    trained(replace(TINY, data=name, out="exp[v2]"), 1)
    shown = capsys.readouterr().out
    assert "a[b] [red]:smile: $_^{$ \\x1b[31m.txt: 648 bytes to train on" in " ".join(shown.split())
    assert "run     exp[v2]" in shown and "left in exp[v2]:" in shown
    assert "\\x1b[31mred[/b]\n" in shown and "\x1b[31m" not in shown


@pytest.mark.parametrize("stem", ["y" * 250, "红" * 83, "-.[x]"])
def test_a_run_folder_is_named_after_the_data_whatever_its_name(tmp_path, monkeypatch, stem):
    monkeypatch.chdir(tmp_path)
    Path(f"{stem}.txt").write_bytes(b"hello world " * 60)
    out = trained(replace(TINY, sample=0, data=f"{stem}.txt"), 1)
    assert out.is_dir() and stem[:49] in out.name


def test_the_picture_says_how_many_ranks(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("minidist.train.run.loss_curve", lambda *how, **_: titles.append(how[2]))
    for ranks in (1, 2):
        trained(replace(TINY, sample=0, out=str(tmp_path / str(ranks))), ranks)
    assert titles == ["gpt-nano on docs, 1 rank", "gpt-nano on docs, 2 ranks"]


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize(
    ("out", "message"),
    [("x" * 300, "File name too long"), ("a\0b", "cannot be written: embedded null")],
)
def test_a_folder_that_cannot_be_made_is_one_line_on_every_rank(tmp_path, out, message, ranks):
    with pytest.raises(UserError, match=message):
        trained(replace(TINY, batch=3, out=str(tmp_path / out)), ranks)
