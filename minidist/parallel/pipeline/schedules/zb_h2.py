"""ZB-H2: twice the warm-up, so that no rank waits between its first action and its last.

1. Stage r is on rank r; backwards are split into I and W, as in zb_h1.py.
2. Warm-up: 2(p - 1 - r) forwards, twice as many as 1F1B's, then one forward and one I in turn.
3. Rank r does each W when 2r more I are done.
4. Within a rank's span the bubble is (p - 1)(tf + tI - 2tW): none if the times are equal. The ranks
   still start one after another, which takes (p - 1)tf.
5. Every rank keeps the activations of 2p - 1 micro-batches. Filling the pipeline takes as many, so
   m >= 2p - 1 is best, though any m runs.

Qi et al. 2023, arXiv 2401.10241, section 2.2.

Four ranks and eight micro-batches:

>>> from minidist.parallel.pipeline import simulate, timeline
>>> print(timeline(simulate(zb_h2(4, 8)).times))
rank 0 F0─F1─F2─F3─F4─F5─F6─I0─W0─F7─I1─W1─I2─W2─I3─W3─I4─W4─I5─W5─I6─W6─I7─W7─·········
rank 1 ···F0─F1─F2─F3─F4─I0─F5─I1─F6─I2─W0─F7─I3─W1─I4─W2─I5─W3─I6─W4─I7─W5─W6─W7─······
rank 2 ······F0─F1─F2─I0─F3─I1─F4─I2─F5─I3─F6─I4─W0─F7─I5─W1─I6─W2─I7─W3─W4─W5─W6─W7─···
rank 3 ·········F0─I0─F1─I1─F2─I2─F3─I3─F4─I4─F5─I5─F6─I6─W0─F7─I7─W1─W2─W3─W4─W5─W6─W7─
"""

from __future__ import annotations

from ..actions import Schedule
from .order import alternate, named, numbered


@named("zb-h2")
def zb_h2(ranks: int, microbatches: int) -> Schedule:
    """1F1B's turns with twice the warm-up, and W later by 2r micro-batches."""
    orders = []
    for rank in range(ranks):
        turns = [rank] * microbatches
        orders.append(numbered(alternate(turns, turns, 2 * (ranks - 1 - rank), delay=2 * rank)))
    return Schedule.of(orders, "zb-h2")
