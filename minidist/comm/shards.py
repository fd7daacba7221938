"""The part of n things that each rank owns: the one rule behind every split."""


def shard_range(n: int, size: int, rank: int) -> tuple[int, int]:
    """(start, stop) of this rank's part: contiguous, sizes differ by at most one.

    >>> [shard_range(5, 3, rank) for rank in range(3)]
    [(0, 2), (2, 4), (4, 5)]
    """
    if n < 0 or not 0 <= rank < size:
        raise ValueError(f"shard_range(n={n}, size={size}, rank={rank}): 0 <= rank < size, n >= 0")
    part, longer = divmod(n, size)  # the first `longer` ranks own one more
    start = rank * part + min(rank, longer)
    return start, start + part + (rank < longer)


def shard_bounds(n: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of every rank, in rank order."""
    return [shard_range(n, size, rank) for rank in range(size)]
