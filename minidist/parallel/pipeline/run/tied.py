"""Tied parameters: one that several stages have is one parameter, whose gradients are summed."""

from __future__ import annotations

import json

from ....comm import Communicator, all_reduce
from ....comm.texts import share
from ....kernels import arrays as xp
from ....kernels.halves import summable
from ....nn import Module, Parameter
from ...buckets import gradient, unpack


class Tied:
    """The parameters of `module` whose names other ranks of `comm` have too.

    All ranks make it together. Copies must begin equal, as they do where first values depend on
    the name; with equal gradients and optimisers they stay so.
    """

    def __init__(self, module: Module, comm: Communicator):
        self.groups: list[tuple[Communicator, list[Parameter]]] = []
        self.counted: list[Parameter] = []  # that a rank before this one has: for global norms
        mine = dict(module.named_parameters())
        self.names = set(mine)  # of all stages together
        if comm.size == 1:
            return
        owners: dict[str, list[int]] = {}
        for rank, text in enumerate(share(comm, json.dumps(list(mine)).encode())):
            for name in json.loads(text):
                owners.setdefault(name, []).append(rank)
        self.names |= owners.keys()
        sets = sorted({tuple(ranks) for ranks in owners.values() if len(ranks) > 1})
        for ranks in sets:
            group = comm.split(0 if comm.rank in ranks else None)
            if group is not None:
                names = sorted(name for name, r in owners.items() if tuple(r) == ranks)
                self.groups.append((group, [mine[name] for name in names]))
                self.counted += [mine[name] for name in names if comm.rank != ranks[0]]

    def sum_gradients(self) -> None:
        """Sum what backward left in each copy: after the last micro-batch, once."""
        for group, params in self.groups:
            for p in params:
                g = gradient(p)
                flat = xp.ascontiguousarray(summable(g)).reshape(-1)
                total = all_reduce(group, flat, algorithm="ordered", label="tied gradients")
                unpack(total, [g])
