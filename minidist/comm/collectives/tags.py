"""The tags that collectives keep for themselves, so that a user's message never meets theirs."""

REDUCE_SCATTER = 32_000
ALL_GATHER = 32_001
ALL_GATHER_COUNTS = 32_002
BROADCAST = 32_003
BARRIER = 32_004
GATHER = 32_005
