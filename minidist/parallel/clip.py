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
    params: Iterable[Tensor], max_norm: float, comm: Communicator, shared_out: Collection[Tensor]
) -> Tensor:
    """As nn.utils.clip_grad_norm_, of a model of whose `shared_out` parameters comm's ranks have
    parts; the others are whole and equal on all ranks. Returns the norm of the whole gradient."""
    params = list(params)
    if comm.size == 1:
        return clip_alone(params, max_norm)
    parts: list[np.ndarray] = []
    wholes: list[np.ndarray] = []
    held = {id(p) for p in shared_out}
    for p in params:
        if p.grad is not None:
            (parts if id(p) in held else wholes).append(p.grad.data)
    squares = float(vector_norm(parts, 2.0)) ** 2
    if comm.rank == 0:
        squares += float(vector_norm(wholes, 2.0)) ** 2
    norm = math.sqrt(all_reduce(comm, np.array([squares]), algorithm="ordered", label="norm")[0])
    clip_grads_with_norm_(params, max_norm, norm)
    return Tensor(norm, dtype=np.result_type(*(g.dtype for g in [*parts, *wholes])))
