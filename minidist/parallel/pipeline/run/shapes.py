"""The shapes that stages send each other: agreed once for each shape of input, then known."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ....autograd.modes import no_grad
from ....comm import Communicator, broadcast
from ....kernels import arrays as xp
from ....nn import Module
from ....tensor.tensor import Tensor

ROOM = 512  # bytes of a message that tells a shape


class Shapes:
    """Shape and dtype of what every stage makes of a micro-batch, by the shape of its input.

    For a shape that is new, the stages are run once, one after the other, on zeros (the first on
    its input), without gradients and as in evaluation; each rank tells the others what it got.
    """

    def __init__(
        self, module: Module, stages: Mapping[int, Callable[[Tensor], Tensor]],
        comm: Communicator, rank_of: Mapping[int, int],
    ):  # fmt: skip
        self.module, self.stages, self.comm, self.rank_of = module, stages, comm, rank_of
        self.known: dict[tuple[int, ...], list[tuple[tuple[int, ...], xp.dtype]]] = {}
        self.like = next((p.data for p in module.parameters()), xp.empty(0, xp.float32))

    def agree(self, inputs: Sequence[Tensor], around: Callable[[int], Any]) -> None:
        """Make known what stages make of these; all ranks call it with inputs of one shape."""
        for i, x in enumerate(inputs):
            if self.comm.size > 1 and x.shape not in self.known:
                with around(i):
                    self.known[x.shape] = self._ask(x)

    def empty(self, stage: int, x: Tensor) -> xp.ndarray:
        """Room for what `stage` makes of micro-batch x."""
        shape, dtype = self.known[x.shape][stage]
        return xp.empty_like(self.like, dtype, shape=shape)

    def _ask(self, x: Tensor) -> list[tuple[tuple[int, ...], xp.dtype]]:
        found: list[tuple[tuple[int, ...], xp.dtype]] = []
        with no_grad(), _evaluating(self.module), xp.errstate(all="ignore"):
            for stage, rank in self.rank_of.items():
                told = xp.zeros(ROOM, xp.uint8)
                if rank == self.comm.rank:
                    given = x
                    if stage:
                        shape, dtype = found[-1]
                        given = Tensor.of(xp.zeros_like(self.like, dtype, shape=shape))
                    told = _told(stage, self.stages[stage](given))
                told = broadcast(self.comm, told, root=rank, label="shapes")
                shape, dtype = json.loads(bytes(told).rstrip(b"\0"))
                found.append((tuple(shape), xp.dtype(dtype)))
        return found


def _told(stage: int, y: Tensor) -> xp.ndarray:
    if not isinstance(y, Tensor):
        raise TypeError(
            f"stage {stage} makes a {type(y).__name__}: a stage makes one Tensor, which is sent to "
            "the next (wrap a layer that returns more, such as an LSTM, in a module that picks)"
        )
    text = json.dumps([y.shape, y.dtype.str]).encode()
    return xp.frombuffer(text.ljust(ROOM, b"\0"), xp.uint8)


@contextlib.contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    """Inside, no dropout and no running statistics; afterwards every module is as it was."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in before:
            m.training = training
