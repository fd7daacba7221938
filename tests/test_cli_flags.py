"""The `minidist` command: mistyped names, help, the model's shape, plots, threads of BLAS."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from support.command import in_process

import minidist as md
from minidist.errors import UserError, visible
from minidist.models import gpt
from minidist.plan.gpt import gpt_parameters
from minidist.train.config import Grouped, TrainConfig, read_toml

SMALL = ["--model", "gpt-nano", "--steps", "3", "--batch", "4", "--seq", "16", "--sample", "9"]


@pytest.fixture
def here(monkeypatch, capsys):
    return in_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    """A run whose model is nobody's preset, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "shaped"
    shape = ["--layers", 3, "--hidden", 24, "--heads", 3, "--positions", 40]
    flags = [*SMALL, *shape, "--prompt", "def f", "--save-every", 2, "--out", out]
    command = [sys.executable, "-m", "minidist.cli", "train", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


MISTYPED = [
    ("trian", "no command 'trian': did you mean 'train'?"),
    ("help", "no command 'help': the commands are train, sample, plot, schedule, examples, doctor"),
    ("--out x train", "--out: give a command first"),
    ("--verion", "minidist has no flag '--verion': did you mean '--version'?"),
    ("train --bacth 8", "train has no flag '--bacth': did you mean '--batch'?"),
    ("train --bacth=8", "train has no flag '--bacth': did you mean '--batch'?"),
    ("train --lr 1e-3 -lr 3", "train has no flag '-lr': did you mean '--lr'?"),
    ("train --no-simulat", "train has no flag '--no-simulat': did you mean '--no-simulate'?"),
    ("train --xyzzy", "no flag '--xyzzy': 'minidist train --help' lists its flags"),
    ("sample runs/a --temprature 1", "sample has no flag '--temprature': did you mean '--temper"),
    ("schedule 1f1b --micro-batches 4", "did you mean '--microbatches'?"),
    ("plot runs/a --output x.png", "plot has no flag '--output': did you mean '--out'?"),
    ("examples gpip", "no example 'gpip': did you mean 'gpipe'?"),
    ("doctor --fix", "doctor has no flag '--fix'"),
    ("", "Expected one of {train, sample, plot, schedule, examples, doctor}: 'minidist --help'"),
    ("train --steps x", "error: --steps 'x': want a whole number: 'minidist train --help' says"),
    ("train --lr fast", "error: --lr 'fast': want a number: 'minidist train --help' says more"),
    ("train --tp 2", "but there is 1 rank: choose --dp 1 --tp 1, or start 2 ranks (mpirun -n 2"),
    ("train --zero 7", "invalid choice '7' for argument '--zero'. Expected one of ('0', '1', '2'"),
    ("train --steps", "Missing value for argument '--steps'"),
    ("train my.txt", "Unrecognized options: my.txt: 'minidist train --help' says more"),
    ("sample", "Missing from minidist sample: RUN Run folder. (required)"),
]


@pytest.mark.parametrize(("typed", "message"), MISTYPED, ids=[typed for typed, _ in MISTYPED])
def test_what_is_mistyped_is_one_line_that_names_the_right_one(here, typed, message):
    code, out, err = here(*typed.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert err.startswith("minidist: error: ") and message in err


def test_flags_may_have_underscores_and_values_may_look_like_flags(here):
    code, _, err = here("train", "--weight_decay", "-1", "--prompt=--lr")
    assert code == 2 and "weight_decay = -1.0: want at least 0" in err


# Help


def test_the_version(here):
    assert here("--version") == (0, f"minidist {md.__version__}\n", "")


HELP = """if 1:
    import sys
    from minidist import cli
    sys.argv = ["minidist", "train", "--help"]
    try:
        cli.main()
    except SystemExit:
        heavy = {"matplotlib", "mpi4py", "numba", "triton", "sklearn", "torch", "cupy"}
        print("loaded:", heavy & set(sys.modules))
"""


def test_help_shows_every_flag_once_in_its_group_and_loads_nothing_that_takes_long():
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, timeout=60, env=env)
    shown = done.stdout.decode()
    boxes = re.split(r"╭─ ([\w-]+) options ─+╮", shown)
    groups = dict(zip(boxes[1::2], boxes[2::2]))
    assert list(groups) == [f.name for f in fields(Grouped)], done.stderr
    for f in fields(TrainConfig):
        flag = f"--{f.name.replace('_', '-')}"
        homes = [name for name, box in groups.items() if re.search(rf"^│ {flag}[ ,]", box, re.M)]
        assert len(homes) == 1, f"{flag} is in {homes}"
    assert "--heads" in groups["model"] and "--lr" in groups["optimiser"]
    assert "--zero" in groups["layout"] and "--prompt" in groups["run"]
    assert "loaded: set()" in shown


# The model's shape, and the sample's prompt


def test_flags_give_the_model_its_shape_and_the_run_keeps_it(shaped, here, tmp_path, monkeypatch):
    out, shown = shaped
    config = read_toml(out / "config.toml")
    size = config.gpt(256)
    assert (size.layers, size.hidden, size.heads, size.positions) == (3, 24, 3, 40)
    assert f"{gpt_parameters(size):,} parameters" in " ".join(shown.split())
    assert "gpt-nano with layers 3, hidden 24, heads 3, positions 40" in " ".join(shown.split())
    assert sum(p["shape"][0] for p in weights(out, "wpe.weight")) == 40
    contexts, continued = set(), gpt.continued
    spy = lambda follow, x, n, context, *how: (
        contexts.add(context), continued(follow, x, n, context, *how),
    )[1]  # fmt: skip
    monkeypatch.setattr(gpt, "continued", spy)
    again = shutil.copytree(out, tmp_path / "again")
    code, shown, err = here("train", "--resume", "--out", again, "--steps", 4, "--sample", 20)
    assert code == 0 and "from step 3" in shown, err
    assert here("sample", out, "--tokens", 20)[0] == 0
    assert contexts == {16}, "positions past --seq are not trained"


def weights(out: Path, name: str) -> list[dict]:
    """What the header of the last checkpoint's file says of a weight."""
    last = max((out / "checkpoints").glob("step-*"), key=lambda path: path.name)
    files = [last] if last.is_file() else sorted(last.glob("*.safetensors"))
    headers = [json.loads(f.read_bytes()[8 : 8 + int.from_bytes(f.read_bytes()[:8], "little")])
               for f in files]  # fmt: skip
    return [entry for h in headers for key, entry in h.items() if key.endswith(name)][:1]


def test_the_sample_at_the_end_continues_the_prompt_as_minidist_sample_does(shaped, here):
    out, shown = shaped
    written = shown.split("sample ─")[1].split("\n", 1)[1]
    again = here("sample", out, "--prompt", "def f", "--tokens", 9)[1]
    assert again.startswith("def f") and written.startswith(visible(again.split("\n")[0]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--layers 0", "layers = 0: want at least 1; change --layers"),
        (
            "--heads 3",
            "hidden 128 does not divide into 3 heads of the same width: use --hidden 126",
        ),
        ("--positions 8", "positions 8 for windows of seq 64: want at least as many; raise --pos"),
        ("--heads 2 --tp 4 --ranks 4 --simulate", "gpt-tiny with heads 2 has 2 heads, and a rank"),
        ("--layers 1 --pp 2 --ranks 2 --simulate", "of gpt-tiny's 1 layers: a stage needs"),
        ("--prompt=", "prompt is empty: give at least one character"),
    ],
)
def test_a_shape_that_cannot_be_is_one_line(here, flags, message):
    code, _, err = here("train", *flags.split())
    assert code == 2 and message in err and len(err.splitlines()) == 1, err


def test_the_shape_and_the_prompt_are_keys_of_a_toml_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('model = "gpt-nano"\nlayers = 1\nheads = 4\npositions = 99\nprompt = "Ah"\n')
    config = read_toml(path)
    assert (config.shape, config.prompt) == (
        {"layers": 1, "hidden": 32, "heads": 4, "positions": 99}, "Ah",
    )  # fmt: skip
    path.write_text("layer = 1\n")
    with pytest.raises(UserError, match="did you mean 'layers'"):
        read_toml(path)


# Plots


def test_plot_draws_a_run_again_and_one_that_was_cut_short(shaped, here, tmp_path, monkeypatch):
    out, _ = shaped
    picture = out / "loss.png"
    picture.unlink()
    assert here("plot", out) == (0, f"wrote {picture}\n", "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    with monkeypatch.context() as under_mpirun:
        under_mpirun.setenv("PMI_SIZE", "2")
        under_mpirun.setenv("PMI_RANK", "1")
        assert here("plot", out) == (0, "", "")
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "config.toml").write_text('model = "gpt-nano"\n')
    assert "has not finished a step yet" in here("plot", cut)[2]
    (cut / "metrics.jsonl").write_text('{"step": 1, "loss": 5.5}\n{"step": 2, "loss": 5.4}\n{"st')
    assert here("plot", cut)[0] == 0 and (cut / "loss.png").stat().st_size > 5000
    code, shown, _ = here("plot", out, cut, "--out", tmp_path / "both.svg")
    assert code == 0 and shown == f"wrote {tmp_path / 'both.svg'}\n"
    drawn = (tmp_path / "both.svg").read_text()
    assert "<!-- shaped -->" in drawn and "<!-- cut -->" in drawn


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no run was given: use minidist plot RUN"),
        (["/no/run"], "run '/no/run' holds no run"),
        (["x" * 300], "holds no run"),
        (
            ["RUN", "--out", "x.docx"],
            "out 'x.docx' cannot be drawn: Format 'docx' is not supported",
        ),
        (["RUN", "--out", "/no/where/x.png"], "out '/no/where/x.png' cannot be drawn"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(shaped, here, args, message):
    code, _, err = here("plot", *(shaped[0] if a == "RUN" else a for a in args))
    assert code == 2 and message in err and len(err.splitlines()) == 1, err


# Threads of BLAS


def test_sample_multiplies_with_one_thread_unless_more_are_asked_for(shaped):
    code = """if 1:
        import sys, threadpoolctl
        from minidist import cli
        threadpoolctl.threadpool_limits(2, "blas")
        sys.argv = ["minidist", "sample", sys.argv[1], "--tokens", "1"]
        cli.main()
        print("threads", {lib["num_threads"] for lib in threadpoolctl.threadpool_info()
                          if lib["user_api"] == "blas"})
    """
    for asked, used in {"": "{1}", "2": "{2}"}.items():
        done = subprocess.run(
            [sys.executable, "-c", code, str(shaped[0])], capture_output=True, text=True,
            timeout=60, env={**os.environ, "MINIDIST_BLAS_THREADS": asked},
        )  # fmt: skip
        assert f"threads {used}" in done.stdout, done.stderr


@pytest.mark.parametrize(("name", "value"), [("BLAS_THREADS", "0"), ("KERNELS", "fast")])
def test_a_wrong_setting_is_one_line(here, monkeypatch, shaped, name, value):
    monkeypatch.setenv(f"MINIDIST_{name}", value)
    for command in (["train"], ["sample", shaped[0]]):
        code, _, err = here(*command)
        assert code == 2 and f"MINIDIST_{name}=" in err and len(err.splitlines()) == 1, err
