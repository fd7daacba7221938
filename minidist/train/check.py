"""Refusing what cannot work, before a rank starts: each error names the flag to change."""

from __future__ import annotations

import math
from typing import Any, get_args, get_type_hints

from ..errors import UserError
from ..parallel.pipeline.check.validate import validate
from ..parallel.pipeline.cut import ranges
from ..tensor import cuda
from .config import PRESETS, TrainConfig, listed

POSITIVE = ("steps", "batch", "seq", "lr", "clip", "bucket_mib", "eval_every", "save_every")
AT_LEAST_ZERO = ("warmup", "weight_decay", "final_lr", "seed", "sample")


def check(config: TrainConfig, ranks: int) -> None:
    """Refuse sizes that cannot work, with the flag to change."""
    if config.model not in PRESETS:
        raise UserError(f"model '{config.model}' is unknown: choose {listed(PRESETS)}")
    for name in POSITIVE:
        _require(name, getattr(config, name), lambda v: v > 0, "more than 0")
    for name in AT_LEAST_ZERO:
        _require(name, getattr(config, name), lambda v: v >= 0, "at least 0")
    _require("dropout", config.dropout, lambda v: 0 <= v < 1, "at least 0 and below 1")
    _require("final_lr", config.final_lr, lambda v: v <= 1, "a part of --lr, at most 1")
    for name in ("pp", "tp"):
        _require(name, getattr(config, name), lambda v: v >= 1, "at least 1")
    for name in ("dtype", "precision", "allreduce", "sync", "zero"):
        _check_choice(name, getattr(config, name))
    if config.precision != "full" and config.dtype != "float32":
        raise UserError(
            f"precision {config.precision} casts from float32: leave --dtype {config.dtype} away"
        )
    if config.device not in ("cpu", "cuda"):
        raise UserError(f"device '{config.device}' is unknown: choose cpu, cuda")
    if config.device == "cuda" and (reason := cuda.missing()):
        raise UserError(f"device cuda: {reason}")
    _check_layout(config, ranks)
    if config.resume and config.out is None:
        raise UserError("resume needs the run folder: add --out DIR")


def _check_layout(config: TrainConfig, ranks: int) -> None:
    if config.zero and config.allreduce not in ("auto", "ring", "ordered"):
        raise UserError(
            f"zero {config.zero} scatters its sums: --allreduce {config.allreduce} does not, use "
            "auto, ring or ordered"
        )
    dp, heads = config.mesh(ranks).dp, PRESETS[config.model]["heads"]
    if config.tp > heads:
        raise UserError(
            f"tp {config.tp}: {config.model} has {heads} heads, and a rank needs at least one: "
            f"use --tp {heads} or less, or a larger --model"
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


def _check_pipeline(config: TrainConfig, dp: int) -> None:
    schedule, layers = config.pipeline(), PRESETS[config.model]["layers"]
    validate(schedule)
    if schedule.stages > layers:
        raise UserError(
            f"{schedule.stages} stages (pp {config.pp}, {schedule.stages // config.pp} chunks a "
            f"rank) of {config.model}'s {layers} layers: a stage needs at least one; use a smaller "
            "--pp or --chunks, or a larger --model"
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


def _check_choice(name: str, value: str) -> None:
    choices = get_args(get_type_hints(TrainConfig)[name])
    if value not in choices:
        raise UserError(f"{name} = '{value}' is unknown: choose {listed(choices)}")
