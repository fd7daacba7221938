"""Forward only: the schedule of evaluation, with the stages where training has them."""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import UserError
from ..actions import FORWARD, Action, Schedule


def forward_only(rank_of: Sequence[int], microbatches: int) -> Schedule:
    """Send every micro-batch through all stages; rank_of[stage] is any placement.

    Each rank's forwards are in the order of micro-batch + stage, like a wave. That sum rises from
    stage to stage and from micro-batch to micro-batch, so no two ranks ever wait for each other. If
    two sums are equal, the later stage comes first. Raises UserError if a rank has no stage.

    >>> [[str(step) for step in order] for order in forward_only((0, 1, 0), 2).orders]
    [['0F0', '0F1', '2F0', '2F1'], ['1F0', '1F1']]
    """
    ranks = range(1 + max(rank_of, default=-1))
    if set(rank_of) != set(ranks) or not ranks or microbatches < 1:
        raise UserError(
            f"forward of {microbatches} micro-batches, stages on ranks {tuple(rank_of)}: want at "
            "least 1 micro-batch, and a stage on every rank from 0 on"
        )
    wave = sorted(
        (microbatch + stage, -stage, microbatch)
        for stage in range(len(rank_of))
        for microbatch in range(microbatches)
    )
    actions = [Action(-stage, FORWARD, microbatch) for _, stage, microbatch in wave]
    orders = ([a for a in actions if rank_of[a.stage] == rank] for rank in ranks)
    return Schedule.of(orders, "forward")
