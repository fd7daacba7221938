"""gradcheck: does a function's backward pass agree with finite differences, and keep the laws?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import autograd
from .array import float64, is_floating
from .tensor import Tensor


def gradcheck(
    fn: Callable[..., Tensor], inputs: Sequence[Any], eps: float = 1e-6,
    atol: float = 1e-7, rtol: float = 1e-6, seed: int = 0,
) -> bool:  # fmt: skip
    """Check `fn(*inputs)`'s gradient by every floating input, in every entry, in float64.

    Inputs are arrays or tensors (parameters that `fn` reads on its own may stand among them);
    fn must be smooth within eps of them. An AssertionError names the input, the entry and both
    values, or the law that a VJP broke: it writes to nothing, keeps nothing that it returns, and
    cares neither for its cotangent's strides nor for their being 0. Returns True.
    """
    tensors = [x if isinstance(x, Tensor) else Tensor(np.array(x, copy=None)) for x in inputs]
    checked = {i: t for i, t in enumerate(tensors) if is_floating(t.data)}
    for i, t in checked.items():
        assert t.dtype == float64, f"input {i} is {t.dtype.name}: finite differences need float64"
        t.requires_grad_().grad = None
    before = [t.data.tobytes() for t in tensors]
    output = fn(*tensors)
    cotangent = np.random.default_rng(seed).standard_normal(output.shape)

    first = _gradients(output, cotangent, checked)
    _check_own_memory(first, checked, cotangent)
    again = _gradients(output, cotangent, checked)
    for i, g in first.items():
        assert g.tobytes() == again[i].tobytes(), f"input {i}: a second backward gives other bits"
    _check_vjps(output, cotangent)
    for i, t in enumerate(tensors):
        assert t.data.tobytes() == before[i], f"input {i} was written to by forward or backward"
    for i, t in checked.items():
        slopes = _slopes(lambda: fn(*tensors).data, t.data, cotangent, eps)
        _check_close(i, first[i], slopes, atol, rtol)
    return True


def _gradients(output: Tensor, cotangent: np.ndarray, checked: dict) -> dict[int, np.ndarray]:
    """One backward pass; zeros where nothing arrives. The graph stays."""
    before = cotangent.tobytes()
    for t in checked.values():
        t.grad = None
    if output.requires_grad:
        output.backward(cotangent, retain_graph=True)
    assert cotangent.tobytes() == before, "backward wrote into the cotangent it was given"
    return {i: np.zeros(t.shape) if t.grad is None else t.grad.data for i, t in checked.items()}


def _check_own_memory(gradients: dict, checked: dict, cotangent: np.ndarray) -> None:
    """Each gradient has its input's shape and dtype, and memory that nothing else uses."""
    for i, g in gradients.items():
        t = checked[i]
        assert g.shape == t.shape, f"input {i} has shape {t.shape}, its gradient {g.shape}"
        assert g.dtype == t.dtype, f"input {i} is {t.dtype}, its gradient {g.dtype}"
        others = {f"input {k}": x.data for k, x in checked.items()}
        others |= {f"gradient {k}": h for k, h in gradients.items() if k != i}
        for name, array in {**others, "the cotangent": cotangent}.items():
            assert not np.shares_memory(g, array), f"gradient {i} shares memory with {name}"


# Every VJP on the way back, called with cotangents in awkward memory


def _check_vjps(output: Tensor, cotangent: np.ndarray) -> None:
    """Walk back once more through VJPs that are each called several times and compared."""
    if output.node is None or output.is_leaf:
        return
    nodes = list(_behind(output.node))
    originals = [node.vjps for node in nodes]
    for node in nodes:
        node.vjps = [autograd.Joint(_watched(node, node.vjps))]
    try:
        autograd.backward(output.node, cotangent, retain_graph=True)
    finally:
        for node, vjps in zip(nodes, originals):
            node.vjps = vjps


def _behind(root: autograd.Node) -> Iterator[autograd.Node]:
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        if not isinstance(node, autograd.Leaf):
            yield node
        fresh = {s for s in node.sources if s is not None} - seen
        seen |= fresh
        stack.extend(fresh)


def _watched(node: autograd.Node, vjps: Any) -> Callable[[np.ndarray], list]:
    """node.pull with its own VJPs, its results compared over cotangents in several layouts."""
    plain = autograd.Node(node.name, node.sources, vjps)

    def pull(g: np.ndarray) -> list:
        results = _pull(plain, np.array(g, order="C"))
        _check_layout(plain, _strided(g), results, "strided")
        for value in g.flat[:1]:
            flat = np.full(g.shape, value)
            _check_layout(plain, np.broadcast_to(value, g.shape), _pull(plain, flat), "stride-0")
        return results

    return pull


def _check_layout(node: autograd.Node, g: np.ndarray, expected: list, layout: str) -> None:
    for k, (a, b) in enumerate(zip(_pull(node, g), expected)):
        if node.sources[k] is None or a is None or b is None:
            continue
        where = f"{node.name}, VJP {k}"
        assert not np.shares_memory(a, b), f"{where}: it returns memory that it keeps"
        close = a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-11, equal_nan=True)
        assert close, f"{where}: another result for a {layout} cotangent"


def _pull(node: autograd.Node, g: np.ndarray) -> list:
    """node.pull(g), which may not write into g."""
    before = g.tobytes()
    try:
        results = node.pull(g)
    except ValueError as error:  # NumPy's word on writing to a stride-0 array
        raise AssertionError(f"{node.name}: a VJP refused its cotangent: {error}") from error
    assert g.tobytes() == before, f"{node.name}: a VJP wrote into its cotangent"
    return [None if r is None else np.asarray(r) for r in results]


def _strided(g: np.ndarray) -> np.ndarray:
    """An equal array, every other element of a larger one, axes reversed in memory."""
    wide = np.full([2 * n + 1 for n in g.shape[::-1]], np.nan, g.dtype)
    every_other: Any = (..., *(slice(1, 2 * n, 2) for n in g.shape[::-1]))
    view = wide[every_other].transpose()
    view[...] = g
    return view


# Finite differences


def _slopes(
    fn: Callable[[], np.ndarray], x: np.ndarray, cotangent: np.ndarray, eps: float
) -> np.ndarray:
    """(f(x + eps) - f(x - eps)) / 2eps · cotangent, for every entry of x, which is put back."""
    slopes = np.empty(x.shape)
    with autograd.no_grad():
        for index in np.ndindex(x.shape):
            kept = x[index]
            x[index] = kept + eps
            above = np.array(fn())  # a copy: it may be a view of x
            x[index] = kept - eps
            below = np.array(fn())
            x[index] = kept
            slopes[index] = np.sum((above - below) * cotangent) / (2 * eps)
    return slopes


def _check_close(
    number: int, analytic: np.ndarray, numeric: np.ndarray, atol: float, rtol: float
) -> None:
    """Every entry, within rtol of the largest of its input's slopes."""
    scale = max(1.0, float(np.abs(numeric).max(initial=0)))
    # not (a <= b), for a NaN
    wrong = np.argwhere(~(np.abs(analytic - numeric) <= atol + rtol * scale))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"input {number} at {at}: analytic {analytic[at]:.12g}, numeric {numeric[at]:.12g} "
            f"({len(wrong)} of {analytic.size} entries differ)"
        )
