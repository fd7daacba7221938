"""The global gradient norm where parameters are shared out: every distinct entry counts once.

Bugs that shipped: replicated parameters counted once a rank, expert or pipeline parts left out, a
tied embedding counted on both of its stages, ranks that clip by norms of their own. The ranks' sums
of squares are added exactly: the coefficient is the same bits everywhere (else the ranks drift
apart), and the same as on one process if the stages of a pipeline have whole parameters.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

from ..comm import Communicator, all_gather
from ..kernels import arrays as xp
from ..kernels.vector_norm import exact, squares
from ..nn.utils import clip_grad_norm_ as clip_alone
from ..nn.utils import clip_grads_with_norm_
from ..tensor.tensor import Tensor


def clip_grad_norm_(
    params: Iterable[Tensor], max_norm: float, comm: Communicator,
    shared_out: Collection[Tensor] = (), shards: Communicator | None = None,
    stages: Communicator | None = None, counted: Collection[Tensor] = (),
) -> Tensor:  # fmt: skip
    """As nn.utils.clip_grad_norm_, of a model of whose `shared_out` parameters comm's ranks have
    parts; the others are whole and equal on all of them. Returns the norm of the whole gradient.

    `shards`: ranks that each have pieces of their own of all of these (ZeRO). `stages`: ranks that
    have parameters of their own (a pipeline), but for those that another rank has `counted`.
    """
    params = list(params)
    groups = [g for g in (shards, comm, stages) if g is not None and g.size > 1]
    if not groups:
        return clip_alone(params, max_norm)
    held, elsewhere = {id(p) for p in shared_out}, {id(p) for p in counted}
    mine = (p for p in params if id(p) in held or comm.rank == 0)
    grads = [p.grad.data for p in mine if p.grad is not None and id(p) not in elsewhere]
    norm = math.sqrt(max(math.fsum(_of_all(groups, squares(grads))), 0.0))
    clip_grads_with_norm_(params, max_norm, norm)
    dtypes: list[Any] = [p.dtype for p in params if p.dtype.kind == "f"]
    return Tensor(norm, dtype=xp.result_type(*dtypes) if dtypes else None)


def _of_all(groups: list[Communicator], terms: list[float]) -> list[float]:
    """Terms of all ranks of all groups, as few as one rank's."""
    for group in groups:
        terms = exact(all_gather(group, xp.array(exact(terms)), label="norm").tolist())
    return terms
