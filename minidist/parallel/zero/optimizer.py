"""ZeRO, stages 1 and 2: each rank keeps a shard of the optimiser's states, then of gradients too.

How it works (Rajbhandari et al. 2020, arXiv 1910.02054):
1. The parameters are joined into flat buckets, and each rank owns one shard of each bucket. The
   optimiser of a rank updates its shards only, and has states for them only.
2. Gradients are reduce-scattered: each rank gets the sum over the ranks for its shard.
3. After the update the shards are all-gathered, and every rank has the full parameters again.
4. Stage 1 keeps the local gradients; stage 2 frees a bucket's gradients as soon as they are summed.

A reduce-scatter and an all-gather send together as many bytes as one all-reduce. The loss of a rank
is its own sum divided by the global count, as in data/sum_gradients.py.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

from ...autograd.versions import mark_changed
from ...comm import Communicator, Request, all_gather_bytes, all_reduce
from ...kernels import arrays as xp
from ...kernels.half_precision import as_dtype, sum_dtype
from ...nn import Module, Parameter
from ...nn.utils import clip_grads_with_norm_
from ...optim import Muon, Optimizer
from ...tensor.tensor import Tensor
from ..buckets import (
    MIB,
    GradientSync,
    check_order,
    fill_buckets,
    frozen_of,
    start_alike,
    trainable,
)
from ..clip_grad import total_norm
from .flat import FlatParameter, Piece, bytes_by_use


class Zero(GradientSync):
    """An optimiser whose states are sharded over the ranks of `comm`.

    It takes a model, a communicator, and an optimiser's class with its arguments; `params` may be
    groups, as for any optimiser. All ranks create it together, and start with the parameters and
    buffers of rank 0. A step is backward(), sum_gradients(), clip_grad_norm_(…) if wanted, step(),
    zero_grad(). `average=True` divides the sums by the number of ranks: use it if the loss is the
    mean over this rank's rows.

    Stage 1 sums gradients in sum_gradients(), and writes the sums over this rank's elements of each
    .grad. Stage 2 sums a bucket as soon as backward has filled it, keeps the shard and frees the
    rest: after backward() no .grad is left, and a second backward() adds to the shard. Inside
    no_sync() it keeps full local gradients instead, which the next backward() sums.

    With `replicate_comm`, whose ranks have the same shards, gradients are summed over it as well
    (hybrid sharding).
    """

    stages: tuple[int, ...] = (1, 2)

    def __init__(
        self, model: Module, comm: Communicator, optimizer_class: type[Optimizer],
        params: Iterable[Any] | None = None, *, stage: int = 2, bucket_bytes: int = 4 * MIB,
        algorithm: str = "ring", replicate_comm: Communicator | None = None, average: bool = False,
        **defaults: Any,
    ):  # fmt: skip
        if stage not in self.stages:
            raise ValueError(f"{type(self).__name__}: stage {stage}: want one of {self.stages} "
                             "(stage 3 is Zero3, in stage3.py)")  # fmt: skip
        check_order(type(self).__name__, model, comm)
        self.model, self.comm, self.stage = model, comm, stage
        self.algorithm, self.replicate_comm = algorithm, replicate_comm
        self.bucket_bytes = bucket_bytes
        groups = _groups(list(model.parameters()) if params is None else list(params))
        _check(model, optimizer_class, groups)
        replicas = [comm] if replicate_comm is None else [comm, replicate_comm]
        start_alike(model, *replicas)
        self.frozen = frozen_of(model)
        self.op = "mean" if average else "sum"
        self.flats = self._make_flats()
        own = [{**g, "params": self._own(g["params"])} for g in groups]
        self.optimizer = optimizer_class(own, **defaults)
        self.next, self.ready = 0, set[Parameter]()  # the flat that is summed next; full gradients
        self.pending: tuple[FlatParameter, Request] | None = None
        self.summed = False
        self.handles = [] if stage == 1 else [
            p.register_post_accumulate_grad_hook(functools.partial(self._arrived, k))
            for k, flat in enumerate(self.flats) for p in flat.params
        ]  # fmt: skip

    def _make_flats(self) -> list[FlatParameter]:
        """Buckets, the last layers' first: theirs are the first gradients that are ready."""
        params = trainable(self.model.parameters())
        buckets = fill_buckets(params[::-1], self.bucket_bytes)
        return [FlatParameter(f"bucket {k}", b, self.comm) for k, b in enumerate(buckets)]

    def _own(self, params: Iterable[Parameter]) -> list[Parameter]:
        """This rank's pieces of some parameters: a group's hyper-parameters stay with them."""
        wanted = set(params)
        return [piece.own for piece in self.pieces if piece.param in wanted]

    @property
    def pieces(self) -> list[Piece]:
        return [piece for flat in self.flats for piece in flat.pieces]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    # Gradients

    def _arrived(self, number: int, p: Parameter) -> None:
        """The hook: a gradient is complete. Sum the complete flats, in one order on all ranks."""
        if number < self.next:  # a further backward(): finish the sums of the one before
            self._flush()
        if not self.require_backward_grad_sync:
            return
        self.ready.add(p)
        while self.next < len(self.flats) and self.ready.issuperset(self.flats[self.next].params):
            self._start_next()

    def _start_next(self) -> None:
        """Start to sum a flat; only one sum is under way at a time."""
        self._finish()
        flat, self.next = self.flats[self.next], self.next + 1
        self.pending = flat, flat.start_reducing(self.algorithm, self.op)
        if self.stage > 1:
            for p in flat.params:
                p.grad = None

    def _finish(self) -> None:
        if self.pending is None:
            return
        (flat, request), self.pending = self.pending, None
        summed = request.wait()  # (n,), this rank's shard
        if self.replicate_comm is not None:
            all_reduce(self.replicate_comm, summed, self.op, self.algorithm, out=summed)
        (flat.overwrite_gradient if self.stage == 1 else flat.add_gradient)(summed)

    def _flush(self) -> None:
        while self.next < len(self.flats):
            self._start_next()
        self._finish()
        self.next = 0
        self.ready.clear()

    def sum_gradients(self) -> None:
        """Sum over the ranks what backward() has not summed yet; inside no_sync() nothing."""
        self.warn_if_unfrozen()
        if self.require_backward_grad_sync:
            self._flush()
            self.summed = True

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """g ← g · min(1, max_norm / (norm + 1e-6)), norm over the whole gradient; returns norm.

        For parameters that are sharded by tensor parallelism too, see parallel/clip_grad.py.
        """
        shards = [piece.own for piece in self.pieces]
        norm = total_norm(shards, [self.comm])
        clip_grads_with_norm_(shards, max_norm, norm)
        return Tensor.of(xp.array(norm, xp.float64))

    def step(self) -> None:
        """Update this rank's shards, and gather the full parameters from all ranks'."""
        if not self.summed:
            raise RuntimeError("step() without gradients: call backward(), then sum_gradients()")
        self.optimizer.step()
        self._gather_updated()

    def _gather_updated(self) -> None:
        for flat in self.flats:
            flat.full[...] = flat.gather(flat.shard, "parameter")  # type: ignore[index]
            mark_changed(flat.shard, f"{type(self).__name__}.step")

    def zero_grad(self) -> None:
        self.summed = False
        for flat in self.flats:
            flat.drop_gradient()

    # State, in the layout of a checkpoint of one process

    def gathered(self, write: bool = False) -> contextlib.AbstractContextManager:
        """Inside, the parameters are full; with `write`, changes to them are kept."""
        return contextlib.nullcontext()

    def full_state_dict(self) -> dict[str, Any]:
        """{"model": arrays by name, "optimizer": {"exp_avg.<name>": …}, "step": …}, on every rank.

        All ranks call it. It takes memory for the full model and the full optimiser.
        """
        with self.gathered():
            model = {k: v.copy() for k, v in self.model.state_dict().items()}
        states = self.optimizer.state
        step = max((int(s.get("step", 0)) for s in states.values()), default=0)
        step = int(all_reduce(self.comm, xp.array([step]), "max")[0])
        return {"model": model, "optimizer": dict(self._state_arrays()), "step": step}

    def _state_arrays(self) -> Iterator[tuple[str, xp.ndarray]]:
        keys = self._state_keys()
        kinds = sorted({key.split(".", 1)[0] for key in keys})
        names = self._names()
        for flat in self.flats:
            for kind in kinds:
                if all(f"{kind}.{names[p]}" not in keys for p in flat.params):
                    continue
                local = xp.zeros_like(flat.shard, sum_dtype(flat.shard.dtype))  # (n,)
                for piece in flat.pieces:
                    local[piece.at] = self.optimizer.state[piece.own].get(kind, 0)
                for p, array in flat.views(flat.gather(local, kind)):
                    if f"{kind}.{names[p]}" in keys:
                        yield f"{kind}.{names[p]}", array

    def _state_keys(self) -> set[str]:
        """The states of all ranks: a rank without a piece of a parameter has no state of it."""
        names, states = self._names(), self.optimizer.state
        local = [f"{kind}.{names[piece.param]}" for piece in self.pieces
                 for kind in states[piece.own] if kind != "step"]  # fmt: skip
        texts = all_gather_bytes(self.comm, "\n".join(local).encode())
        return {key for text in texts for key in text.decode().split("\n") if key}

    def _names(self) -> dict[Parameter, str]:
        return {p: name for name, p in self.model.named_parameters()}

    def load_full_state_dict(self, state: dict[str, Any]) -> None:
        """Take this rank's shards of a full_state_dict(), which any layout may have made."""
        with self.gathered(write=True):
            self.model.load_state_dict(state["model"])
        by_name: dict[str, dict[str, xp.ndarray]] = {}
        for key, array in state["optimizer"].items():
            kind, name = key.split(".", 1)
            by_name.setdefault(name, {})[kind] = array
        names = self._names()
        for piece in self.pieces:
            arrays, own = by_name.get(names[piece.param], {}), self.optimizer.state[piece.own]
            own.clear()
            for kind, array in arrays.items():
                local = xp.at_home_of(piece.own.data, array.reshape(-1)[piece.part].copy())
                own[kind] = as_dtype(local, sum_dtype(piece.own.dtype))
            if arrays:
                own["step"] = state["step"]

    def nbytes(self) -> dict[str, int]:
        """Bytes of parameters, gradients and optimiser on this rank now."""
        tensors = [*self.model.parameters(), *(p.own for p in self.pieces)]
        return bytes_by_use(tensors, self.optimizer.state, self._shards())

    def _shards(self) -> list[xp.ndarray]:
        return [flat.shard for flat in self.flats]

    def close(self) -> None:
        """Leave the model as an ordinary one."""
        for handle in self.handles:
            handle.remove()
        self.handles = []


def _groups(params: list[Any]) -> list[dict[str, Any]]:
    groups = params if params and isinstance(params[0], dict) else [{"params": params}]
    return [{**g, "params": list(g["params"])} for g in groups]


def _check(model: Module, optimizer_class: type, groups: list[dict[str, Any]]) -> None:
    """Refuse arguments that would silently train a wrong model, or are of the wrong kind."""
    if not isinstance(optimizer_class, type):
        raise TypeError(
            f"ZeRO needs the optimiser's class, got {type(optimizer_class).__name__}: pass "
            "optim.AdamW itself, and its arguments by name (lr=1e-3)"
        )
    if issubclass(optimizer_class, Muon):
        raise TypeError(
            "ZeRO updates stretches of parameters, and Muon needs whole matrices: use an "
            "elementwise optimiser (SGD, Adagrad, RMSprop, Adam, AdamW, Lion)"
        )
    given = [p for g in groups for p in g["params"]]
    if len({id(p) for p in given}) < len(given):
        raise ValueError("ZeRO: a parameter is given twice: it would be updated twice")
    theirs = {p: name for name, p in model.named_parameters() if p.requires_grad}
    if strangers := set(given) - set(model.parameters()):
        shapes = ", ".join(str(p.shape) for p in strangers)
        raise ValueError(f"ZeRO: parameters of shape {shapes} in `params` are not the model's")
    if not theirs:
        raise ValueError("ZeRO: no parameter of the model requires grad: there is nothing to train")
    if forgotten := [name for p, name in theirs.items() if p not in set(given)]:
        raise ValueError(
            f"ZeRO: {', '.join(forgotten)} in no group: add a group or requires_grad_(False)"
        )
