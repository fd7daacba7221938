"""The tags of the collectives' messages, above every tag that a user's message may have."""

REDUCE_SCATTER = 32_000
ALL_GATHER = 32_001
ALL_GATHER_COUNTS = 32_002
BROADCAST = 32_003
BARRIER = 32_004
GATHER = 32_005
DOUBLING = 32_006
REDUCE = 32_007
SCATTER = 32_008
ALL_TO_ALL = 32_009
SCAN = 32_010
