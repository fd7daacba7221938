"""backward() and grad(): the walk back, from tensors and for tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..kernels import arrays as xp
from . import anomaly, modes
from .tape import Node, source, walk_back

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor


def backward(
    tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None,
    create_graph: bool = False, inputs: Any = None,
) -> None:  # fmt: skip
    """Fill `grad` of every leaf behind one or several tensors, as torch.autograd.backward."""
    _refuse_second_order(create_graph)
    targets = None if inputs is None else _sources(_several(inputs))
    walk_back(_roots(tensors, grad_tensors), bool(retain_graph), targets, pull=_pull())


def grad(
    outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
    create_graph: bool = False, allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients of the sum of `outputs` by `inputs`, inner tensors too: torch.autograd.grad."""
    _refuse_second_order(create_graph)
    tensors = _several(inputs)
    targets, roots = _sources(tensors), _roots(outputs, grad_outputs)
    found = walk_back(roots, bool(retain_graph), targets, capture=True, pull=_pull())
    for i, target in enumerate(targets):
        if target not in found and not allow_unused:
            raise RuntimeError(
                f"grad: the outputs do not depend on input {i}, or it appears to not have been "
                "used in the graph: pass allow_unused=True to get None for it"
            )
    return tuple(x.of(found[t]) if t in found else None for x, t in zip(tensors, targets))


def _pull() -> Any:
    return Node.pull if modes.current().anomaly == "off" else anomaly.pull


def _roots(outputs: Any, gradients: Any) -> list[tuple[Node, xp.ndarray]]:
    ys = _several(outputs)
    gs = (None,) * len(ys) if gradients is None else _several(gradients)
    if len(gs) != len(ys):
        raise RuntimeError(f"backward: {len(gs)} gradients for {len(ys)} outputs: want one each")
    return [y.root(g) for y, g in zip(ys, gs)]


def _several(tensors: Any) -> tuple:
    return tuple(tensors) if isinstance(tensors, tuple | list) else (tensors,)


def _sources(tensors: tuple) -> list[Node]:
    sources = [source(x) for x in tensors]
    if None in sources:
        raise RuntimeError(f"input {sources.index(None)} of backward does not require grad")
    return sources  # type: ignore[return-value]


def _refuse_second_order(create_graph: bool) -> None:
    if create_graph:
        raise NotImplementedError(
            "create_graph=True: second derivatives are not supported: VJPs are functions on arrays "
            "and leave no graph behind (take finite differences of first gradients instead)"
        )
