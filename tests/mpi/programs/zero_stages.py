"""Three steps by each ZeRO stage; every rank writes its losses, SHA-256s and what it holds."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import weakref
from pathlib import Path

import numpy as np

from minidist import Tensor, manual_seed, nn, optim
from minidist.comm import Ledger, barrier, mpi_world, shard_range
from minidist.nn import functional as F
from minidist.parallel.zero.optimizer import Zero
from minidist.parallel.zero.stage3 import Zero3


class Tied(nn.Module):
    def __init__(self):
        self.wte = nn.Embedding(13, 5)
        shapes = [(5, 9), (9, 4), (4, 5)]
        self.h = nn.ModuleList(nn.Sequential(nn.Linear(*s), nn.GELU()) for s in shapes)

    def forward(self, index):
        x = self.wte(index)
        for block in self.h:
            x = block(x)
        return F.linear(x, self.wte.weight)


def sharded(comm, stage, **options):
    manual_seed(3)
    options = {"lr": 0.05, "weight_decay": 0.1, "algorithm": "ordered", **options}
    if stage == 3:
        return Zero3(Tied(), comm, optim.AdamW, **options)
    return Zero(Tied(), comm, optim.AdamW, stage=stage, bucket_bytes=100, **options)


def train(comm, stage):
    zero, told = sharded(comm, stage), []
    for step in range(3):
        tokens = np.random.default_rng(step).integers(0, 13, (2, 11))
        first, last = shard_range(11, comm.size, comm.rank)
        x, y = (Tensor(row[first:last]) for row in tokens)
        loss = F.cross_entropy(zero.model(x), y, reduction="sum") / 11
        loss.backward()
        zero.sum_gradients()
        norm = zero.clip_grad_norm_(0.5)
        zero.step()
        told.append([loss.item(), norm.item(), zero.nbytes()])
        zero.zero_grad()
    return told, zero.full_state_dict()


def digest(state):
    arrays = {**state["model"], **state["optimizer"]}
    text = "".join(f"{k} {arrays[k].dtype} {arrays[k].shape} " for k in sorted(arrays))
    whole = text.encode() + b"".join(arrays[k].tobytes() for k in sorted(arrays))
    return hashlib.sha256(whole).hexdigest()


def results(comm):
    found = {}
    for stage in (1, 2, 3):
        with Ledger(comm) as ledger:
            told, state = train(comm, stage)
        sent = sorted([name, *both] for (name,), both in ledger.by("collective").items())
        found[f"stage {stage}"] = [told, digest(state), sent]
    barrier(comm)
    return found


def weights_left(comm):
    """How many gathered arrays outlive forward, and then backward."""
    zero, gathered = sharded(comm, 3), []
    note = lambda layer, *_: gathered.append(weakref.ref(layer.weight.data.base))
    for layer in (m for m in zero.model.modules() if isinstance(m, nn.Linear)):
        layer.register_forward_hook(note)
    loss = zero.model(Tensor(np.arange(11))).sum()
    left = [_alive(gathered)]
    loss.backward()
    zero.sum_gradients()
    return [*left, _alive(gathered), len(gathered)]


def _alive(references):
    gc.collect()
    return sum(reference() is not None for reference in references)


if __name__ == "__main__":
    comm = mpi_world()
    if "mutant" in sys.argv:
        Zero._gather_updated = lambda self: None
    told = {**results(comm), "left": weights_left(comm)}
    Path(sys.argv[1], f"{comm.rank}.json").write_text(json.dumps(told))
