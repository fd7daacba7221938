"""The global gradient norm where parameters are shared out: every distinct entry counts once.

Bugs that shipped: replicated parameters counted once a rank, expert or pipeline parts left out,
ranks that clip by norms of their own. The norm is a sum of squares in float64, added up in the
order of ranks, so that the coefficient is the same bits everywhere: else the ranks drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from ..comm import Communicator, all_reduce
from ..kernels import arrays as np
from ..kernels.vector_norm import vector_norm
from ..nn.utils import clip_grad_norm_ as clip_alone
from ..nn.utils import clip_grads_with_norm_
from ..tensor import Tensor


def clip_grad_norm_(
    params: Iterable[Tensor], max_norm: float, comm: Communicator, shared_out: Collection[Tensor],
    shards: Communicator | None = None,
) -> Tensor:  # fmt: skip
    """As nn.utils.clip_grad_norm_, of a model of whose `shared_out` parameters comm's ranks have
    parts; the others are whole and equal on all of them. Returns the norm of the whole gradient.

    `shards`: ranks that each have pieces of their own of all of these (ZeRO)."""
    params = list(params)
    if comm.size == 1 and (shards is None or shards.size == 1):
        return clip_alone(params, max_norm)
    held, parts, wholes = {id(p) for p in shared_out}, [], []  # type: set, list, list
    for p in params:
        if p.grad is not None:
            (parts if id(p) in held else wholes).append(p.grad.data)
    squares = np.array([float(vector_norm(parts, 2.0)) ** 2])
    if comm.rank == 0:
        squares += float(vector_norm(wholes, 2.0)) ** 2
    for group in filter(None, (shards, comm)):
        squares = all_reduce(group, squares, algorithm="ordered", label="norm")
    norm = math.sqrt(squares[0])
    clip_grads_with_norm_(params, max_norm, norm)
    dtypes = [p.dtype for p in params if p.dtype.kind == "f"]
    return Tensor(norm, dtype=np.result_type(*dtypes) if dtypes else None)
