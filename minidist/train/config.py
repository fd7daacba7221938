"""TrainConfig: every choice of a run, from flags or a TOML file, checked before a rank starts."""

from __future__ import annotations

import math
import shlex
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tomli_w
import tyro

from ..errors import UserError, did_you_mean
from ..models.gpt import GPTConfig
from ..parallel.mesh import Mesh
from ..parallel.pipeline.actions import Schedule
from ..parallel.pipeline.check.validate import validate
from ..parallel.pipeline.cut import ranges
from ..parallel.pipeline.schedules import find
from ..tensor import cuda

PRESETS: dict[str, dict[str, int]] = {
    "gpt-nano": {"layers": 2, "hidden": 32, "heads": 2},
    "gpt-tiny": {"layers": 4, "hidden": 128, "heads": 4},
    "gpt-mini": {"layers": 6, "hidden": 256, "heads": 8},
    "gpt2": {"layers": 12, "hidden": 768, "heads": 12},
}
SHAPE = ("layers", "hidden", "heads", "positions")
PRESET = "(default: the preset's)"
LAUNCH = (
    "config",
    "out",
    "resume",
    "ranks",
    "simulate",
    "dp",
    "tp",
    "pp",
    "schedule",
    "chunks",
    "split",
    "zero",
    "sequence_parallel",
    "device",
)  # how a run was started; a resumed run chooses these anew


def _norm(text: str) -> float:
    return 0.0 if text.lower() == "none" else float(text)


Norm = Annotated[
    float,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1, metavar="FLOAT|none", instance_from_str=lambda words: _norm(words[0]),
        is_instance=lambda value: isinstance(value, float), str_from_instance=lambda v: [str(v)],
    ),
]  # fmt: skip


@dataclass(frozen=True)
class ModelOptions:
    """The model: a preset, whose shape flags can change."""

    model: str = "gpt-tiny"
    """Size: gpt-nano (36k parameters), gpt-tiny (0.8M), gpt-mini (4.8M) or gpt2 (85M)."""
    layers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=PRESET)] = None
    """Transformer layers."""
    hidden: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=PRESET)] = None
    """Width of the model (the embedding dimension): a multiple of --heads."""
    heads: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=PRESET)] = None
    """Attention heads in each layer."""
    positions: Annotated[
        int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: as --seq)")
    ] = None
    """Longest context of the model; training does not reach the positions beyond --seq."""
    dropout: float = 0.0
    """Probability of dropping a unit, on the embedding and both residual branches."""
    seed: int = 0
    """Seed of weights, batches, dropout and sample; they do not depend on the number of ranks."""


@dataclass(frozen=True)
class DataOptions:
    """The text, and how much of it each step uses."""

    data: str = "docs"
    """Text: docs (Python's language reference), stdlib (its library's source), or a file."""
    drop_repeats: bool = False
    """Leave out long paragraphs of a file that occurred before (always done for docs, stdlib)."""
    encoding: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: a guess)")
    ] = None
    """Encoding of the text, used for prompts and samples; training uses the bytes unchanged."""
    batch: int = 16
    """Sequences per step, over all ranks."""
    seq: int = 64
    """Bytes per sequence (the context length)."""


@dataclass(frozen=True)
class OptimiserOptions:
    """AdamW, its learning rate, and the length of the run."""

    steps: int = 1000
    """Optimiser steps."""
    lr: float = 4e-3
    """Peak learning rate of AdamW."""
    final_lr: float = 0.05
    """Last learning rate, as a fraction of --lr."""
    warmup: int = 50
    """Steps of linear warm-up before the cosine."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW."""
    clip: Norm = 1.0
    """Gradients with a larger global norm are scaled down to this one; 0 or none: no clipping."""


@dataclass(frozen=True)
class NumberOptions:
    """Dtypes, and the device that computes."""

    dtype: Literal["float32", "float64"] = "float32"
    """Dtype of parameters and arithmetic."""
    precision: Literal["full", "float16", "bfloat16"] = "full"
    """Autocast: compute products and attention in 16 bits (float16 also scales the loss)."""
    device: str = "cpu"
    """Device: cpu or cuda (the GPUs of a machine are assigned to its ranks in turn)."""


@dataclass(frozen=True)
class LayoutOptions:
    """The ranks, and how the training is divided among them."""

    ranks: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """How many ranks to simulate (with --simulate)."""
    simulate: bool = False
    """Run --ranks simulated ranks in this one process, without MPI."""
    dp: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: all)")] = (
        None
    )
    """Data-parallel ranks."""
    tp: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Tensor-parallel ranks: each has some of the heads, units and vocabulary."""
    sequence_parallel: bool = False
    """With --tp: also divide the tokens among the ranks between tensor-parallel layers."""
    pp: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Pipeline-parallel ranks: each has some of the layers."""
    schedule: str = "1f1b"
    """Pipeline schedule: gpipe, 1f1b, interleaved, zb-h1, zb-h2, zbv, dualpipev or a CSV file."""
    microbatches: Annotated[
        int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: 2 for each --pp rank)")
    ] = None
    """Micro-batches into which each rank's batch is split; without --pp, 1."""
    chunks: Annotated[
        int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: the schedule's)")
    ] = None
    """Stages per pipeline rank."""
    split: Annotated[
        tuple[int, ...] | None,
        tyro.conf.arg(metavar="N N ...", help_behavior_hint="(default: balanced by FLOPs)"),
    ] = None
    """Number of layers in each stage."""
    zero: Literal[0, 1, 2, 3] = 0
    """ZeRO: data-parallel ranks shard optimiser states (1), gradients (2), parameters (3)."""


@dataclass(frozen=True)
class SumOptions:
    """How gradients are summed over data-parallel ranks."""

    allreduce: Literal[
        "auto", "ring", "ordered", "doubling", "rabenseifner", "tree", "naive", "native",
    ] = "ring"  # fmt: skip
    """All-reduce algorithm for gradients; native is the MPI library's own."""
    sync: Literal["naive", "bucketed", "overlapped"] = "bucketed"
    """Sum gradients one by one, in buckets, or in buckets during backward (without ZeRO)."""
    bucket_mib: float = 4.0
    """Size of a gradient bucket in MiB."""


@dataclass(frozen=True)
class RunOptions:
    """The run folder, and what is written into it."""

    config: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """TOML file with any of these options; flags override the file."""
    out: Annotated[
        str | None,
        tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/<date>-<model>-<data>)"),
    ] = None
    """Run folder."""
    resume: bool = False
    """Resume the run in --out from its last checkpoint."""
    eval_every: int = 100
    """Steps between evaluations on held-out text (also done after the last step)."""
    save_every: int = 200
    """Steps between checkpoints (also saved after the last step)."""
    sample: int = 300
    """Bytes of text that the model generates at the end; 0: none."""
    prompt: str = "The "
    """Beginning of that text."""


@dataclass(frozen=True)
class TrainConfig(
    RunOptions, SumOptions, LayoutOptions, NumberOptions, OptimiserOptions, DataOptions,
    ModelOptions,
):  # fmt: skip
    """Train a GPT: on all ranks under mpirun, otherwise on one rank."""

    def gpt(self, vocab: int) -> GPTConfig:
        return GPTConfig(**self.shape, vocab=vocab, dropout=self.dropout)

    @property
    def shape(self) -> dict[str, int]:
        """Layers, hidden, heads and positions: from flags, otherwise from the preset."""
        usual = {**PRESETS[self.model], "positions": self.seq}
        return {**usual, **self.own_shape}

    @property
    def own_shape(self) -> dict[str, int]:
        """The sizes of the model that flags give."""
        given = {name: getattr(self, name) for name in SHAPE}
        return {name: size for name, size in given.items() if size is not None}

    @property
    def model_name(self) -> str:
        """'gpt-tiny', or 'gpt-tiny with layers 6, hidden 96'."""
        own = ", ".join(f"{name} {size}" for name, size in self.own_shape.items())
        return f"{self.model} with {own}" if own else self.model

    def mesh(self, ranks: int) -> Mesh:
        """The place of each rank: tp is innermost; dp is all that is left, if it is not given."""
        dp = max(ranks // (self.pp * self.tp), 1) if self.dp is None else self.dp
        axes = [axis for axis in ("pp", "dp", "tp") if axis == "dp" or getattr(self, axis) > 1]
        return Mesh(pp=self.pp, dp=dp, tp=self.tp).require(ranks, tuple(axes))

    def pipeline(self) -> Schedule:
        """The schedule, of a name or a file; UserError if it is not for these ranks."""
        usual = self.pp, 2 * self.pp if self.pp > 1 else 1
        sizes = self.pp, self.microbatches, self.chunks
        return find(self.schedule, *sizes, usual, "change the flag or the file")


@dataclass(frozen=True)
class Grouped:
    """The options of a TrainConfig in the groups that --help shows."""

    model: ModelOptions
    data: DataOptions
    optimiser: OptimiserOptions
    numerics: NumberOptions
    layout: LayoutOptions
    gradient: SumOptions
    run: RunOptions

    @classmethod
    def of(cls, config: TrainConfig) -> Grouped:
        """The same options, in groups."""
        value = lambda group: {f.name: getattr(config, f.name) for f in fields(group)}
        return cls(**{name: kind(**value(kind)) for name, kind in get_type_hints(cls).items()})

    def flat(self) -> TrainConfig:
        """The same options in one TrainConfig."""
        return TrainConfig(
            **{k: v for group in vars(self).values() for k, v in vars(group).items()}
        )


OPTIONAL: dict[str, type] = {
    "dp": int, "ranks": int, "out": str, "config": str, "microbatches": int, "chunks": int,
    "split": tuple, "encoding": str, "layers": int, "hidden": int, "heads": int, "positions": int,
}  # fmt: skip


def listed(names: Any) -> str:
    return ", ".join(map(str, names))


def read_toml(path: Path) -> TrainConfig:
    """A TrainConfig from a TOML file; unknown keys and wrong types are errors."""
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))  # some editors write a byte order mark
    except OSError as error:
        raise UserError(f"config '{path}' cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"config '{path}' is not TOML: {error}") from None
    return TrainConfig(**{k: _typed(k, v, path) for k, v in table.items()})


def _typed(key: str, value: Any, path: Path) -> Any:
    names = [f.name for f in fields(TrainConfig)]
    if key not in names:
        hint = did_you_mean(key, names, f"known keys: {listed(names)}")
        raise UserError(f"config '{path}': unknown key '{key}': {hint}")
    kind = type(next(f.default for f in fields(TrainConfig) if f.name == key))
    wanted = OPTIONAL.get(key, kind)
    if key == "clip" and value == "none":
        return 0.0
    if wanted is tuple and type(value) is list and all(type(n) is int for n in value):
        return tuple(value)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise UserError(f"config '{path}': {key} = {value!r}: want {wanted.__name__}")
    return value


def write_toml(config: TrainConfig, path: Path) -> None:
    """Write everything as read_toml reads it; TOML has no null, so what is unset is absent."""
    table = {k: v for k, v in asdict(config).items() if v is not None}
    path.write_text(tomli_w.dumps(table), "utf-8")


def resumed(path: Path, out: str) -> TrainConfig:
    """The configuration of the run in folder `out`, to be started anew in any layout."""
    launch: dict[str, Any] = {f.name: f.default for f in fields(TrainConfig) if f.name in LAUNCH}
    return replace(read_toml(path), **{**launch, "out": out, "resume": True})


def resuming(config: TrainConfig, out: Path, start: str = "") -> str:
    """The command that resumes a run in the same layout (config.toml does not keep the layout)."""
    words = [f"{start}minidist train --resume --out {shlex.quote(str(out))}"]
    for f in fields(TrainConfig):
        value = getattr(config, f.name)
        if f.name in LAUNCH and f.name not in ("config", "out", "resume") and value != f.default:
            flag, values = f.name.replace("_", "-"), value if isinstance(value, tuple) else [value]
            words.append(f"--{flag}")
            words += [] if value is True else [shlex.quote(str(v)) for v in values]
    return " ".join(words)


# Checks before a rank starts: each error names the flag to change

POSITIVE = ("steps", "batch", "seq", "lr", "bucket_mib", "eval_every", "save_every")
INTEGERS = (*SHAPE, "steps", "batch", "seq", "warmup", "eval_every", "save_every", "sample")
MOST = 2**31  # NumPy counts no further than 2**63, and the sizes of a model are multiplied
AT_LEAST_ZERO = ("warmup", "weight_decay", "clip", "final_lr", "seed", "sample")


def check(config: TrainConfig, ranks: int) -> None:
    """Refuse sizes that cannot work, with the flag to change."""
    if config.model not in PRESETS:
        raise UserError(f"model '{config.model}' is unknown: choose {listed(PRESETS)}")
    _check_shape(config)
    for name in POSITIVE:
        _require(name, getattr(config, name), lambda v: v > 0, "more than 0")
    for name in INTEGERS:
        _require(name, getattr(config, name) or 0, lambda v: v < MOST, f"less than {MOST}")
    for name in AT_LEAST_ZERO:
        _require(name, getattr(config, name), lambda v: v >= 0, "at least 0")
    _require("dropout", config.dropout, lambda v: 0 <= v < 1, "at least 0 and below 1")
    _require("final_lr", config.final_lr, lambda v: v <= 1, "a part of --lr, at most 1")
    for name in ("pp", "tp"):
        _require(name, getattr(config, name), lambda v: v >= 1, "at least 1")
    for name in ("dtype", "precision", "allreduce", "sync", "zero"):
        _check_choice(name, getattr(config, name))
    if config.encoding is not None:
        _check_encoding(config.encoding)
    if config.precision != "full" and config.dtype != "float32":
        raise UserError(
            f"precision {config.precision} casts from float32: leave --dtype {config.dtype} away"
        )
    if config.device not in ("cpu", "cuda"):
        raise UserError(f"device '{config.device}' is unknown: choose cpu, cuda")
    if config.device == "cuda" and (reason := cuda.missing()):
        raise UserError(f"device cuda: {reason}")
    _check_layout(config, ranks)
    if config.sample:
        check_prompt(config.prompt)
    if config.resume and config.out is None:
        raise UserError("resume needs the run folder: add --out DIR")
    _check_effects(config)


def check_prompt(prompt: str) -> None:
    """A model continues something: at least one byte."""
    if not prompt:
        raise UserError("prompt is empty: give at least one character to continue")


def _check_shape(config: TrainConfig) -> None:
    for name, size in config.own_shape.items():
        _require(name, size, lambda v: v >= 1, "at least 1")
    hidden, heads = config.shape["hidden"], config.shape["heads"]
    if hidden % heads:
        near = max(hidden // heads, 1) * heads
        raise UserError(
            f"hidden {hidden} does not divide into {heads} heads of the same width: use --hidden "
            f"{near} or {near + heads}, or change --heads"
        )
    if config.positions is not None and config.positions < config.seq:
        raise UserError(
            f"positions {config.positions} for windows of seq {config.seq}: want at least as many; "
            "raise --positions or lower --seq"
        )


def _check_layout(config: TrainConfig, ranks: int) -> None:
    if config.zero and config.allreduce not in ("auto", "ring", "ordered"):
        raise UserError(
            f"zero {config.zero} scatters its sums: --allreduce {config.allreduce} does not, use "
            "auto, ring or ordered"
        )
    dp, heads = config.mesh(ranks).dp, config.shape["heads"]
    if config.tp > heads:
        raise UserError(
            f"tp {config.tp}: {config.model_name} has {heads} heads, and a rank needs at least "
            f"one: use --tp {heads} or less, more --heads or a larger --model"
        )
    if config.sequence_parallel and not 1 < config.tp <= config.seq:
        raise UserError(
            f"sequence-parallel with tp {config.tp} and seq {config.seq}: it shares the tokens "
            "out among tensor-parallel ranks: want --tp of at least 2, and a token for each"
        )
    if config.batch < dp:
        ways = "ranks" if config.tp == config.pp == 1 else "data-parallel ranks"
        raise UserError(
            f"batch {config.batch} is smaller than the {dp} {ways}, so some would have no row: "
            f"raise --batch to at least {dp} or start fewer ranks"
        )
    _check_pipeline(config, dp)


def _check_effects(config: TrainConfig) -> None:
    """Refuse an option that another option disables, because it would be ignored silently.

    An option that merely has nothing to do on one rank, such as --allreduce, is accepted.
    """
    zero, one_stage = config.zero, config.pipeline().stages == 1
    for name, is_off, why in (
        ("sync", zero > 0, f"--zero {zero} sums gradients in its own way"),
        ("bucket_mib", zero == 3, "--zero 3 sums gradients module by module, not in buckets"),
        ("bucket_mib", config.sync == "naive", "--sync naive sums gradients one by one"),
        ("schedule", one_stage, "without --pp there is one stage, and nothing to schedule"),
    ):
        value, default = getattr(config, name), getattr(TrainConfig, name)
        if is_off and value != default:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} {value} has no effect: {why}; leave {flag} at {default}")


def _check_pipeline(config: TrainConfig, dp: int) -> None:
    schedule, layers = config.pipeline(), config.shape["layers"]
    validate(schedule)
    if schedule.stages > layers:
        raise UserError(
            f"{schedule.stages} stages (pp {config.pp}, {schedule.stages // config.pp} chunks a "
            f"rank) of {config.model}'s {layers} layers: a stage needs at least one; use a smaller "
            "--pp or --chunks, more --layers or a larger --model"
        )
    ranges(layers, schedule.stages, config.split)
    if config.batch // dp < schedule.microbatches:
        raise UserError(
            f"{schedule.microbatches} micro-batches of the {config.batch // dp} rows that a "
            f"data-parallel rank has of batch {config.batch}: some would have none; raise --batch "
            f"to at least {dp * schedule.microbatches} or lower --microbatches"
        )
    if config.pp > 1 and config.zero > 1:
        raise UserError(
            f"zero {config.zero} with pp {config.pp}: gradients must stay whole until the last "
            "micro-batch's backward, so sharding them would save nothing and send them once for "
            "each; use --zero 1"
        )


def _require(name: str, value: float, good: Any, wanted: str) -> None:
    if not (math.isfinite(value) and good(value)):
        raise UserError(f"{name} = {value}: want {wanted}; change --{name.replace('_', '-')}")


def _check_encoding(name: str) -> None:
    try:
        "".encode(name)
        bytes(range(256)).decode(name, "replace")  # punycode, idna: of names of hosts only
    except (LookupError, ValueError):
        raise UserError(
            f"encoding '{name}' is unknown: use a name that Python knows, such as utf-8, gb18030, "
            "big5 or shift_jis, or leave --encoding out"
        ) from None


def _check_choice(name: str, value: str) -> None:
    choices = get_args(get_type_hints(TrainConfig)[name])
    if value not in choices:
        raise UserError(f"{name} = '{value}' is unknown: choose {listed(choices)}")
