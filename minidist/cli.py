"""The `minidist` command: train, sample, doctor."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from .comm import AgreedExit, Communicator, MpiError, launch, world_from_env
from .errors import UserError
from .train.config import TrainConfig, read_toml, resumed

BAD_INPUT = 2


@dataclass(frozen=True)
class SampleConfig:
    """Let a trained model write: takes the last checkpoint of a run folder."""

    run: tyro.conf.Positional[str]
    """Run folder."""
    prompt: str = "The "
    """Text to continue."""
    tokens: int = 300
    """How many bytes to write."""
    temperature: float = 0.8
    """0 always takes the likeliest byte; 1 draws from the model's own distribution."""
    top_k: int = 40
    """Draw among the k likeliest bytes only; 0 for all."""
    seed: int = 0
    """Of the draws."""


def train(config: TrainConfig) -> None:
    """Train where we are: on MPI's ranks, on simulated ones, or alone."""
    from .train.run import run

    _, size = world_from_env()
    ranks = 1 if config.ranks is None else config.ranks
    if size > 1:
        _require(not config.simulate, "simulate under mpirun: leave one of the two away")
        _require(
            config.ranks in (None, size),
            f"ranks {config.ranks}, but mpirun started {size}: leave --ranks away",
        )
        launch(lambda comm: _exit_together(comm, lambda: run(config, comm)))
        return
    _require(ranks > 0, f"ranks {ranks}: want at least 1; change --ranks")
    _require(config.simulate or ranks == 1,
             f"ranks {ranks} in one process: add --simulate, or start with "
             f"'mpirun -n {ranks} minidist train'")  # fmt: skip
    launch(lambda comm: run(config, comm), ranks)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


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

    print(sample_run(Path(config.run), config.prompt, config.tokens, config.temperature,
                     config.top_k, config.seed))  # fmt: skip


def doctor() -> None:
    """Say what this machine has, and how to get what it lacks."""
    from .lesson.doctor import examine

    raise SystemExit(examine())


def _defaults(arguments: list[str]) -> TrainConfig:
    """What flags start from: a TOML file (--config), a run to go on with (--resume), or ours."""
    given, out = _value(arguments, "--config"), _value(arguments, "--out")
    if "--resume" in arguments and out is not None:
        path = Path(out) / "config.toml"
        _require(path.is_file(), f"out '{out}' holds no run (no config.toml): nothing to resume")
        return resumed(path, out)
    return TrainConfig() if given is None else read_toml(Path(given))


def _value(arguments: list[str], flag: str) -> str | None:
    """The value after `--flag` or `--flag=`, looked up before the flags are parsed."""
    for i, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.split("=", 1)[1]
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
    return None


def _parse(arguments: list[str]) -> Callable[[], None]:
    """The command that the arguments ask for; --help and mistakes exit here."""
    defaults = _defaults(arguments) if arguments[:1] == ["train"] else TrainConfig()

    def train_command(
        config: Annotated[
            tyro.conf.OmitArgPrefixes[TrainConfig], tyro.conf.arg(name="")
        ] = defaults,
    ) -> Callable[[], None]:
        """Train a GPT. Under mpirun every rank takes its part; alone, one rank does it all."""
        return lambda: train(config)

    def sample_command(
        config: Annotated[tyro.conf.OmitArgPrefixes[SampleConfig], tyro.conf.arg(name="")],
    ) -> Callable[[], None]:
        """Let a trained model write: takes the last checkpoint of a run folder."""
        return lambda: sample(config)

    def doctor_command() -> Callable[[], None]:
        """Say what this machine has (MPI, cores, BLAS, GPU), and how to get what it lacks."""
        return doctor

    return tyro.extras.subcommand_cli_from_dict(
        {"train": train_command, "sample": sample_command, "doctor": doctor_command},
        prog="minidist",
        description="Train language models on many ranks, by hand-written parallelism.",
        args=arguments,
    )


def _say(error: Exception) -> None:
    print(f"minidist: error: {error}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _only_rank_0_speaks() -> Any:
    """Four ranks read the same wrong flag: one of them is enough to say so."""
    if world_from_env()[0] == 0:
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def main() -> None:
    """Entry point: exit code 0, or 2 for bad input, or 1 for a failure."""
    try:
        with _only_rank_0_speaks():
            command = _parse(sys.argv[1:])
        command()
    except (UserError, MpiError) as error:
        if world_from_env()[0] == 0:
            _say(error)
        raise SystemExit(BAD_INPUT) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
