"""`minidist schedule` as a user types it: tables, pictures, files that are read again, mistakes."""

import subprocess
import sys

import pytest
from support.command import in_process

from minidist.parallel.pipeline.schedules import NAMES, make
from minidist.parallel.pipeline.text import dumps, load


@pytest.fixture
def schedule(monkeypatch, capsys):
    """Run the command here; (exit code, what it printed, its errors)."""

    command = in_process(monkeypatch, capsys, "schedule")

    def run(*args, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        return command(*args)

    return run


@pytest.fixture
def said(schedule):
    def run(*args, columns=80):
        code, out, errors = schedule(*args, columns=columns)
        assert (code, errors) == (0, "")
        return out

    return run


ONE_F_ONE_B = """\
1f1b: --pp 4 --microbatches 8, 4 stages

rank  stages  work  idle  span  peak chunks  micro-batches  messages
   0  0         24     9    33            4              4         8
   1  1         24     9    30            3              3        16
   2  2         24     9    27            2              2        16
   3  3         24     9    24            1              1         8

makespan  33
ideal     24 (the busiest rank's work)
bubble    27.27% of all time is idle
          37.50% of the ideal time
          9 at most between a rank's first step and its last
messages  48 (24 SEND_F, 24 SEND_B)

rank 0 F0F1F2F3············B0──F4B1──F5B2──F6B3──F7B4──··B5──··B6──··B7──
rank 1 ··F0F1F2········B0──F3B1──F4B2──F5B3──F6B4──F7B5──··B6──··B7──····
rank 2 ····F0F1····B0──F2B1──F3B2──F4B3──F5B4──F6B5──F7B6──··B7──········
rank 3 ······F0B0──F1B1──F2B2──F3B3──F4B4──F5B5──F6B6──F7B7──············
"""


def test_what_it_says(said):
    assert said("1f1b", "--pp", 4, "--microbatches", 8) == ONE_F_ONE_B == said("1f1b")


def test_the_command_is_installed():
    command = [sys.executable, "-m", "minidist.cli", "schedule", "1f1b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1f1b: --pp 4 --microbatches 8, 4 stages\n")


def test_a_narrow_terminal_gets_no_timeline(said):
    shown = said("1f1b", columns=72)
    assert "rank 0 F0" not in shown
    assert "The timeline takes 73 columns, here are 72: --draw FILE.svg draws it." in shown


def test_help_names_schedules_and_flags(said):
    shown = said("--help", columns=100)
    assert all(name in shown for name in NAMES)
    for flag in ("pp", "microbatches", "chunks", "forward", "input", "weight", "overlap", "alpha",
                 "beta", "bytes", "draw", "csv", "messages", "max-live"):  # fmt: skip
        assert f"--{flag}" in shown


def test_costs_and_links(said):
    """Two stages, one micro-batch: F 1 and 2, a message of 0.5 + 3·0.1 each way, B 4 and 6."""
    shown = said("gpipe", "--pp", 2, "--microbatches", 1, "--forward", 1, 2, "--input", 1, 3,
                 "--weight", 3, "--alpha", 0.5, "--beta", 0.1, "--bytes", 3)  # fmt: skip
    assert "makespan  14.6\n" in shown
    assert "messages  2 (1 SEND_F, 1 SEND_B), 6 bytes\n" in shown


def test_an_overlap_has_its_own_time(said):
    shown = lambda *args: said("dualpipev", "--microbatches", 10, *args)
    assert "makespan  66\n" in shown()
    assert "makespan  59\n" in shown("--overlap", 2.5)


def test_a_file_is_written_and_read_again(said, tmp_path):
    path, again = tmp_path / "a.csv", tmp_path / "b.csv"
    said("interleaved", "--chunks", 2, "--csv", path)
    assert load(path).orders == make("interleaved", 4, 8, 2).orders
    shown = said(path, "--pp", 4, "--microbatches", 8, "--chunks", 2, "--csv", again)
    assert shown.startswith("a.csv: --pp 4 --microbatches 8, 8 stages\n")
    assert again.read_bytes() == path.read_bytes()


def test_messages_are_written_if_asked_for(said, tmp_path):
    path, again, alone = (tmp_path / f"{name}.csv" for name in "abc")
    first = said("zbv", "--csv", path, "--messages")
    assert "0SEND_F0" in path.read_text("utf-8")
    second = said(path, "--csv", again, "--messages")
    assert again.read_bytes() == path.read_bytes()
    assert first.splitlines()[1:] == second.splitlines()[1:]
    said(path, "--csv", alone)
    assert alone.read_text("utf-8").rstrip() == dumps(make("zbv", 4, 8))


def test_a_picture(said, tmp_path):
    path = tmp_path / "a.svg"
    said("zb-h1", "--draw", path)
    assert "makespan 27, ideal 24" in path.read_text("utf-8")


BROKEN = "0F0,0B0\n1B0,1F0\n"


@pytest.mark.parametrize(
    "args, message",
    [
        (["gpip"], "schedule 'gpip': want gpipe, 1f1b, interleaved, zb-h1, zb-h2, zbv, dualpipev, "
                   "or a CSV file; did you mean gpipe?"),
        (["/no/file.csv"], "schedule /no/file.csv: No such file"),
        (["{good}", "--pp", "4"], "good.csv' is for --pp 2, not 4: leave the flag out"),
        (["{good}", "--microbatches", "8"], "is for --microbatches 1, not 8"),
        (["{good}", "--chunks", "2"], "is for --chunks 1, not 2"),
        (["gpipe", "--pp", "0"], "--pp 0: want at least 1"),
        (["gpipe", "--chunks", "2"], "gpipe has 1 chunk a rank"),
        (["gpipe", "--forward", "1", "2"], "the cost of forward: 2 numbers for 4 stages"),
        (["gpipe", "--alpha", "-1"], "alpha is -1.0: want a number of 0 or more"),
        (["gpipe", "--draw", "a.jpg"], "picture a.jpg: the suffix is '.jpg', want .svg or .png"),
        (["gpipe", "--csv", "/no/a.csv"], "schedule /no/a.csv cannot be written"),
        (["gpipe", "--max-live", "7"], "8"),
        (["{broken}"], "1B0"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_and_exit_code_2(schedule, tmp_path, args, message):
    files = {"good": "0F0,0B0\n1F0,1B0\n", "broken": BROKEN}
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    given = (arg.format(**{n: tmp_path / f"{n}.csv" for n in files}) for arg in args)
    code, out, errors = schedule(*given)
    assert (code, out) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("minidist: error: ")
    assert message in line


def test_gpipe_may_keep_as_many_as_it_does(said):
    assert "peak chunks" in said("gpipe", "--max-live", 8)
