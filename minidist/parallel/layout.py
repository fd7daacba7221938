"""How a parameter is sharded: its initial values, its checkpoint and its norm in any layout.

A tensor-parallel layer describes each of its sharded parameters by a Shard, in `module.shards`. All
that depends on the layout is written from that description:

- `shard_parameter` and `init_shard_` give a rank the entries of the full initial weights;
- `full_state_dict` and `load_full_state_dict` go to and from the state_dict of the full model;
- `sharded_parameters` are those whose squares every rank must add to the gradient norm.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..comm import Communicator, all_gather, all_gather_bytes, shard_range
from ..kernels import arrays as xp
from ..nn import Module, Parameter
from ..tensor.tensor import Tensor


@dataclass(frozen=True)
class Shard:
    """The entries `index` along `dim` of a parameter of the full `shape`.

    `index` holds integers, ascending within each block. The ranks of `comm` together have all.
    """

    shape: tuple[int, ...]
    dim: int
    index: xp.ndarray
    comm: Communicator

    def take(self, full: xp.ndarray) -> xp.ndarray:
        """This rank's entries of the full array, as a copy."""
        index = xp.at_home_of(full, self.index)
        return xp.ascontiguousarray(xp.take(full, index, axis=self.dim))

    def gather(self, local: xp.ndarray) -> xp.ndarray:
        """The full array on every rank, from every rank's local one; all ranks call it."""
        rows = xp.ascontiguousarray(xp.moveaxis(local, self.dim, 0))
        places = all_gather(self.comm, self.index)
        joined = xp.empty_like(rows, shape=(len(places), *rows.shape[1:]))
        joined[xp.at_home_of(rows, places)] = all_gather(self.comm, rows)
        return xp.ascontiguousarray(xp.moveaxis(joined, 0, self.dim))


def shard_indices(n: int, comm: Communicator, unit: int = 1, blocks: int = 1) -> xp.ndarray:
    """The indices of this rank's shard of n entries: whole units of each of `blocks` equal blocks.

    Queries, keys and values one below the other are 3 blocks, and a head is a unit.

    >>> from minidist.comm.comm_self import CommSelf
    >>> shard_indices(4, CommSelf(), unit=2).tolist()
    [0, 1, 2, 3]
    """
    size = n // blocks
    if n % blocks or size % unit:
        raise ValueError(f"{n} in {blocks} blocks of whole units of {unit}: sizes do not divide")
    if size // unit < comm.size:
        raise ValueError(
            f"{size // unit} units of {unit} on {comm.size} tensor-parallel ranks: some would "
            "have none; use fewer ranks"
        )
    first, last = (unit * k for k in shard_range(size // unit, comm.size, comm.rank))
    return xp.concatenate([xp.arange(b * size + first, b * size + last) for b in range(blocks)])


# Initial weights: the full array is drawn on every rank, and each rank keeps its shard of it. So
# the weights depend on the seed and not on the number of ranks.


def shard_parameter(
    module: Module, name: str, full: Tensor | None, dim: int, index: xp.ndarray,
    comm: Communicator,
) -> Any:  # fmt: skip
    """This rank's shard of a full parameter, described in module.shards[name].

    `full` is None for a parameter that the layer does not have (a bias), and so is the result.
    """
    if full is None:
        return None
    shard = Shard(full.shape, dim, index, comm)
    vars(module).setdefault("shards", {})[name] = shard
    return Parameter(Tensor.of(shard.take(full.data)))


class ParallelLayer(Module):
    """A layer with shards on each rank. Its repr shows the whole sizes, then those of the shard."""

    shards: dict[str, Shard] = {}
    comm: Communicator

    def extra_repr(self) -> str:
        whole = super().extra_repr()
        name = next(iter(self.shards), None)
        if name is None or self.comm.size == 1:
            return whole
        shape = tuple(getattr(self, name).shape)
        return f"{whole}; rank {self.comm.rank} of {self.comm.size} has {name} {shape}"


def init_shard_(
    param: Tensor, shard: Shard | None, draw: Callable[[tuple[int, ...]], xp.ndarray]
) -> None:
    """Fill `param` with this rank's entries of draw(full shape); without a shard it is full.

    For models that draw their weights by name: `shard` is shards_of(model).get(name).
    """
    full = draw(param.shape if shard is None else shard.shape)
    param.data[...] = full if shard is None else shard.take(full)


# A model in any layout


def shards_of(model: Module) -> dict[str, Shard]:
    """The sharded parameters by name; all others are replicated."""
    found = {}
    for prefix, module in model.named_modules():
        for name, shard in getattr(module, "shards", {}).items():
            found[f"{prefix}.{name}" if prefix else name] = shard
    return found


def sharded_parameters(model: Module) -> list[Parameter]:
    """The parameters that are sharded, so this rank has a part of each; each is listed once."""
    shards = shards_of(model)
    return [p for name, p in model.named_parameters() if name in shards]


def full_state_dict(model: Module) -> dict[str, xp.ndarray]:
    """The state_dict of the full model, on every rank; all ranks call it."""
    shards, state = shards_of(model), model.state_dict()
    return {k: shards[k].gather(v) if k in shards else v for k, v in state.items()}


def load_full_state_dict(model: Module, state: dict[str, xp.ndarray]) -> None:
    """Fill a model in any layout from the state_dict of the full one."""
    shards = shards_of(model)
    fits = lambda k, v: k in shards and v.shape == shards[k].shape
    model.load_state_dict({k: shards[k].take(v) if fits(k, v) else v for k, v in state.items()})


def gather_stages(arrays: dict[str, xp.ndarray], comm: Communicator) -> dict[str, xp.ndarray]:
    """The arrays of all stages of a pipeline, by name, on rank 0 of `comm`; all its ranks call it.

    If several ranks have an array of one name, rank 0 takes the first: tied copies are equal.
    """
    listed = json.dumps([[name, a.shape, a.dtype.name] for name, a in arrays.items()])
    texts, found = all_gather_bytes(comm, listed.encode()), dict(arrays)
    if comm.rank:
        for array in arrays.values():
            comm.send(array, 0)
        return found
    for rank in range(1, comm.size):
        for name, shape, dtype in json.loads(texts[rank]):
            found.setdefault(name, comm.recv(xp.empty(shape, dtype), rank))
    return found
