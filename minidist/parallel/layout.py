"""Which part of a parameter a rank holds: for first values, checkpoints and norms of any layout."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..comm import Communicator, all_gather, shard_range
from ..comm.texts import share
from ..kernels import arrays as xp
from ..nn import Module


@dataclass(frozen=True)
class Part:
    """Of a parameter of `shape`, the entries `index` along `dim` (integers, ascending by block)."""

    shape: tuple[int, ...]
    dim: int
    index: xp.ndarray
    comm: Communicator  # the ranks among which the whole is shared out

    def of(self, whole: xp.ndarray) -> xp.ndarray:
        """This rank's part of the whole, in memory of its own."""
        index = xp.at_home_of(whole, self.index)
        return xp.ascontiguousarray(xp.take(whole, index, axis=self.dim))

    def whole(self, mine: xp.ndarray) -> xp.ndarray:
        """Everyone's parts put together, on every rank; all ranks call it."""
        rows = xp.ascontiguousarray(xp.moveaxis(mine, self.dim, 0))
        places = all_gather(self.comm, self.index)
        joined = xp.empty_like(rows, shape=(len(places), *rows.shape[1:]))
        joined[xp.at_home_of(rows, places)] = all_gather(self.comm, rows)
        return xp.ascontiguousarray(xp.moveaxis(joined, 0, self.dim))


def shares(n: int, comm: Communicator, unit: int = 1, blocks: int = 1) -> xp.ndarray:
    """The indices of this rank's share of n: of each of `blocks` equal blocks, whole units of it.

    Queries, keys and values under one another are 3 blocks, and a head is a unit.

    >>> from minidist.comm.alone import Alone
    >>> shares(4, Alone(), unit=2).tolist()
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


def parts_of(model: Module) -> dict[str, Part]:
    """The parameters of which this rank holds a part, by name; all others are whole everywhere."""
    found = {}
    for prefix, module in model.named_modules():
        for name, part in getattr(module, "parts", {}).items():
            found[f"{prefix}.{name}" if prefix else name] = part
    return found


def sharded(model: Module) -> list:
    """The parameters of which this rank holds a part, each once."""
    parts = parts_of(model)
    return [p for name, p in model.named_parameters() if name in parts]


def whole_state(model: Module) -> dict[str, xp.ndarray]:
    """The state_dict of the whole model, on every rank: what a checkpoint holds in any layout."""
    parts, state = parts_of(model), model.state_dict()
    return {k: parts[k].whole(v) if k in parts else v for k, v in state.items()}


def joined_stages(arrays: dict[str, xp.ndarray], comm: Communicator) -> dict[str, xp.ndarray]:
    """The arrays of all stages of a pipeline, by name, on rank 0 of `comm`; all its ranks call it.

    Of a name that several have, rank 0 takes the first's: tied copies are equal.
    """
    told = json.dumps([[name, a.shape, a.dtype.name] for name, a in arrays.items()])
    texts, found = share(comm, told.encode()), dict(arrays)
    if comm.rank:
        for array in arrays.values():
            comm.send(array, 0)
        return found
    for rank in range(1, comm.size):
        for name, shape, dtype in json.loads(texts[rank]):
            found.setdefault(name, comm.recv(xp.empty(shape, dtype), rank))
    return found


def load_whole_state(model: Module, state: dict[str, xp.ndarray]) -> None:
    """Fill a model in any layout from the state_dict of the whole one."""
    parts = parts_of(model)
    fits = lambda k, v: k in parts and v.shape == parts[k].shape
    model.load_state_dict({k: parts[k].of(v) if fits(k, v) else v for k, v in state.items()})
