"""A virtual clock for simulated ranks: the exact time of messages and arithmetic in a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

Link = tuple[float, float]  # (α seconds a message, β seconds a byte)


class Clock:
    """Hockney's model: a message of n bytes takes α + β·n seconds, an operation γ.

    A rank sends one message at a time and receives one at a time, both at once (a full-duplex
    port). A message starts when its ports are free and both sides have called; below the eager
    limit, when the sender has. `links[source, dest]`, or `links(source, dest)`, gives a pair its
    own (α, β). `simulate(fn, size, clock=clock)` leaves every rank's end in `times`; a clock is for
    one run. (Hockney 1994, "The communication challenge for MPP".)

    >>> Clock(alpha=1.0, beta=0.5).carry(source=0, dest=1, nbytes=4, start=10.0)
    13.0
    """

    def __init__(
        self, alpha: float = 1e-6, beta: float = 1e-9, gamma: float = 0.0,
        links: Mapping[tuple[int, int], Link] | Callable[[int, int], Link] | None = None,
    ):  # fmt: skip
        if min(alpha, beta, gamma) < 0:
            raise ValueError(f"alpha={alpha}, beta={beta}, gamma={gamma}: times are 0 or more")
        self.alpha, self.beta, self.gamma, self.links = alpha, beta, gamma, links
        self.out: dict[int, float] = defaultdict(float)  # when a rank's send port is free
        self.into: dict[int, float] = defaultdict(float)  # and its receive port
        self.times: list[float] = []

    @property
    def makespan(self) -> float:
        """When the last rank was done."""
        return max(self.times)

    def link(self, source: int, dest: int) -> Link:
        """(α, β) from one world rank to another."""
        if callable(self.links):
            return self.links(source, dest)
        return (self.links or {}).get((source, dest), (self.alpha, self.beta))

    def carry(self, source: int, dest: int, nbytes: int, start: float) -> float:
        """When a message arrives that could start then."""
        alpha, beta = self.link(source, dest)
        end = max(start, self.out[source], self.into[dest]) + alpha + beta * nbytes
        self.out[source] = self.into[dest] = end
        return end
