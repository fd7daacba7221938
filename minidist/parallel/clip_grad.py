"""The global gradient norm where parameters are sharded: every distinct entry is counted once.

How it works, in three steps that every way to clip shares:
1. Each rank adds the squares of the gradients that it must count (kernels/vector_norm.py: squares).
   Tensor-parallel rank 0 counts the replicated parameters, every rank its shards.
2. `total_norm` adds these sums over the ranks, exactly. So the norm has the same bits on every rank
   (otherwise the ranks would drift apart), and those of one process that has the same gradients.
3. nn.utils.clip_grads_with_norm_ scales the gradients.

Bugs that shipped elsewhere: replicated parameters counted once a rank, experts or pipeline stages
left out, a tied embedding counted on both of its stages, ranks that clip by different norms.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ..comm import Communicator, all_gather
from ..kernels import arrays as xp
from ..kernels.vector_norm import exact, squares
from ..nn.utils import clip_grad_norm_ as clip_one_process
from ..nn.utils import clip_grads_with_norm_
from ..tensor.flat import whole
from ..tensor.tensor import Tensor


def clip_grad_norm_(
    params: Iterable[Tensor], max_norm: float, comm: Communicator,
    sharded: Collection[Tensor] = (), shards: Communicator | None = None,
    stages: Communicator | None = None, counted: Collection[Tensor] = (),
) -> Tensor:  # fmt: skip
    """As nn.utils.clip_grad_norm_, by the norm of the whole model's gradient, which it returns.

    `comm`: the tensor-parallel ranks. Each has a shard of the parameters `sharded`; all others are
    replicated, and only rank 0 counts them.
    `shards`: ranks that each have different entries of all parameters (ZeRO).
    `stages`: ranks that each have different parameters (a pipeline), except those of `counted`,
    which another stage has too and counts (a tied embedding).
    """
    params = list(params)
    groups = [g for g in (shards, comm, stages) if g is not None and g.size > 1]
    if not groups:
        return clip_one_process(params, max_norm)
    on_every_rank, elsewhere = {id(p) for p in sharded}, {id(p) for p in counted}
    here = (p for p in params if id(p) in on_every_rank or comm.rank == 0)
    norm = total_norm([p for p in here if id(p) not in elsewhere], groups)
    clip_grads_with_norm_(params, max_norm, norm)
    dtypes: list[Any] = [p.dtype for p in params if p.dtype.kind == "f"]
    return Tensor(norm, dtype=xp.result_type(*dtypes) if dtypes else None)


def total_norm(params: Iterable[Tensor], groups: Sequence[Communicator]) -> float:
    """The 2-norm of the gradients that all ranks of all groups count; all of them call it."""
    terms = squares(whole(p.grad.data for p in params if p.grad is not None))
    for group in groups:
        # A few numbers a rank, whose exact sum is the rank's sum of squares.
        terms = exact(all_gather(group, xp.array(exact(terms)), label="norm").tolist())
    return math.sqrt(max(math.fsum(terms), 0.0))
