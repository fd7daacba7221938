"""The `minidist` command: train, sample, plot, schedule, examples, doctor."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from . import __version__
from .arguments import check_names, in_one_line, require, require_text, split, value_of
from .comm import AgreedExit, Communicator, MpiError, launch, world_from_env
from .comm.environment import is_launched
from .errors import UserError, visible
from .kernels import blas, dispatch
from .train.config import Grouped, TrainConfig, read_toml, resumed

if TYPE_CHECKING:
    from .train.stop import Signals

BAD_INPUT = 2
HEAD_START = 1.0  # seconds


@dataclass(frozen=True)
class SampleConfig:
    """Generate text with the last checkpoint of a run folder."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    prompt: str = "The "
    """Text to continue."""
    tokens: int = 300
    """Number of bytes to generate."""
    temperature: float = 0.8
    """0 always takes the most likely byte; 1 samples from the model's distribution."""
    top_k: int = 40
    """Sample among the k most likely bytes only; 0: among all."""
    seed: int = 0
    """Seed of the sampling."""


@dataclass(frozen=True)
class PlotConfig:
    """Draw the loss curve of a run, finished or not, or of several runs in one picture."""

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN", help_behavior_hint="(required)"),
    ]
    """One or more run folders."""
    out: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="FILE", help_behavior_hint="(default: RUN/loss.png; for several: runs.png)"
        ),
    ] = None
    """Picture to write, in any format of Matplotlib (.png, .svg, .pdf)."""


@dataclass(frozen=True)
class ExamplesConfig:
    """List the example programs, run one, or copy them into a folder to change them."""

    name: Annotated[
        tyro.conf.Positional[str | None],
        tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: list them all)"),
    ] = None
    """Program to run (under mpirun on all ranks); arguments after -- are passed on to it."""
    copy: Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Copy the program, or without NAME all programs, into this folder instead."""


Times = Annotated[tuple[float, ...], tyro.conf.arg(metavar="TIME")]


@dataclass(frozen=True)
class ScheduleConfig:
    """Check, simulate and draw a pipeline schedule, without starting ranks."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME|FILE")]
    """gpipe, 1f1b, interleaved, zb-h1, zb-h2, zbv, dualpipev, or a CSV file (one line per rank)."""
    pp: Annotated[
        int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: 4, or the file's)")
    ] = None
    """Ranks of the pipeline."""
    microbatches: Annotated[
        int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: 8, or the file's)")
    ] = None
    """Micro-batches into which the batch is split."""
    chunks: Annotated[
        int | None, tyro.conf.arg(metavar="V", help_behavior_hint="(default: the schedule's)")
    ] = None
    """Stages per rank."""
    forward: Times = (1.0,)
    """Time of F, a stage's forward: one number, or one for each stage."""
    input: Times = (1.0,)
    """Time of I, the gradient of a stage's input. B, the whole backward, takes I + W."""
    weight: Times = (1.0,)
    """Time of W, the gradients of a stage's weights."""
    overlap: Annotated[
        float | None, tyro.conf.arg(metavar="TIME", help_behavior_hint="(default: F + I + W)")
    ] = None
    """Time of a forward and a backward at once (dualpipev)."""
    alpha: float = 0.0
    """Latency: time of a message of any size."""
    beta: float = 0.0
    """Additional time for each byte of a message."""
    bytes: float = 0.0
    """Bytes that a micro-batch sends from one stage to the next, and back."""
    max_live: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Fail if a rank keeps more activations than this, in chunks (stage, micro-batch)."""
    draw: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Draw the schedule as .svg or .png."""
    csv: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the schedule to a file that this command and train --schedule can read."""
    messages: bool = False
    """With --csv: also write the messages."""


def _check_environment() -> None:
    """Check MINIDIST_KERNELS and MINIDIST_BLAS_THREADS before any kernel runs."""
    try:
        dispatch.require(), blas.threads()
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None


def train(config: TrainConfig) -> None:
    """Train where we are: on MPI's ranks, on simulated ones, or alone."""
    from .train.stop import Signals

    _check_environment()
    with Signals() as signals:
        _train(config, signals)
    if signals.number:
        raise AgreedExit(signals.exit_code)


def _train(config: TrainConfig, signals: Signals) -> None:
    from .train.run import run

    _, size = world_from_env()
    ranks = 1 if config.ranks is None else config.ranks
    if is_launched():
        require(not config.simulate, "simulate under mpirun: leave one of the two away")
        require(
            config.ranks in (None, size),
            f"ranks {config.ranks}, but mpirun started {size}: leave --ranks away",
        )
        launch(lambda comm: _exit_together(comm, lambda: run(config, comm, signals)))
        return
    require(ranks > 0, f"ranks {ranks}: want at least 1; change --ranks")
    require(config.simulate or ranks == 1,
             f"ranks {ranks} in one process: add --simulate, or start with "
             f"'mpirun -n {ranks} minidist train'")  # fmt: skip
    if config.simulate and config.ranks is None:
        print("minidist: --simulate without --ranks means one rank: add --ranks N for more",
              file=sys.stderr)  # fmt: skip
    launch(lambda comm: run(config, comm, signals), ranks)


def _exit_together(comm: Communicator, task: Callable[[], Any]) -> None:
    """A UserError here is every rank's: rank 0 says it, and all exit alike."""
    try:
        task()
    except UserError as error:
        if comm.rank == 0:
            _say(error)
        raise AgreedExit(BAD_INPUT) from None


def sample(config: SampleConfig) -> None:
    """Continue a prompt with a run's model."""
    from .train.sample import sample_run

    _check_environment()
    text = sample_run(Path(config.run), config.prompt, config.tokens, config.temperature,
                      config.top_k, config.seed)  # fmt: skip
    print(visible(text, keep="\r\n\t") if sys.stdout.isatty() else text)


def plot(config: PlotConfig) -> None:
    """Draw runs, and print the path of the picture."""
    from .train.plot import plot

    require(bool(config.runs), "no run was given: use minidist plot RUN, a folder under runs/")
    out = None if config.out is None else Path(config.out)
    print(f"wrote {visible(plot([Path(run) for run in config.runs], out))}")


def examples(config: ExamplesConfig, arguments: tuple[str, ...]) -> None:
    """List, run or copy the programs of tutorials/examples."""
    is_run = config.name is not None and config.copy is None
    require(is_run or not arguments, "-- passes arguments to an example: give its NAME before --")
    from .lesson import examples

    if is_run:
        examples.run(str(config.name), arguments)
    elif config.copy is None:
        _on_rank_0(lambda: print(examples.listing()))
    else:
        into = Path(config.copy)
        _on_rank_0(
            lambda: print(f"copied into {visible(into)}: {examples.copied(config.name, into)}")
        )


def schedule(config: ScheduleConfig) -> None:
    """Validate, simulate, write what is asked for, and report."""
    from .parallel.pipeline import text
    from .parallel.pipeline.actions import Overlap
    from .parallel.pipeline.check.messages import without_messages
    from .parallel.pipeline.check.validate import validate
    from .parallel.pipeline.schedules import find
    from .parallel.pipeline.study import draw
    from .parallel.pipeline.study import report as show
    from .parallel.pipeline.study.costs import Costs
    from .parallel.pipeline.study.simulate import simulate

    require(config.csv is not None or not config.messages,
             "--messages has no effect without --csv FILE: give both")  # fmt: skip
    require(bool(config.beta) == bool(config.bytes),
             f"--beta {config.beta:g} with --bytes {config.bytes:g}: a message takes beta * bytes, "
             "so give both or none")  # fmt: skip
    times = (config.forward, config.input, config.weight)
    forward, backward, weight = (each[0] if len(each) == 1 else each for each in times)
    costs = Costs(forward, backward, weight, config.overlap)
    found = find(
        config.name, config.pp, config.microbatches, config.chunks, usual=(4, 8),
        remedy="leave the flag out, or choose another file",
    )  # fmt: skip
    at_once = any(isinstance(step, Overlap) for order in found.orders for step in order)
    require(config.overlap is None or at_once,
             f"--overlap has no effect: {config.name} never runs F and B at once")  # fmt: skip
    whole = validate(found, max_live=config.max_live)
    simulated = simulate(whole, costs, config.alpha, config.beta, config.bytes)
    if config.draw is not None:
        draw.draw(simulated, config.draw)
    if config.csv is not None:
        text.save(whole if config.messages else without_messages(whole), config.csv)
    print(show.report(simulated, shutil.get_terminal_size().columns))


def _on_rank_0(task: Callable[[], None]) -> None:
    """Run a command that needs no other ranks on rank 0 only, also under mpirun."""
    if world_from_env()[0] == 0:
        task()


def doctor() -> None:
    """Show what this machine has and how to install what it lacks; under mpirun on rank 0 only."""
    from .lesson.doctor import examine

    if world_from_env()[0]:
        return
    raise SystemExit(examine())


def _defaults(arguments: list[str]) -> TrainConfig:
    """The defaults of the flags: from --config FILE, from the run to resume, or minidist's own."""
    given, out = value_of(arguments, "--config"), value_of(arguments, "--out")
    if "--resume" in arguments and out is not None:
        require(given is None,
                 f"config {given} with --resume: a resumed run uses its own config.toml; leave "
                 "--config out, and give changes as flags")  # fmt: skip
        path = Path(out) / "config.toml"
        require(
            os.path.isfile(path), f"out '{out}' holds no run (no config.toml): nothing to resume"
        )
        config, data = resumed(path, out), value_of(arguments, "--data")
        # If the text changes, its encoding is guessed again.
        return config if data in (None, config.data) else replace(config, encoding=None)
    config = TrainConfig() if given is None else read_toml(Path(given))
    require(config.config is None,
             f"config '{given}' has the key config = '{config.config}', and that file would not "
             "be read: remove this key")  # fmt: skip
    return config


OPTIONS: dict[str, type | None] = {
    "train": TrainConfig, "sample": SampleConfig, "plot": PlotConfig, "schedule": ScheduleConfig,
    "examples": ExamplesConfig, "doctor": None,
}  # fmt: skip


def _parse(arguments: list[str]) -> Callable[[], None]:
    """The command for these arguments; --help exits here, and mistakes raise a UserError."""
    arguments, rest = split(arguments)
    check_names(arguments, OPTIONS)
    if arguments[:1] == ["--version"]:
        print(f"minidist {__version__}")
        raise SystemExit(0)
    defaults = _defaults(arguments) if arguments[:1] == ["train"] else TrainConfig()
    started = Grouped.of(defaults)

    def train_command(
        options: Annotated[tyro.conf.OmitArgPrefixes[Grouped], tyro.conf.arg(name="")] = started,
    ) -> Callable[[], None]:
        """Train a GPT: on all ranks under mpirun, otherwise on one rank."""
        return lambda: train(options.flat())

    def sample_command(
        config: Annotated[tyro.conf.OmitArgPrefixes[SampleConfig], tyro.conf.arg(name="")],
    ) -> Callable[[], None]:
        """Generate text with the last checkpoint of a run folder."""
        return lambda: _on_rank_0(lambda: sample(config))

    def plot_command(
        config: Annotated[tyro.conf.OmitArgPrefixes[PlotConfig], tyro.conf.arg(name="")],
    ) -> Callable[[], None]:
        """Draw the loss curve of a run, finished or not, or of several runs in one picture."""
        return lambda: _on_rank_0(lambda: plot(config))

    def examples_command(
        config: Annotated[tyro.conf.OmitArgPrefixes[ExamplesConfig], tyro.conf.arg(name="")],
    ) -> Callable[[], None]:
        """List the example programs, run one, or copy them into a folder to change them."""
        return lambda: examples(config, rest)

    def schedule_command(
        config: Annotated[tyro.conf.OmitArgPrefixes[ScheduleConfig], tyro.conf.arg(name="")],
    ) -> Callable[[], None]:
        """Check, simulate and draw a pipeline schedule, without starting ranks."""
        return lambda: _on_rank_0(lambda: schedule(config))

    def doctor_command() -> Callable[[], None]:
        """Show what this machine has (MPI, cores, BLAS, GPU), and how to install what it lacks."""
        return doctor

    commands: dict[str, Callable[..., Any]] = {
        "train": train_command, "sample": sample_command, "plot": plot_command,
        "schedule": schedule_command, "examples": examples_command, "doctor": doctor_command,
    }  # fmt: skip
    return in_one_line(arguments, lambda: tyro.extras.subcommand_cli_from_dict(
        commands,
        prog="minidist",
        description="Train language models on many ranks, with parallelism written by hand. "
        "'minidist COMMAND --help' lists a command's flags, 'minidist --version' its version.",
        args=arguments,
    ))  # fmt: skip


def _say(error: Exception) -> None:
    text = visible(error) if isinstance(error, UserError) else error
    print(f"minidist: error: {text}", file=sys.stderr, flush=True)


def _ready_to_print() -> None:
    """Make printing safe: open closed streams, and escape characters a stream cannot encode."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # otherwise the next opened file gets this number and the printed text
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: `>&-`
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
            if name == "stdout" and world_from_env()[0] == 0:
                print("minidist: standard output is closed, so nothing is shown", file=sys.stderr)
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _only_rank_0_speaks() -> Any:
    """Let only rank 0 report a mistake, since all ranks read the same arguments."""
    if world_from_env()[0] == 0:
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        try:
            yield
        except SystemExit as leaving:
            if leaving.code:  # Open MPI ends all ranks at the first: rank 0 must have spoken
                time.sleep(HEAD_START)
            raise


def main() -> None:
    """Entry point: exit code 0, or 2 for bad input, 1 for a failure, 128 and more for a signal."""
    try:
        try:
            _main()
        finally:
            _flush()
    except BrokenPipeError:  # `| head` has read enough
        raise SystemExit(_drop_output()) from None
    except OSError as error:  # a full disk, when stdout is a file
        _drop_output()
        _say(error)
        raise SystemExit(1) from None


def _flush() -> None:
    """Flush stdout here, because Python flushes it after main, where no error can be caught."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _drop_output() -> int:
    """Print nothing more; returns the exit code after that of a closed pipe."""
    from .train.stop import CLOSED_PIPE, drop_output

    drop_output()
    return CLOSED_PIPE


def _main() -> None:
    try:
        _ready_to_print()
        with _only_rank_0_speaks():
            require_text(sys.argv[1:])
            command = _parse(sys.argv[1:])
        command()
    except (UserError, MpiError) as error:
        with _only_rank_0_speaks():
            _say(error)
            raise SystemExit(BAD_INPUT) from None
    except MemoryError as error:
        _say(
            UserError(f"out of memory: {error or 'nothing is left'}; use a smaller model or batch")
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
