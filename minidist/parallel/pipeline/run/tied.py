"""Tied parameters: copies on several ranks count as one parameter, so their gradients are summed.

A GPT's token embedding is such a parameter: the first stage looks tokens up in it, and the last one
computes logits with it.
"""

from __future__ import annotations

import json

from ....comm import Communicator, all_gather_bytes, all_reduce
from ....kernels import arrays as xp
from ....kernels.half_precision import summable
from ....nn import Module, Parameter
from ...buckets import gradient, start_alike, unpack


class Tied:
    """The parameters of `module` whose names other ranks of `comm` have too.

    All ranks create it together. All copies start with the values of the lowest rank; with equal
    gradients and equal optimisers they stay equal.
    """

    def __init__(self, module: Module, comm: Communicator):
        self.groups: list[tuple[Communicator, list[Parameter]]] = []
        # Copies that a lower rank has too: global norms count only the lowest rank's copy
        self.counted: list[Parameter] = []
        own = dict(module.named_parameters())
        self.names = set(own)  # parameter names of all stages together
        if comm.size == 1:
            return
        owners: dict[str, list[int]] = {}
        for rank, text in enumerate(all_gather_bytes(comm, json.dumps(list(own)).encode())):
            for name in json.loads(text):
                owners.setdefault(name, []).append(rank)
        self.names |= owners.keys()
        sets = sorted({tuple(ranks) for ranks in owners.values() if len(ranks) > 1})
        for ranks in sets:
            group = comm.split(0 if comm.rank in ranks else None)
            if group is not None:
                names = sorted(name for name, r in owners.items() if tuple(r) == ranks)
                self.groups.append((group, start_alike([own[name] for name in names], group)))
                self.counted += [own[name] for name in names if comm.rank != ranks[0]]

    def sum_gradients(self) -> None:
        """Sum the copies' gradients: once, after the last micro-batch."""
        for group, params in self.groups:
            for p in params:
                g = gradient(p)
                flat = xp.ascontiguousarray(summable(g)).reshape(-1)
                total = all_reduce(group, flat, algorithm="ordered", label="tied gradients")
                unpack(total, [g])
