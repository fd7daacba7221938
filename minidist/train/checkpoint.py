"""Checkpoints: a folder per step, written whole or not at all, checked by SHA-256 when read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..comm import Communicator
from ..errors import UserError
from ..kernels import arrays as xp
from ..kernels.half_precision import BFLOAT16, as_dtype, sum_dtype
from ..nn import Module
from ..optim import Optimizer
from ..parallel.layout import full_state_dict, gather_stages, load_full_state_dict, shards_of
from ..parallel.zero.optimizer import Zero
from ..tensor.device import moved
from .files import writing

SHOWN = 160  # longest list of weights, in characters
FILES = ("model.safetensors", "optimizer.safetensors")
Arrays = dict[str, xp.ndarray]


def save(
    folder: Path, step: int, model: Module, optimizer: Optimizer | Zero, tokens: int,
    scaler: dict[str, Any] | None = None, writes: bool = True, stages: Communicator | None = None,
    about: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write folder/step-<step>: parameters, optimiser state, and state.json with their hashes.

    `scaler` is the state of a GradScaler, if there is one. If a model is divided among ranks, all
    of them call this and one of them writes the whole model, so any layout can read it.
    `stages`: on the writer, the ranks of its pipeline, where it is the first; None on other ranks.
    `about`: more entries for state.json, which `load` returns.
    """
    arrays = whole_arrays(model, optimizer)
    if stages is not None:
        arrays = gather_stages(arrays[0], stages), gather_stages(arrays[1], stages)
    path, draft = folder / f"step-{step:06d}", folder / f".step-{step:06d}.part"
    if not writes:
        return path
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with writing(path, (OSError, SafetensorError)):
            draft.mkdir(parents=True)
            for array, file in zip(arrays, FILES):
                save_file(_contiguous(array), draft / file)
            hashes = {f: _sha256(draft / f) for f in FILES}
            state = {"step": step, "tokens": tokens, "sha256": hashes, "about": about or {}}
            state |= {"scaler": scaler} if scaler else {}
            (draft / "state.json").write_text(json.dumps(state, indent=1))
            shutil.rmtree(path, ignore_errors=True)
            os.replace(draft, path)  # a reader sees the whole checkpoint or none
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def whole_arrays(model: Module, optimizer: Optimizer | Zero) -> tuple[Arrays, Arrays]:
    """The whole arrays of the model and its optimiser, gathered from all ranks that have a part."""
    if not isinstance(optimizer, Zero):
        return full_state_dict(model), optimizer_arrays(model, optimizer)
    parts, state = shards_of(model), optimizer.full_state_dict()
    whole = lambda name, array: parts[name].gather(array) if name in parts else array
    model_arrays = {k: whole(k, v) for k, v in state["model"].items()}
    # In one order on all ranks: with uneven parts their buckets are filled in different ones.
    states = sorted(state["optimizer"].items())
    return model_arrays, {k: whole(k.split(".", 1)[1], v) for k, v in states}


def last(folder: Path) -> Path:
    """The checkpoint of the highest step in a folder."""
    found = steps(folder)
    if not found:
        raise UserError(
            f"no checkpoint in '{folder}': give the folder of a run that has "
            "saved one (a run without a checkpoint starts from step 0 by train --resume)"
        )
    return found[max(found)]


def steps(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by step, as a number (as a text, 999999 follows 1000000)."""
    return {int(p.name[5:]): p for p in folder.glob("step-*") if p.name[5:].isdigit()}


def load(
    path: Path, model: Module, optimizer: Optimizer | Zero | None = None,
    elsewhere: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Fill model and optimiser from a checkpoint; returns its state (step, tokens, scaler).

    `elsewhere`: names of parameters that other stages of a pipeline have.
    """
    state = _read_state(path)
    arrays = [_read(path / f, state["sha256"][f]) for f in FILES[: 1 if optimizer is None else 2]]
    own = {name for name, _ in model.named_parameters()}
    others = set(elsewhere) - own
    arrays[0] = {k: v for k, v in arrays[0].items() if k not in others}
    arrays[1:] = [
        {k: v for k, v in states.items() if k.split(".", 1)[1] not in others}
        for states in arrays[1:]
    ]
    if not all(bool(xp.isfinite(a).all()) for a in arrays[0].values()):
        raise UserError(
            f"checkpoint '{path}' holds weights that are not finite: training had diverged; "
            "delete that folder to use the one before it, and lower --lr"
        )
    try:
        if isinstance(optimizer, Zero):
            _load_sharded(model, optimizer, arrays, state["step"])
            return state
        load_full_state_dict(model, arrays[0])
    except RuntimeError as error:
        raise UserError(f"checkpoint '{path}' is of another model: {_shorter(error)}") from None
    if optimizer is not None:
        restore_optimizer(model, optimizer, arrays[1], state["step"])
    return state


def _load_sharded(model: Module, optimizer: Zero, arrays: list[Arrays], step: int) -> None:
    parts = shards_of(model)
    part = lambda name, array: parts[name].take(array) if name in parts else array
    states = {k: part(k.split(".", 1)[1], v) for k, v in arrays[1].items()}
    mine = {k: part(k, v) for k, v in arrays[0].items()}
    optimizer.load_full_state_dict({"model": mine, "optimizer": states, "step": step})


def optimizer_arrays(model: Module, optimizer: Optimizer) -> Arrays:
    """The optimiser's arrays by parameter name, whole: "exp_avg.wte.weight", …"""
    parts, found = shards_of(model), {}
    for name, p in model.named_parameters():
        for kind, value in optimizer.state.get(p, {}).items():
            if isinstance(value, xp.ndarray):
                found[f"{kind}.{name}"] = parts[name].gather(value) if name in parts else value
    return found


def restore_optimizer(model: Module, optimizer: Optimizer, arrays: Arrays, step: int) -> None:
    params, parts = dict(model.named_parameters()), shards_of(model)
    for key, array in arrays.items():
        kind, name = key.split(".", 1)
        array = parts[name].take(array) if name in parts else array
        p = params[name]
        state = optimizer.state.setdefault(p, {"step": step})
        # or a float64 checkpoint resumed in float32 would mix both
        state[kind] = as_dtype(moved(array, p.device), sum_dtype(p.dtype))


def _contiguous(arrays: Arrays) -> Arrays:
    # safetensors writes raw memory: a transposed view would come back scrambled.
    # (ascontiguousarray would turn a 0-d array into a 1-d array.)
    return {k: xp.asarray(moved(v, "cpu"), order="C") for k, v in arrays.items()}


def _shorter(error: Exception) -> str:
    """Shorten an error that may list every weight of two models to the part that differs."""
    text = str(error)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads((path / "state.json").read_text())
        hashes = {file: state["sha256"][file] for file in FILES}
        known = {"step": state["step"], "tokens": state["tokens"], "sha256": hashes}
        return known | {more: dict(state.get(more, {})) for more in ("scaler", "about")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(path, f"state.json: {type(error).__name__}") from None


def _read(path: Path, sha256: str) -> Arrays:
    try:
        if _sha256(path) != sha256:
            raise _corrupt(path.parent, f"{path.name} differs from its SHA-256")
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _corrupt(path.parent, f"{path.name}: {error}") from None
    # before bfloat16 was a dtype, its bits were written as uint16 (U16), which no tensor has
    return {k: a.view(BFLOAT16) if a.dtype == xp.uint16 else a for k, a in arrays.items()}


def _corrupt(path: Path, what: str) -> UserError:
    return UserError(
        f"checkpoint '{path}' is corrupt ({what}): delete that folder to use the one before it"
    )
