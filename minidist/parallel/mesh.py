"""Mesh: which rank has which coordinates on the axes of parallelism."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields
from itertools import product

from ..comm import Communicator
from ..comm.comm_self import CommSelf
from ..errors import UserError


@dataclass(frozen=True)
class Mesh:
    """Sizes of the axes, outermost first: neighbours along tp are neighbours in rank.

    Rank ↔ coordinates is a bijection: the rank is the coordinates read as digits.
    """

    pp: int = 1
    dp: int = 1
    cp: int = 1
    ep: int = 1
    tp: int = 1

    def __post_init__(self) -> None:
        for axis in fields(self):
            if getattr(self, axis.name) < 1:
                raise UserError(f"{axis.name} = {getattr(self, axis.name)}: want at least 1")

    @property
    def size(self) -> int:
        return math.prod(astuple(self))

    def coordinates(self, rank: int) -> dict[str, int]:
        """The coordinates of a rank: {"pp": …, "dp": …, "cp": …, "ep": …, "tp": …}."""
        place = {}
        for axis in reversed(fields(self)):
            rank, place[axis.name] = divmod(rank, getattr(self, axis.name))
        return {axis.name: place[axis.name] for axis in fields(self)}

    def rank(self, **coordinates: int) -> int:
        """The rank at coordinates; an axis left out is 0."""
        rank = 0
        for axis in fields(self):
            rank = rank * getattr(self, axis.name) + coordinates.get(axis.name, 0)
        return rank

    def group(self, comm: Communicator, *axes: str) -> Communicator:
        """The ranks that differ from this one on these axes only; every rank calls it.

        Gradients are summed over group(comm, "dp", "cp").
        """
        self._check(comm, axes)
        if math.prod(getattr(self, axis) for axis in axes) == 1:
            return CommSelf()
        place = self.coordinates(comm.rank)
        others = [(n, getattr(self, n)) for n in place if n not in axes]
        color = 0
        for name, size in others:
            color = color * size + place[name]
        found = comm.split(color, key=comm.rank)
        assert found is not None
        return found

    def _check(self, comm: Communicator, axes: tuple[str, ...]) -> None:
        known = [axis.name for axis in fields(self)]
        if comm.size != self.size or not set(axes) <= set(known):
            raise ValueError(
                f"group of {', '.join(axes)} on {comm.size} ranks: want axes of {', '.join(known)} "
                f"and this mesh's {self.size} ranks"
            )

    def require(self, ranks: int, axes: tuple[str, ...] = ("dp",)) -> Mesh:
        """This mesh if it has exactly `ranks` ranks; otherwise an error that lists the choices."""
        if self.size == ranks:
            return self
        given = " × ".join(f"{a} {getattr(self, a)}" for a in axes)
        there = "is 1 rank" if ranks == 1 else f"are {ranks} ranks"
        raise UserError(
            f"mesh {given} needs {self.size} ranks, but there {there}: {_choices(ranks, axes)}, or "
            f"start {self.size} ranks (mpirun -n {self.size}, or --simulate --ranks {self.size})"
        )


def _choices(ranks: int, axes: tuple[str, ...]) -> str:
    divisors = [n for n in range(1, ranks + 1) if ranks % n == 0]
    fits = (f for f in product(divisors, repeat=len(axes)) if math.prod(f) == ranks)
    return "choose " + " or ".join(" ".join(f"--{a} {n}" for a, n in zip(axes, f)) for f in fits)
