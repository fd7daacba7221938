"""Checkpointing: keep a function's inputs alone, and compute the rest again during backward.

Chen et al. 2016, "Training deep nets with sublinear memory cost". The function is recorded as
usual, node by node, but each node's VJPs are replaced at once by one that runs the function a
second time. That run makes the same nodes again (twins), and each one's VJPs serve its original.
The graph, the order of sums and the bits are therefore those of a run without checkpoints.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from ..tensor import random
from ..tensor.tensor import Tensor
from . import modes, split
from .tape import Joint, Node
from .versions import last_change_of, versions


class Twins:
    """Records the nodes of a second run."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.names: list[str] = []

    def add(self, node: Node) -> None:
        self.nodes.append(node)
        self.names.append(node.name)


class Region:
    """Records the nodes of a first run, whose arrays it does not keep."""

    def __init__(self, again: Callable[[], Any], inputs: list[Tensor], outer: Any):
        self.again, self.inputs, self.outer = again, inputs, outer
        self.nodes: list[weakref.ref[Node]] = []
        self.names: list[str] = []
        self.start, self.state = versions.tick(), random.get_state()
        self.autocast = modes.current().autocast

    def add(self, node: Node) -> None:
        number = len(self.nodes)
        self.nodes.append(weakref.ref(node))
        self.names.append(node.name)
        node.vjps = [_pulling(lambda: self._run_again()[number])]
        if self.outer is not True:
            self.outer.add(node)

    def _run_again(self) -> list[Node]:
        """The twins, each handed over to its original, with which its arrays go."""
        for x in self.inputs:
            change = last_change_of(x.data)
            if change.time > self.start:
                raise RuntimeError(
                    f"checkpoint: an input of shape {x.shape} was changed in place since "
                    f"('{change.name}'): it cannot be computed from again; clone() it first"
                )
        twins = Twins()
        mode = modes.Mode(recording=twins, autocast=self.autocast)
        with mode, random.replayed(self.state):
            self.again()
        if twins.names != self.names:
            pairs = itertools.zip_longest(self.names, twins.names, fillvalue="nothing")
            first, second = next((a, b) for a, b in pairs if a != b)
            raise RuntimeError(
                f"checkpoint: the second run recorded '{second}' where the first had '{first}': a "
                "checkpointed function must compute the same whenever it is called"
            )
        nodes, twins.nodes = twins.nodes, []  # inner regions hold `twins`: that must hold nothing
        for reference, twin in zip(self.nodes, nodes):
            node = reference()
            if node is not None and node.vjps is not None:
                node.vjps = [_pulling(lambda twin=twin: twin)]  # type: ignore[misc]
        return nodes


def _pulling(twin: Callable[[], Node]) -> Joint:
    """A twin's VJPs in place of those of the node that it is a twin of."""
    joint = Joint(lambda g: twin().pull(g, _All()))
    joint.split = lambda g, now: split.split_vjps(twin().vjps, g, now)
    return joint


class _All:
    """Every source is wanted: those of twins stand for others."""

    def __contains__(self, node: object) -> bool:
        return node is not None


def checkpoint(
    function: Callable, *args: Any, use_reentrant: bool = False, preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """function(*args, **kwargs), whose inner arrays are computed again during backward.

    As torch.utils.checkpoint.checkpoint without reentrance. Masks of dropout are those of the
    first run. What a function does besides computing (running statistics, messages) it does twice.
    """
    if use_reentrant or not preserve_rng_state:
        raise ValueError("checkpoint: only use_reentrant=False and preserve_rng_state=True")
    if not modes.is_grad_enabled():
        return function(*args, **kwargs)
    inputs = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    region = Region(lambda: function(*args, **kwargs), inputs, modes.current().recording)
    with modes.Mode(recording=region):
        return function(*args, **kwargs)
