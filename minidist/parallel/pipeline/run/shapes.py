"""The shapes of the messages between stages: agreed once for each shape of input, then known.

A receive needs a buffer before its message comes, so every rank must know the shapes in advance.
"""

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

ROOM = 512  # bytes of a message with a shape and a dtype


class Shapes:
    """Shape and dtype of every stage's output, for each shape of the first stage's input.

    For a new shape, the stages run once, one after the other: the first on its input, the others on
    zeros, in evaluation mode and without gradients. Each rank broadcasts its output's shape.
    """

    def __init__(
        self, module: Module, stages: Mapping[int, Callable[[Tensor], Tensor]],
        comm: Communicator, rank_of: Mapping[int, int],
    ):  # fmt: skip
        self.module, self.stages, self.comm, self.rank_of = module, stages, comm, rank_of
        # input shape -> (shape, dtype) of every stage's output
        self.known: dict[tuple[int, ...], list[tuple[tuple[int, ...], xp.dtype]]] = {}
        # An array of the module's device, on which buffers are made
        self.like = next((p.data for p in module.parameters()), xp.empty(0, xp.float32))

    def agree(self, inputs: Sequence[Tensor], around: Callable[[int], Any]) -> None:
        """Find the shapes for these micro-batches; all ranks call it with the same input shapes."""
        for i, x in enumerate(inputs):
            if self.comm.size > 1 and x.shape not in self.known:
                with around(i):
                    self.known[x.shape] = self._ask(x)

    def empty(self, stage: int, x: Tensor) -> xp.ndarray:
        """An empty buffer for the output of `stage` when the first stage's input is x."""
        shape, dtype = self.known[x.shape][stage]
        return xp.empty_like(self.like, dtype, shape=shape)

    def _ask(self, x: Tensor) -> list[tuple[tuple[int, ...], xp.dtype]]:
        found: list[tuple[tuple[int, ...], xp.dtype]] = []
        with no_grad(), _evaluating(self.module), xp.errstate(all="ignore"):
            for stage, rank in self.rank_of.items():
                text = xp.zeros(ROOM, xp.uint8)
                if rank == self.comm.rank:
                    stage_input = x
                    if stage:
                        shape, dtype = found[-1]
                        stage_input = Tensor.of(xp.zeros_like(self.like, dtype, shape=shape))
                    text = _encoded(stage, self.stages[stage](stage_input))
                text = broadcast(self.comm, text, root=rank, label="shapes")
                shape, dtype = json.loads(bytes(text).rstrip(b"\0"))
                found.append((tuple(shape), xp.dtype(dtype)))
        return found


def _encoded(stage: int, y: Tensor) -> xp.ndarray:
    if not isinstance(y, Tensor):
        raise TypeError(
            f"stage {stage} makes a {type(y).__name__}: a stage makes one Tensor, which is sent to "
            "the next (wrap a layer that returns more, such as an LSTM, in a module that picks)"
        )
    text = json.dumps([y.shape, y.dtype.name]).encode()
    return xp.frombuffer(text.ljust(ROOM, b"\0"), xp.uint8)


@contextlib.contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    """No dropout and no running statistics inside; afterwards every module is as it was."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in before:
            m.training = training
